use std::sync::Arc;

use millstream_log::remote::{RemoteBounds, RemoteError, RemoteLog, TieredSource};
use object_store::{ObjectStoreExt, path::Path};
use tokio::runtime::Handle;

use crate::{
    options::TierOptions,
    store::{Bucket, TierError},
    testkit::{CLUSTER, FakeClock, FakeSource, Fault, PARTITION, Request, ScriptedStore, manual_tier, read_all, settle, small_options},
    tier::{Drive, Tier},
    work::WorkError,
};

async fn attached(store: &Arc<ScriptedStore>, source: &Arc<FakeSource>) -> (Arc<Tier>, Arc<FakeClock>) {
    let clock = Arc::new(FakeClock::default());
    let tier = manual_tier(small_options(1), store.clone(), clock.clone()).await;
    tier.attach(PARTITION, source.clone());
    (tier, clock)
}

#[tokio::test]
async fn sealed_segments_below_the_stable_offset_are_offloaded_in_order() {
    let store = ScriptedStore::memory();
    let source = FakeSource::new(1);
    (0..3).for_each(|_| source.seal(4, 300));
    source.set_stable(30);
    let (tier, _) = attached(&store, &source).await;
    assert_eq!(tier.bounds(PARTITION), None);
    assert_eq!(tier.run_once(PARTITION).await.unwrap().offloaded, Some((0, 12)));
    assert_eq!(tier.run_once(PARTITION).await.unwrap().offloaded, Some((12, 24)));
    assert!(tier.run_once(PARTITION).await.unwrap().is_idle(), "24..36 is not stable yet");
    source.set_stable(36);
    settle(&tier).await;
    assert_eq!(
        tier.bounds(PARTITION),
        Some(RemoteBounds {
            start_offset: 0,
            end_offset: 36
        })
    );
    assert_eq!(read_all(&tier, 500).await, source.expected(0..36));
    let status = tier.status();
    assert_eq!(
        (status[0].remote_segments, status[0].pending_bytes, status[0].topic.as_str()),
        (3, 0, "orders")
    );
    let commits = store.count(Request::Put, "/head");
    assert_eq!(commits, 4, "one claim and one commit per segment");
}

#[tokio::test]
async fn a_large_segment_goes_in_parts_and_reads_back() {
    let store = ScriptedStore::memory();
    let source = FakeSource::new(1);
    source.seal(300, 40_000);
    let clock = Arc::new(FakeClock::default());
    let options = TierOptions {
        single_put_bytes_max: 1 << 20,
        part_bytes: 5 << 20,
        read_unit_bytes: 1 << 20,
        get_bytes_max: 8 << 20,
        ..small_options(1)
    };
    let tier = manual_tier(options, store.clone(), clock).await;
    tier.attach(PARTITION, source.clone());
    store.inject(Request::Part, ".mseg", 1, Fault::Before);
    assert!(tier.run_once(PARTITION).await.is_err());
    settle(&tier).await;
    assert_eq!(store.count(Request::Multipart, ".mseg"), 2, "a second try under a second name");
    assert_eq!(read_all(&tier, 3 << 20).await, source.expected(0..i64::MAX));
}

/// Rows 6 and 22: an error after the store applied the request, for the first head, for a replacement and for data.
#[tokio::test]
async fn a_write_that_was_applied_and_reported_as_failed_is_won() {
    for (key, times) in [("/head", 1), ("/head", 2), (".mseg", 1)] {
        let store = ScriptedStore::memory();
        let source = FakeSource::new(1);
        source.seal(4, 300);
        let (tier, _) = attached(&store, &source).await;
        store.inject(Request::Put, key, times, Fault::After);
        while tier.run_once(PARTITION).await.is_err() {}
        settle(&tier).await;
        assert_eq!(read_all(&tier, 500).await, source.expected(0..12), "{key} {times}");
    }
}

#[tokio::test]
async fn a_conflict_on_create_although_there_is_no_head_is_tried_again() {
    let store = ScriptedStore::memory();
    let source = FakeSource::new(1);
    source.seal(4, 300);
    let (tier, _) = attached(&store, &source).await;
    store.inject(Request::Put, "/head", 3, Fault::Conflict);
    settle(&tier).await;
    assert_eq!(
        tier.bounds(PARTITION),
        Some(RemoteBounds {
            start_offset: 0,
            end_offset: 12
        })
    );
}

