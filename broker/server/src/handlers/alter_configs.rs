//! AlterConfigs: sets exactly the values of the request and takes all others away. Old clients only; newer ones change single values.

use std::sync::Arc;

use millstream_core::metadata::controller::{AlterConfigs, Alteration, Refusal};
use millstream_protocol::{
    KString,
    messages::{
        AlterConfigsRequest, AlterConfigsResponse, alter_configs_request::AlterConfigsResource,
        alter_configs_response::AlterConfigsResourceResponse,
    },
};

use super::{
    decisions::{decide_each, verdict},
    incremental_alter_configs::{alter, config_resource},
};
use crate::{broker::Broker, context::RequestContext};

pub(crate) async fn handle(broker: Arc<Broker>, _context: RequestContext, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let named: Vec<(i8, KString)> = request
        .resources
        .iter()
        .map(|resource| (resource.resource_type, resource.resource_name.clone()))
        .collect();
    let wanted: Vec<Result<AlterConfigs, Refusal>> = request.resources.into_iter().map(replacement).collect();
    let validate_only = request.validate_only;
    let outcomes = decide_each(&broker, named.len(), move |context| alter(context, wanted, validate_only)).await;
    let responses = named.into_iter().zip(outcomes).map(|((resource_type, resource_name), outcome)| {
        let (error_code, error_message) = verdict(&outcome);
        AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type,
            resource_name,
        }
    });
    AlterConfigsResponse {
        throttle_time_ms: 0,
        responses: responses.collect(),
    }
}

fn replacement(resource: AlterConfigsResource) -> Result<AlterConfigs, Refusal> {
    let values = resource
        .configs
        .into_iter()
        .map(|config| (config.name.into(), config.value.map(String::from)));
    Ok(AlterConfigs {
        resource: config_resource(resource.resource_type, &resource.resource_name)?,
        alteration: Alteration::Replace(values.collect()),
    })
}
