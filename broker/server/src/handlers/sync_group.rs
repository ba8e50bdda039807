//! SyncGroup, versions 0 to 5.

use std::sync::Arc;

use bytes::Bytes;
use millstream_core::group;
use millstream_protocol::{
    ErrorCode, KString,
    messages::{SyncGroupRequest, SyncGroupResponse},
};

use crate::{broker::Broker, context::RequestContext};

/// First version in which the member says what it believes the group runs (KIP-559).
const FIRST_VERSION_WITH_PROTOCOL: i16 = 5;

pub(crate) async fn handle(broker: Arc<Broker>, context: RequestContext, request: SyncGroupRequest) -> SyncGroupResponse {
    let names_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    if context.version >= FIRST_VERSION_WITH_PROTOCOL && !names_protocol {
        return to_wire(group::SyncGroupResponse::error(ErrorCode::InconsistentGroupProtocol));
    }
    let synced = broker.groups.sync_group(&broker, to_core(request)).await;
    to_wire(synced.unwrap_or_else(group::SyncGroupResponse::error))
}

fn to_core(request: SyncGroupRequest) -> group::SyncGroupRequest {
    // The group keeps the assignments: copies, so that it does not keep the frame as well.
    let assignments = request
        .assignments
        .into_iter()
        .map(|member| (member.member_id.into(), Bytes::copy_from_slice(&member.assignment)));
    group::SyncGroupRequest {
        group_id: request.group_id.into(),
        generation_id: request.generation_id,
        member_id: request.member_id.into(),
        group_instance_id: request.group_instance_id.map(String::from),
        protocol_type: request.protocol_type.map(String::from),
        protocol_name: request.protocol_name.map(String::from),
        assignments: assignments.collect(),
    }
}

fn to_wire(synced: group::SyncGroupResponse) -> SyncGroupResponse {
    SyncGroupResponse {
        throttle_time_ms: 0,
        error_code: synced.error_code.code(),
        protocol_type: synced.protocol_type.map(KString::from),
        protocol_name: synced.protocol_name.map(KString::from),
        assignment: synced.assignment,
    }
}
