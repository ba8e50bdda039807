//! Health, metrics and the API's own description.

use std::sync::Arc;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use super::error::ApiError;
use crate::broker::Broker;

/// The contract.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the process should go on living: not once its data directory failed.
pub(super) async fn healthz(State(broker): State<Arc<Broker>>) -> Result<&'static str, ApiError> {
    if broker.is_offline() { Err(offline()) } else { Ok("ok") }
}

/// Whether clients should be sent here.
pub(super) async fn readyz(State(broker): State<Arc<Broker>>) -> Result<&'static str, ApiError> {
    if broker.is_offline() {
        Err(offline())
    } else if *broker.stopping.borrow() {
        Err(ApiError::unavailable("the broker is stopping"))
    } else {
        Ok("ok")
    }
}

fn offline() -> ApiError {
    ApiError::unavailable("the data directory is offline since a sync failed; replace the disk and restart")
}

pub(super) async fn metrics(State(broker): State<Arc<Broker>>) -> Response {
    ([(header::CONTENT_TYPE, OPENMETRICS)], broker.metrics.encode(&broker)).into_response()
}

pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}
