//! What happens by itself: rolling old segments, retention of logs that are not tiered.

use std::{sync::Arc, time::Duration};

use crate::{broker::Broker, partition::Partition};

/// Time between two looks at the age of active segments, and of what is not synced.
const ROLL_INTERVAL: Duration = Duration::from_secs(1);

/// Starts the background work; it ends when the broker stops.
pub(crate) fn spawn(broker: &Arc<Broker>) {
    let retention_ms = u64::try_from(broker.config.number("log.retention.check.interval.ms")).unwrap_or(u64::MAX);
    every(broker, ROLL_INTERVAL, look_after_age);
    revive_coordinators(broker);
    every(broker, Duration::from_millis(retention_ms), enforce_retention);
}

/// A coordinator whose log failed for a while has nobody to wake it but the next request; sessions and transactions that wait for time need it
/// sooner.
fn revive_coordinators(broker: &Arc<Broker>) {
    let broker = Arc::clone(broker);
    tokio::spawn(async move {
        loop {
            // Cancel safe: both only wait.
            tokio::select! {
                () = tokio::time::sleep(ROLL_INTERVAL) => {
                    broker.groups.load(&broker);
                    broker.transactions.load(&broker);
                }
                () = broker.stopped() => return,
            }
        }
    });
}

fn every(broker: &Arc<Broker>, interval: Duration, work: fn(&Broker, &Arc<Partition>)) {
    let broker = Arc::clone(broker);
    tokio::spawn(async move {
        loop {
            // Cancel safe: both only wait.
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = broker.stopped() => return,
            }
            let worker = Arc::clone(&broker);
            let round = tokio::task::spawn_blocking(move || {
                for partition in worker.all_partitions() {
                    work(&worker, &partition);
                }
            });
            if let Err(error) = round.await {
                tracing::error!(%error, "housekeeping panicked");
            }
        }
    });
}

/// Rolls and syncs what is old enough.
fn look_after_age(broker: &Broker, partition: &Arc<Partition>) {
    let config = partition.topic_config();
    let mut age_ms = partition.log().segment_age_max_ms();
    if config.remote_storage_enable && broker.remote.is_some() {
        // What is not rolled cannot be uploaded; this bounds what a lost disk takes along.
        age_ms = age_ms.min(config.tiered_max_lag_ms);
    }
    match partition.log().roll_if_older(broker.clock.wall_ms(), age_ms) {
        Ok(_) => seal_rolled(broker, partition),
        Err(error) => tracing::warn!(topic = %partition.topic, partition = partition.id.partition, %error, "roll failed"),
    }
    partition.flush_if_due(broker.clock.wall_ms());
}

/// A rolled segment is sealed by a sync, and an idle log has nobody else to ask for one.
fn seal_rolled(broker: &Broker, partition: &Arc<Partition>) {
    if partition.log().has_rolled_segments() {
        broker.log_dir().request_sync(partition.log());
    }
}

fn enforce_retention(broker: &Broker, partition: &Arc<Partition>) {
    partition.log().expire_producers(broker.clock.wall_ms());
    if partition.topic_config().remote_storage_enable && broker.remote.is_some() {
        // The tier decides over the whole log, its local part included.
        return;
    }
    match partition.log().enforce_retention(broker.clock.wall_ms()) {
        Ok(0) => seal_rolled(broker, partition),
        Ok(deleted) => tracing::info!(topic = %partition.topic, partition = partition.id.partition, deleted, "deleted expired segments"),
        Err(error) => tracing::warn!(topic = %partition.topic, partition = partition.id.partition, %error, "retention failed"),
    }
}
