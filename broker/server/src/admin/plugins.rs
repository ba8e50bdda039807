//! The plugin registry.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use millstream_core::{
    metadata::{ClusterImage, image::PluginImage},
    transform::{Hook, PluginStats},
};
use serde::Serialize;

use super::{
    error::ApiError,
    extract::{FromPath, FromWasm},
};
use crate::{broker::Broker, plugins::latest_version};

#[derive(Serialize)]
pub(super) struct PluginBody {
    name: String,
    version: String,
    sha256: String,
    size_bytes: u64,
    hooks: Vec<Hook>,
    /// JSON Schema as text, empty if it takes no configuration.
    config_schema: String,
    pushed_ms: i64,
    bound_to: Vec<String>,
}

impl PluginBody {
    fn new(image: &ClusterImage, plugin: &PluginImage) -> Self {
        let PluginImage {
            name,
            version,
            sha256,
            size_bytes,
            hooks,
            config_schema,
            pushed_ms,
        } = plugin.clone();
        let bound = image
            .bindings()
            .filter(|(_, binding)| binding.plugin == name && binding.version == version);
        let mut bound_to: Vec<String> = bound.map(|(target, _)| target.to_owned()).collect();
        bound_to.dedup();
        Self {
            name,
            version,
            sha256,
            size_bytes,
            hooks,
            config_schema,
            pushed_ms,
            bound_to,
        }
    }
}

pub(super) async fn list(State(broker): State<Arc<Broker>>) -> Json<Vec<PluginBody>> {
    let image = broker.metadata.image();
    Json(image.plugins.values().map(|plugin| PluginBody::new(&image, plugin)).collect())
}

pub(super) async fn push(State(broker): State<Arc<Broker>>, wasm: FromWasm) -> Result<(StatusCode, Json<PluginBody>), ApiError> {
    let FromWasm { bytes, permit } = wasm;
    let plugin = broker.plugins.push(&broker, bytes).await?;
    drop(permit);
    Ok((StatusCode::CREATED, Json(PluginBody::new(&broker.metadata.image(), &plugin))))
}

pub(super) async fn remove(
    State(broker): State<Arc<Broker>>,
    FromPath((name, version)): FromPath<(String, String)>,
) -> Result<StatusCode, ApiError> {
    broker.plugins.remove(&broker, &name, &version).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn stats(State(broker): State<Arc<Broker>>) -> Json<Vec<PluginStats>> {
    Json(broker.plugins.stats())
}

/// The version a request names, or the latest one.
pub(super) fn version_or_latest(image: &ClusterImage, plugin: &str, version: Option<String>) -> Result<String, ApiError> {
    version
        .or_else(|| latest_version(image, plugin))
        .ok_or_else(|| ApiError::not_found(format!("plugin '{plugin}' is not in the registry: push it first")))
}
