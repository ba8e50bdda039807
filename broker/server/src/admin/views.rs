//! Views: read-only topics over other ones.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use millstream_core::{
    metadata::{
        configs::Overrides,
        controller::{NewBinding, NewView},
        id,
        image::ViewImage,
    },
    transform::{BreakerMode, FailurePolicy, Hook},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    bindings::{BindingBody, LimitsRequest, config_text},
    error::ApiError,
    extract::{FromJson, FromPath},
    plugins::version_or_latest,
};
use crate::broker::Broker;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateViewRequest {
    name: String,
    source: String,
    plugin: String,
    /// The latest one if left out.
    version: Option<String>,
    config: Option<Box<RawValue>>,
    policy: Option<FailurePolicy>,
    #[serde(default)]
    breaker: BreakerMode,
    limits: Option<LimitsRequest>,
    #[serde(default)]
    security: bool,
}

#[derive(Serialize)]
pub(super) struct ViewBody {
    name: String,
    id: String,
    source: String,
    created_ms: i64,
    configs: Overrides,
    bindings: Vec<BindingBody>,
}

impl From<&ViewImage> for ViewBody {
    fn from(view: &ViewImage) -> Self {
        Self {
            name: view.name.clone(),
            id: id::render(view.id),
            source: view.source.clone(),
            created_ms: view.created_ms,
            configs: view.configs.clone(),
            bindings: view.bindings.iter().map(BindingBody::from).collect(),
        }
    }
}

pub(super) async fn list(State(broker): State<Arc<Broker>>) -> Json<Vec<ViewBody>> {
    Json(broker.metadata.image().views.values().map(|view| ViewBody::from(&**view)).collect())
}

pub(super) async fn create(
    State(broker): State<Arc<Broker>>,
    FromJson(request): FromJson<CreateViewRequest>,
) -> Result<(StatusCode, Json<ViewBody>), ApiError> {
    let version = version_or_latest(&broker.metadata.image(), &request.plugin, request.version)?;
    let binding = NewBinding {
        name: request.plugin.clone(),
        hook: Hook::View,
        order: 0,
        plugin: request.plugin,
        version,
        config: config_text(request.config),
        policy: request.policy,
        breaker: request.breaker,
        limits: request.limits.map(|limits| limits.or_defaults(Hook::View)),
        dead_letter_topic: None,
        security: request.security,
    };
    let new = NewView {
        name: request.name,
        id: Uuid::new_v4(),
        source: request.source,
        bindings: vec![binding],
        configs: Vec::new(),
    };
    let view = broker.plugins.create_view(&broker, new).await?;
    Ok((StatusCode::CREATED, Json(ViewBody::from(&view))))
}

pub(super) async fn remove(State(broker): State<Arc<Broker>>, FromPath(view): FromPath<String>) -> Result<StatusCode, ApiError> {
    broker.plugins.delete_view(&broker, &view).await?;
    Ok(StatusCode::NO_CONTENT)
}
