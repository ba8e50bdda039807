//! ListConfigResources: everything that can be configured (KIP-1142). Version 0 knew client metrics subscriptions only.

use std::sync::Arc;

use millstream_core::metadata::ClusterImage;
use millstream_protocol::{
    ErrorCode, KString,
    messages::{ListConfigResourcesRequest, ListConfigResourcesResponse, list_config_resources_response::ConfigResource},
};

use super::{
    describe_configs::resource_type::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC},
    topology,
};
use crate::{broker::Broker, context::RequestContext};

/// All types, in the order in which they are listed.
const TYPES: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

pub(crate) async fn handle(
    broker: Arc<Broker>,
    context: RequestContext,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let types = match request.resource_types {
        _ if context.version == 0 => vec![CLIENT_METRICS],
        types if types.is_empty() => TYPES.to_vec(),
        types => types,
    };
    if types.iter().any(|wanted| !TYPES.contains(wanted)) {
        return ListConfigResourcesResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            ..ListConfigResourcesResponse::default()
        };
    }
    let image = broker.metadata.image();
    let resources = TYPES.into_iter().filter(|kind| types.contains(kind)).flat_map(|resource_type| {
        let names = names(&image, broker.config.node_id, resource_type).into_iter();
        names.map(move |name| ConfigResource {
            resource_name: KString::from(name),
            resource_type,
        })
    });
    ListConfigResourcesResponse {
        config_resources: resources.collect(),
        ..ListConfigResourcesResponse::default()
    }
}

fn names(image: &ClusterImage, node_id: i32, resource_type: i8) -> Vec<String> {
    match resource_type {
        TOPIC => topology::all_names(image).into_iter().map(String::from).collect(),
        CLIENT_METRICS => image.client_metrics.keys().cloned().collect(),
        GROUP => image.group_configs.keys().cloned().collect(),
        _ => vec![node_id.to_string()],
    }
}
