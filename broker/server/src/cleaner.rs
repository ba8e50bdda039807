//! The cleaner: compacts the logs of topics with `cleanup.policy=compact`, the dirtiest first, within bounds of memory and I/O.
//!
//! A log with damage is left alone until the broker restarts, as Kafka does: it would be read again and again for nothing.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use millstream_core::metadata::configs::{
    Overrides, Scope, TopicConfig, effective_value,
    operations::{CLEANER_DEDUPE_BUFFER_BYTES, CLEANER_IO_BYTES_PER_SECOND},
};
use millstream_log::{CompactOptions, Dirtiness, KEY_BYTES, LogError, remote::TopicIdPartition};
use tokio::time::Instant;

use crate::{broker::Broker, partition::Partition};

/// Bytes after which the pace is looked at.
const PACE_BYTES: u64 = 1 << 20;
/// Longest sleep without a look at whether the broker stops.
const PAUSE_STEP: Duration = Duration::from_millis(50);

/// Starts the cleaner's thread of work; it ends when the broker stops.
pub(crate) fn spawn(broker: &Arc<Broker>) {
    if !broker.config.flag("log.cleaner.enable") {
        return;
    }
    let broker = Arc::clone(broker);
    let uncleanable = Arc::new(Mutex::default());
    tokio::spawn(async move {
        loop {
            let backoff = Duration::from_millis(u64::try_from(setting(&broker, "log.cleaner.backoff.ms")).unwrap_or(15_000));
            // Cancel safe: both only wait.
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                () = broker.stopped() => return,
            }
            let (worker, uncleanable) = (Arc::clone(&broker), Arc::clone(&uncleanable));
            let round = tokio::task::spawn_blocking(move || compact_all(&worker, &uncleanable));
            if let Err(error) = round.await {
                tracing::error!(%error, "the cleaner panicked");
            }
        }
    });
}

fn setting(broker: &Broker, name: &str) -> i64 {
    text(broker, name).parse().unwrap_or(i64::MAX)
}

fn text(broker: &Broker, name: &str) -> String {
    let image = broker.metadata.image();
    let layers = image.broker_layers(Some(broker.config.node_id), &broker.config.values);
    effective_value(Scope::Broker, name, &Overrides::new(), &layers).unwrap_or_default()
}

/// Compacts until nothing is dirty enough. Blocks.
fn compact_all(broker: &Arc<Broker>, uncleanable: &Mutex<BTreeSet<TopicIdPartition>>) {
    let mut uncleanable = uncleanable.lock().unwrap_or_else(PoisonError::into_inner);
    let partitions = broker.all_partitions();
    uncleanable.retain(|id| partitions.iter().any(|partition| partition.id == *id));
    let mut waiting: Vec<(Arc<Partition>, Dirtiness)> = partitions
        .into_iter()
        .filter(|partition| !uncleanable.contains(&partition.id))
        .filter_map(|partition| due(broker, partition))
        .collect();
    waiting.sort_by(|(_, a), (_, b)| b.ratio().total_cmp(&a.ratio()));
    for (partition, _) in waiting {
        if *broker.stopping.borrow() {
            return;
        }
        if !partition.is_closed() && compact(broker, &partition) == Outcome::Damaged {
            uncleanable.insert(partition.id);
        }
    }
    broker.metrics.uncleanable(uncleanable.len());
}

/// What became of a compaction.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It was done, or may be done next time.
    Fine,
    /// The log cannot be read.
    Damaged,
}

/// The partition, if it is to be compacted now.
fn due(broker: &Broker, partition: Arc<Partition>) -> Option<(Arc<Partition>, Dirtiness)> {
    let config = partition.topic_config();
    if !config.cleanup_policy.compact || partition.is_closed() {
        return None;
    }
    let now_ms = broker.clock.wall_ms();
    roll_for_lag(&partition, &config, now_ms);
    let dirtiness = partition
        .log()
        .dirtiness(now_ms, partition.last_stable_offset(), config.min_compaction_lag_ms);
    if dirtiness.dirty_bytes == 0 {
        return None;
    }
    let is_late = dirtiness.first_dirty_ms >= 0 && now_ms.saturating_sub(dirtiness.first_dirty_ms) > config.max_compaction_lag_ms;
    (is_late || dirtiness.ratio() >= config.min_cleanable_dirty_ratio).then_some((partition, dirtiness))
}

