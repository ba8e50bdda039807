//! What clients are told of brokers, topics and partitions; Metadata, DescribeCluster and DescribeTopicPartitions share it.
//!
//! A view looks like a topic: it has its own name and id, and the partitions, leaders and epochs of the topic that stores its records.

use millstream_core::metadata::{ClusterImage, id, image::PartitionImage, names};
use millstream_protocol::{ErrorCode, KString};

use crate::broker::{Broker, Named};

/// What stands for authorized operations that were not asked for.
pub(super) const NOT_ASKED: i32 = i32::MIN;

/// Kafka's numbers of the operations that ACLs know.
mod operation {
    pub const READ: u8 = 3;
    pub const WRITE: u8 = 4;
    pub const CREATE: u8 = 5;
    pub const DELETE: u8 = 6;
    pub const ALTER: u8 = 7;
    pub const DESCRIBE: u8 = 8;
    pub const CLUSTER_ACTION: u8 = 9;
    pub const DESCRIBE_CONFIGS: u8 = 10;
    pub const ALTER_CONFIGS: u8 = 11;
    pub const IDEMPOTENT_WRITE: u8 = 12;
}
use operation::*;

const ON_CLUSTER: &[u8] = &[
    CREATE,
    ALTER,
    DESCRIBE,
    CLUSTER_ACTION,
    DESCRIBE_CONFIGS,
    ALTER_CONFIGS,
    IDEMPOTENT_WRITE,
];
const ON_TOPIC: &[u8] = &[READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS];
/// Views are read-only to Kafka clients.
const ON_VIEW: &[u8] = &[READ, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS];

/// The cluster's authorized operations, everything as nobody is refused anything yet.
pub(super) fn cluster_operations(asked: bool) -> i32 {
    if asked { bits(ON_CLUSTER) } else { NOT_ASKED }
}

/// A topic's or view's authorized operations.
pub(super) fn topic_operations(named: &Named, asked: bool) -> i32 {
    match named {
        _ if !asked => NOT_ASKED,
        Named::Topic(_) => bits(ON_TOPIC),
        Named::View(..) => bits(ON_VIEW),
    }
}

fn bits(operations: &[u8]) -> i32 {
    operations.iter().fold(0, |bits, operation| bits | 1 << operation)
}

/// The broker as clients see it.
pub(super) struct Node {
    pub id: i32,
    pub host: KString,
    pub port: i32,
    pub rack: Option<KString>,
}

/// This broker; it is the cluster's only one, and its controller.
pub(super) fn this_node(broker: &Broker) -> Node {
    let (host, port) = broker.advertised();
    Node {
        id: broker.config.node_id,
        host: KString::from(host),
        port: i32::from(port),
        rack: broker.config.values.get("broker.rack").map(KString::from),
    }
}

/// The cluster's id as text.
pub(super) fn cluster_id(image: &ClusterImage) -> KString {
    KString::from(id::render(image.cluster_id))
}

/// Names of all topics and views, in order.
pub(super) fn all_names(image: &ClusterImage) -> Vec<KString> {
    let mut names: Vec<&String> = image.topics.keys().chain(image.views.keys()).collect();
    names.sort_unstable();
    names.into_iter().map(KString::from).collect()
}

/// What to say of a name that belongs to nothing.
pub(super) fn unknown_name(name: &str) -> ErrorCode {
    match names::check_topic(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopicException,
    }
}

/// Whether it is one of the broker's own topics.
pub(super) fn is_internal(named: &Named) -> bool {
    matches!(named, Named::Topic(topic) if topic.internal)
}

/// A partition as clients see it.
#[derive(Debug, PartialEq)]
pub(super) struct PartitionState {
    pub number: i32,
    pub error: ErrorCode,
    pub leader: i32,
    pub leader_epoch: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
    /// Replicas on brokers that do not run.
    pub offline: Vec<i32>,
}