#[tokio::test]
async fn while_the_bucket_is_down_nothing_is_trimmed_and_the_error_is_reported() {
    let store = ScriptedStore::memory();
    let source = FakeSource::new(1);
    source.seal(4, 300);
    source.configure(|config| config.local_retention_bytes = 0);
    let (tier, _) = attached(&store, &source).await;
    store.inject(Request::Put, "", 15, Fault::Before);
    let mut failures = 0;
    while tier.run_once(PARTITION).await.is_err() {
        failures += 1;
        assert_eq!(source.local_start_offset(), 0);
        assert!(tier.status()[0].last_error.is_some());
    }
    assert!(failures > 0);
    settle(&tier).await;
    assert_eq!(source.local_start_offset(), 12);
    assert_eq!(tier.status()[0].last_error, None);
}

#[tokio::test]
async fn a_damaged_local_segment_is_neither_offloaded_nor_trimmed() {
    let store = ScriptedStore::memory();
    let source = FakeSource::new(1);
    source.seal(4, 300);
    source.damage(0, 500);
    source.configure(|config| config.local_retention_bytes = 0);
    let (tier, _) = attached(&store, &source).await;
    assert!(matches!(tier.run_once(PARTITION).await, Err(WorkError::Upload(_))));
    assert_eq!(store.keys(".mseg").await, Vec::<String>::new());
    assert_eq!(source.local_start_offset(), 0);
}

#[tokio::test]
async fn before_the_head_was_read_a_partition_is_unavailable_and_not_empty() {
    let store = ScriptedStore::memory();
    let source = FakeSource::new(1);
    let (tier, _) = attached(&store, &source).await;
    assert!(matches!(tier.read(PARTITION, 0, 100).await, Err(RemoteError::Unavailable { .. })));
    assert!(tier.seek_timestamp(PARTITION, 0).await.is_err());
    tier.run_once(PARTITION).await.unwrap();
    tier.ready(PARTITION).await;
    assert!(matches!(tier.read(PARTITION, 0, 100).await, Err(RemoteError::OutOfRange { .. })));
}

/// Row 24.
#[tokio::test]
async fn a_head_that_was_deleted_is_not_replaced_by_an_empty_one() {
    let store = ScriptedStore::memory();
    let source = FakeSource::new(1);
    source.seal(4, 300);
    source.configure(|config| config.local_retention_bytes = 0);
    let (tier, clock) = attached(&store, &source).await;
    settle(&tier).await;
    let head = store.keys("/head").await.remove(0);
    store.delete(&Path::from(head)).await.unwrap();
    source.seal(4, 300);
    assert!(tier.run_once(PARTITION).await.is_err());
    assert!(matches!(tier.run_once(PARTITION).await, Err(WorkError::HeadLost { .. })));
    let restarted = manual_tier(small_options(1), store.clone(), clock).await;
    restarted.attach(PARTITION, source.clone());
    assert!(matches!(restarted.run_once(PARTITION).await, Err(WorkError::HeadLost { .. })));
}

#[tokio::test]
async fn a_diverged_tail_is_cut_off_and_offloaded_again() {
    let store = ScriptedStore::memory();
    let source = FakeSource::new(1);
    (0..3).for_each(|_| source.seal(4, 300));
    let (tier, _) = attached(&store, &source).await;
    settle(&tier).await;
    source.diverge(2, 24);
    source.seal(5, 200);
    settle(&tier).await;
    assert_eq!(read_all(&tier, 500).await, source.expected(0..i64::MAX));
}

#[tokio::test]
async fn segments_that_were_never_offloaded_leave_a_gap_that_readers_jump() {
    let store = ScriptedStore::memory();
    let source = FakeSource::new(1);
    source.seal(4, 300);
    let (tier, _) = attached(&store, &source).await;
    settle(&tier).await;
    source.seal(4, 300);
    source.trim_local(24).unwrap();
    source.seal(4, 300);
    settle(&tier).await;
    let batches = tier.read(PARTITION, 15, 1_000).await.unwrap();
    assert_eq!(batches.bytes.concat().get(..8), Some(24_i64.to_be_bytes().as_slice()));
}

