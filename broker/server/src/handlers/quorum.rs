//! The metadata quorum, as administrators see it: DescribeQuorum, UnregisterBroker. One node is the whole quorum for now.

use std::sync::Arc;

use millstream_core::metadata::names::CLUSTER_METADATA;
use millstream_protocol::{
    ErrorCode, KString,
    messages::{
        DescribeQuorumRequest, DescribeQuorumResponse, UnregisterBrokerRequest, UnregisterBrokerResponse,
        describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData},
    },
};
use uuid::Uuid;

use super::topology;
use crate::{broker::Broker, context::RequestContext};

/// First version with directories and listeners (KIP-853).
const NAMES_NODES: i16 = 2;

pub(crate) async fn describe(broker: Arc<Broker>, context: RequestContext, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let names_nodes = context.version >= NAMES_NODES;
    let node = topology::this_node(&broker);
    let log = broker.metadata.log();
    let now_ms = broker.clock.wall_ms();
    let voter = || ReplicaState {
        replica_id: node.id,
        replica_directory_id: Uuid::nil(),
        log_end_offset: log.log_end_offset(),
        last_fetch_timestamp: now_ms,
        last_caught_up_timestamp: now_ms,
    };
    let topics = request.topics.into_iter().map(|topic| {
        let is_metadata = topic.topic_name.as_str() == CLUSTER_METADATA;
        let partitions = topic.partitions.into_iter().map(|partition| {
            let partition_index = partition.partition_index;
            if !is_metadata || partition_index != 0 {
                return PartitionData {
                    partition_index,
                    error_code: ErrorCode::UnknownTopicOrPartition.code(),
                    ..PartitionData::default()
                };
            }
            PartitionData {
                partition_index,
                leader_id: node.id,
                // Quorum epochs are counted from 1.
                leader_epoch: log.epoch_at(log.log_end_offset()).unwrap_or(0) + 1,
                high_watermark: log.durable_end_offset(),
                current_voters: vec![voter()],
                ..PartitionData::default()
            }
        });
        TopicData {
            partitions: partitions.collect(),
            topic_name: topic.topic_name,
        }
    });
    let listener = Listener {
        name: KString::from_static("PLAINTEXT"),
        host: node.host.clone(),
        port: u16::try_from(node.port).unwrap_or(0),
    };
    let nodes = vec![Node {
        node_id: node.id,
        listeners: vec![listener],
    }];
    DescribeQuorumResponse {
        topics: topics.collect(),
        nodes: if names_nodes { nodes } else { Vec::new() },
        ..DescribeQuorumResponse::default()
    }
}

pub(crate) async fn unregister_broker(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    let (code, message) = if request.broker_id == broker.config.node_id {
        (
            ErrorCode::InvalidRequest,
            "The last broker of a cluster cannot be unregistered.".to_owned(),
        )
    } else {
        (
            ErrorCode::BrokerIdNotRegistered,
            format!("Broker ID {} is not currently registered", request.broker_id),
        )
    };
    UnregisterBrokerResponse {
        throttle_time_ms: 0,
        error_code: code.code(),
        error_message: Some(message.into()),
    }
}
