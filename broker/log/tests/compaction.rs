//! Compaction against a model: what a reader of committed records ends up with is the same before and after, offsets never move, and a
//! crash at any moment leaves a log that says the same.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use millstream_log::{
    CompactOptions, FirstBatch, Log, LogConfig, LogDir, LogDirOptions, TransactionState,
    disk::{Disk, MemoryDisk},
};
use millstream_protocol::{
    compression::Compression,
    record::{BatchBuilder, BatchHeader, Marker, NewRecord, RecordIter, split_batches},
};
use proptest::prelude::*;

const RETENTION_MS: i64 = 1_000;

fn open(disk: &MemoryDisk) -> (Arc<LogDir>, Arc<Log>) {
    open_at(disk, 0)
}

fn open_at(disk: &MemoryDisk, now_ms: i64) -> (Arc<LogDir>, Arc<Log>) {
    let dir = LogDir::open(LogDirOptions {
        path: "/data".into(),
        disk: Arc::new(disk.clone()),
        clock: Arc::new(move || now_ms),
    })
    .unwrap();
    let config = LogConfig {
        segment_bytes: 700,
        index_interval_bytes: 100,
        retention_ms: -1,
        ..LogConfig::default()
    };
    let log = dir.open_log("t-0", config).unwrap();
    dir.sync_names().unwrap();
    (dir, log)
}

type Pair = (u8, Option<u8>);

fn batch(pairs: &[Pair], codec: Compression, producer: Option<(i64, i32)>) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    if let Some((id, sequence)) = producer {
        builder = builder.idempotent(id, 0, sequence).transactional();
    }
    for (key, value) in pairs {
        let value = value.map(|value| [value; 20]);
        builder.push(&NewRecord {
            timestamp: 5,
            key: Some(&[*key]),
            value: value.as_ref().map(|value| &value[..]),
            headers: Vec::new(),
        });
    }
    builder.build().unwrap()
}

fn append(log: &Log, batch: &Bytes) {
    let header = BatchHeader::parse(batch).unwrap();
    let first = FirstBatch {
        producer_id: header.producer_id,
        epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        is_version_two: false,
    };
    let guard = match log.transaction_state(first) {
        TransactionState::Unverified(guard) => Some(guard),
        TransactionState::Open => None,
    };
    log.append(&header, batch, 0, 0, guard).unwrap();
}

fn mark(log: &Log, producer_id: i64, commit: bool) {
    let marker = Marker {
        commit,
        coordinator_epoch: 0,
    };
    append(log, &marker.encode(producer_id, 0, 5).unwrap());
}

/// Every record with its offset, as a reader of committed records sees it.
fn committed(log: &Log) -> Vec<(i64, Pair)> {
    let end = log.last_stable_offset(log.log_end_offset());
    let aborted = log.aborted_between(0, end);
    let mut records = Vec::new();
    let mut next = log.local_start_offset();
    while let Some(read) = log.read(next, end, 1 << 20, true).unwrap() {
        for item in split_batches(read.bytes().unwrap()) {
            let (header, bytes) = item.unwrap();
            assert!(header.base_offset >= next, "offsets go back");
            next = header.next_offset();
            let is_aborted = header.is_transactional()
                && aborted.iter().any(|transaction| {
                    transaction.producer_id == header.producer_id
                        && (transaction.first_offset..=transaction.last_offset).contains(&header.base_offset)
                });
            if header.is_control() || is_aborted {
                continue;
            }
            let section = header
                .compression()
                .unwrap()
                .decompress(&bytes.slice(BatchHeader::SIZE..), 1 << 20)
                .unwrap();
            for record in RecordIter::new(&section, header.record_count) {
                let record = record.unwrap();
                let pair = (record.key.unwrap()[0], record.value.map(|value| value[0]));
                records.push((header.base_offset + i64::from(record.offset_delta), pair));
            }
        }
    }
    records
}

/// The last value of each key that has one.
fn table(records: &[(i64, Pair)]) -> BTreeMap<u8, u8> {
    let mut table = BTreeMap::new();
    for (_, (key, value)) in records {
        match value {
            Some(value) => drop(table.insert(*key, *value)),
            None => drop(table.remove(key)),
        }
    }
    table
}

