//! DeleteRecords: moves the start of partitions' logs, and says where they start now.

use std::{sync::Arc, time::Duration};

use millstream_core::metadata::{ClusterImage, configs::CleanupPolicy};
use millstream_protocol::{
    ErrorCode,
    messages::{
        DeleteRecordsRequest, DeleteRecordsResponse,
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
    },
};
use tokio::time::Instant;

use crate::{
    broker::{Broker, Named},
    context::RequestContext,
    partition::Partition,
};

/// What a client sends to delete everything that consumers may read.
const UP_TO_HIGH_WATERMARK: i64 = -1;
/// What is answered where nothing was deleted.
const NO_LOW_WATERMARK: i64 = -1;

/// Handles a request.
pub async fn handle(broker: Arc<Broker>, _context: RequestContext, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    await_appended(&broker, &request).await;
    // Files are deleted and a checkpoint is written, so all of it runs off the runtime.
    let deletion = tokio::task::spawn_blocking(move || {
        let image = broker.metadata.image();
        request
            .topics
            .into_iter()
            .map(|topic| delete_in_topic(&broker, &image, topic))
            .collect()
    });
    let topics = deletion.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    DeleteRecordsResponse {
        topics,
        ..Default::default()
    }
}

/// Waits for what is appended but not safe yet, as far as the request's time allows: with acks=1 a producer may know of it already.
async fn await_appended(broker: &Broker, request: &DeleteRecordsRequest) {
    let deadline = Instant::now() + Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let image = broker.metadata.image();
    for topic in &request.topics {
        for asked in &topic.partitions {
            let Ok(partition) = find(broker, &image, &topic.name, asked.partition_index) else {
                continue;
            };
            let log_end = partition.log().log_end_offset();
            let wanted = if asked.offset == UP_TO_HIGH_WATERMARK {
                log_end
            } else {
                asked.offset
            };
            if wanted <= log_end && tokio::time::timeout_at(deadline, partition.wait_for(wanted)).await.is_err() {
                return;
            }
        }
    }
}

fn delete_in_topic(broker: &Broker, image: &ClusterImage, topic: DeleteRecordsTopic) -> DeleteRecordsTopicResult {
    let delete = |asked: DeleteRecordsPartition| {
        let found = find(broker, image, &topic.name, asked.partition_index);
        let outcome = found.and_then(|partition| delete_in_partition(&partition, asked.offset));
        DeleteRecordsPartitionResult {
            partition_index: asked.partition_index,
            low_watermark: outcome.unwrap_or(NO_LOW_WATERMARK),
            error_code: outcome.err().unwrap_or(ErrorCode::None).code(),
        }
    };
    DeleteRecordsTopicResult {
        partitions: topic.partitions.into_iter().map(delete).collect(),
        name: topic.name,
    }
}

fn find(broker: &Broker, image: &ClusterImage, name: &str, number: i32) -> Result<Arc<Partition>, ErrorCode> {
    match Named::by_name(image, name).ok_or(ErrorCode::UnknownTopicOrPartition)? {
        Named::Topic(topic) if !topic.internal => broker.partition(&topic, number).ok_or(ErrorCode::UnknownTopicOrPartition),
        // Views store nothing, and what the broker keeps for itself is its own to delete.
        Named::Topic(_) | Named::View(..) => Err(ErrorCode::InvalidTopicException),
    }
}

/// Deletes what lies below `offset`; answers the log's new start.
fn delete_in_partition(partition: &Partition, offset: i64) -> Result<i64, ErrorCode> {
    let target = target(partition.topic_config().cleanup_policy, offset, partition.high_watermark())?;
    partition.log().advance_log_start(target).map_err(|error| {
        tracing::error!(topic = partition.topic, partition = partition.id.partition, %error, "records could not be deleted");
        ErrorCode::KafkaStorageError
    })?;
    Ok(partition.log().log_start_offset())
}

/// Where the log shall start.
fn target(policy: CleanupPolicy, offset: i64, high_watermark: i64) -> Result<i64, ErrorCode> {
    if !policy.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    match offset {
        UP_TO_HIGH_WATERMARK => Ok(high_watermark),
        _ if (0..=high_watermark).contains(&offset) => Ok(offset),
        _ => Err(ErrorCode::OffsetOutOfRange),
    }
}

#[cfg(test)]
mod tests {
    use millstream_log::disk::MemoryDisk;
    use millstream_protocol::{KString, record::BatchHeader};

    use super::*;
    use crate::handlers::fetch_tests::{self, batch, context};

    const DELETE: CleanupPolicy = CleanupPolicy {
        delete: true,
        compact: false,
    };

    #[test]
    fn records_are_deleted_up_to_the_high_watermark_and_no_further() {
        assert_eq!(target(DELETE, -1, 10), Ok(10));
        assert_eq!([target(DELETE, 0, 10), target(DELETE, 10, 10)], [Ok(0), Ok(10)]);
        assert_eq!(
            [target(DELETE, 11, 10), target(DELETE, -2, 10)],
            [Err(ErrorCode::OffsetOutOfRange); 2]
        );
    }

    #[test]
    fn a_topic_that_is_only_compacted_keeps_its_records() {
        assert_eq!(
            target(
                CleanupPolicy {
                    delete: false,
                    compact: true
                },
                -1,
                10
            ),
            Err(ErrorCode::PolicyViolation)
        );
        assert_eq!(
            target(
                CleanupPolicy {
                    delete: true,
                    compact: true
                },
                -1,
                10
            ),
            Ok(10)
        );
    }

    #[tokio::test]
    async fn what_is_appended_but_not_safe_yet_is_waited_for() {
        let disk = MemoryDisk::new();
        let broker = fetch_tests::broker(&disk, 1).await;
        let topic = Arc::clone(broker.metadata.image().topic("t").unwrap());
        for (number, asked) in [(0, 3), (1, UP_TO_HIGH_WATERMARK)] {
            let partition = broker.partition(&topic, number).unwrap();
            let bytes = batch();
            disk.hold_syncs(true);
            partition.append(&BatchHeader::parse(&bytes).unwrap(), &bytes, 0, None).unwrap();
            let request = DeleteRecordsRequest {
                topics: vec![DeleteRecordsTopic {
                    name: KString::from_static("t"),
                    partitions: vec![DeleteRecordsPartition {
                        partition_index: number,
                        offset: asked,
                    }],
                }],
                timeout_ms: 60_000,
            };
            let mut deletion = tokio::spawn(handle(Arc::clone(&broker), context(2), request));
            let early = tokio::time::timeout(Duration::from_millis(20), &mut deletion).await;
            disk.hold_syncs(false);
            assert!(early.is_err(), "{early:?}");
            let response = deletion.await.unwrap();
            let result = &response.topics[0].partitions[0];
            assert_eq!((result.error_code, result.low_watermark), (0, 3));
        }
        broker.shutdown().await.unwrap();
    }
}
