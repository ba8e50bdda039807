//! Offsets of share groups, for administrators: DescribeShareGroupOffsets, AlterShareGroupOffsets, DeleteShareGroupOffsets (KIP-932).

use std::{collections::BTreeMap, sync::Arc};

use millstream_core::{group::modern::ModernKind, metadata::ClusterImage, share::ShareKey};
use millstream_protocol::{
    ErrorCode, KString,
    messages::{
        AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse, DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsResponse,
        DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse,
        alter_share_group_offsets_response::{AlterShareGroupOffsetsResponsePartition, AlterShareGroupOffsetsResponseTopic},
        delete_share_group_offsets_response::DeleteShareGroupOffsetsResponseTopic,
        describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup,
        describe_share_group_offsets_response::{
            DescribeShareGroupOffsetsResponseGroup, DescribeShareGroupOffsetsResponsePartition, DescribeShareGroupOffsetsResponseTopic,
        },
    },
};
use uuid::Uuid;

use super::once_by;
use crate::{
    broker::Broker,
    context::RequestContext,
    features::{GroupKind, serves_groups},
};

type Offsets = BTreeMap<ShareKey, (i64, i64)>;

pub(crate) async fn describe(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: DescribeShareGroupOffsetsRequest,
) -> DescribeShareGroupOffsetsResponse {
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in once_by(request.groups, |group| group.group_id.clone()) {
        let group_id = group.group_id.clone();
        groups.push(match describe_group(&broker, group).await {
            Ok(topics) => DescribeShareGroupOffsetsResponseGroup {
                group_id,
                topics,
                ..Default::default()
            },
            Err(error) => DescribeShareGroupOffsetsResponseGroup {
                error_message: Some(message(error, &group_id)),
                group_id,
                error_code: error.code(),
                ..Default::default()
            },
        });
    }
    DescribeShareGroupOffsetsResponse {
        throttle_time_ms: 0,
        groups,
    }
}

fn message(error: ErrorCode, group_id: &str) -> KString {
    if error == ErrorCode::GroupIdNotFound {
        KString::from(format!("Group {group_id} not found."))
    } else {
        KString::from_static(error.message())
    }
}

async fn describe_group(
    broker: &Arc<Broker>,
    group: DescribeShareGroupOffsetsRequestGroup,
) -> Result<Vec<DescribeShareGroupOffsetsResponseTopic>, ErrorCode> {
    match members(broker, &group.group_id).await {
        // One that nobody has made yet has no offsets.
        Ok(_) | Err(ErrorCode::GroupIdNotFound) => {}
        Err(error) => return Err(error),
    }
    let image = broker.metadata.image();
    let offsets = broker.shares.offsets(broker, &group.group_id).await?;
    let wanted: Vec<(String, Vec<i32>)> = match group.topics {
        Some(topics) => topics
            .into_iter()
            .map(|topic| (topic.topic_name.into(), topic.partitions))
            .collect(),
        None => known(&image, &offsets),
    };
    let topics = wanted.into_iter().map(|(name, partitions)| {
        let topic = image.topic(&name);
        let topic_id = topic.map_or(Uuid::nil(), |topic| topic.id);
        let partitions = partitions.into_iter().map(|partition_index| {
            let partition = topic.and_then(|topic| broker.partition(topic, partition_index));
            let key = ShareKey {
                group_id: group.group_id.to_string(),
                topic_id,
                partition: partition_index,
            };
            match (partition, offsets.get(&key)) {
                (None, _) => DescribeShareGroupOffsetsResponsePartition {
                    partition_index,
                    start_offset: -1,
                    error_code: ErrorCode::UnknownTopicOrPartition.code(),
                    error_message: Some(KString::from_static(ErrorCode::UnknownTopicOrPartition.message())),
                    ..Default::default()
                },
                (Some(_), None) => DescribeShareGroupOffsetsResponsePartition {
                    partition_index,
                    start_offset: -1,
                    ..Default::default()
                },
                (Some(partition), Some((start_offset, done_above))) => DescribeShareGroupOffsetsResponsePartition {
                    partition_index,
                    start_offset: *start_offset,
                    leader_epoch: partition.leader_epoch(),
                    lag: (partition.high_watermark() - start_offset - done_above).max(0),
                    ..Default::default()
                },
            }
        });
        DescribeShareGroupOffsetsResponseTopic {
            partitions: partitions.collect(),
            topic_name: name.into(),
            topic_id,
        }
    });
    Ok(topics.collect())
}