fn compact(log: &Log, now_ms: i64, keys_max: usize) -> bool {
    let options = CompactOptions {
        now_ms,
        stable_end: log.last_stable_offset(log.durable_end_offset()),
        lag_ms_min: 0,
        delete_retention_ms: RETENTION_MS,
        keys_max,
        pace: &|_| true,
    };
    log.compact(&options).unwrap().is_some()
}

fn roll(log: &Log) {
    log.roll_if_older(i64::MAX, 0).unwrap();
    log.sync(0).unwrap();
}

#[test]
fn the_last_record_of_each_key_stays_with_its_offset() {
    let (_dir, log) = open(&MemoryDisk::new());
    append(&log, &batch(&[(1, Some(1)), (2, Some(1)), (1, Some(2))], Compression::Lz4, None));
    append(&log, &batch(&[(2, Some(2)), (3, Some(1))], Compression::None, None));
    roll(&log);
    append(&log, &batch(&[(9, Some(9))], Compression::None, None));
    assert!(compact(&log, 0, 1_000));
    assert_eq!(
        committed(&log),
        [(2, (1, Some(2))), (3, (2, Some(2))), (4, (3, Some(1))), (5, (9, Some(9)))]
    );
    assert!(!compact(&log, 0, 1_000), "nothing is dirty any more");
}

#[test]
fn a_batch_keeps_its_offsets_and_its_last_sequence() {
    let (_dir, log) = open(&MemoryDisk::new());
    append(
        &log,
        &batch(&[(1, Some(1)), (2, Some(1)), (1, Some(2))], Compression::None, Some((7, 0))),
    );
    mark(&log, 7, true);
    append(&log, &batch(&[(1, Some(3))], Compression::None, None));
    roll(&log);
    compact(&log, 0, 1_000);
    let read = log.read(0, 100, 1 << 20, true).unwrap().unwrap();
    let (header, _) = split_batches(read.bytes().unwrap()).next().unwrap().unwrap();
    assert_eq!(
        (
            header.base_offset,
            header.last_offset(),
            header.last_sequence(),
            header.record_count
        ),
        (0, 2, 2, 1)
    );
}

#[test]
fn tombstones_stay_for_their_retention_and_then_go() {
    let (_dir, log) = open(&MemoryDisk::new());
    append(&log, &batch(&[(1, Some(1)), (1, None)], Compression::None, None));
    roll(&log);
    compact(&log, 0, 1_000);
    assert_eq!(committed(&log), [(1, (1, None))]);
    let more = |value| {
        append(&log, &batch(&[(2, Some(value))], Compression::None, None));
        roll(&log);
    };
    more(1);
    compact(&log, RETENTION_MS - 1, 1_000);
    assert_eq!(committed(&log).len(), 2);
    more(2);
    compact(&log, RETENTION_MS, 1_000);
    assert_eq!(committed(&log), [(3, (2, Some(2)))]);
}

#[test]
fn the_newest_batch_and_the_sequences_of_those_that_went_stay_known() {
    let disk = MemoryDisk::new();
    let of = |sequence, value: Option<u8>| {
        let value = value.map(|value| [value; 20]);
        let mut builder = BatchBuilder::new(Compression::None).idempotent(7, 0, sequence);
        builder.push(&NewRecord {
            timestamp: 5,
            key: Some(&[1]),
            value: value.as_ref().map(|value| &value[..]),
            headers: Vec::new(),
        });
        builder.build().unwrap()
    };
    let (_dir, log) = open(&disk);
    for (sequence, value) in [(0, Some(1)), (1, Some(2)), (2, None)] {
        append(&log, &of(sequence, value));
    }
    // Not as late as `roll` has it: producers would have expired.
    log.roll_if_older(10, 0).unwrap();
    log.sync(0).unwrap();
    compact(&log, 0, 1_000);
    compact(&log, RETENTION_MS, 1_000);
    let (_dir, log) = open(&disk.crash(0));
    assert_eq!(log.log_end_offset(), 3);
    assert_eq!(committed(&log), [(2, (1, None))]);
    for sequence in [0, 2] {
        let again = of(sequence, Some(9));
        let appended = log.append(&BatchHeader::parse(&again).unwrap(), &again, 0, 0, None).unwrap();
        assert_eq!((appended.duplicate, appended.base_offset), (true, i64::from(sequence)));
    }
}

