//! DeleteGroups, versions 0 to 2.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use millstream_protocol::{
    ErrorCode, KString,
    messages::{DeleteGroupsRequest, DeleteGroupsResponse, delete_groups_response::DeletableGroupResult},
};

use crate::{broker::Broker, context::RequestContext, groups::GROUPS_AT_ONCE};

pub(crate) async fn handle(broker: Arc<Broker>, _context: RequestContext, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let deletions = stream::iter(request.groups_names).map(|group_id| delete(Arc::clone(&broker), group_id));
    DeleteGroupsResponse {
        throttle_time_ms: 0,
        results: deletions.buffered(GROUPS_AT_ONCE).collect().await,
    }
}

async fn delete(broker: Arc<Broker>, group_id: KString) -> DeletableGroupResult {
    let outcome = broker.groups.delete_group(&broker, String::from(group_id.clone())).await;
    if outcome == ErrorCode::None {
        // What a share group had of partitions goes with it.
        let deleted = group_id.to_string();
        if let Err(error) = broker.shares.forget(&broker, move |key| key.group_id == deleted).await {
            tracing::warn!(%group_id, ?error, "the share state of a deleted group remains");
        }
    }
    DeletableGroupResult {
        group_id,
        error_code: outcome.code(),
    }
}
