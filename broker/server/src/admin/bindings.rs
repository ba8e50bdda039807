//! Plugins on a topic's produce hook.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use millstream_core::{
    metadata::{controller::NewBinding, image::BindingImage},
    transform::{BreakerMode, FailurePolicy, Hook, Limits},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::{
    error::ApiError,
    extract::{FromJson, FromPath},
    plugins::version_or_latest,
    topics::find,
};
use crate::broker::Broker;

/// Limits in a request: what is left out has the hook's default.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsRequest {
    deadline_ms: Option<u32>,
    memory_bytes: Option<u64>,
    crashes_per_minute: Option<u32>,
}

impl LimitsRequest {
    pub fn or_defaults(&self, hook: Hook) -> Limits {
        let defaults = Limits::for_hook(hook);
        Limits {
            deadline_ms: self.deadline_ms.unwrap_or(defaults.deadline_ms),
            memory_bytes: self.memory_bytes.unwrap_or(defaults.memory_bytes),
            crashes_per_minute: self.crashes_per_minute.unwrap_or(defaults.crashes_per_minute),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BindRequest {
    /// The plugin's name if left out.
    name: Option<String>,
    plugin: String,
    /// The latest one if left out.
    version: Option<String>,
    hook: Hook,
    #[serde(default)]
    order: i32,
    config: Option<Box<RawValue>>,
    policy: Option<FailurePolicy>,
    #[serde(default)]
    breaker: BreakerMode,
    limits: Option<LimitsRequest>,
    dead_letter_topic: Option<String>,
    #[serde(default)]
    security: bool,
}

#[derive(Serialize)]
pub(super) struct BindingBody {
    name: String,
    hook: Hook,
    order: i32,
    plugin: String,
    version: String,
    sha256: String,
    config: Value,
    policy: FailurePolicy,
    breaker: BreakerMode,
    limits: LimitsBody,
    dead_letter_topic: Option<String>,
    security: bool,
}

#[derive(Serialize)]
struct LimitsBody {
    deadline_ms: u32,
    memory_bytes: u64,
    crashes_per_minute: u32,
}

impl From<&BindingImage> for BindingBody {
    fn from(binding: &BindingImage) -> Self {
        let BindingImage {
            name,
            hook,
            order,
            plugin,
            version,
            sha256,
            config,
            policy,
            breaker,
            limits,
            dead_letter_topic,
            security,
        } = binding.clone();
        // The controller takes only JSON; text shows what it is if that ever fails.
        let config = serde_json::from_str(&config).unwrap_or(Value::String(config));
        let Limits {
            deadline_ms,
            memory_bytes,
            crashes_per_minute,
        } = limits;
        let limits = LimitsBody {
            deadline_ms,
            memory_bytes,
            crashes_per_minute,
        };
        Self {
            name,
            hook,
            order,
            plugin,
            version,
            sha256,
            config,
            policy,
            breaker,
            limits,
            dead_letter_topic,
            security,
        }
    }
}

pub(super) async fn list(State(broker): State<Arc<Broker>>, FromPath(topic): FromPath<String>) -> Result<Json<Vec<BindingBody>>, ApiError> {
    let image = broker.metadata.image();
    Ok(Json(
        find(image.topic(&topic), &topic)?.bindings.iter().map(BindingBody::from).collect(),
    ))
}

pub(super) async fn bind(
    State(broker): State<Arc<Broker>>,
    FromPath(topic): FromPath<String>,
    FromJson(request): FromJson<BindRequest>,
) -> Result<(StatusCode, Json<BindingBody>), ApiError> {
    let image = broker.metadata.image();
    find(image.topic(&topic), &topic)?;
    let version = version_or_latest(&image, &request.plugin, request.version)?;
    let new = NewBinding {
        name: request.name.unwrap_or_else(|| request.plugin.clone()),
        hook: request.hook,
        order: request.order,
        plugin: request.plugin,
        version,
        config: config_text(request.config),
        policy: request.policy,
        breaker: request.breaker,
        limits: request.limits.map(|limits| limits.or_defaults(request.hook)),
        dead_letter_topic: request.dead_letter_topic,
        security: request.security,
    };
    let bound = broker.plugins.bind(&broker, &topic, new).await?;
    Ok((StatusCode::CREATED, Json(BindingBody::from(&bound))))
}

pub(super) async fn unbind(
    State(broker): State<Arc<Broker>>,
    FromPath((topic, binding)): FromPath<(String, String)>,
) -> Result<StatusCode, ApiError> {
    find(broker.metadata.image().topic(&topic), &topic)?;
    broker.plugins.unbind(&broker, &topic, &binding).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A configuration as it was sent, to the last digit of its numbers; empty if there is none.
pub(super) fn config_text(config: Option<Box<RawValue>>) -> String {
    config.map(|config| config.get().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_and_a_hook_are_enough() {
        let request: BindRequest = serde_json::from_str(r#"{"plugin":"p","hook":"produce"}"#).unwrap();
        assert!(request.hook == Hook::Produce && request.order == 0 && !request.security && request.version.is_none());
        assert_eq!(config_text(request.config), "");
    }

    #[test]
    fn a_configuration_keeps_its_digits() {
        let text = r#"{"plugin":"p","hook":"produce","config":{"max": 12345678901234567890123}}"#;
        let request: BindRequest = serde_json::from_str(text).unwrap();
        assert_eq!(config_text(request.config), r#"{"max": 12345678901234567890123}"#);
    }

    #[test]
    fn unknown_fields_are_refused() {
        for text in [
            r#"{"plugin":"p","hook":"produce","priority":1}"#,
            r#"{"plugin":"p","hook":"produce","limits":{"fuel":1}}"#,
            r#"{"plugin":"p","hook":"consume"}"#,
            r#"{"hook":"produce"}"#,
        ] {
            assert!(serde_json::from_str::<BindRequest>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits_left_out_are_those_of_the_hook() {
        let request: LimitsRequest = serde_json::from_str(r#"{"deadline_ms":7}"#).unwrap();
        assert_eq!(
            request.or_defaults(Hook::View),
            Limits {
                deadline_ms: 7,
                ..Limits::for_hook(Hook::View)
            }
        );
    }
}