#[test]
fn aborted_records_go_and_open_transactions_are_left_alone() {
    let (_dir, log) = open(&MemoryDisk::new());
    append(&log, &batch(&[(1, Some(1))], Compression::None, None));
    append(&log, &batch(&[(1, Some(2))], Compression::None, Some((7, 0))));
    mark(&log, 7, false);
    append(&log, &batch(&[(1, Some(3))], Compression::None, Some((8, 0))));
    roll(&log);
    append(&log, &batch(&[(1, Some(4))], Compression::None, None));
    roll(&log);
    assert!(!compact(&log, 0, 1_000), "the first segment holds an open transaction");
    mark(&log, 8, false);
    roll(&log);
    assert!(compact(&log, 0, 1_000));
    assert_eq!(committed(&log), [(4, (1, Some(4)))]);
    let bytes = log.read(0, 100, 1 << 20, true).unwrap().unwrap().bytes().unwrap();
    let data = split_batches(bytes).filter(|item| !item.as_ref().unwrap().0.is_control());
    assert_eq!(data.count(), 1, "nothing of what was aborted is left");
    assert_eq!(log.aborted_between(0, 100).len(), 2, "readers may still hold what was there before");
    compact(&log, 60_000, 1_000);
    assert_eq!(log.aborted_between(0, 100), [], "nobody needs to know of it any longer");
}

#[test]
fn small_segments_are_merged_and_memory_is_bounded() {
    let disk = MemoryDisk::new();
    let (_dir, log) = open(&disk);
    for round in 0..40_u8 {
        append(
            &log,
            &batch(&[(round % 4, Some(round)), (4 + round % 3, Some(round))], Compression::None, None),
        );
    }
    roll(&log);
    let before = table(&committed(&log));
    let segments = log.sealed_segments().len();
    // Two keys at a time: several passes, and each makes progress.
    let mut passes = 0;
    while compact(&log, passes, 2) {
        passes += 1;
        assert!(passes < 100, "no progress");
    }
    assert!(passes > 1);
    assert_eq!(table(&committed(&log)), before);
    append(&log, &batch(&[(0, Some(99))], Compression::None, None));
    roll(&log);
    compact(&log, passes, 1_000);
    assert!(
        log.sealed_segments().len() < segments,
        "{} of {segments}",
        log.sealed_segments().len()
    );
    assert_eq!(committed(&log).len(), 7);
    let names = disk.list(log.dir()).unwrap();
    let snapshots = names.iter().filter(|name| name.ends_with(".snapshot")).count();
    assert!(snapshots <= log.sealed_segments().len() + 1, "{names:?}");
}

#[test]
fn stops_do_not_pile_up_snapshots() {
    let disk = MemoryDisk::new();
    for round in 0..5 {
        let (dir, log) = open(&disk);
        append(&log, &batch(&[(1, Some(1))], Compression::None, Some((7, round))));
        mark(&log, 7, true);
        dir.close(&[Arc::clone(&log)]).unwrap();
        let names = disk.list(log.dir()).unwrap();
        let snapshots: Vec<_> = names.iter().filter(|name| name.ends_with(".snapshot")).collect();
        assert!(snapshots.len() <= 2, "{names:?}");
        assert_eq!(log.with_producers(|producers| producers.get(7).unwrap().last_sequence()), round);
    }
}

#[test]
fn segments_do_not_all_roll_at_the_same_age() {
    let (_dir, log) = open(&MemoryDisk::new());
    let ages = |jitter_ms| {
        log.set_config(LogConfig {
            segment_ms: 1_000,
            segment_jitter_ms: jitter_ms,
            ..(*log.config()).clone()
        });
        let next = || {
            append(&log, &batch(&[(1, Some(1))], Compression::None, None));
            roll(&log);
            log.segment_age_max_ms()
        };
        std::iter::repeat_with(next).take(20).collect::<std::collections::BTreeSet<i64>>()
    };
    assert_eq!(ages(0).into_iter().collect::<Vec<_>>(), [1_000]);
    let jittered = ages(400);
    assert!(
        jittered.len() > 5 && jittered.iter().all(|age_ms| (600..=1_000).contains(age_ms)),
        "{jittered:?}"
    );
}

