//! GetTelemetrySubscriptions and PushTelemetry (KIP-714).

use std::sync::Arc;

use millstream_core::metadata::configs::ClientFacts;
use millstream_protocol::{
    ErrorCode, KString,
    messages::{GetTelemetrySubscriptionsRequest, GetTelemetrySubscriptionsResponse, PushTelemetryRequest, PushTelemetryResponse},
};
use uuid::Uuid;

use crate::{
    broker::Broker,
    context::RequestContext,
    telemetry::{Push, wanted},
};

/// Codecs that clients may push with, the wanted one first: zstd, lz4, gzip, snappy.
const CODECS: [i8; 4] = [4, 3, 1, 2];

fn facts(context: &RequestContext, id: Uuid) -> ClientFacts {
    let software = context.software();
    ClientFacts {
        instance_id: millstream_core::metadata::id::render(id),
        client_id: context.client_id.to_string(),
        software_name: software.0,
        software_version: software.1,
        source_address: context.client_address.to_string(),
        source_port: context.client_port.to_string(),
    }
}

pub(crate) async fn subscriptions(
    broker: Arc<Broker>,
    context: RequestContext,
    request: GetTelemetrySubscriptionsRequest,
) -> GetTelemetrySubscriptionsResponse {
    let wanted = wanted(&broker.metadata.image(), &facts(&context, request.client_instance_id));
    let now_ms = broker.clock.wall_ms();
    match broker
        .telemetry
        .ask(request.client_instance_id, &context.client_id, &wanted, now_ms)
    {
        Ok(client_instance_id) => GetTelemetrySubscriptionsResponse {
            throttle_time_ms: 0,
            error_code: 0,
            client_instance_id,
            subscription_id: wanted.subscription_id,
            accepted_compression_types: CODECS.to_vec(),
            push_interval_ms: wanted.interval_ms,
            telemetry_max_bytes: i32::try_from(broker.config.number("telemetry.max.bytes")).unwrap_or(i32::MAX),
            delta_temporality: true,
            requested_metrics: wanted.names.into_iter().map(KString::from).collect(),
        },
        Err(error) => GetTelemetrySubscriptionsResponse {
            error_code: error.code(),
            client_instance_id: request.client_instance_id,
            ..GetTelemetrySubscriptionsResponse::default()
        },
    }
}

pub(crate) async fn push(broker: Arc<Broker>, context: RequestContext, request: PushTelemetryRequest) -> PushTelemetryResponse {
    let outcome = if request.client_instance_id.is_nil() {
        Err(ErrorCode::InvalidRequest)
    } else {
        let wanted = wanted(&broker.metadata.image(), &facts(&context, request.client_instance_id));
        let push = Push {
            id: request.client_instance_id,
            subscription_id: request.subscription_id,
            terminating: request.terminating,
            codec: request.compression_type,
            bytes: &request.metrics,
            bytes_max: broker.config.size("telemetry.max.bytes"),
        };
        broker.telemetry.push(&push, &wanted, broker.clock.wall_ms())
    };
    PushTelemetryResponse {
        throttle_time_ms: 0,
        error_code: outcome.err().unwrap_or(ErrorCode::None).code(),
    }
}
