//! Kills the process at every request that changes the bucket, before and after the store applied it, restarts it with or
//! without a new leader epoch, and checks that nothing was lost, doubled or left behind.

use std::{collections::HashSet, sync::Arc};

use millstream_log::remote::{RemoteLog, TieredSource};
use object_store::memory::InMemory;

use crate::{
    head::Head,
    options::TierOptions,
    store::SharedStore,
    testkit::{FakeClock, FakeSource, PARTITION, Request, ScriptedStore, manual_tier, read_all, settle, small_options},
    tier::Tier,
    work::{Report, WorkError},
};

fn options(broker: i32) -> TierOptions {
    TierOptions {
        head_segments_max: 4,
        single_put_bytes_max: 40_000,
        part_bytes: 5 << 20,
        ..small_options(broker)
    }
}

/// What happens to a partition, as far as it has got. Each stage may be repeated after a crash.
struct Story {
    source: Arc<FakeSource>,
    clock: Arc<FakeClock>,
    stage: usize,
}

impl Story {
    fn new() -> Story {
        Story {
            source: FakeSource::new(1),
            clock: Arc::new(FakeClock::default()),
            stage: 0,
        }
    }

    async fn go_on(&mut self, tier: &Tier) -> Result<(), WorkError> {
        while self.stage < 5 {
            while tier.run_once(PARTITION).await? != Report::default() {
                self.check_destruction(tier);
            }
            self.check_destruction(tier);
            match self.stage {
                0 => {
                    self.source.seal(5, 2_000);
                    self.source.seal(20, 3_000);
                    (0..4).for_each(|_| self.source.seal(3, 500));
                }
                1 => self.source.configure(|config| config.local_retention_bytes = 2_000),
                2 => self.source.delete_records(15),
                3 => self.clock.advance(3_600_001),
                _ => self.source.configure(|config| config.retention_bytes = 4_000),
            }
            self.stage += 1;
        }
        settle_or_fail(tier).await?;
        self.clock.advance(3_600_001);
        settle_or_fail(tier).await
    }

    /// I6: what is gone locally is in the bucket or below the log start.
    fn check_destruction(&self, tier: &Tier) {
        let local_start = self.source.local_start_offset();
        let remote_end = tier.bounds(PARTITION).map_or(0, |bounds| bounds.end_offset);
        let log_start = self.source.log_start_offset();
        assert!(
            local_start <= remote_end.max(log_start),
            "local start {local_start}, remote end {remote_end}, log start {log_start}"
        );
    }
}

async fn settle_or_fail(tier: &Tier) -> Result<(), WorkError> {
    while !tier.run_once(PARTITION).await?.is_idle() {}
    Ok(())
}

/// Union of bucket and log is everything from the log start on; the bucket holds what the head says and no orphan of an earlier epoch.
async fn check_world(story: &Story, tier: &Tier, store: &SharedStore) {
    let source = &story.source;
    let (start, remote_end) = tier
        .bounds(PARTITION)
        .map_or((source.log_start_offset(), source.log_start_offset()), |b| {
            (b.start_offset, b.end_offset)
        });
    let mut all = read_all(tier, 10_000).await;
    all.extend(source.local_from(remote_end));
    assert_eq!(all.len(), source.expected(start..i64::MAX).len());
    assert!(all == source.expected(start..i64::MAX), "bytes differ");

    let plain = ScriptedStore::over(store.clone());
    let head = head_of_bucket(store).await;
    assert_eq!(head.log_start, source.log_start_offset());
    assert!(head.graveyard.is_empty(), "{:?}", head.graveyard);
    let referenced: HashSet<String> = head
        .segs
        .iter()
        .map(|seg| seg.ulid.to_string())
        .chain(head.pages.iter().map(|page| page.ulid.to_string()))
        .collect();
    for id in &referenced {
        assert!(plain.keys(id).await.len() == 1, "referenced object {id} is missing");
    }
    let paged: usize = head.pages.iter().map(|page| page.segments as usize).sum();
    let older = format!("-e{:010}-", head.epoch);
    let (objects, current): (Vec<_>, Vec<_>) = {
        let all: Vec<String> = [plain.keys("/seg/").await, plain.keys("/page/").await].concat();
        (all.clone(), all.into_iter().filter(|key| key.contains(&older)).collect())
    };
    let allowed = head.segs.len() + head.pages.len() + paged + current.len();
    assert!(objects.len() <= allowed, "orphans of earlier epochs are left: {objects:?}");
}

async fn head_of_bucket(store: &SharedStore) -> Head {
    let key = object_store::path::Path::from(format!("p/t/{}/{:06}/head", PARTITION.topic_id, PARTITION.partition));
    let bytes = object_store::ObjectStoreExt::get(store, &key).await.unwrap().bytes().await.unwrap();
    Head::decode(&bytes).unwrap()
}

