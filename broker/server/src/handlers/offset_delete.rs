//! OffsetDelete, version 0.

use std::sync::Arc;

use millstream_core::group;
use millstream_protocol::{
    ErrorCode,
    messages::{
        OffsetDeleteRequest, OffsetDeleteResponse,
        offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
    },
};

use crate::{
    broker::Broker,
    context::RequestContext,
    groups::outcomes::{merge, partition_count},
};

pub(crate) async fn handle(broker: Arc<Broker>, _context: RequestContext, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let image = broker.metadata.image();
    let mut asked = Vec::with_capacity(request.topics.len());
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let name = String::from(topic.name);
        let known = 0..partition_count(&image, &name);
        let partitions: Vec<i32> = topic.partitions.into_iter().map(|partition| partition.partition_index).collect();
        asked.push((
            name.clone(),
            partitions.iter().map(|partition| (*partition, known.contains(partition))).collect(),
        ));
        topics.push((name, partitions.into_iter().filter(|partition| known.contains(partition)).collect()));
    }
    match broker.groups.delete_offsets(&broker, request.group_id.into(), topics).await {
        Ok(deleted) if deleted.error_code == ErrorCode::None => to_wire(merge(asked, Ok(deleted.topics))),
        Ok(refused) => OffsetDeleteResponse {
            error_code: refused.error_code.code(),
            ..OffsetDeleteResponse::default()
        },
        Err(error) => OffsetDeleteResponse {
            error_code: error.code(),
            ..OffsetDeleteResponse::default()
        },
    }
}

fn to_wire(outcomes: group::PartitionOutcomes) -> OffsetDeleteResponse {
    let topics = outcomes.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter();
        let partitions = partitions.map(|(partition_index, outcome)| OffsetDeleteResponsePartition {
            partition_index,
            error_code: outcome.code(),
        });
        OffsetDeleteResponseTopic {
            name: name.into(),
            partitions: partitions.collect(),
        }
    });
    OffsetDeleteResponse {
        error_code: ErrorCode::None.code(),
        throttle_time_ms: 0,
        topics: topics.collect(),
    }
}
