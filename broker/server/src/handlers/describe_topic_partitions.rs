//! DescribeTopicPartitions (KIP-966): topics in the order of their names, in pages of a bounded number of partitions.
//!
//! A page that ends early names in its cursor the partition that comes next.

use std::{collections::BTreeSet, sync::Arc};

use millstream_core::metadata::ClusterImage;
use millstream_protocol::{
    ErrorCode, KString,
    messages::{
        DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
        describe_topic_partitions_request::Cursor as Start,
        describe_topic_partitions_response::{Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic},
    },
};

use super::topology::{self, PartitionState};
use crate::{
    broker::{Broker, Named},
    context::RequestContext,
};

/// Handles a request.
pub async fn handle(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let page_max = broker.config.size("max.request.partition.size.limit");
    page(&broker.metadata.image(), &request, page_max, broker.config.node_id)
}

fn page(image: &ClusterImage, request: &DescribeTopicPartitionsRequest, page_max: usize, node_id: i32) -> DescribeTopicPartitionsResponse {
    let asked: BTreeSet<String> = request.topics.iter().map(|topic| topic.name.as_str().to_owned()).collect();
    if request.cursor.as_ref().is_some_and(|cursor| !is_valid(cursor, &asked)) {
        let refused = |name: &String| failed(name, ErrorCode::InvalidRequest);
        return DescribeTopicPartitionsResponse {
            topics: asked.iter().map(refused).collect(),
            ..Default::default()
        };
    }
    let names: BTreeSet<String> = if asked.is_empty() {
        topology::all_names(image).into_iter().map(String::from).collect()
    } else {
        asked
    };
    let (start, mut first) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.as_str(), usize::try_from(cursor.partition_index).unwrap_or(0)),
        None => ("", 0),
    };
    let mut left = usize::try_from(request.response_partition_limit).unwrap_or(0).min(page_max).max(1);
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in names.iter().filter(|name| name.as_str() >= start) {
        if left == 0 {
            response.next_cursor = Some(Cursor {
                topic_name: KString::from(name),
                partition_index: 0,
            });
            break;
        }
        let skipped = if name == start { std::mem::take(&mut first) } else { 0 };
        let Some(named) = Named::by_name(image, name) else {
            response.topics.push(failed(name, topology::unknown_name(name)));
            continue;
        };
        let partitions: Vec<_> = topology::partitions(&named, node_id)
            .skip(skipped)
            .take(left)
            .map(partition)
            .collect();
        left -= partitions.len();
        let next = skipped.saturating_add(partitions.len());
        let is_cut = next < named.stored_in().partitions.len();
        response.topics.push(DescribeTopicPartitionsResponseTopic {
            error_code: ErrorCode::None.code(),
            name: Some(KString::from(name)),
            topic_id: named.id(),
            is_internal: topology::is_internal(&named),
            partitions,
            // The request has no flag to ask for them, so Kafka always answers.
            topic_authorized_operations: topology::topic_operations(&named, true),
        });
        if is_cut {
            let partition_index = i32::try_from(next).unwrap_or(i32::MAX);
            response.next_cursor = Some(Cursor {
                topic_name: KString::from(name),
                partition_index,
            });
            break;
        }
    }
    response
}

fn is_valid(cursor: &Start, asked: &BTreeSet<String>) -> bool {
    cursor.partition_index >= 0 && (asked.is_empty() || asked.contains(cursor.topic_name.as_str()))
}

fn failed(name: &str, error: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic {
        error_code: error.code(),
        name: Some(KString::from(name)),
        ..Default::default()
    }
}

fn partition(state: PartitionState) -> DescribeTopicPartitionsResponsePartition {
    DescribeTopicPartitionsResponsePartition {
        error_code: state.error.code(),
        partition_index: state.number,
        leader_id: state.leader,
        leader_epoch: state.leader_epoch,
        replica_nodes: state.replicas,
        isr_nodes: state.isr,
        eligible_leader_replicas: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        offline_replicas: state.offline,
    }
}

#[cfg(test)]
mod tests {
    use millstream_protocol::messages::describe_topic_partitions_request::TopicRequest;

    use super::*;

    fn request(topics: &[&str], limit: i32, cursor: Option<(&str, i32)>) -> DescribeTopicPartitionsRequest {
        DescribeTopicPartitionsRequest {
            topics: topics
                .iter()
                .map(|name| TopicRequest {
                    name: KString::from(*name),
                })
                .collect(),
            response_partition_limit: limit,
            cursor: cursor.map(|(topic, partition_index)| Start {
                topic_name: KString::from(topic),
                partition_index,
            }),
        }
    }

    /// Topics with their partition numbers, and the cursor.
    type Page = (Vec<(String, Vec<i32>)>, Option<(String, i32)>);

    fn paged(request: &DescribeTopicPartitionsRequest) -> Page {
        let response = page(&topology::test_image(), request, 2000, 1);
        let numbers = |topic: DescribeTopicPartitionsResponseTopic| {
            let partitions = topic.partitions.iter().map(|partition| partition.partition_index).collect();
            (topic.name.map(String::from).unwrap_or_default(), partitions)
        };
        let cursor = response
            .next_cursor
            .map(|cursor| (cursor.topic_name.into(), cursor.partition_index));
        (response.topics.into_iter().map(numbers).collect(), cursor)
    }

    #[test]
    fn pages_join_without_gap_or_overlap() {
        let (orders, masked) = ("orders".to_owned(), "orders.masked".to_owned());
        assert_eq!(
            paged(&request(&[], 2, None)),
            (vec![(orders.clone(), vec![0, 1])], Some((orders.clone(), 2)))
        );
        let second = paged(&request(&[], 2, Some(("orders", 2))));
        assert_eq!(
            second,
            (
                vec![(orders.clone(), vec![2]), (masked.clone(), vec![0])],
                Some((masked.clone(), 1))
            )
        );
        assert_eq!(
            paged(&request(&[], 2, Some(("orders.masked", 1)))),
            (vec![(masked.clone(), vec![1, 2])], None)
        );
        assert_eq!(paged(&request(&[], 3, None)), (vec![(orders, vec![0, 1, 2])], Some((masked, 0))));
    }

    #[test]
    fn a_limit_below_one_still_moves() {
        assert_eq!(paged(&request(&["orders"], 0, None)).1, Some(("orders".to_owned(), 1)));
        assert_eq!(paged(&request(&["orders"], -1, None)).1, Some(("orders".to_owned(), 1)));
    }

    #[test]
    fn topics_are_sorted_and_unknown_ones_are_named() {
        let response = page(&topology::test_image(), &request(&["z", "orders", "a b"], 2000, None), 2000, 1);
        let found: Vec<_> = response
            .topics
            .iter()
            .map(|topic| (topic.name.as_deref().unwrap(), topic.error_code))
            .collect();
        assert_eq!(found, [("a b", 17), ("orders", 0), ("z", 3)]);
    }

    #[test]
    fn a_cursor_outside_of_the_request_is_refused() {
        for cursor in [("b", 0), ("orders", -1)] {
            let response = page(&topology::test_image(), &request(&["orders"], 2000, Some(cursor)), 2000, 1);
            assert_eq!(response.topics.iter().map(|topic| topic.error_code).collect::<Vec<_>>(), [42]);
        }
    }
}
