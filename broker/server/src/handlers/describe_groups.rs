//! DescribeGroups, versions 0 to 6.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use millstream_core::group::{GroupDescription, GroupState, modern::ModernRefusal};
use millstream_protocol::{
    ErrorCode, KString,
    messages::{
        DescribeGroupsRequest, DescribeGroupsResponse,
        describe_groups_response::{DescribedGroup, DescribedGroupMember},
    },
};

use super::once;
use crate::{
    broker::Broker,
    context::RequestContext,
    features::{GroupKind, serves_groups},
    groups::GROUPS_AT_ONCE,
};

/// First version in which an unknown group is an error; before, the Dead state alone says so (KIP-1043).
const FIRST_VERSION_WITH_GROUP_ID_NOT_FOUND: i16 = 6;
/// What Kafka sends when the operations were not asked for.
const OPERATIONS_NOT_ASKED_FOR: i32 = i32::MIN;
/// All that can be done with a group, as bits of Kafka's operation codes: read, delete, describe, describe and alter configs.
const ALL_GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

pub(crate) async fn handle(broker: Arc<Broker>, context: RequestContext, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let authorized_operations = group_operations(request.include_authorized_operations);
    let descriptions = stream::iter(once(request.groups)).map(|group_id| describe(Arc::clone(&broker), group_id));
    let groups = descriptions
        .buffered(GROUPS_AT_ONCE)
        .map(|group| to_wire(context.version, group, authorized_operations))
        .collect()
        .await;
    DescribeGroupsResponse {
        throttle_time_ms: 0,
        groups,
    }
}

/// The operations that the client may do with a group, if it asked.
pub(super) fn group_operations(are_asked_for: bool) -> i32 {
    if are_asked_for {
        ALL_GROUP_OPERATIONS
    } else {
        OPERATIONS_NOT_ASKED_FOR
    }
}

/// Why a group is not described.
pub(super) struct Refused {
    pub code: ErrorCode,
    pub message: Option<KString>,
}

/// A group of a kind that has its own describe request. `look_up` asks the group's coordinator.
pub(super) async fn described<T>(
    broker: &Broker,
    kind: GroupKind,
    group_id: &KString,
    look_up: impl Future<Output = Result<Result<T, ModernRefusal>, ErrorCode>>,
) -> Result<T, Refused> {
    let silently = |code| Refused { code, message: None };
    if !serves_groups(broker, &broker.metadata.image(), kind) {
        return Err(silently(ErrorCode::UnsupportedVersion));
    }
    if group_id.is_empty() {
        return Err(silently(ErrorCode::InvalidGroupId));
    }
    let loud = |refusal: ModernRefusal| Refused {
        code: refusal.code,
        message: Some(refusal.message.into()),
    };
    look_up.await.map_err(silently)?.map_err(loud)
}

async fn describe(broker: Arc<Broker>, group_id: KString) -> GroupDescription {
    let described = broker.groups.describe_group(&broker, String::from(group_id.clone())).await;
    described.unwrap_or_else(|error_code| GroupDescription {
        error_code,
        is_other_kind: false,
        group_id: group_id.into(),
        state: GroupState::Dead,
        protocol_type: String::new(),
        protocol: String::new(),
        members: Vec::new(),
    })
}

fn to_wire(version: i16, group: GroupDescription, authorized_operations: i32) -> DescribedGroup {
    let is_unknown = group.error_code == ErrorCode::GroupIdNotFound;
    let (error_code, error_message) = if is_unknown && version < FIRST_VERSION_WITH_GROUP_ID_NOT_FOUND {
        (ErrorCode::None, None)
    } else {
        (
            group.error_code,
            is_unknown.then(|| match group.is_other_kind {
                true => KString::from(format!("Group {} is not a classic group.", group.group_id)),
                false => KString::from(format!("Group {} not found.", group.group_id)),
            }),
        )
    };
    // Kafka gives an error no state, apart from the group that is not there.
    let state = if error_code == ErrorCode::None || is_unknown {
        group.state.name()
    } else {
        ""
    };
    let members = group.members.into_iter().map(|member| DescribedGroupMember {
        member_id: member.member_id.into(),
        group_instance_id: member.group_instance_id.map(KString::from),
        client_id: member.client_id.into(),
        client_host: member.client_host.into(),
        member_metadata: member.metadata,
        member_assignment: member.assignment,
    });
    DescribedGroup {
        error_code: error_code.code(),
        error_message,
        group_id: group.group_id.into(),
        group_state: state.into(),
        protocol_type: group.protocol_type.into(),
        protocol_data: group.protocol.into(),
        members: members.collect(),
        authorized_operations: if error_code == ErrorCode::None {
            authorized_operations
        } else {
            OPERATIONS_NOT_ASKED_FOR
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown() -> GroupDescription {
        GroupDescription {
            error_code: ErrorCode::GroupIdNotFound,
            is_other_kind: false,
            group_id: "g".to_owned(),
            state: GroupState::Dead,
            protocol_type: String::new(),
            protocol: String::new(),
            members: Vec::new(),
        }
    }

    #[test]
    fn unknown_group_is_an_error_from_version_6_on() {
        let old = to_wire(5, unknown(), OPERATIONS_NOT_ASKED_FOR);
        assert_eq!((old.error_code, old.error_message, old.group_state.as_str()), (0, None, "Dead"));
        let new = to_wire(6, unknown(), OPERATIONS_NOT_ASKED_FOR);
        assert_eq!(
            (new.error_code, new.group_state.as_str()),
            (ErrorCode::GroupIdNotFound.code(), "Dead")
        );
        assert_eq!(new.error_message.as_deref(), Some("Group g not found."));
    }
}
