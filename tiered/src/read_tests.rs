use std::sync::Arc;

use millstream_log::remote::{RemoteError, RemoteLog, TieredSource};
use object_store::{ObjectStoreExt, path::Path};
use tokio::sync::Semaphore;

use crate::{
    options::TierOptions,
    testkit::{FakeClock, FakeSource, Fault, PARTITION, Request, ScriptedStore, manual_tier, read_all, settle, small_options},
    tier::Tier,
};

/// A tier whose bucket holds `segments` segments of `batches` batches, and nothing of it cached.
async fn cold(options: TierOptions, segments: usize, batches: usize, size: usize) -> (Arc<ScriptedStore>, Arc<FakeSource>, Arc<Tier>) {
    let store = ScriptedStore::memory();
    let source = FakeSource::new(1);
    (0..segments).for_each(|_| source.seal(batches, size));
    let tier = manual_tier(options, store.clone(), Arc::new(FakeClock::default())).await;
    tier.attach(PARTITION, source.clone());
    settle(&tier).await;
    (store, source, tier)
}

#[tokio::test]
async fn every_offset_finds_the_batch_that_holds_it() {
    let (_, source, tier) = cold(small_options(1), 3, 40, 700).await;
    for offset in 0..360 {
        let read = tier.read(PARTITION, offset, 1).await.unwrap();
        let base = offset - offset % 3;
        assert_eq!(read.bytes.concat(), source.expected(base..base + 1), "offset {offset}");
        assert_eq!(read.next_offset, base + 3);
    }
    assert!(matches!(tier.read(PARTITION, 360, 1).await, Err(RemoteError::OutOfRange { .. })));
    assert!(matches!(tier.read(PARTITION, -1, 1).await, Err(RemoteError::OutOfRange { .. })));
}

#[tokio::test]
async fn batches_larger_than_a_unit_and_than_the_limit_are_whole() {
    let (_, source, tier) = cold(small_options(1), 2, 5, 50_000).await;
    assert_eq!(read_all(&tier, 1).await, source.expected(0..i64::MAX));
    assert_eq!(read_all(&tier, 1 << 20).await, source.expected(0..i64::MAX));
}

#[tokio::test]
async fn a_cold_scan_needs_few_requests() {
    let options = TierOptions {
        get_bytes_max: 64 << 10,
        cache_bytes: 8 << 20,
        ..small_options(1)
    };
    let (store, source, tier) = cold(options, 4, 100, 5_000).await;
    assert_eq!(read_all(&tier, 64 << 10).await, source.expected(0..i64::MAX));
    let bytes = source.expected(0..i64::MAX).len();
    let gets = store.count(Request::Get, ".mseg") - 4;
    // One HEAD per upload is not counted; four footers; a read that starts inside a unit may need one GET more than its bytes.
    let bound = 2 * bytes.div_ceil(64 << 10) + 4;
    assert!(gets <= bound, "{gets} GETs for {bytes} bytes");
    read_all(&tier, 64 << 10).await;
    assert_eq!(store.count(Request::Get, ".mseg") - 4, gets, "the second scan comes from the cache");
}

#[tokio::test]
async fn a_fill_goes_on_when_its_reader_gives_up() {
    let (store, source, tier) = cold(small_options(1), 1, 10, 1_000).await;
    let gate = Arc::new(Semaphore::new(0));
    store.inject(Request::Get, ".mseg", 2, Fault::Delay(gate.clone()));
    let before = store.count(Request::Get, ".mseg");
    // Footer and first units are slow; each poll gives up before its answer comes, and the next one finds one step more.
    for step in 1..=2 {
        while store.count(Request::Get, ".mseg") < before + step {
            let abandoned = tier.read(PARTITION, 0, 5_000);
            assert!(futures_util::FutureExt::now_or_never(abandoned).is_none());
            tokio::task::yield_now().await;
        }
        gate.add_permits(1);
        while gate.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
    }
    let read = tier.read(PARTITION, 0, 5_000).await.unwrap();
    assert!(source.expected(0..i64::MAX).starts_with(&read.bytes.concat()));
    assert_eq!(store.count(Request::Get, ".mseg"), before + 2, "nothing was fetched twice");
}

#[tokio::test]
async fn readers_of_the_same_units_share_one_fetch() {
    let (store, _, tier) = cold(small_options(1), 1, 10, 1_000).await;
    let before = store.count(Request::Get, ".mseg");
    let readers = (0..32).map(|_| tier.read(PARTITION, 0, 5_000));
    let reads = futures_util::future::join_all(readers).await;
    assert!(reads.iter().all(Result::is_ok));
    assert_eq!(store.count(Request::Get, ".mseg"), before + 2, "one footer and one run of units");
}

