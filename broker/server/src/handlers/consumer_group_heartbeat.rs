//! ConsumerGroupHeartbeat: the one request of a member of a consumer group (KIP-848).

use std::sync::Arc;

use millstream_core::{
    group::modern::{ModernHeartbeat, ModernHeartbeatResponse, ModernKind, ModernRefusal, TopicIdPartitions},
    metadata::{
        ClusterImage,
        configs::{
            Overrides, Scope, effective_value,
            groups::{CONSUMER_HEARTBEAT_INTERVAL_MS, CONSUMER_SESSION_TIMEOUT_MS},
        },
    },
};
use millstream_protocol::{
    ErrorCode,
    messages::{
        ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
        consumer_group_heartbeat_response::{Assignment, TopicPartitions},
    },
};
use uuid::Uuid;

use crate::{
    broker::Broker,
    context::RequestContext,
    errors::message,
    features::{GroupKind, serves_groups},
};

/// First version in which a member chooses its id itself (KIP-1082).
const CHOOSES_ID: i16 = 1;

pub(crate) async fn handle(
    broker: Arc<Broker>,
    context: RequestContext,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let image = broker.metadata.image();
    if !serves_groups(&broker, &image, GroupKind::Consumer) {
        return ConsumerGroupHeartbeatResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            ..ConsumerGroupHeartbeatResponse::default()
        };
    }
    let setting = |name: &str| group_number(&broker, &image, &request.group_id, name);
    let (session_timeout_ms, heartbeat_interval_ms) = (setting(CONSUMER_SESSION_TIMEOUT_MS), setting(CONSUMER_HEARTBEAT_INTERVAL_MS));
    let mut member_id = String::from(request.member_id);
    if context.version < CHOOSES_ID && member_id.is_empty() && request.member_epoch == 0 {
        member_id = Uuid::new_v4().to_string();
    }
    let owned = request.topic_partitions.map(|topics| {
        let mut owned = TopicIdPartitions::new();
        for topic in topics {
            owned.entry(topic.topic_id).or_default().extend(topic.partitions);
        }
        owned
    });
    let heartbeat = ModernHeartbeat {
        kind: ModernKind::Consumer,
        group_id: request.group_id.into(),
        member_id,
        member_epoch: request.member_epoch,
        instance_id: request.instance_id.map(String::from),
        rack_id: request.rack_id.map(String::from),
        client_id: context.client_id.to_string(),
        client_host: context.host(),
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        topics: request
            .subscribed_topic_names
            .map(|names| names.into_iter().map(String::from).collect()),
        regex: request.subscribed_topic_regex.map(String::from),
        assignor: request.server_assignor.map(String::from),
        owned,
        classic: None,
        session_timeout_ms,
        heartbeat_interval_ms,
    };
    match broker.groups.modern_heartbeat(&broker, heartbeat).await {
        Ok(Ok(response)) => to_wire(response),
        Ok(Err(refusal)) => refused(refusal),
        Err(code) => refused(ModernRefusal {
            code,
            message: code.message().to_owned(),
        }),
    }
}

/// A number that is configured for a group.
pub(super) fn group_number(broker: &Broker, image: &ClusterImage, group_id: &str, name: &str) -> i32 {
    let none = Overrides::new();
    let overrides = image.group_configs.get(group_id).unwrap_or(&none);
    let layers = image.broker_layers(Some(broker.config.node_id), &broker.config.values);
    let value = effective_value(Scope::Group, name, overrides, &layers);
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(i32::MAX)
}

fn refused(refusal: ModernRefusal) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse {
        error_code: refusal.code.code(),
        error_message: (refusal.code != ErrorCode::None).then(|| message(&refusal.message)),
        ..ConsumerGroupHeartbeatResponse::default()
    }
}

fn to_wire(response: ModernHeartbeatResponse) -> ConsumerGroupHeartbeatResponse {
    let assignment = response.assignment.map(|topics| Assignment {
        topic_partitions: topics
            .into_iter()
            .map(|(topic_id, partitions)| TopicPartitions {
                topic_id,
                partitions: partitions.into_iter().collect(),
            })
            .collect(),
    });
    ConsumerGroupHeartbeatResponse {
        member_id: Some(response.member_id.into()),
        member_epoch: response.member_epoch,
        heartbeat_interval_ms: response.heartbeat_interval_ms,
        assignment,
        ..ConsumerGroupHeartbeatResponse::default()
    }
}