#[tokio::test]
async fn a_leader_with_other_segment_borders_goes_on_inside_a_segment() {
    let store = ScriptedStore::memory();
    let first = FakeSource::new(1);
    first.seal(4, 300);
    let (tier, clock) = attached(&store, &first).await;
    settle(&tier).await;
    let second = FakeSource::new(1);
    second.seal(7, 300);
    second.elect(2);
    let successor = manual_tier(small_options(2), store.clone(), clock).await;
    successor.attach(PARTITION, second.clone());
    settle(&successor).await;
    assert_eq!(
        successor.bounds(PARTITION),
        Some(RemoteBounds {
            start_offset: 0,
            end_offset: 21
        })
    );
    assert_eq!(read_all(&successor, 500).await, second.expected(0..21));
}

#[tokio::test]
async fn deleting_a_topic_purges_its_objects_and_leaves_a_mark() {
    let store = ScriptedStore::memory();
    let source = FakeSource::new(1);
    source.seal(4, 300);
    let (tier, clock) = attached(&store, &source).await;
    settle(&tier).await;
    tier.detach(PARTITION, true);
    tier.shutdown().await;
    assert_eq!(store.keys("p/t/").await, [format!("p/t/{}/topic.json", PARTITION.topic_id)]);

    // Another partition's purge that a crash interrupted is finished by the next start.
    let mark = Path::from(format!("p/t/{}/topic.json", PARTITION.topic_id));
    let text = String::from_utf8(store.get(&mark).await.unwrap().bytes().await.unwrap().to_vec()).unwrap();
    assert!(text.contains("\"purged\""), "{text}");
    store.put(&mark, text.replace("purged", "purging").into()).await.unwrap();
    store
        .put(&Path::from(format!("p/t/{}/000009/seg/x", PARTITION.topic_id)), "x".into())
        .await
        .unwrap();
    let runtime = Handle::current();
    let next = Tier::start_with(small_options(1), Bucket::new(store.clone(), "p"), clock, Drive::Background, runtime)
        .await
        .unwrap();
    next.shutdown().await;
    assert_eq!(store.keys("p/t/").await.len(), 1);
}

#[tokio::test]
async fn background_work_offloads_what_it_is_woken_for() {
    let store = ScriptedStore::memory();
    let source = FakeSource::new(1);
    source.seal(4, 300);
    // With this interval only waking can help.
    let options = TierOptions {
        work_interval: std::time::Duration::from_secs(3600),
        ..small_options(1)
    };
    let clock = Arc::new(FakeClock::default());
    let tier = Tier::start_with(options, Bucket::new(store, "p"), clock, Drive::Background, Handle::current())
        .await
        .unwrap();
    tier.attach(PARTITION, source.clone());
    tier.ready(PARTITION).await;
    for round in 2..5 {
        while tier.bounds(PARTITION).map(|bounds| bounds.end_offset) != Some(source.end()) {
            tier.wake(PARTITION);
            tokio::task::yield_now().await;
        }
        source.seal(round, 300);
    }
    tier.shutdown().await;
}

#[tokio::test]
async fn a_bucket_of_a_newer_format_is_refused() {
    let store = ScriptedStore::memory();
    store
        .put(&Path::from("p/millstream.json"), r#"{"format":2,"cluster_ids":[]}"#.into())
        .await
        .unwrap();
    let clock = Arc::new(FakeClock::default());
    let started = Tier::start_with(small_options(1), Bucket::new(store, "p"), clock, Drive::Manual, Handle::current()).await;
    assert!(matches!(started.err(), Some(TierError::Marker)));
}

#[tokio::test]
async fn a_directory_serves_as_a_bucket() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}", directory.path().display());
    let source = FakeSource::new(1);
    (0..6).for_each(|_| source.seal(4, 300));
    for epoch in 2..5 {
        let options = TierOptions {
            read_unit_bytes: 4 << 10,
            ..TierOptions::new(url.clone(), CLUSTER, 1)
        };
        let tier = Tier::start(options, Handle::current()).await.unwrap();
        tier.attach(PARTITION, source.clone());
        while tier.bounds(PARTITION).map(|bounds| bounds.end_offset) != Some(source.end()) {
            tier.wake(PARTITION);
            tokio::task::yield_now().await;
        }
        assert_eq!(read_all(&tier, 5_000).await, source.expected(0..i64::MAX));
        tier.shutdown().await;
        source.elect(epoch);
        source.seal(4, 300);
    }
}
