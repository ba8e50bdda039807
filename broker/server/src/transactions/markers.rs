//! Writes the markers of transactions whose outcome is decided. Nothing gives up: while the broker lives, a marker that could not be
//! written is tried again, and after a restart the coordinator asks for all of them anew.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::join_all;
use millstream_core::{
    metadata::names::{self, CONSUMER_OFFSETS},
    txn::{EndedTransaction, ProducerIdAndEpoch, TransactionCoordinator},
};
use millstream_log::ProducerEntry;
use millstream_protocol::{
    ErrorCode,
    record::{BatchHeader, Marker},
};

use crate::{
    broker::Broker,
    coordination::{Answer, Effects},
    errors::{append_error_code, batch_error_code},
    partition::Partition,
};

/// Pause before a marker is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Carries out what a coordinator decided.
pub(super) struct Markers {
    broker: Weak<Broker>,
    coordinator_epoch: i32,
    /// Lives as long as the shard: another one that took over writes the markers itself, and late ones would reach into the next transaction.
    alive: Arc<()>,
}

impl Markers {
    pub fn new(broker: Weak<Broker>, coordinator_epoch: i32) -> Self {
        Self {
            broker,
            coordinator_epoch,
            alive: Arc::new(()),
        }
    }
}

impl Effects<TransactionCoordinator> for Markers {
    fn carry(&mut self, ended: EndedTransaction) -> Answer {
        let (broker, coordinator_epoch) = (Weak::clone(&self.broker), self.coordinator_epoch);
        let alive = Arc::downgrade(&self.alive);
        Box::new(move || {
            if let Some(broker) = broker.upgrade() {
                tokio::spawn(finish(broker, ended, coordinator_epoch, alive));
            }
        })
    }
}

/// Writes all markers of a transaction and tells its coordinator.
async fn finish(broker: Arc<Broker>, ended: EndedTransaction, coordinator_epoch: i32, alive: Weak<()>) {
    let EndedTransaction {
        transactional_id,
        producer,
        commit,
        partitions,
        prepared_ms,
    } = ended;
    let marker = Marker { commit, coordinator_epoch };
    let topics = partitions.iter();
    let partitions = topics.flat_map(|(topic, partitions)| partitions.iter().map(move |partition| (topic, *partition)));
    let writes = partitions.map(|(topic, partition)| write_until_done(&broker, &alive, topic, partition, producer, marker));
    if !join_all(writes).await.into_iter().all(|done| done) {
        return;
    }
    let id = transactional_id.clone();
    let noted = broker
        .transactions
        .markers_written(&broker, transactional_id, producer, prepared_ms)
        .await;
    if let Err(error) = noted {
        // The next shard of this coordinator writes the markers again; a second one changes nothing.
        tracing::warn!(transactional_id = id, ?error, "the end of a transaction could not be noted yet");
    }
}

/// Whether the partition has its marker, or never will need one; false when the broker stops.
async fn write_until_done(
    broker: &Arc<Broker>,
    alive: &Weak<()>,
    topic: &str,
    number: i32,
    producer: ProducerIdAndEpoch,
    mut marker: Marker,
) -> bool {
    loop {
        if alive.strong_count() == 0 {
            return false;
        }
        let partition = broker
            .metadata
            .image()
            .topic(topic)
            .and_then(|image| broker.partition(image, number));
        // A topic that was deleted meanwhile needs no marker.
        let Some(partition) = partition else { return true };
        match write_marker(broker, &partition, producer, marker).await {
            Ok(()) => return true,
            Err(ErrorCode::TransactionCoordinatorFenced) => {
                // Somebody ended a transaction under a later epoch, as an operator can. This one must end nevertheless.
                let open_under = partition.log().with_producers(|producers| {
                    producers.transaction_since(producer.id)?;
                    producers.get(producer.id).map(ProducerEntry::coordinator_epoch)
                });
                match open_under {
                    Some(coordinator_epoch) => marker.coordinator_epoch = coordinator_epoch,
                    None => return true,
                }
                continue;
            }
            Err(error @ ErrorCode::InvalidProducerEpoch) => {
                tracing::warn!(
                    topic,
                    partition = number,
                    producer_id = producer.id,
                    ?error,
                    "a marker came too late"
                );
                return true;
            }
            Err(error) => tracing::warn!(
                topic,
                partition = number,
                ?error,
                "a transaction marker is not durable; trying again"
            ),
        }
        // Cancel safe: both only wait.
        tokio::select! {
            () = tokio::time::sleep(RETRY_PAUSE) => {}
            () = broker.stopped() => return false,
        }
    }
}

/// Appends a marker to a partition and waits until it is durable.
pub(crate) async fn write_marker(
    broker: &Arc<Broker>,
    partition: &Arc<Partition>,
    producer: ProducerIdAndEpoch,
    marker: Marker,
) -> Result<(), ErrorCode> {
    if partition.topic == CONSUMER_OFFSETS {
        return broker.groups.write_marker(partition, producer.id, producer.epoch, marker).await;
    }
    if names::is_reserved(&partition.topic) {
        // The broker's own records know no transactions.
        return Err(ErrorCode::InvalidTopicException);
    }
    if partition.is_closed() {
        return Err(ErrorCode::KafkaStorageError);
    }
    let now_ms = broker.clock.wall_ms();
    let batch = marker.encode(producer.id, producer.epoch, now_ms).map_err(|error| {
        tracing::error!(%error, "a transaction marker could not be encoded");
        ErrorCode::UnknownServerError
    })?;
    let header = BatchHeader::parse(&batch).map_err(|error| batch_error_code(&error))?;
    let appended = partition
        .append(&header, &batch, now_ms, None)
        .map_err(|error| append_error_code(&error))?;
    if partition.wait_durable(appended.log_end_offset, now_ms).await {
        Ok(())
    } else {
        Err(ErrorCode::KafkaStorageError)
    }
}
