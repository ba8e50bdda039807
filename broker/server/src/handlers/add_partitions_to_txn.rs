//! AddPartitionsToTxn: a producer of transaction version 1 says where it is going to write. From version 4 on, brokers ask for many
//! transactions at once, or whether partitions are in one (KIP-890).

use std::sync::Arc;

use millstream_core::{
    metadata::{ClusterImage, names},
    txn::{AddPartitions, Checked, ProducerIdAndEpoch, TopicPartitions, TransactionVersion},
};
use millstream_protocol::{
    ErrorCode,
    messages::{
        AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
        add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction},
        add_partitions_to_txn_response::{AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult},
    },
};

use super::init_producer_id::fenced_for;
use crate::{broker::Broker, context::RequestContext};

/// First version whose clients know PRODUCER_FENCED.
const KNOWS_FENCED: i16 = 2;
/// First version with many transactions in a request.
const FIRST_BATCHED_VERSION: i16 = 4;

pub(crate) async fn handle(broker: Arc<Broker>, context: RequestContext, request: AddPartitionsToTxnRequest) -> AddPartitionsToTxnResponse {
    if context.version < FIRST_BATCHED_VERSION {
        let single = AddPartitionsToTxnTransaction {
            transactional_id: request.v3_and_below_transactional_id,
            producer_id: request.v3_and_below_producer_id,
            producer_epoch: request.v3_and_below_producer_epoch,
            verify_only: false,
            topics: request.v3_and_below_topics,
        };
        return AddPartitionsToTxnResponse {
            results_by_topic_v3_and_below: add(&broker, &context, single).await,
            ..AddPartitionsToTxnResponse::default()
        };
    }
    let mut results = Vec::with_capacity(request.transactions.len());
    for transaction in request.transactions {
        results.push(AddPartitionsToTxnResult {
            transactional_id: transaction.transactional_id.clone(),
            topic_results: add(&broker, &context, transaction).await,
        });
    }
    AddPartitionsToTxnResponse {
        results_by_transaction: results,
        ..AddPartitionsToTxnResponse::default()
    }
}

async fn add(
    broker: &Arc<Broker>,
    context: &RequestContext,
    transaction: AddPartitionsToTxnTransaction,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let image = broker.metadata.image();
    let missing = |topic: &str, partition: i32| !exists(&image, topic, partition);
    let producer = ProducerIdAndEpoch {
        id: transaction.producer_id,
        epoch: transaction.producer_epoch,
    };
    let id = String::from(transaction.transactional_id);
    let topics = transaction.topics;
    if transaction.verify_only {
        let mut results = Vec::with_capacity(topics.len());
        for topic in topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in topic.partitions {
                let verified = broker.transactions.verify(broker, &id, producer, &topic.name, partition).await;
                partitions.push((partition, code(verified)));
            }
            results.push(to_wire(
                AddPartitionsToTxnTopic {
                    name: topic.name,
                    ..Default::default()
                },
                partitions,
            ));
        }
        return results;
    }
    // All or none: a producer that is told of one missing partition gives up the transaction.
    let is_internal = |topic: &str| names::is_reserved(topic);
    let any_internal = topics.iter().any(|topic| is_internal(&topic.name));
    let any_missing = topics
        .iter()
        .any(|topic| topic.partitions.iter().any(|partition| missing(&topic.name, *partition)));
    let outcome = if id.is_empty() {
        Err(ErrorCode::InvalidRequest)
    } else if any_missing || any_internal {
        Err(ErrorCode::OperationNotAttempted)
    } else {
        let mut partitions = TopicPartitions::new();
        for topic in &topics {
            partitions
                .entry(topic.name.as_str().to_owned())
                .or_default()
                .extend(&topic.partitions);
        }
        let request = AddPartitions {
            transactional_id: id,
            producer,
            partitions,
            version: TransactionVersion::One,
        };
        broker.transactions.add_partitions(broker, request).await
    };
    let outcome = fenced_for(code(outcome), context.version >= KNOWS_FENCED);
    let results = topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let error = if is_internal(&topic.name) {
                ErrorCode::TopicAuthorizationFailed
            } else if any_missing && missing(&topic.name, *partition) {
                ErrorCode::UnknownTopicOrPartition
            } else {
                outcome
            };
            (*partition, error)
        });
        let partitions = partitions.collect();
        to_wire(topic, partitions)
    });
    results.collect()
}

fn exists(image: &ClusterImage, topic: &str, partition: i32) -> bool {
    let number = usize::try_from(partition).unwrap_or(usize::MAX);
    image.topic(topic).is_some_and(|topic| number < topic.partitions.len())
}

/// The code of an outcome.
pub(super) fn code(outcome: Checked) -> ErrorCode {
    outcome.err().unwrap_or(ErrorCode::None)
}

fn to_wire(topic: AddPartitionsToTxnTopic, partitions: Vec<(i32, ErrorCode)>) -> AddPartitionsToTxnTopicResult {
    let results = partitions
        .into_iter()
        .map(|(partition_index, error)| AddPartitionsToTxnPartitionResult {
            partition_index,
            partition_error_code: error.code(),
        });
    AddPartitionsToTxnTopicResult {
        name: topic.name,
        results_by_partition: results.collect(),
    }
}