/// The partitions of a topic or view while `node_id` is the only broker that runs.
pub(super) fn partitions(named: &Named, node_id: i32) -> impl Iterator<Item = PartitionState> {
    (0_i32..)
        .zip(&named.stored_in().partitions)
        .map(move |(number, partition)| partition_state(number, partition, node_id))
}

fn partition_state(number: i32, partition: &PartitionImage, node_id: i32) -> PartitionState {
    let led = partition.leader == node_id;
    PartitionState {
        number,
        error: if led { ErrorCode::None } else { ErrorCode::LeaderNotAvailable },
        leader: if led { partition.leader } else { -1 },
        leader_epoch: partition.leader_epoch,
        replicas: partition.replicas.clone(),
        isr: partition.isr.clone(),
        offline: partition.replicas.iter().copied().filter(|replica| *replica != node_id).collect(),
    }
}

/// An image for the tests of handlers: topic `orders` with three partitions on broker 1, and its view `orders.masked`.
#[cfg(test)]
pub(super) fn test_image() -> ClusterImage {
    use std::sync::Arc;

    use millstream_core::metadata::{
        configs::Overrides,
        image::{TopicImage, ViewImage},
    };
    use uuid::Uuid;

    let mut image = ClusterImage::empty(Uuid::from_u128(7));
    let partition = PartitionImage {
        replicas: vec![1],
        isr: vec![1],
        leader: 1,
        leader_epoch: 4,
    };
    let topic = TopicImage {
        name: "orders".to_owned(),
        id: Uuid::from_u128(100),
        partitions: vec![partition; 3],
        configs: Overrides::from([("retention.ms".to_owned(), "60000".to_owned())]),
        internal: false,
        created_ms: 0,
        bindings: Vec::new(),
        chain_version: 0,
    };
    let view = ViewImage {
        name: "orders.masked".to_owned(),
        id: Uuid::from_u128(101),
        source: "orders".to_owned(),
        bindings: Vec::new(),
        configs: Overrides::new(),
        created_ms: 0,
        chain_version: 0,
    };
    image.names.insert(topic.id, topic.name.clone());
    image.names.insert(view.id, view.name.clone());
    image.topics.insert(topic.name.clone(), Arc::new(topic));
    image.views.insert(view.name.clone(), Arc::new(view));
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_the_bits_that_kafka_answers_with() {
        let image = test_image();
        let (topic, view) = (
            Named::by_name(&image, "orders").unwrap(),
            Named::by_name(&image, "orders.masked").unwrap(),
        );
        assert_eq!(cluster_operations(true), 8096);
        assert_eq!(topic_operations(&topic, true), 3576);
        assert_eq!(topic_operations(&view, true), 3336, "a view is not written, deleted or altered");
        assert_eq!(
            (cluster_operations(false), topic_operations(&topic, false)),
            (-2_147_483_648, -2_147_483_648)
        );
    }

    #[test]
    fn a_view_has_the_partitions_of_its_source() {
        let image = test_image();
        let of = |name: &str| partitions(&Named::by_name(&image, name).unwrap(), 1).collect::<Vec<_>>();
        assert_eq!(of("orders.masked"), of("orders"));
        assert_eq!(of("orders").iter().map(|partition| partition.number).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn a_partition_of_a_broker_that_does_not_run_has_no_leader() {
        let image = PartitionImage {
            replicas: vec![2, 1],
            isr: vec![2],
            leader: 2,
            leader_epoch: 9,
        };
        let state = partition_state(0, &image, 1);
        assert_eq!(
            (state.error, state.leader, state.leader_epoch),
            (ErrorCode::LeaderNotAvailable, -1, 9)
        );
        assert_eq!(state.offline, [2]);
    }

    #[test]
    fn bad_names_are_told_from_unknown_ones() {
        assert_eq!(unknown_name("nowhere"), ErrorCode::UnknownTopicOrPartition);
        assert_eq!(unknown_name("no where"), ErrorCode::InvalidTopicException);
    }

    #[test]
    fn all_names_are_sorted_and_hold_views() {
        assert_eq!(all_names(&test_image()), ["orders", "orders.masked"]);
    }
}
