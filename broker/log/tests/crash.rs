//! What survives a crash, against a reference model: a log is a list of batches, and a crash may only cut what was not synced.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use millstream_log::{
    AppendError, Appended, Log, LogConfig, LogDir, LogDirOptions, LogError, LogObserver, OpenMode,
    disk::{Disk, FileMode, MemoryDisk},
};
use millstream_protocol::{
    compression::Compression,
    record::{BatchBuilder, BatchHeader, NewRecord, TimestampType, split_batches},
};
use proptest::prelude::*;

const NOW_MS: i64 = 1_000_000;

fn open_dir(disk: &MemoryDisk) -> Arc<LogDir> {
    LogDir::open(LogDirOptions {
        path: "/data".into(),
        disk: Arc::new(disk.clone()),
        clock: Arc::new(|| NOW_MS),
    })
    .unwrap()
}

fn open(disk: &MemoryDisk, config: &LogConfig) -> Result<(Arc<LogDir>, Arc<Log>), LogError> {
    let dir = open_dir(disk);
    let log = dir.open_log("t-0", config.clone())?;
    dir.sync_names()?;
    Ok((dir, log))
}

fn batch(timestamps: &[i64], value_len: usize) -> Bytes {
    idempotent_batch(timestamps, value_len, None)
}

fn idempotent_batch(timestamps: &[i64], value_len: usize, producer: Option<(i64, i32)>) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    if let Some((id, sequence)) = producer {
        builder = builder.idempotent(id, 0, sequence);
    }
    let value = vec![b'v'; value_len];
    for timestamp in timestamps {
        builder.push(&NewRecord {
            timestamp: *timestamp,
            value: Some(&value),
            ..NewRecord::default()
        });
    }
    builder.build().unwrap()
}

fn append(log: &Log, batch: &Bytes) -> Result<Appended, AppendError> {
    log.append(&BatchHeader::parse(batch).unwrap(), batch, 0, NOW_MS, None)
}

/// Bodies (without the assigned fields) of all batches in the log.
fn contents(log: &Log) -> Vec<Bytes> {
    let mut bodies = Vec::new();
    let mut next = log.local_start_offset();
    while let Some(read) = log.read(next, log.log_end_offset(), 1 << 20, true).unwrap() {
        for item in split_batches(read.bytes().unwrap()) {
            let (header, bytes) = item.unwrap();
            assert!(header.base_offset >= next, "offsets go back");
            next = header.next_offset();
            bodies.push(bytes.slice(16..));
        }
    }
    bodies
}

fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 600,
        index_interval_bytes: 100,
        ..LogConfig::default()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append { records: usize, value_len: usize },
    Sync,
    Roll,
    CleanRestart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1usize..5, 0usize..120).prop_map(|(records, value_len)| Step::Append { records, value_len }),
        2 => Just(Step::Sync),
        1 => Just(Step::Roll),
        1 => Just(Step::CleanRestart),
    ];
    proptest::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// A crash at every byte of what was not synced leaves a prefix of the batches that holds all the synced ones, and the log goes on.
    #[test]
    fn a_crash_at_any_byte_leaves_a_prefix_with_everything_that_was_synced(steps in steps()) {
        let mut disk = MemoryDisk::new();
        let config = small();
        let (mut dir, mut log) = open(&disk, &config).unwrap();
        let (mut model, mut synced) = (Vec::new(), 0);
        for step in steps {
            match step {
                Step::Append { records, value_len } => {
                    let batch = batch(&vec![NOW_MS; records], value_len);
                    append(&log, &batch).unwrap();
                    model.push(batch.slice(16..));
                }
                Step::Sync => {
                    log.sync(NOW_MS).unwrap();
                    synced = model.len();
                }
                Step::Roll => {
                    log.roll_if_older(NOW_MS, 0).unwrap();
                }
                Step::CleanRestart => {
                    dir.close(&[Arc::clone(&log)]).unwrap();
                    disk = disk.crash(0);
                    drop((dir, log));
                    (dir, log) = open(&disk, &config).unwrap();
                    prop_assert_eq!(dir.mode(), OpenMode::Clean);
                    synced = model.len();
                }
            }
            prop_assert_eq!(contents(&log), model.clone());
        }
        for surviving in 0..=disk.unsynced_bytes() {
            let (_dir, recovered) = open(&disk.crash(surviving), &config).unwrap();
            let found = contents(&recovered);
            prop_assert!(found.len() >= synced, "{} of {synced} synced batches survived {surviving} bytes", found.len());
            prop_assert_eq!(&found[..], &model[..found.len()]);
            append(&recovered, &batch(&[NOW_MS], 3)).unwrap();
            prop_assert_eq!(contents(&recovered).len(), found.len() + 1);
        }
    }

    /// Lookups by time find the exact first record, whatever the order of timestamps.
    #[test]
    fn a_time_lookup_finds_the_first_record_at_or_after_it(batches in proptest::collection::vec(proptest::collection::vec(0i64..50, 1..4), 1..30), wanted in 0i64..55) {
        let (_dir, log) = open(&MemoryDisk::new(), &small()).unwrap();
        for timestamps in &batches {
            append(&log, &batch(timestamps, 20)).unwrap();
        }
        let all: Vec<i64> = batches.concat();
        let expected = all.iter().position(|timestamp| *timestamp >= wanted).map(|offset| (all[offset], offset as i64));
        let found = log.offset_for_timestamp(wanted, log.log_end_offset()).unwrap().map(|found| (found.timestamp, found.offset));
        prop_assert_eq!(found, expected);
        let max = all.iter().max().copied().unwrap();
        let first_max = all.iter().position(|timestamp| *timestamp == max).unwrap() as i64;
        prop_assert_eq!(log.max_timestamp().unwrap().map(|found| (found.timestamp, found.offset)), Some((max, first_max)));
    }

    /// Reads return whole batches within both limits, the first one holding the offset.
    #[test]
    fn reads_keep_to_their_limits(sizes in proptest::collection::vec((1usize..4, 0usize..200), 1..30), from in 0i64..60, up_to in 0i64..60, max_bytes in 1usize..2000) {
        let (_dir, log) = open(&MemoryDisk::new(), &small()).unwrap();
        for (records, value_len) in sizes {
            append(&log, &batch(&vec![NOW_MS; records], value_len)).unwrap();
        }
        let up_to = up_to.min(log.log_end_offset());
        prop_assume!(from <= log.log_end_offset());
        let read = log.read(from, up_to, max_bytes, true).unwrap();
        let headers: Vec<BatchHeader> = read.iter().flat_map(|read| split_batches(read.bytes().unwrap())).map(|item| item.unwrap().0).collect();
        let total: usize = headers.iter().map(BatchHeader::size).sum();
        prop_assert!(headers.len() <= 1 || total <= max_bytes);
        if let Some(first) = headers.first() {
            prop_assert!(first.base_offset <= from && from <= first.last_offset());
            prop_assert!(headers.iter().all(|header| header.base_offset < up_to));
        } else {
            prop_assert!(from >= up_to);
        }
    }
}

#[test]
fn damage_below_the_recovery_point_is_refused_not_cut() {
    let disk = MemoryDisk::new();
    let config = LogConfig::default();
    let (_dir, log) = open(&disk, &config).unwrap();
    for _ in 0..3 {
        append(&log, &batch(&[NOW_MS], 10)).unwrap();
    }
    log.sync(NOW_MS).unwrap();
    let crashed = disk.crash(0);
    crashed.flip_bit(Path::new("/data/t-0/00000000000000000000.log"), 70);
    let error = open(&crashed, &config).err().unwrap();
    assert!(matches!(error, LogError::Corrupt { position: 0, .. }), "{error}");
}

