//! OffsetCommit, versions 2 to 10. The last names topics by id (KIP-848).

use std::sync::Arc;

use millstream_core::{group, metadata::ClusterImage};
use millstream_protocol::{
    ErrorCode,
    messages::{
        OffsetCommitRequest, OffsetCommitResponse,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
    },
};
use uuid::Uuid;

use crate::{
    broker::{Broker, Named},
    context::RequestContext,
    groups::outcomes::{any_exists, merge, partition_count},
};

/// First version that names topics by id.
const TOPIC_ID_VERSION: i16 = 10;
/// First version whose clients know GROUP_ID_NOT_FOUND (KIP-848).
const FIRST_VERSION_WITH_GROUP_ID_NOT_FOUND: i16 = 9;

pub(crate) async fn handle(broker: Arc<Broker>, context: RequestContext, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let image = broker.metadata.image();
    let mut request = request;
    let mut unknown = Vec::new();
    if context.version >= TOPIC_ID_VERSION {
        for topic in std::mem::take(&mut request.topics) {
            match image.names.get(&topic.topic_id) {
                Some(name) => request.topics.push(OffsetCommitRequestTopic {
                    name: name.as_str().into(),
                    ..topic
                }),
                None => unknown.push(unknown_topic(topic)),
            }
        }
    }
    let mut response = commit(&broker, &context, &image, request).await;
    for topic in &mut response.topics {
        topic.topic_id = Named::by_name(&image, &topic.name).map_or(Uuid::nil(), |named| named.id());
    }
    response.topics.extend(unknown);
    response
}

fn unknown_topic(topic: OffsetCommitRequestTopic) -> OffsetCommitResponseTopic {
    let partitions = topic.partitions.iter().map(|commit| OffsetCommitResponsePartition {
        partition_index: commit.partition_index,
        error_code: ErrorCode::UnknownTopicId.code(),
    });
    OffsetCommitResponseTopic {
        name: topic.name,
        topic_id: topic.topic_id,
        partitions: partitions.collect(),
    }
}

async fn commit(
    broker: &Arc<Broker>,
    context: &RequestContext,
    image: &ClusterImage,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let mut asked = Vec::with_capacity(request.topics.len());
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let name = String::from(topic.name);
        let known = 0..partition_count(image, &name);
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
    to_wire(merge(asked, broker.groups.commit_offsets(broker, commit).await))
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
