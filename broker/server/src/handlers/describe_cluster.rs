//! DescribeCluster: the brokers and the controller, for admin clients.

use std::sync::Arc;

use millstream_protocol::{
    ErrorCode, KString,
    messages::{DescribeClusterRequest, DescribeClusterResponse, describe_cluster_response::DescribeClusterBroker},
};

use super::topology;
use crate::{broker::Broker, context::RequestContext};

/// Endpoints on which brokers answer (KIP-919).
const BROKERS: i8 = 1;
/// Endpoints on which controllers answer; this broker offers none.
const CONTROLLERS: i8 = 2;

/// Handles a request. No broker is ever fenced while there is one, so `include_fenced_brokers` adds nothing.
pub async fn handle(broker: Arc<Broker>, _context: RequestContext, request: DescribeClusterRequest) -> DescribeClusterResponse {
    if let Err((error, message)) = check_endpoint(request.endpoint_type) {
        return DescribeClusterResponse {
            error_code: error.code(),
            error_message: Some(KString::from(message)),
            ..DescribeClusterResponse::default()
        };
    }
    let node = topology::this_node(&broker);
    DescribeClusterResponse {
        endpoint_type: BROKERS,
        cluster_id: topology::cluster_id(&broker.metadata.image()),
        controller_id: node.id,
        brokers: vec![DescribeClusterBroker {
            broker_id: node.id,
            host: node.host,
            port: node.port,
            rack: node.rack,
            is_fenced: false,
        }],
        cluster_authorized_operations: topology::cluster_operations(request.include_cluster_authorized_operations),
        ..DescribeClusterResponse::default()
    }
}

fn check_endpoint(endpoint_type: i8) -> Result<(), (ErrorCode, String)> {
    match endpoint_type {
        BROKERS => Ok(()),
        CONTROLLERS => {
            let message = "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER";
            Err((ErrorCode::MismatchedEndpointType, message.to_owned()))
        }
        other => Err((ErrorCode::UnsupportedEndpointType, format!("Unsupported endpoint type {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_broker_endpoints_are_served() {
        assert_eq!(check_endpoint(1), Ok(()));
        assert_eq!(check_endpoint(2).unwrap_err().0, ErrorCode::MismatchedEndpointType);
        assert_eq!(check_endpoint(0).unwrap_err().0, ErrorCode::UnsupportedEndpointType);
    }
}
