//! IncrementalAlterConfigs: sets, deletes, appends to and subtracts from the values of topics, views, brokers, groups and client metrics.
//! Levels of loggers are this process's own; all others are metadata.

use std::{collections::BTreeMap, sync::Arc};

use millstream_core::metadata::{
    configs::{AlterOp, ConfigChange},
    controller::{self, AlterConfigs, Alteration, ConfigResource, Context, Decision, Outcome, Refusal},
};
use millstream_protocol::{
    ErrorCode, KString,
    messages::{
        IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
        incremental_alter_configs_response::AlterConfigsResourceResponse,
    },
};

use super::{
    decisions::{decide_each, refusal, verdict},
    describe_configs::resource_type,
};
use crate::{broker::Broker, context::RequestContext, log_levels::LevelChange};

/// Handles a request.
pub async fn handle(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let named: Vec<(i8, KString)> = request
        .resources
        .iter()
        .map(|resource| (resource.resource_type, resource.resource_name.clone()))
        .collect();
    let validate_only = request.validate_only;
    let mut loggers = BTreeMap::new();
    for (index, resource) in request.resources.iter().enumerate() {
        if resource.resource_type == resource_type::BROKER_LOGGER {
            loggers.insert(index, alter_loggers(&broker, resource, validate_only));
        }
    }
    let wanted: Vec<Result<AlterConfigs, Refusal>> = request.resources.into_iter().map(alteration).collect();
    let outcomes = decide_each(&broker, named.len(), move |context| alter(context, wanted, validate_only)).await;
    let outcomes = outcomes
        .into_iter()
        .enumerate()
        .map(|(index, outcome)| loggers.remove(&index).unwrap_or(outcome));
    let response = |((resource_type, resource_name), outcome): ((i8, KString), Outcome<()>)| {
        let (error_code, error_message) = verdict(&outcome);
        AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type,
            resource_name,
        }
    };
    IncrementalAlterConfigsResponse {
        responses: named.into_iter().zip(outcomes).map(response).collect(),
        ..Default::default()
    }
}

/// Levels of this broker's loggers.
fn alter_loggers(broker: &Broker, resource: &AlterConfigsResource, validate_only: bool) -> Outcome<()> {
    let node_id = broker.config.node_id;
    match resource.resource_name.parse::<i32>() {
        Ok(id) if id == node_id => {}
        Ok(id) => {
            let message = format!("Unexpected node id. Expected {node_id}, but received {id}");
            return Err(refusal(ErrorCode::InvalidRequest, message));
        }
        Err(_) => return Err(no_number(&resource.resource_name)),
    }
    let changes: Result<Vec<LevelChange<'_>>, Refusal> = resource.configs.iter().map(level_change).collect();
    broker.log_levels.alter(&changes?, validate_only)
}

fn level_change(config: &AlterableConfig) -> Result<LevelChange<'_>, Refusal> {
    Ok(LevelChange {
        logger: &config.name,
        op: operation(config)?,
        level: config.value.as_deref(),
    })
}

fn alteration(resource: AlterConfigsResource) -> Result<AlterConfigs, Refusal> {
    let changes: Result<Vec<ConfigChange>, Refusal> = resource.configs.into_iter().map(change).collect();
    Ok(AlterConfigs {
        resource: config_resource(resource.resource_type, &resource.resource_name)?,
        alteration: Alteration::Changes(changes?),
    })
}

pub(super) fn config_resource(kind: i8, name: &str) -> Result<ConfigResource, Refusal> {
    match kind {
        resource_type::TOPIC => Ok(ConfigResource::Topic(name.to_owned())),
        resource_type::BROKER if name.is_empty() => Ok(ConfigResource::AllBrokers),
        resource_type::BROKER => {
            let id = name.parse().map_err(|_| no_number(name))?;
            Ok(ConfigResource::Broker(id))
        }
        resource_type::GROUP => Ok(ConfigResource::Group(name.to_owned())),
        resource_type::CLIENT_METRICS => Ok(ConfigResource::ClientMetrics(name.to_owned())),
        resource_type::BROKER_LOGGER => Err(refusal(
            ErrorCode::InvalidRequest,
            "This server has no configurations for this type of resource.",
        )),
        other => Err(refusal(ErrorCode::InvalidRequest, format!("Unsupported resource type: {other}"))),
    }
}