#[test]
fn a_failed_sync_takes_the_directory_offline_for_good() {
    struct Watch(Mutex<Vec<&'static str>>);
    impl LogObserver for Watch {
        fn durable(&self, _log_end_offset: i64) {
            self.0.lock().unwrap().push("durable");
        }
        fn failed(&self) {
            self.0.lock().unwrap().push("failed");
        }
    }
    let disk = MemoryDisk::new();
    let (dir, log) = open(&disk, &LogConfig::default()).unwrap();
    let watch = Arc::new(Watch(Mutex::default()));
    log.set_observer(Arc::<Watch>::clone(&watch));
    append(&log, &batch(&[NOW_MS], 10)).unwrap();
    log.sync(NOW_MS).unwrap();
    append(&log, &batch(&[NOW_MS], 10)).unwrap();
    disk.fail_sync_after(0);
    assert!(log.sync(NOW_MS).is_err());
    assert!(matches!(log.sync(NOW_MS), Err(LogError::Offline { .. })));
    assert!(matches!(
        append(&log, &batch(&[NOW_MS], 10)),
        Err(AppendError::Log(LogError::Offline { .. }))
    ));
    assert!(dir.is_offline());
    // Every attempt tells its observer, so that whoever waits for another log of the directory hears of it too.
    assert_eq!(*watch.0.lock().unwrap(), ["durable", "failed", "failed"]);
}

#[test]
fn whoever_waits_for_another_log_hears_that_the_directory_failed() {
    struct Failed(Mutex<bool>);
    impl LogObserver for Failed {
        fn durable(&self, _log_end_offset: i64) {}
        fn failed(&self) {
            *self.0.lock().unwrap() = true;
        }
    }
    let disk = MemoryDisk::new();
    let (dir, first) = open(&disk, &LogConfig::default()).unwrap();
    let second = dir.open_log("t-1", LogConfig::default()).unwrap();
    let watch = Arc::new(Failed(Mutex::default()));
    second.set_observer(Arc::<Failed>::clone(&watch));
    append(&first, &batch(&[NOW_MS], 10)).unwrap();
    append(&second, &batch(&[NOW_MS], 10)).unwrap();
    disk.fail_sync_after(0);
    assert!(first.sync(NOW_MS).is_err());
    assert!(second.sync(NOW_MS).is_err());
    assert!(*watch.0.lock().unwrap());
}

#[test]
fn a_deleted_log_refuses_work_and_leaves_the_directory_online() {
    let temp = tempfile::tempdir().unwrap();
    let disk = Arc::new(millstream_log::disk::RealDisk);
    let dir = LogDir::open(LogDirOptions {
        path: temp.path().to_path_buf(),
        disk,
        clock: Arc::new(|| NOW_MS),
    })
    .unwrap();
    let log = dir.open_log("t-0", LogConfig::default()).unwrap();
    let other = dir.open_log("t-1", LogConfig::default()).unwrap();
    append(&log, &batch(&[NOW_MS], 10)).unwrap();
    dir.delete_log(&log).unwrap();
    assert!(matches!(log.sync(NOW_MS), Err(LogError::Deleted { .. })));
    assert!(matches!(
        append(&log, &batch(&[NOW_MS], 10)),
        Err(AppendError::Log(LogError::Deleted { .. }))
    ));
    assert!(!dir.is_offline());
    append(&other, &batch(&[NOW_MS], 10)).unwrap();
    other.sync(NOW_MS).unwrap();
}

#[test]
fn a_missing_segment_below_the_recovery_point_is_refused() {
    let disk = MemoryDisk::new();
    let (_dir, log) = open(&disk, &small()).unwrap();
    for _ in 0..20 {
        append(&log, &batch(&[NOW_MS], 100)).unwrap();
    }
    log.sync(NOW_MS).unwrap();
    let lost = log.sealed_segments()[1].base_offset;
    let crashed = disk.crash(0);
    crashed.remove_file(Path::new(&format!("/data/t-0/{lost:020}.log"))).unwrap();
    assert!(matches!(open(&crashed, &small()).err(), Some(LogError::Corrupt { .. })));
}

#[test]
fn offsets_below_a_raised_log_start_are_not_given_out_again_after_a_crash() {
    let disk = MemoryDisk::new();
    let (_dir, log) = open(&disk, &LogConfig::default()).unwrap();
    for _ in 0..5 {
        append(&log, &batch(&[NOW_MS], 10)).unwrap();
    }
    log.advance_log_start(5).unwrap();
    let (_, recovered) = open(&disk.crash(0), &LogConfig::default()).unwrap();
    assert_eq!((recovered.log_start_offset(), recovered.log_end_offset()), (5, 5));
    assert_eq!(append(&recovered, &batch(&[NOW_MS], 10)).unwrap().base_offset, 5);
}

#[test]
fn batches_without_records_are_known_over_restarts() {
    let disk = MemoryDisk::new();
    let (dir, log) = open(&disk, &small()).unwrap();
    let full = idempotent_batch(&[NOW_MS, NOW_MS], 300, Some((5, 0)));
    let header = BatchHeader::parse(&full).unwrap();
    let empty = millstream_protocol::record::rebuild(&header, Compression::None, &[], 0).unwrap();
    append(&log, &empty).unwrap();
    append(&log, &idempotent_batch(&[NOW_MS], 590, Some((5, 2)))).unwrap();
    log.sync(NOW_MS).unwrap();
    assert!(log.has_empty_batches());
    assert!(!log.sealed_segments().is_empty());
    dir.close(&[log]).unwrap();
    let (_, reopened) = open(&disk.crash(0), &small()).unwrap();
    assert!(reopened.has_empty_batches());
}

#[test]
fn a_log_that_did_not_change_is_closed_without_touching_the_disk() {
    let disk = MemoryDisk::new();
    let (dir, log) = open(&disk, &small()).unwrap();
    append(&log, &batch(&[NOW_MS], 200)).unwrap();
    dir.close(&[log]).unwrap();
    let changes: [fn(&Log); 3] = [
        |_| {},
        |log| assert_eq!(append(log, &batch(&[NOW_MS], 200)).unwrap().base_offset, 1),
        |log| assert_eq!(log.advance_log_start(1).unwrap(), 0),
    ];
    let closes = changes.map(|change| {
        let disk = disk.crash(0);
        let (_dir, log) = open(&disk, &small()).unwrap();
        change(&log);
        disk.fail_sync_after(0);
        log.close(NOW_MS).is_ok()
    });
    assert_eq!(closes, [true, false, false]);
    // What is there after an unclean stop is not what a clean one leaves.
    let unclean = disk.crash(0);
    drop(open(&unclean, &small()).unwrap());
    let (dir, log) = open(&unclean, &small()).unwrap();
    assert_eq!(dir.mode(), OpenMode::Unclean);
    unclean.fail_sync_after(0);
    assert!(log.close(NOW_MS).is_err());
}

#[test]
fn many_logs_are_closed_as_one_is() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let names: Vec<String> = (0..100).map(|number| format!("t-{number}")).collect();
    let logs: Vec<Arc<Log>> = names.iter().map(|name| dir.open_log(name, small()).unwrap()).collect();
    dir.sync_names().unwrap();
    for log in &logs {
        append(log, &idempotent_batch(&[NOW_MS], 10, Some((5, 0)))).unwrap();
    }
    dir.close(&logs).unwrap();
    let dir = open_dir(&disk.crash(0));
    assert_eq!(dir.mode(), OpenMode::Clean);
    for name in &names {
        let log = dir.open_log(name, small()).unwrap();
        assert_eq!(log.log_end_offset(), 1);
        assert!(append(&log, &idempotent_batch(&[NOW_MS], 10, Some((5, 0)))).unwrap().duplicate);
    }
    // One that cannot be closed keeps the directory from being clean.
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let logs: Vec<Arc<Log>> = names.iter().map(|name| dir.open_log(name, small()).unwrap()).collect();
    dir.sync_names().unwrap();
    append(&logs[70], &batch(&[NOW_MS], 10)).unwrap();
    disk.fail_sync_after(0);
    assert!(dir.close(&logs).is_err());
    assert_eq!(open_dir(&disk.crash(0)).mode(), OpenMode::Unclean);
}