/// Runs the story with a crash at the given change; says whether the crash came to pass.
async fn crash_and_recover(change: usize, after: bool, new_epoch: bool) -> bool {
    let memory: SharedStore = Arc::new(InMemory::new());
    let mut story = Story::new();
    let scripted = ScriptedStore::over(memory.clone());
    let doomed = manual_tier(options(1), scripted.clone(), story.clock.clone()).await;
    doomed.attach(PARTITION, story.source.clone());
    scripted.crash_at(change, after);
    let outcome = story.go_on(&doomed).await;
    assert_eq!(outcome.is_err(), scripted.is_dead(), "change {change}: {outcome:?}");
    drop(doomed);

    if new_epoch {
        story.source.elect(2);
    }
    let tier = manual_tier(options(if new_epoch { 2 } else { 1 }), memory.clone(), story.clock.clone()).await;
    tier.attach(PARTITION, story.source.clone());
    story
        .go_on(&tier)
        .await
        .unwrap_or_else(|error| panic!("change {change}, after {after}, new epoch {new_epoch}: {error}"));
    check_world(&story, &tier, &memory).await;
    scripted.is_dead()
}

async fn crash_everywhere(after: bool, new_epoch: bool) {
    let mut change = 1;
    while crash_and_recover(change, after, new_epoch).await {
        change += 1;
    }
    assert!(change > 25, "the story has only {change} changes");
}

#[tokio::test]
async fn a_crash_before_any_change_loses_nothing() {
    crash_everywhere(false, false).await;
}

#[tokio::test]
async fn a_crash_after_any_change_loses_nothing() {
    crash_everywhere(true, false).await;
}

#[tokio::test]
async fn a_crash_before_any_change_and_a_new_leader_lose_nothing() {
    crash_everywhere(false, true).await;
}

#[tokio::test]
async fn a_crash_after_any_change_and_a_new_leader_lose_nothing() {
    crash_everywhere(true, true).await;
}

/// Row 12: some files are gone and the log says so.
#[tokio::test]
async fn a_crash_in_the_middle_of_a_trim_is_finished_later() {
    let memory: SharedStore = Arc::new(InMemory::new());
    let source = FakeSource::new(1);
    (0..5).for_each(|_| source.seal(3, 500));
    source.configure(|config| config.local_retention_bytes = 0);
    source.die_in_trim_after(2);
    let clock = Arc::new(FakeClock::default());
    let tier = manual_tier(small_options(1), memory, clock).await;
    tier.attach(PARTITION, source.clone());
    while let Ok(report) = tier.run_once(PARTITION).await {
        assert!(!report.is_idle(), "the trim must fail once");
    }
    settle(&tier).await;
    assert_eq!(source.local_start_offset(), source.end());
    assert_eq!(read_all(&tier, 1_000).await, source.expected(0..i64::MAX));
}

/// Rows 8 and 13: the object of a deposed leader arrives late, its commit is refused, and the next epoch removes the orphan.
#[tokio::test]
async fn a_zombie_leader_is_fenced_and_its_object_is_swept() {
    let memory: SharedStore = Arc::new(InMemory::new());
    let scripted = ScriptedStore::over(memory.clone());
    let clock = Arc::new(FakeClock::default());
    let old = FakeSource::new(1);
    let new = FakeSource::new(1);
    for source in [&old, &new] {
        (0..3).for_each(|_| source.seal(3, 500));
    }
    let zombie = manual_tier(small_options(1), scripted.clone(), clock.clone()).await;
    zombie.attach(PARTITION, old.clone());
    zombie.run_once(PARTITION).await.unwrap();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    scripted.inject(Request::Put, ".mseg", 1, crate::testkit::Fault::Delay(gate.clone()));
    let frozen = tokio::spawn({
        let zombie = zombie.clone();
        async move { zombie.run_once(PARTITION).await }
    });
    while scripted.count(Request::Put, ".mseg") < 2 {
        tokio::task::yield_now().await;
    }

    let successor = manual_tier(small_options(2), memory.clone(), clock.clone()).await;
    new.elect(2);
    new.configure(|config| config.local_retention_bytes = 0);
    successor.attach(PARTITION, new.clone());
    settle(&successor).await;
    gate.add_permits(1);
    let outcome = frozen.await.unwrap();
    assert!(
        matches!(
            outcome,
            Err(WorkError::Commit(crate::CommitError::Fenced { epoch: 2, broker: 2, .. }))
        ),
        "{outcome:?}"
    );
    assert!(
        zombie.run_once(PARTITION).await.is_err(),
        "a fenced leader stays fenced in its epoch"
    );
    assert_eq!(scripted.keys(".mseg").await.len(), 4);

    new.elect(3);
    new.seal(1, 10);
    settle(&successor).await;
    settle(&successor).await;
    assert_eq!(scripted.keys(".mseg").await.len(), 4, "three old segments, one new, no orphan");
    assert_eq!(read_all(&successor, 1_000).await, new.expected(0..i64::MAX));
}
