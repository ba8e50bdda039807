//! ShareGroupHeartbeat: the one request by which a member joins, stays in and leaves a share group (KIP-932).

use std::sync::Arc;

use millstream_core::{
    group::modern::{ModernHeartbeat, ModernHeartbeatResponse, ModernKind, ModernRefusal},
    metadata::configs::groups::{SHARE_HEARTBEAT_INTERVAL_MS, SHARE_SESSION_TIMEOUT_MS},
};
use millstream_protocol::{
    ErrorCode,
    messages::{
        ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse,
        share_group_heartbeat_response::{Assignment, TopicPartitions},
    },
};

use super::consumer_group_heartbeat::group_number;
use crate::{
    broker::Broker,
    context::RequestContext,
    errors::message,
    features::{GroupKind, serves_groups},
};

pub(crate) async fn handle(
    broker: Arc<Broker>,
    context: RequestContext,
    request: ShareGroupHeartbeatRequest,
) -> ShareGroupHeartbeatResponse {
    let image = broker.metadata.image();
    if !serves_groups(&broker, &image, GroupKind::Share) {
        return ShareGroupHeartbeatResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            ..ShareGroupHeartbeatResponse::default()
        };
    }
    let setting = |name: &str| group_number(&broker, &image, &request.group_id, name);
    let (session_timeout_ms, heartbeat_interval_ms) = (setting(SHARE_SESSION_TIMEOUT_MS), setting(SHARE_HEARTBEAT_INTERVAL_MS));
    let heartbeat = ModernHeartbeat {
        kind: ModernKind::Share,
        group_id: request.group_id.into(),
        member_id: request.member_id.into(),
        member_epoch: request.member_epoch,
        instance_id: None,
        rack_id: request.rack_id.map(String::from),
        client_id: context.client_id.to_string(),
        client_host: context.host(),
        rebalance_timeout_ms: -1,
        topics: request
            .subscribed_topic_names
            .map(|names| names.into_iter().map(String::from).collect()),
        regex: None,
        assignor: None,
        owned: None,
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

fn refused(refusal: ModernRefusal) -> ShareGroupHeartbeatResponse {
    ShareGroupHeartbeatResponse {
        error_code: refusal.code.code(),
        error_message: Some(message(&refusal.message)),
        ..ShareGroupHeartbeatResponse::default()
    }
}

fn to_wire(response: ModernHeartbeatResponse) -> ShareGroupHeartbeatResponse {
    let assignment = response.assignment.map(|topics| Assignment {
        topic_partitions: topics
            .into_iter()
            .map(|(topic_id, partitions)| TopicPartitions {
                topic_id,
                partitions: partitions.into_iter().collect(),
            })
            .collect(),
    });
    ShareGroupHeartbeatResponse {
        member_id: Some(response.member_id.into()),
        member_epoch: response.member_epoch,
        heartbeat_interval_ms: response.heartbeat_interval_ms,
        assignment,
        ..ShareGroupHeartbeatResponse::default()
    }
}