#[test]
fn a_full_disk_refuses_the_append_and_leaves_the_log_usable() {
    let disk = MemoryDisk::new();
    let (_dir, log) = open(&disk, &LogConfig::default()).unwrap();
    append(&log, &batch(&[NOW_MS], 10)).unwrap();
    disk.set_capacity(Some(200));
    let error = append(&log, &batch(&[NOW_MS], 5000)).err().unwrap();
    assert!(matches!(&error, AppendError::Log(error) if error.is_disk_full()), "{error}");
    disk.set_capacity(None);
    assert_eq!(append(&log, &batch(&[NOW_MS], 10)).unwrap().base_offset, 1);
    assert_eq!(contents(&log).len(), 2);
}

#[test]
fn a_disk_too_full_for_a_checkpoint_costs_no_acknowledgement_and_nothing_is_lost() {
    let disk = MemoryDisk::new();
    let (dir, log) = open(&disk, &small()).unwrap();
    for _ in 0..4 {
        append(&log, &batch(&[NOW_MS], 200)).unwrap();
    }
    // The records are written; index, snapshot and checkpoint find no space.
    disk.set_capacity(Some(0));
    assert_eq!(log.sync(NOW_MS).unwrap(), 4);
    assert!(!dir.is_offline() && log.sealed_segments().is_empty());
    disk.set_capacity(None);
    log.sync(NOW_MS).unwrap();
    assert!(!log.sealed_segments().is_empty());
    let (_, recovered) = open(&disk.crash(0), &small()).unwrap();
    assert_eq!(contents(&recovered), contents(&log));
}