/// What must be compacted soon cannot wait in the active segment until it is full.
fn roll_for_lag(partition: &Partition, config: &TopicConfig, now_ms: i64) {
    let log = partition.log();
    let rolled = log.roll_if_older(now_ms, config.max_compaction_lag_ms);
    // A sync seals what was rolled; without it this round would not see the segment.
    if let Err(error) = rolled.and_then(|rolled| if rolled { log.sync(now_ms).map(drop) } else { Ok(()) }) {
        tracing::warn!(topic = %partition.topic, partition = partition.id.partition, %error, "roll failed");
    }
}

fn compact(broker: &Arc<Broker>, partition: &Arc<Partition>) -> Outcome {
    let config = partition.topic_config();
    let pace = Pace::new(text(broker, CLEANER_IO_BYTES_PER_SECOND).parse().unwrap_or(f64::MAX));
    let memory = usize::try_from(setting(broker, CLEANER_DEDUPE_BUFFER_BYTES)).unwrap_or(usize::MAX);
    let (topic, number) = (&partition.topic, partition.id.partition);
    let stable_end = partition.last_stable_offset();
    // What replaces other records must not be lost to a power failure when they are gone.
    if let Err(error) = partition.log().sync(broker.clock.wall_ms()) {
        tracing::warn!(topic, partition = number, %error, "sync failed; nothing is compacted");
        return Outcome::Fine;
    }
    let options = CompactOptions {
        now_ms: broker.clock.wall_ms(),
        stable_end,
        lag_ms_min: config.min_compaction_lag_ms,
        delete_retention_ms: config.delete_retention_ms,
        keys_max: (memory / KEY_BYTES).max(1),
        pace: &|bytes| pace.spend(bytes, || *broker.stopping.borrow()),
    };
    match partition.log().compact(&options) {
        Ok(Some(done)) => {
            broker.metrics.compacted(topic, done.bytes_before.saturating_sub(done.bytes_after));
            let (before, after) = (done.bytes_before, done.bytes_after);
            tracing::debug!(topic, partition = number, end_offset = done.end_offset, before, after, "compacted");
        }
        Ok(None) => {}
        Err(error @ (LogError::Corrupt { .. } | LogError::CorruptFile { .. })) => {
            tracing::error!(topic, partition = number, %error, "the log is damaged; it is not compacted any more until a restart");
            return Outcome::Damaged;
        }
        Err(error) => tracing::warn!(topic, partition = number, %error, "compaction failed; the log stays as it was"),
    }
    Outcome::Fine
}

/// Keeps to a number of bytes a second by sleeping.
struct Pace {
    bytes_per_second: f64,
    state: Mutex<(Instant, u64)>,
}

impl Pace {
    fn new(bytes_per_second: f64) -> Self {
        Self {
            bytes_per_second,
            state: Mutex::new((Instant::now(), 0)),
        }
    }

    /// Counts bytes, and sleeps when there were too many; false when it is time to stop. On a thread for blocking work only.
    fn spend(&self, bytes: u64, is_stopping: impl Fn() -> bool) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 += bytes;
        if state.1 < PACE_BYTES {
            return true;
        }
        loop {
            let pause = pause(state.1, self.bytes_per_second, state.0.elapsed());
            if pause.is_zero() || is_stopping() {
                break;
            }
            // In steps, so that the broker does not wait for it when it stops.
            std::thread::park_timeout(pause.min(PAUSE_STEP));
        }
        *state = (Instant::now(), 0);
        !is_stopping()
    }
}

/// What is left of the time that `bytes` should take.
fn pause(bytes: u64, bytes_per_second: f64, elapsed: Duration) -> Duration {
    let wanted = Duration::try_from_secs_f64(bytes as f64 / bytes_per_second).unwrap_or(Duration::ZERO);
    wanted.saturating_sub(elapsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_makes_up_for_being_fast() {
        let second = Duration::from_secs(1);
        assert_eq!(pause(2_000, 1_000.0, second), second);
        assert_eq!(pause(500, 1_000.0, second), Duration::ZERO);
        assert_eq!(pause(u64::MAX, f64::MAX, Duration::ZERO), Duration::ZERO);
    }
}
