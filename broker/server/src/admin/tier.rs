//! Where partitions stand in the bucket.

use std::sync::Arc;

use axum::{Json, extract::State};
use millstream_log::remote::TierStatus;
use serde::{Deserialize, Serialize};

use super::{error::ApiError, extract::FromQuery, topics::find};
use crate::broker::Broker;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TierQuery {
    topic: Option<String>,
}

/// `remote_end` is exclusive; both ends are null while nothing is in the bucket.
#[derive(Serialize)]
pub(super) struct TierBody {
    topic: String,
    partition: i32,
    remote_start: Option<i64>,
    remote_end: Option<i64>,
    local_start: i64,
    remote_segments: usize,
    remote_bytes: u64,
    pending_bytes: u64,
    last_error: Option<String>,
}

impl From<TierStatus> for TierBody {
    fn from(status: TierStatus) -> Self {
        Self {
            topic: status.topic,
            partition: status.partition.partition,
            remote_start: status.bounds.map(|bounds| bounds.start_offset),
            remote_end: status.bounds.map(|bounds| bounds.end_offset),
            local_start: status.local_start_offset,
            remote_segments: status.remote_segments,
            remote_bytes: status.remote_bytes,
            pending_bytes: status.pending_bytes,
            last_error: status.last_error,
        }
    }
}

/// Partitions of one topic or of all, by topic and number; none if there is no tier.
pub(super) async fn status(
    State(broker): State<Arc<Broker>>,
    FromQuery(query): FromQuery<TierQuery>,
) -> Result<Json<Vec<TierBody>>, ApiError> {
    if let Some(topic) = &query.topic {
        find(broker.metadata.image().topic(topic), topic)?;
    }
    let all = broker.remote.as_ref().map(|remote| remote.status()).unwrap_or_default();
    let wanted = all
        .into_iter()
        .filter(|status| query.topic.as_ref().is_none_or(|topic| status.topic == *topic));
    let mut bodies: Vec<TierBody> = wanted.map(TierBody::from).collect();
    bodies.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    Ok(Json(bodies))
}
