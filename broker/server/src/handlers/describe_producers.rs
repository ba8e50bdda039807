//! DescribeProducers: who writes to a partition, and since when a transaction is open there.

use std::{collections::BTreeSet, sync::Arc};

use millstream_protocol::messages::{
    DescribeProducersRequest, DescribeProducersResponse,
    describe_producers_response::{PartitionResponse, ProducerState, TopicResponse},
};

use super::{once_by, topology::unknown_name};
use crate::{broker::Broker, context::RequestContext, partition::Partition};

pub(crate) async fn handle(broker: Arc<Broker>, _context: RequestContext, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let image = broker.metadata.image();
    let topics = once_by(request.topics, |topic| topic.name.clone()).into_iter().map(|topic| {
        let known = image.topic(&topic.name);
        let indexes: BTreeSet<i32> = topic.partition_indexes.into_iter().collect();
        let partitions =
            indexes.into_iter().map(
                |partition_index| match known.and_then(|known| broker.partition(known, partition_index)) {
                    Some(partition) => PartitionResponse {
                        partition_index,
                        active_producers: active(&partition),
                        ..PartitionResponse::default()
                    },
                    None => PartitionResponse {
                        partition_index,
                        error_code: unknown_name(&topic.name).code(),
                        ..PartitionResponse::default()
                    },
                },
            );
        let partitions = partitions.collect();
        TopicResponse {
            name: topic.name,
            partitions,
        }
    });
    DescribeProducersResponse {
        throttle_time_ms: 0,
        topics: topics.collect(),
    }
}

fn active(partition: &Partition) -> Vec<ProducerState> {
    partition.log().with_producers(|producers| {
        let state = |(producer_id, entry): (i64, &millstream_log::ProducerEntry)| ProducerState {
            producer_id,
            producer_epoch: entry.epoch().into(),
            last_sequence: entry.last_sequence(),
            last_timestamp: entry.last_timestamp(),
            coordinator_epoch: entry.coordinator_epoch(),
            current_txn_start_offset: producers.transaction_since(producer_id).unwrap_or(-1),
        };
        producers.iter().map(state).collect()
    })
}
