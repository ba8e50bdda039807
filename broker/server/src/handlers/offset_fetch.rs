//! OffsetFetch, versions 1 to 10 (several groups at once from 8 on, topics by id in 10).

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use millstream_core::group;
use millstream_protocol::{
    ErrorCode,
    messages::{
        OffsetFetchRequest, OffsetFetchResponse,
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
            OffsetFetchResponseTopics,
        },
    },
};
use uuid::Uuid;

use super::once_by;
use crate::{
    broker::{Broker, Named},
    context::RequestContext,
    groups::GROUPS_AT_ONCE,
};

/// First version with an error for the group; before, only partitions have one.
const FIRST_VERSION_WITH_ERROR: i16 = 2;
/// First version that names topics by id (KIP-848).
const TOPIC_ID_VERSION: i16 = 10;
/// First version that asks about a batch of groups (KIP-709).
const FIRST_BATCHED_VERSION: i16 = 8;

pub(crate) async fn handle(broker: Arc<Broker>, context: RequestContext, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if context.version >= FIRST_BATCHED_VERSION {
        let require_stable = request.require_stable;
        let by_id = context.version >= TOPIC_ID_VERSION;
        let fetches = stream::iter(once_by(request.groups, |group| group.group_id.clone()))
            .map(|group| fetch_group(Arc::clone(&broker), group, require_stable, by_id));
        let groups = fetches.buffered(GROUPS_AT_ONCE).collect().await;
        return OffsetFetchResponse {
            groups,
            ..OffsetFetchResponse::default()
        };
    }
    let topics = request.topics.map(|topics| {
        topics
            .into_iter()
            .map(|topic| (topic.name.into(), topic.partition_indexes))
            .collect()
    });
    let fetch = group::OffsetFetchRequest {
        group_id: request.group_id.into(),
        topics,
        member: None,
        require_stable: request.require_stable,
    };
    match broker.groups.fetch_offsets(&broker, fetch.clone()).await {
        Ok(fetched) => OffsetFetchResponse {
            topics: fetched.into_iter().map(topic_to_wire).collect(),
            ..OffsetFetchResponse::default()
        },
        Err(error) => refused(context.version, fetch.topics.unwrap_or_default(), error),
    }
}

async fn fetch_group(broker: Arc<Broker>, request: OffsetFetchRequestGroup, require_stable: bool, by_id: bool) -> OffsetFetchResponseGroup {
    let image = broker.metadata.image();
    let mut unknown = Vec::new();
    let topics = request.topics.map(|topics| {
        let mut named: Vec<(String, Vec<i32>)> = Vec::with_capacity(topics.len());
        for topic in topics {
            match image.names.get(&topic.topic_id).filter(|_| by_id) {
                Some(name) => named.push((name.clone(), topic.partition_indexes)),
                None if by_id => unknown.push(unknown_topic(topic)),
                None => named.push((topic.name.into(), topic.partition_indexes)),
            }
        }
        named
    });
    let fetch = group::OffsetFetchRequest {
        group_id: request.group_id.clone().into(),
        topics,
        member: request.member_id.map(|id| (id.into(), request.member_epoch)),
        require_stable,
    };
    let fetched = broker.groups.fetch_offsets(&broker, fetch).await;
    let (fetched, error) = fetched.map_or_else(|error| (Vec::new(), error), |fetched| (fetched, ErrorCode::None));
    OffsetFetchResponseGroup {
        group_id: request.group_id,
        topics: fetched
            .into_iter()
            .map(|topic| {
                let topic_id = Named::by_name(&image, &topic.0).map_or(Uuid::nil(), |named| named.id());
                OffsetFetchResponseTopics {
                    topic_id,
                    ..batched_topic_to_wire(topic)
                }
            })
            .chain(unknown)
            .collect(),
        error_code: error.code(),
    }
}

fn unknown_topic(topic: OffsetFetchRequestTopics) -> OffsetFetchResponseTopics {
    let partitions = topic.partition_indexes.iter().map(|partition| OffsetFetchResponsePartitions {
        partition_index: *partition,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some("".into()),
        error_code: ErrorCode::UnknownTopicId.code(),
    });
    OffsetFetchResponseTopics {
        name: topic.name,
        topic_id: topic.topic_id,
        partitions: partitions.collect(),
    }
}

/// An error for a whole group in the versions before batches.
fn refused(version: i16, topics: Vec<(String, Vec<i32>)>, error: ErrorCode) -> OffsetFetchResponse {
    if version >= FIRST_VERSION_WITH_ERROR {
        return OffsetFetchResponse {
            error_code: error.code(),
            ..OffsetFetchResponse::default()
        };
    }
    let none = |partition| group::FetchedOffset {
        partition,
        offset: -1,
        leader_epoch: -1,
        metadata: String::new(),
        error_code: error,
    };
    let topics = topics
        .into_iter()
        .map(|(topic, partitions)| topic_to_wire((topic, partitions.into_iter().map(none).collect())));
    OffsetFetchResponse {
        topics: topics.collect(),
        ..OffsetFetchResponse::default()
    }
}

fn topic_to_wire((name, partitions): (String, Vec<group::FetchedOffset>)) -> OffsetFetchResponseTopic {
    let partitions = partitions.into_iter().map(|fetched| OffsetFetchResponsePartition {
        partition_index: fetched.partition,
        committed_offset: fetched.offset,
        committed_leader_epoch: fetched.leader_epoch,
        metadata: Some(fetched.metadata.into()),
        error_code: fetched.error_code.code(),
    });
    OffsetFetchResponseTopic {
        name: name.into(),
        partitions: partitions.collect(),
    }
}

fn batched_topic_to_wire((name, partitions): (String, Vec<group::FetchedOffset>)) -> OffsetFetchResponseTopics {
    let partitions = partitions.into_iter().map(|fetched| OffsetFetchResponsePartitions {
        partition_index: fetched.partition,
        committed_offset: fetched.offset,
        committed_leader_epoch: fetched.leader_epoch,
        metadata: Some(fetched.metadata.into()),
        error_code: fetched.error_code.code(),
    });
    OffsetFetchResponseTopics {
        name: name.into(),
        partitions: partitions.collect(),
        ..OffsetFetchResponseTopics::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_carries_errors_per_partition_only() {
        let topics = || vec![("t".to_owned(), vec![0, 3])];
        let response = refused(1, topics(), ErrorCode::NotCoordinator);
        let partitions: Vec<_> = response.topics[0]
            .partitions
            .iter()
            .map(|it| (it.partition_index, it.committed_offset, it.error_code))
            .collect();
        assert_eq!(response.error_code, 0);
        assert_eq!(
            partitions,
            [(0, -1, ErrorCode::NotCoordinator.code()), (3, -1, ErrorCode::NotCoordinator.code())]
        );

        let response = refused(2, topics(), ErrorCode::NotCoordinator);
        assert_eq!((response.error_code, response.topics.len()), (ErrorCode::NotCoordinator.code(), 0));
    }
}
