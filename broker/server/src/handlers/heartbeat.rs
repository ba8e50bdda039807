//! Heartbeat, versions 0 to 4.

use std::sync::Arc;

use millstream_core::group;
use millstream_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use crate::{broker::Broker, context::RequestContext};

pub(crate) async fn handle(broker: Arc<Broker>, _context: RequestContext, request: HeartbeatRequest) -> HeartbeatResponse {
    let heartbeat = group::HeartbeatRequest {
        group_id: request.group_id.into(),
        generation_id: request.generation_id,
        member_id: request.member_id.into(),
        group_instance_id: request.group_instance_id.map(String::from),
    };
    HeartbeatResponse {
        throttle_time_ms: 0,
        error_code: broker.groups.heartbeat(&broker, heartbeat).await.code(),
    }
}
