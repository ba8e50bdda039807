//! TxnOffsetCommit: a group's offsets as part of a producer's transaction. They become visible with its commit.

use std::sync::Arc;

use millstream_core::{
    group,
    txn::{ProducerIdAndEpoch, TransactionVersion},
};
use millstream_protocol::{
    ErrorCode,
    messages::{
        TxnOffsetCommitRequest, TxnOffsetCommitResponse,
        txn_offset_commit_request::TxnOffsetCommitRequestPartition,
        txn_offset_commit_response::{TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic},
    },
    record::NO_SEQUENCE,
};

use crate::{
    broker::Broker,
    context::RequestContext,
    coordination::Producer,
    groups::outcomes::{AskedPartitions, any_exists, merge, partition_count},
    transactions::verified_write,
};

/// First version of transaction version 2.
const VERSION_TWO: i16 = 5;
/// First version that names the member (KIP-447).
const NAMES_MEMBER: i16 = 3;

pub(crate) async fn handle(broker: Arc<Broker>, context: RequestContext, request: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
    let image = broker.metadata.image();
    let mut asked: AskedPartitions = Vec::with_capacity(request.topics.len());
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let name = String::from(topic.name);
        let known = 0..partition_count(&image, &name);
        let exists = |commit: &TxnOffsetCommitRequestPartition| known.contains(&commit.partition_index);
        let partitions = topic.partitions.iter();
        asked.push((
            name.clone(),
            partitions.map(|commit| (commit.partition_index, exists(commit))).collect(),
        ));
        topics.push((name, topic.partitions.into_iter().filter(exists).map(to_core).collect()));
    }
    if !any_exists(&asked) {
        return to_wire(merge(asked, Ok(Vec::new())));
    }
    let producer = ProducerIdAndEpoch {
        id: request.producer_id,
        epoch: request.producer_epoch,
    };
    let commit = group::OffsetCommitRequest {
        group_id: request.group_id.into(),
        generation_id: request.generation_id,
        member_id: request.member_id.into(),
        group_instance_id: request.group_instance_id.map(String::from),
        retention_time_ms: None,
        knows_group_id_not_found: context.version >= NAMES_MEMBER,
        topics,
    };
    let outcome = commit_within(&broker, &context, &request.transactional_id, producer, commit).await;
    to_wire(merge(asked, outcome))
}

async fn commit_within(
    broker: &Arc<Broker>,
    context: &RequestContext,
    transactional_id: &str,
    producer: ProducerIdAndEpoch,
    commit: group::OffsetCommitRequest,
) -> Result<group::PartitionOutcomes, ErrorCode> {
    /// First version whose clients know TRANSACTION_ABORTABLE.
    const KNOWS_ABORTABLE: i16 = 4;
    if commit.group_id.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    let version = if context.version >= VERSION_TWO {
        TransactionVersion::Two
    } else {
        TransactionVersion::One
    };
    let partition = broker.groups.partition_of(broker, &commit.group_id).await?;
    let verified = verified_write(broker, &partition, transactional_id, producer, NO_SEQUENCE, version).await;
    let guard = verified.map_err(|error| match error {
        // What clients of version 1 know from before there was a verification.
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        ErrorCode::ConcurrentTransactions if version == TransactionVersion::One => ErrorCode::CoordinatorLoadInProgress,
        ErrorCode::TransactionAbortable if context.version < KNOWS_ABORTABLE => ErrorCode::InvalidTxnState,
        other => other,
    })?;
    let producer = Producer {
        id: producer.id,
        epoch: producer.epoch,
        guard,
    };
    broker.groups.commit_offsets_in_transaction(&partition, producer, commit).await
}

fn to_core(commit: TxnOffsetCommitRequestPartition) -> group::OffsetCommitPartition {
    group::OffsetCommitPartition {
        partition: commit.partition_index,
        offset: commit.committed_offset,
        leader_epoch: commit.committed_leader_epoch,
        metadata: commit.committed_metadata.map(String::from),
    }
}

fn to_wire(outcomes: group::PartitionOutcomes) -> TxnOffsetCommitResponse {
    let topics = outcomes.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter();
        let partitions = partitions.map(|(partition_index, outcome)| TxnOffsetCommitResponsePartition {
            partition_index,
            error_code: outcome.code(),
        });
        TxnOffsetCommitResponseTopic {
            name: name.into(),
            partitions: partitions.collect(),
        }
    });
    TxnOffsetCommitResponse {
        throttle_time_ms: 0,
        topics: topics.collect(),
    }
}