#[test]
fn a_segment_is_as_old_after_a_restart_as_before() {
    let disk = MemoryDisk::new();
    let (_dir, log) = open(&disk);
    append(&log, &batch(&[(1, Some(1))], Compression::None, None));
    log.sync(0).unwrap();
    for (now_ms, is_rolled) in [(5 + 999, false), (5 + 1_000, true)] {
        let (_dir, log) = open_at(&disk.crash(0), now_ms - 1);
        assert_eq!(log.roll_if_older(now_ms, 1_000).unwrap(), is_rolled, "{now_ms}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Pair>, u8),
    Transaction(Vec<Pair>, i64, bool),
    Roll,
    Compact(i64, usize),
    Restart,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pairs = || proptest::collection::vec((0..5_u8, proptest::option::weighted(0.8, any::<u8>())), 1..5);
    let step = prop_oneof![
        4 => (pairs(), 0..5_u8).prop_map(|(pairs, codec)| Step::Append(pairs, codec)),
        3 => (pairs(), 0..3_i64, any::<bool>()).prop_map(|(pairs, producer, commit)| Step::Transaction(pairs, producer, commit)),
        3 => Just(Step::Roll),
        3 => (0..600_i64, 1..20_usize).prop_map(|(ms, keys)| Step::Compact(ms, keys)),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..50)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_table_of_a_log_survives_compaction_restarts_and_crashes(steps in steps()) {
        let mut disk = MemoryDisk::new();
        let (mut dir, mut log) = open(&disk);
        let mut sequences = BTreeMap::new();
        let mut now_ms = 0;
        let mut records: BTreeMap<i64, Pair> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Append(pairs, codec) => append(&log, &batch(&pairs, Compression::ALL[usize::from(codec)], None)),
                Step::Transaction(pairs, producer, commit) => {
                    let sequence = sequences.entry(producer).or_insert(0);
                    append(&log, &batch(&pairs, Compression::None, Some((producer, *sequence))));
                    *sequence += i32::try_from(pairs.len()).unwrap();
                    mark(&log, producer, commit);
                }
                Step::Roll => roll(&log),
                Step::Compact(ms, keys_max) => {
                    now_ms += ms;
                    let before = committed(&log);
                    compact(&log, now_ms, keys_max);
                    let after = committed(&log);
                    prop_assert_eq!(table(&before), table(&after));
                    prop_assert!(after.iter().all(|record| before.contains(record)), "compaction makes nothing up");
                    prop_assert_eq!(log.sealed_segments().windows(2).all(|pair| pair[0].next_offset == pair[1].base_offset), true);
                }
                Step::Restart => {
                    dir.close(&[Arc::clone(&log)]).unwrap();
                    drop((dir, log));
                    (dir, log) = open(&disk);
                }
                Step::Crash => {
                    // Everything that was appended is synced: only what compaction does is at stake.
                    log.sync(0).unwrap();
                    disk = disk.crash(0);
                    (dir, log) = open(&disk);
                }
            }
            for (offset, pair) in committed(&log) {
                let known = records.entry(offset).or_insert(pair);
                prop_assert_eq!(*known, pair, "an offset has one record for ever");
            }
        }
        drop(dir);
    }
}

/// Each sync of a pass in turn is the last thing that the disk does not do any more.
#[test]
fn a_crash_at_any_step_of_a_swap_loses_nothing() {
    for survives in [0, usize::MAX] {
        let mut stops = 0;
        loop {
            let disk = MemoryDisk::new();
            let (_dir, log) = open(&disk);
            for round in 0..12_u8 {
                append(&log, &batch(&[(round % 3, Some(round)), (3, Some(round))], Compression::None, None));
            }
            roll(&log);
            append(&log, &batch(&[(9, Some(9))], Compression::None, None));
            log.sync(0).unwrap();
            let expected = table(&committed(&log));
            disk.fail_sync_after(stops);
            let options = CompactOptions {
                now_ms: 0,
                stable_end: log.log_end_offset(),
                lag_ms_min: 0,
                delete_retention_ms: RETENTION_MS,
                keys_max: 1_000,
                pace: &|_| true,
            };
            let finished = log.compact(&options).is_ok();
            let (_dir, log) = open(&disk.crash(survives));
            assert_eq!(table(&committed(&log)), expected, "stopped at sync {stops}");
            if finished {
                break;
            }
            stops += 1;
        }
        assert!(stops > 3, "a pass has more syncs than {stops}");
    }
}