fn known(image: &ClusterImage, offsets: &Offsets) -> Vec<(String, Vec<i32>)> {
    let mut topics: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for key in offsets.keys() {
        if let Some(name) = image.names.get(&key.topic_id) {
            topics.entry(name.clone()).or_default().push(key.partition);
        }
    }
    topics.into_iter().collect()
}

/// The number of a share group's members.
async fn members(broker: &Arc<Broker>, group_id: &str) -> Result<usize, ErrorCode> {
    if group_id.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    let described = broker
        .groups
        .describe_modern(broker, ModernKind::Share, group_id.to_owned())
        .await?;
    described.map(|group| group.members.len()).map_err(|refusal| refusal.code)
}

async fn is_empty_group(broker: &Arc<Broker>, group_id: &str) -> Result<(), ErrorCode> {
    match members(broker, group_id).await? {
        0 => Ok(()),
        _ => Err(ErrorCode::NonEmptyGroup),
    }
}

pub(crate) async fn alter(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: AlterShareGroupOffsetsRequest,
) -> AlterShareGroupOffsetsResponse {
    let group_id = request.group_id.to_string();
    let created = if group_id.is_empty() {
        Err(ErrorCode::InvalidGroupId)
    } else if !serves_groups(&broker, &broker.metadata.image(), GroupKind::Share) {
        Err(ErrorCode::UnsupportedVersion)
    } else {
        broker.groups.create_empty_share_group(&broker, group_id).await
    };
    if let Err(error) = created {
        return AlterShareGroupOffsetsResponse {
            error_code: error.code(),
            error_message: Some(message(error, &request.group_id)),
            ..Default::default()
        };
    }
    let image = broker.metadata.image();
    let mut responses = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let known = image.topic(&topic.topic_name);
        let topic_id = known.map_or(Uuid::nil(), |known| known.id);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in topic.partitions {
            let partition = known.and_then(|known| broker.partition(known, wanted.partition_index));
            let key = ShareKey {
                group_id: request.group_id.to_string(),
                topic_id,
                partition: wanted.partition_index,
            };
            let outcome = match partition {
                Some(partition) => {
                    // Beyond the log's ends there is nothing to begin with.
                    let log = partition.log();
                    let offset = wanted.start_offset.min(log.log_end_offset()).max(log.log_start_offset());
                    broker.shares.set_offset(&broker, key, offset).await
                }
                None => Err(ErrorCode::UnknownTopicOrPartition),
            };
            partitions.push(AlterShareGroupOffsetsResponsePartition {
                partition_index: wanted.partition_index,
                error_code: outcome.err().unwrap_or(ErrorCode::None).code(),
                error_message: outcome.err().map(|error| KString::from_static(error.message())),
            });
        }
        responses.push(AlterShareGroupOffsetsResponseTopic {
            topic_name: topic.topic_name,
            topic_id,
            partitions,
        });
    }
    AlterShareGroupOffsetsResponse {
        responses,
        ..Default::default()
    }
}

pub(crate) async fn delete(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: DeleteShareGroupOffsetsRequest,
) -> DeleteShareGroupOffsetsResponse {
    let refused = |error: ErrorCode| DeleteShareGroupOffsetsResponse {
        error_code: error.code(),
        error_message: Some(message(error, &request.group_id)),
        ..Default::default()
    };
    if let Err(error) = is_empty_group(&broker, &request.group_id).await {
        return refused(error);
    }
    let offsets = match broker.shares.offsets(&broker, &request.group_id).await {
        Ok(offsets) => offsets,
        Err(error) => return refused(error),
    };
    let image = broker.metadata.image();
    let mut responses = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let topic_id = image.topic(&topic.topic_name).map(|known| known.id);
        let outcome = match topic_id {
            None => Err(ErrorCode::UnknownTopicOrPartition),
            Some(topic_id) if !offsets.keys().any(|key| key.topic_id == topic_id) => Ok(()),
            Some(topic_id) => {
                let group_id = request.group_id.to_string();
                let is_gone = move |key: &ShareKey| key.group_id == group_id && key.topic_id == topic_id;
                broker.shares.forget(&broker, is_gone).await
            }
        };
        responses.push(DeleteShareGroupOffsetsResponseTopic {
            topic_name: topic.topic_name.clone(),
            topic_id: topic_id.unwrap_or(Uuid::nil()),
            error_code: outcome.err().unwrap_or(ErrorCode::None).code(),
            error_message: outcome.err().map(|error| KString::from_static(error.message())),
        });
    }
    DeleteShareGroupOffsetsResponse {
        responses,
        ..Default::default()
    }
}
