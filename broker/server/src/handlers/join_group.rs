//! JoinGroup, versions 0 to 9.

use std::sync::Arc;

use bytes::Bytes;
use millstream_core::group;
use millstream_protocol::{
    KString,
    messages::{JoinGroupRequest, JoinGroupResponse, join_group_response::JoinGroupResponseMember},
};
use uuid::Uuid;

use crate::{broker::Broker, context::RequestContext};

/// First version whose clients join twice, the second time with the id they were given (KIP-394).
const FIRST_VERSION_WITH_KNOWN_MEMBER_ID: i16 = 4;
/// First version in which the protocol name may be null.
const FIRST_VERSION_WITH_NULL_PROTOCOL: i16 = 7;
/// First version in which a leader can be told to keep the assignment (KIP-814).
const FIRST_VERSION_THAT_SKIPS_ASSIGNMENT: i16 = 9;

pub(crate) async fn handle(broker: Arc<Broker>, context: RequestContext, request: JoinGroupRequest) -> JoinGroupResponse {
    let member_id = request.member_id.clone();
    let joining = to_core(&context, request, Uuid::new_v4());
    let joined = broker.groups.join_group(&broker, joining).await;
    let joined = joined.unwrap_or_else(|error| group::JoinGroupResponse::error(error, member_id));
    to_wire(context.version, joined)
}

fn to_core(context: &RequestContext, request: JoinGroupRequest, member_uuid: Uuid) -> group::JoinGroupRequest {
    // The group keeps what a member sends: copies, so that it does not keep the frame as well.
    let owned = |text: KString| String::from(text);
    group::JoinGroupRequest {
        group_id: owned(request.group_id),
        member_id: owned(request.member_id),
        group_instance_id: request.group_instance_id.map(owned),
        client_id: owned(context.client_id.clone()),
        client_host: context.host(),
        protocol_type: owned(request.protocol_type),
        protocols: request
            .protocols
            .into_iter()
            .map(|protocol| (owned(protocol.name), Bytes::copy_from_slice(&protocol.metadata)))
            .collect(),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        member_uuid,
        requires_known_member_id: context.version >= FIRST_VERSION_WITH_KNOWN_MEMBER_ID,
        supports_skipping_assignment: context.version >= FIRST_VERSION_THAT_SKIPS_ASSIGNMENT,
    }
}

fn to_wire(version: i16, joined: group::JoinGroupResponse) -> JoinGroupResponse {
    let protocol_name = joined.protocol_name.map(KString::from);
    let members = joined.members.into_iter().map(|member| JoinGroupResponseMember {
        member_id: member.member_id.into(),
        group_instance_id: member.group_instance_id.map(KString::from),
        metadata: member.metadata,
    });
    JoinGroupResponse {
        throttle_time_ms: 0,
        error_code: joined.error_code.code(),
        generation_id: joined.generation_id,
        protocol_type: joined.protocol_type.map(KString::from),
        protocol_name: if version < FIRST_VERSION_WITH_NULL_PROTOCOL {
            Some(protocol_name.unwrap_or_default())
        } else {
            protocol_name
        },
        leader: joined.leader.into(),
        skip_assignment: joined.skip_assignment,
        member_id: joined.member_id.into(),
        members: members.collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc};

    use millstream_protocol::{ErrorCode, Message};

    use super::*;
    use crate::context::ANONYMOUS;

    fn context(version: i16) -> RequestContext {
        let client_address = Ipv4Addr::LOCALHOST.into();
        RequestContext {
            version,
            client_id: KString::from_static("c"),
            client_address,
            client_port: 1,
            began: tokio::time::Instant::now(),
            principal: ANONYMOUS,
            mute: Arc::default(),
            software: Arc::default(),
        }
    }

    #[test]
    fn version_decides_what_a_member_can_do() {
        let can = |version| {
            let request = to_core(&context(version), JoinGroupRequest::default(), Uuid::nil());
            (request.requires_known_member_id, request.supports_skipping_assignment)
        };
        assert_eq!(
            (can(3), can(4), can(8), can(9)),
            ((false, false), (true, false), (true, false), (true, true))
        );
    }

    #[test]
    fn client_host_is_printed_as_kafka_does() {
        assert_eq!(
            to_core(&context(9), JoinGroupRequest::default(), Uuid::nil()).client_host,
            "/127.0.0.1"
        );
    }

    #[test]
    fn errors_can_be_encoded_in_every_version() {
        for version in JoinGroupResponse::VERSIONS {
            let response = to_wire(version, group::JoinGroupResponse::error(ErrorCode::MemberIdRequired, "c-1"));
            assert_eq!(response.protocol_name.is_none(), version >= 7);
            assert!(millstream_protocol::api::encode_response(&response, version, 1).is_ok());
        }
    }
}
