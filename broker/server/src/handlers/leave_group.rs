//! LeaveGroup, versions 0 to 5 (several members at once from 3 on).

use std::sync::Arc;

use millstream_core::group;
use millstream_protocol::{
    ErrorCode, KString,
    messages::{LeaveGroupRequest, LeaveGroupResponse, leave_group_response::MemberResponse},
};

use crate::{broker::Broker, context::RequestContext};

/// First version that names a batch of members (KIP-345).
const FIRST_BATCHED_VERSION: i16 = 3;

pub(crate) async fn handle(broker: Arc<Broker>, context: RequestContext, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let left = broker.groups.leave_group(&broker, to_core(context.version, request)).await;
    to_wire(
        context.version,
        left.unwrap_or_else(|error_code| group::LeaveGroupResponse {
            error_code,
            members: Vec::new(),
        }),
    )
}

fn to_core(version: i16, request: LeaveGroupRequest) -> group::LeaveGroupRequest {
    let members = if version < FIRST_BATCHED_VERSION {
        vec![group::LeavingMember {
            member_id: request.member_id.into(),
            group_instance_id: None,
        }]
    } else {
        let members = request.members.into_iter();
        members
            .map(|member| group::LeavingMember {
                member_id: member.member_id.into(),
                group_instance_id: member.group_instance_id.map(String::from),
            })
            .collect()
    };
    group::LeaveGroupRequest {
        group_id: request.group_id.into(),
        members,
    }
}

fn to_wire(version: i16, left: group::LeaveGroupResponse) -> LeaveGroupResponse {
    let mut response = LeaveGroupResponse {
        error_code: left.error_code.code(),
        ..LeaveGroupResponse::default()
    };
    if version >= FIRST_BATCHED_VERSION {
        let members = left.members.into_iter().map(|(member, outcome)| MemberResponse {
            member_id: member.member_id.into(),
            group_instance_id: member.group_instance_id.map(KString::from),
            error_code: outcome.code(),
        });
        response.members = members.collect();
    } else if left.error_code == ErrorCode::None
        && let [(_, outcome)] = left.members.as_slice()
    {
        response.error_code = outcome.code();
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown_member() -> group::LeaveGroupResponse {
        let member = group::LeavingMember {
            member_id: "m".to_owned(),
            group_instance_id: None,
        };
        group::LeaveGroupResponse {
            error_code: ErrorCode::None,
            members: vec![(member, ErrorCode::UnknownMemberId)],
        }
    }

    #[test]
    fn old_versions_report_the_single_member_as_the_response() {
        let response = to_wire(2, unknown_member());
        assert_eq!(
            (response.error_code, response.members.len()),
            (ErrorCode::UnknownMemberId.code(), 0)
        );
    }

    #[test]
    fn new_versions_report_each_member() {
        let response = to_wire(3, unknown_member());
        assert_eq!(
            (response.error_code, response.members[0].error_code),
            (0, ErrorCode::UnknownMemberId.code())
        );
    }

    #[test]
    fn old_versions_name_one_member() {
        let request = LeaveGroupRequest {
            member_id: "m".into(),
            ..LeaveGroupRequest::default()
        };
        assert_eq!(to_core(0, request.clone()).members.len(), 1);
        assert_eq!(to_core(3, request).members.len(), 0);
    }
}