#[tokio::test]
async fn three_readers_get_through_with_a_cache_smaller_than_a_segment() {
    let options = TierOptions {
        cache_bytes: 16 << 10,
        read_ahead_bytes_max: 64 << 10,
        ..small_options(1)
    };
    let (_, source, tier) = cold(options, 2, 100, 2_000).await;
    let expected = source.expected(0..i64::MAX);
    let scans = (0..3).map(|reader| {
        let tier = tier.clone();
        tokio::spawn(async move { read_all(&tier, 3_000 + 5_000 * reader).await })
    });
    for scan in futures_util::future::join_all(scans).await {
        assert!(scan.unwrap() == expected);
    }
}

#[tokio::test]
async fn reading_ahead_crosses_segment_borders() {
    let options = TierOptions {
        read_ahead_bytes_max: 256 << 10,
        cache_bytes: 4 << 20,
        ..small_options(1)
    };
    let (store, source, tier) = cold(options, 6, 10, 2_000).await;
    let third = source.sealed_segments()[2].base_offset;
    let key = store.keys(&format!("/seg/{third:020}-")).await.remove(0);
    let uploads = store.count(Request::Get, &key);
    let mut offset = 0;
    while offset < third / 2 {
        offset = tier.read(PARTITION, offset, 4_000).await.unwrap().next_offset;
    }
    // The reader is still in the first two segments; only reading ahead can ask for the third.
    while store.count(Request::Get, &key) <= uploads {
        tokio::task::yield_now().await;
    }
}

/// Row 23.
#[tokio::test]
async fn damaged_bytes_are_fetched_again_and_then_reported() {
    for fault in [Fault::Flip, Fault::Truncate] {
        let (store, source, tier) = cold(small_options(1), 1, 10, 1_000).await;
        store.inject(Request::Get, ".mseg", 2, fault.clone());
        assert_eq!(read_all(&tier, 50_000).await, source.expected(0..i64::MAX));
        let (store, _, tier) = cold(small_options(1), 1, 10, 1_000).await;
        store.inject(Request::Get, ".mseg", 3, fault);
        assert!(matches!(tier.read(PARTITION, 0, 100).await, Err(RemoteError::Corrupt { .. })));
        assert!(tier.read(PARTITION, 0, 100).await.is_ok(), "what failed once is not remembered");
    }
}

#[tokio::test]
async fn a_store_that_fails_is_unavailable_and_recovers() {
    let (store, _, tier) = cold(small_options(1), 1, 10, 1_000).await;
    store.inject(Request::Get, ".mseg", 1, Fault::Before);
    assert!(matches!(tier.read(PARTITION, 0, 100).await, Err(RemoteError::Unavailable { .. })));
    assert!(tier.read(PARTITION, 0, 100).await.is_ok());
}

/// Row 20.
#[tokio::test]
async fn a_reader_with_an_old_head_learns_of_the_deletion() {
    let (store, source, tier) = cold(small_options(1), 3, 10, 1_000).await;
    let clock = Arc::new(FakeClock::default());
    let other = manual_tier(small_options(2), store.clone(), clock.clone()).await;
    let replica = FakeSource::new(1);
    (0..3).for_each(|_| replica.seal(10, 1_000));
    replica.elect(2);
    replica.delete_records(35);
    other.attach(PARTITION, replica);
    settle(&other).await;
    clock.advance(3_600_001);
    settle(&other).await;
    assert_eq!(store.keys(".mseg").await.len(), 2);
    assert!(matches!(tier.read(PARTITION, 0, 100).await, Err(RemoteError::OutOfRange { .. })));
    assert_eq!(tier.bounds(PARTITION).unwrap().start_offset, 35);
    let read = tier.read(PARTITION, 35, 1).await.unwrap();
    assert_eq!(
        read.bytes.concat(),
        source.expected(33..34),
        "the batch that holds the log start is whole"
    );
}

#[tokio::test]
async fn a_missing_object_under_a_fresh_head_is_unavailable_and_never_an_end() {
    let (store, _, tier) = cold(small_options(1), 2, 10, 1_000).await;
    let key = store.keys(".mseg").await.remove(0);
    store.delete(&Path::from(key)).await.unwrap();
    assert!(matches!(tier.read(PARTITION, 0, 100).await, Err(RemoteError::Unavailable { .. })));
}

#[tokio::test]
async fn a_timestamp_is_found_in_heads_and_pages() {
    let options = TierOptions {
        head_segments_max: 2,
        ..small_options(1)
    };
    let (store, source, tier) = cold(options, 9, 60, 3_000).await;
    assert!(!store.keys("/page/").await.is_empty());
    assert_eq!(read_all(&tier, 50_000).await, source.expected(0..i64::MAX));
    // Batch at offset n has timestamp 1000 + n.
    for wanted in [0, 500, 1_000, 1_618] {
        let offset = tier.seek_timestamp(PARTITION, 1_000 + wanted - 1).await.unwrap().unwrap();
        assert!(offset <= wanted && wanted - offset < 180, "timestamp of {wanted} leads to {offset}");
    }
    assert_eq!(tier.seek_timestamp(PARTITION, 1_000 + source.end()).await.unwrap(), None);
}
