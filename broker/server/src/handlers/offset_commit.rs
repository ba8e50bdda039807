//! OffsetCommit, versions 2 to 9.

use std::sync::Arc;

use millstream_core::group;
use millstream_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse,
    offset_commit_request::OffsetCommitRequestPartition,
    offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
};

use crate::{
    broker::Broker,
    context::RequestContext,
    groups::outcomes::{any_exists, merge, partition_count},
};

/// First version whose clients know GROUP_ID_NOT_FOUND (KIP-848).
const FIRST_VERSION_WITH_GROUP_ID_NOT_FOUND: i16 = 9;

pub(crate) async fn handle(broker: Arc<Broker>, context: RequestContext, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let image = broker.metadata.image();
    let mut asked = Vec::with_capacity(request.topics.len());
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let name = String::from(topic.name);
        let known = 0..partition_count(&image, &name);
        asked.push((
            name.clone(),
            topic
                .partitions
                .iter()
                .map(|commit| (commit.partition_index, known.contains(&commit.partition_index)))
                .collect(),
        ));
        let commits = topic
            .partitions
            .into_iter()
            .filter(|commit| known.contains(&commit.partition_index));
        topics.push((name, commits.map(to_core).collect()));
    }
    if !any_exists(&asked) {
        return to_wire(merge(asked, Ok(Vec::new())));
    }
    let commit = group::OffsetCommitRequest {
        group_id: request.group_id.into(),
        generation_id: request.generation_id_or_member_epoch,
        member_id: request.member_id.into(),
        group_instance_id: request.group_instance_id.map(String::from),
        retention_time_ms: Some(request.retention_time_ms).filter(|retention_ms| *retention_ms >= 0),
        knows_group_id_not_found: context.version >= FIRST_VERSION_WITH_GROUP_ID_NOT_FOUND,
        topics,
    };
    to_wire(merge(asked, broker.groups.commit_offsets(&broker, commit).await))
}

fn to_core(commit: OffsetCommitRequestPartition) -> group::OffsetCommitPartition {
    group::OffsetCommitPartition {
        partition: commit.partition_index,
        offset: commit.committed_offset,
        leader_epoch: commit.committed_leader_epoch,
        metadata: commit.committed_metadata.map(String::from),
    }
}

fn to_wire(outcomes: group::PartitionOutcomes) -> OffsetCommitResponse {
    let topics = outcomes.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter();
        let partitions = partitions.map(|(partition_index, outcome)| OffsetCommitResponsePartition {
            partition_index,
            error_code: outcome.code(),
        });
        OffsetCommitResponseTopic {
            name: name.into(),
            partitions: partitions.collect(),
            ..OffsetCommitResponseTopic::default()
        }
    });
    OffsetCommitResponse {
        throttle_time_ms: 0,
        topics: topics.collect(),
    }
}