#[test]
fn duplicates_are_recognised_across_a_crash_and_a_clean_restart() {
    let disk = MemoryDisk::new();
    let config = small();
    let first = idempotent_batch(&[NOW_MS, NOW_MS], 300, Some((5, 0)));
    let second = idempotent_batch(&[NOW_MS], 300, Some((5, 2)));
    let (dir, log) = open(&disk, &config).unwrap();
    append(&log, &first).unwrap();
    append(&log, &second).unwrap();
    log.sync(NOW_MS).unwrap();
    let (_, crashed) = open(&disk.crash(0), &config).unwrap();
    dir.close(&[log]).unwrap();
    let (_, clean) = open(&disk.crash(0), &config).unwrap();
    for log in [crashed, clean] {
        let again = append(&log, &second).unwrap();
        assert!(again.duplicate);
        assert_eq!((again.base_offset, log.log_end_offset()), (2, 3));
        let gap = append(&log, &idempotent_batch(&[NOW_MS], 1, Some((5, 4))));
        assert!(matches!(gap, Err(AppendError::OutOfOrderSequence { expected: 3, found: 4, .. })));
    }
}

#[test]
fn retention_deletes_sealed_segments_by_size_and_by_time() {
    let disk = MemoryDisk::new();
    let (_dir, log) = open(
        &disk,
        &LogConfig {
            retention_bytes: 700,
            ..small()
        },
    )
    .unwrap();
    for _ in 0..20 {
        append(&log, &batch(&[NOW_MS], 100)).unwrap();
        log.sync(NOW_MS).unwrap();
    }
    assert!(log.enforce_retention(NOW_MS).unwrap() > 0);
    assert!(log.local_bytes() >= 700 && log.local_bytes() < 700 + 600, "{}", log.local_bytes());
    let start = log.log_start_offset();
    assert!(matches!(log.read(start - 1, 20, 100, true), Err(LogError::OutOfRange { .. })));
    log.set_config(LogConfig {
        retention_ms: 1000,
        ..small()
    });
    log.enforce_retention(NOW_MS + 5000).unwrap();
    log.sync(NOW_MS).unwrap();
    log.enforce_retention(NOW_MS + 5000).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (20, 20));
    let (_, reopened) = open(&disk.crash(usize::MAX), &small()).unwrap();
    assert_eq!((reopened.log_start_offset(), reopened.log_end_offset()), (20, 20));
}

