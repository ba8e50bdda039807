//! ListGroups, versions 0 to 5.

use std::sync::Arc;

use millstream_core::group;
use millstream_protocol::{
    ErrorCode, KString,
    messages::{ListGroupsRequest, ListGroupsResponse, list_groups_response::ListedGroup},
};

use crate::{broker::Broker, context::RequestContext};

pub(crate) async fn handle(broker: Arc<Broker>, _context: RequestContext, request: ListGroupsRequest) -> ListGroupsResponse {
    let owned = |names: Vec<KString>| names.into_iter().map(String::from).collect();
    match broker
        .groups
        .list_groups(&broker, owned(request.states_filter), owned(request.types_filter))
        .await
    {
        Ok(groups) => ListGroupsResponse {
            throttle_time_ms: 0,
            error_code: ErrorCode::None.code(),
            groups: groups.into_iter().map(to_wire).collect(),
        },
        Err(error) => ListGroupsResponse {
            error_code: error.code(),
            ..ListGroupsResponse::default()
        },
    }
}

fn to_wire(group: group::ListedGroup) -> ListedGroup {
    ListedGroup {
        group_id: group.group_id.into(),
        protocol_type: group.protocol_type.into(),
        group_state: KString::from_static(group.state),
        group_type: KString::from_static(group.group_type),
    }
}