fn no_number(name: &str) -> Refusal {
    let shown: String = name.escape_debug().take(64).collect();
    refusal(ErrorCode::InvalidRequest, format!("Node id must be an integer, but it is: {shown}"))
}

fn operation(config: &AlterableConfig) -> Result<AlterOp, Refusal> {
    AlterOp::from_code(config.config_operation).ok_or_else(|| {
        refusal(
            ErrorCode::InvalidRequest,
            format!("Unknown operation type {}.", config.config_operation),
        )
    })
}

fn change(config: AlterableConfig) -> Result<ConfigChange, Refusal> {
    let op = operation(&config)?;
    Ok(ConfigChange {
        name: config.name.into(),
        op,
        value: config.value.map(String::from),
    })
}

/// Decides on what is well formed; the outcomes are in the order of the request.
pub(super) fn alter(context: &Context<'_>, wanted: Vec<Result<AlterConfigs, Refusal>>, validate_only: bool) -> Decision<Vec<Outcome<()>>> {
    let valid: Vec<AlterConfigs> = wanted.iter().flatten().cloned().collect();
    let Decision { records, reply } = controller::alter_configs(context, &valid, validate_only);
    let mut decided = reply.into_iter();
    let unanswered = || Err(refusal(ErrorCode::UnknownServerError, "The resource was not decided on."));
    let outcome = |wanted: Result<AlterConfigs, Refusal>| wanted.and_then(|_| decided.next().unwrap_or_else(unanswered));
    Decision {
        records,
        reply: wanted.into_iter().map(outcome).collect(),
    }
}

#[cfg(test)]
mod tests {
    use millstream_core::metadata::configs::Overrides;

    use super::super::topology::test_image;
    use super::*;

    fn resource(kind: i8, name: &str, operation: i8) -> AlterConfigsResource {
        let config = AlterableConfig {
            name: KString::from("retention.ms"),
            config_operation: operation,
            value: Some(KString::from("5")),
        };
        AlterConfigsResource {
            resource_type: kind,
            resource_name: KString::from(name),
            configs: vec![config],
        }
    }

    #[test]
    fn resources_are_read_by_type_and_name() {
        use resource_type::{BROKER, GROUP, TOPIC};
        assert_eq!(config_resource(TOPIC, "a"), Ok(ConfigResource::Topic("a".to_owned())));
        assert_eq!(config_resource(BROKER, "7"), Ok(ConfigResource::Broker(7)));
        assert_eq!(config_resource(BROKER, ""), Ok(ConfigResource::AllBrokers));
        assert_eq!(config_resource(GROUP, "g"), Ok(ConfigResource::Group("g".to_owned())));
        for (kind, name) in [(BROKER, "x"), (0, "a")] {
            assert_eq!(config_resource(kind, name).unwrap_err().code, ErrorCode::InvalidRequest);
        }
    }

    #[test]
    fn an_unknown_operation_is_refused() {
        assert_eq!(
            alteration(resource(resource_type::TOPIC, "a", 4)).unwrap_err().code,
            ErrorCode::InvalidRequest
        );
    }

    #[test]
    fn outcomes_stay_beside_their_requests_and_validation_writes_nothing() {
        let (image, fixed) = (test_image(), Overrides::new());
        let context = Context {
            image: &image,
            brokers: &[1],
            fixed_configs: &fixed,
            now_ms: 0,
            cluster_admin: true,
        };
        let wanted = || {
            let resources = [
                resource(resource_type::GROUP, "g", 0),
                resource(resource_type::TOPIC, "no", 0),
                resource(resource_type::TOPIC, "orders", 0),
            ];
            resources.into_iter().map(alteration).collect::<Vec<_>>()
        };
        let decision = alter(&context, wanted(), false);
        assert_eq!(
            decision.reply.iter().map(|outcome| verdict(outcome).0).collect::<Vec<_>>(),
            [40, 3, 0]
        );
        assert_eq!(decision.records.len(), 1);
        assert!(alter(&context, wanted(), true).records.is_empty());
    }
}