#[test]
fn trimming_keeps_the_log_start_and_retention_files_of_what_remains() {
    let (_dir, log) = open(&MemoryDisk::new(), &small()).unwrap();
    for _ in 0..20 {
        append(&log, &batch(&[NOW_MS], 100)).unwrap();
    }
    log.sync(NOW_MS).unwrap();
    let sealed = log.sealed_segments();
    assert!(log.producer_snapshot(sealed[2].next_offset).unwrap().is_some());
    assert_eq!(log.trim_local(sealed[1].next_offset).unwrap(), 2);
    assert_eq!((log.log_start_offset(), log.local_start_offset()), (0, sealed[2].base_offset));
    assert!(log.producer_snapshot(sealed[2].next_offset).unwrap().is_some());
}

#[test]
fn log_append_time_is_given_to_every_record() {
    let (_dir, log) = open(
        &MemoryDisk::new(),
        &LogConfig {
            timestamp_type: TimestampType::LogAppendTime,
            ..LogConfig::default()
        },
    )
    .unwrap();
    let appended = append(&log, &batch(&[5, 6], 10)).unwrap();
    assert_eq!(appended.log_append_time_ms, NOW_MS);
    let read = log.read(0, 2, 1000, true).unwrap().unwrap().bytes().unwrap();
    millstream_protocol::record::verify_crc(&read).unwrap();
    let header = BatchHeader::parse(&read).unwrap();
    assert_eq!(
        (header.timestamp_type(), header.max_timestamp),
        (TimestampType::LogAppendTime, NOW_MS)
    );
}

#[test]
fn leader_epochs_survive_a_crash_and_tell_who_wrote_an_offset() {
    let disk = MemoryDisk::new();
    let (_dir, log) = open(&disk, &LogConfig::default()).unwrap();
    for epoch in [0, 0, 3, 3, 7] {
        let batch = batch(&[NOW_MS], 10);
        log.append(&BatchHeader::parse(&batch).unwrap(), &batch, epoch, NOW_MS, None)
            .unwrap();
    }
    let starts: Vec<_> = log.epochs().iter().map(|entry| (entry.epoch, entry.start_offset)).collect();
    assert_eq!(starts, [(0, 0), (3, 2), (7, 4)]);
    assert_eq!((log.epoch_at(1), log.epoch_at(3), log.epoch_at(9)), (Some(0), Some(3), Some(7)));
    log.sync(NOW_MS).unwrap();
    let (_, recovered) = open(&disk.crash(0), &LogConfig::default()).unwrap();
    assert_eq!(recovered.epochs(), log.epochs());
}

#[test]
fn a_directory_has_one_user_at_a_time() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let options = LogDirOptions {
        path: "/data".into(),
        disk: Arc::new(disk.clone()),
        clock: Arc::new(|| NOW_MS),
    };
    assert!(matches!(LogDir::open(options).err(), Some(LogError::Locked { .. })));
    drop(dir);
    open_dir(&disk);
}

#[test]
fn the_real_disk_keeps_a_log_over_a_clean_restart() {
    let temp = tempfile::tempdir().unwrap();
    let path: PathBuf = temp.path().join("data");
    let open = || {
        let disk = Arc::new(millstream_log::disk::RealDisk);
        let dir = LogDir::open(LogDirOptions {
            path: path.clone(),
            disk,
            clock: Arc::new(|| NOW_MS),
        })
        .unwrap();
        let log = dir.open_log("t-0", small()).unwrap();
        (dir, log)
    };
    let (dir, log) = open();
    for _ in 0..50 {
        append(&log, &batch(&[NOW_MS], 100)).unwrap();
    }
    let before = contents(&log);
    dir.close(&[log]).unwrap();
    drop(dir);
    let (dir, log) = open();
    assert_eq!((dir.mode(), contents(&log) == before), (OpenMode::Clean, true));
    assert!(
        millstream_log::disk::RealDisk
            .open(&path.join("t-0/00000000000000000000.idx"), FileMode::Read)
            .is_ok()
    );
}
