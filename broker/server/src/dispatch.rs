//! From a frame to the handler of its API key.

use std::{
    ops::RangeInclusive,
    pin::Pin,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use millstream_core::quota::REQUEST_PERCENTAGE;
use millstream_protocol::{
    ApiKey, DecodeError, Decoder, KString, Request, Response,
    api::{advertised_versions, decode_request_header, encode_response},
    chunk::Chunk,
};

use crate::{
    broker::Broker,
    context::{ANONYMOUS, RequestContext},
    handlers::*,
    quotas::{Mute, Timed, percent},
    validation::off_turn,
};

/// A request's answer, in the order of the requests.
pub(crate) enum Answer {
    /// It is ready.
    Now(Vec<Chunk>),
    /// It needs the disk first; the next request may start. `None`: the connection must close.
    Soon(BoxFuture<Option<Vec<Chunk>>>),
    /// The same, but it may take as long as the client wants to wait.
    Later(BoxFuture<Option<Vec<Chunk>>>),
    /// The client expects none.
    Nothing,
    /// The connection must close; the reason goes to the log.
    Close(String),
}

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The keys that are served, with their versions. ApiVersions advertises exactly these.
pub const API_VERSIONS: &[ApiKey] = &[
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::OffsetCommit,
    ApiKey::OffsetFetch,
    ApiKey::FindCoordinator,
    ApiKey::JoinGroup,
    ApiKey::Heartbeat,
    ApiKey::LeaveGroup,
    ApiKey::SyncGroup,
    ApiKey::DescribeGroups,
    ApiKey::ListGroups,
    ApiKey::SaslHandshake,
    ApiKey::ApiVersions,
    ApiKey::CreateTopics,
    ApiKey::DeleteTopics,
    ApiKey::DeleteRecords,
    ApiKey::InitProducerId,
    ApiKey::OffsetForLeaderEpoch,
    ApiKey::AddPartitionsToTxn,
    ApiKey::AddOffsetsToTxn,
    ApiKey::EndTxn,
    ApiKey::WriteTxnMarkers,
    ApiKey::TxnOffsetCommit,
    ApiKey::DescribeAcls,
    ApiKey::CreateAcls,
    ApiKey::DeleteAcls,
    ApiKey::DescribeConfigs,
    ApiKey::AlterConfigs,
    ApiKey::AlterReplicaLogDirs,
    ApiKey::DescribeLogDirs,
    ApiKey::SaslAuthenticate,
    ApiKey::CreatePartitions,
    ApiKey::CreateDelegationToken,
    ApiKey::RenewDelegationToken,
    ApiKey::ExpireDelegationToken,
    ApiKey::DescribeDelegationToken,
    ApiKey::DeleteGroups,
    ApiKey::ElectLeaders,
    ApiKey::IncrementalAlterConfigs,
    ApiKey::AlterPartitionReassignments,
    ApiKey::ListPartitionReassignments,
    ApiKey::OffsetDelete,
    ApiKey::DescribeClientQuotas,
    ApiKey::AlterClientQuotas,
    ApiKey::DescribeUserScramCredentials,
    ApiKey::AlterUserScramCredentials,
    ApiKey::DescribeQuorum,
    ApiKey::UpdateFeatures,
    ApiKey::DescribeCluster,
    ApiKey::DescribeProducers,
    ApiKey::UnregisterBroker,
    ApiKey::DescribeTransactions,
    ApiKey::ListTransactions,
    ApiKey::ConsumerGroupHeartbeat,
    ApiKey::ConsumerGroupDescribe,
    ApiKey::GetTelemetrySubscriptions,
    ApiKey::PushTelemetry,
    ApiKey::ListConfigResources,
    ApiKey::DescribeTopicPartitions,
    ApiKey::ShareGroupHeartbeat,
    ApiKey::ShareGroupDescribe,
    ApiKey::ShareFetch,
    ApiKey::ShareAcknowledge,
    ApiKey::StreamsGroupHeartbeat,
    ApiKey::StreamsGroupDescribe,
    ApiKey::DescribeShareGroupOffsets,
    ApiKey::AlterShareGroupOffsets,
    ApiKey::DeleteShareGroupOffsets,
];

/// The versions of a key that are served and advertised; `None` for keys that are not served.
///
/// InitProducerId 6 is held back: it is unstable in Kafka 4.2.
pub fn served_versions(key: ApiKey) -> Option<RangeInclusive<i16>> {
    if !API_VERSIONS.contains(&key) {
        return None;
    }
    let all = advertised_versions(key);
    let max = match key {
        ApiKey::InitProducerId => 5,
        _ => *all.end(),
    };
    Some(*all.start()..=max.min(*all.end()))
}

/// What a connection knows of its client.
pub(crate) struct Client {
    pub broker: Arc<Broker>,
    pub address: std::net::IpAddr,
    pub port: u16,
    pub mute: Arc<Mute>,
    pub software: Arc<OnceLock<(String, String)>>,
}

struct Incoming {
    broker: Arc<Broker>,
    context: RequestContext,
    correlation_id: i32,
    decoder: Decoder,
}

/// Decodes a frame and starts its handler. What has to keep the order of the connection's requests is done when this returns.
pub(crate) async fn dispatch(client: &Client, frame: Bytes) -> Answer {
    let mut decoder = Decoder::new(frame);
    let header = match decode_request_header(&mut decoder) {
        Ok(header) => header,
        Err(error) => return Answer::Close(format!("bad request header: {error}")),
    };
    let version = header.api_version;
    let Some(key) = ApiKey::from_i16(header.api_key).filter(|key| served_versions(*key).is_some()) else {
        return Answer::Close(format!("unknown api key {} version {version}", header.api_key));
    };
    if served_versions(key).is_none_or(|versions| !versions.contains(&version)) {
        // KIP-511: a client that is newer than the broker learns which versions there are.
        if key == ApiKey::ApiVersions {
            return encoded(&api_versions::unsupported(), 0, header.correlation_id);
        }
        return Answer::Close(format!("{key:?} version {version} is not supported"));
    }
    client.broker.metrics.request(key);
    let context = RequestContext {
        version,
        client_id: header.client_id.unwrap_or(KString::from_static("")),
        client_address: client.address,
        began: tokio::time::Instant::now(),
        principal: ANONYMOUS,
        client_port: client.port,
        mute: Arc::clone(&client.mute),
        software: Arc::clone(&client.software),
    };
    let incoming = Incoming {
        broker: Arc::clone(&client.broker),
        context,
        correlation_id: header.correlation_id,
        decoder,
    };
    route(key, incoming).await
}

fn route(key: ApiKey, incoming: Incoming) -> BoxFuture<Answer> {
    match key {
        ApiKey::Produce => Box::pin(start_produce(incoming)),
        ApiKey::Fetch => later(incoming, fetch::handle),
        ApiKey::JoinGroup => later(incoming, join_group::handle),
        ApiKey::SyncGroup => later(incoming, sync_group::handle),
        ApiKey::ListOffsets => now(incoming, list_offsets::handle),
        ApiKey::Metadata => now(incoming, metadata::handle),
        ApiKey::OffsetCommit => now(incoming, offset_commit::handle),
        ApiKey::OffsetFetch => now(incoming, offset_fetch::handle),
        ApiKey::FindCoordinator => now(incoming, find_coordinator::handle),
        ApiKey::Heartbeat => now(incoming, heartbeat::handle),
        ApiKey::LeaveGroup => now(incoming, leave_group::handle),
        ApiKey::DescribeGroups => now(incoming, describe_groups::handle),
        ApiKey::ListGroups => now(incoming, list_groups::handle),
        ApiKey::ApiVersions => now(incoming, api_versions::handle),
        ApiKey::CreateTopics => now(incoming, create_topics::handle),
        ApiKey::DeleteTopics => now(incoming, delete_topics::handle),
        ApiKey::DeleteRecords => now(incoming, delete_records::handle),
        ApiKey::InitProducerId => now(incoming, init_producer_id::handle),
        ApiKey::OffsetForLeaderEpoch => now(incoming, offset_for_leader_epoch::handle),
        ApiKey::AddPartitionsToTxn => now(incoming, add_partitions_to_txn::handle),
        ApiKey::AddOffsetsToTxn => now(incoming, add_offsets_to_txn::handle),
        ApiKey::EndTxn => now(incoming, end_txn::handle),
        ApiKey::WriteTxnMarkers => now(incoming, write_txn_markers::handle),
        ApiKey::TxnOffsetCommit => now(incoming, txn_offset_commit::handle),
        ApiKey::DescribeProducers => now(incoming, describe_producers::handle),
        ApiKey::DescribeTransactions => now(incoming, describe_transactions::handle),
        ApiKey::ListTransactions => now(incoming, list_transactions::handle),
        ApiKey::ConsumerGroupHeartbeat => now(incoming, consumer_group_heartbeat::handle),
        ApiKey::ConsumerGroupDescribe => now(incoming, consumer_group_describe::handle),
        ApiKey::AlterConfigs => now(incoming, alter_configs::handle),
        ApiKey::AlterReplicaLogDirs => now(incoming, log_dirs::alter),
        ApiKey::DescribeLogDirs => now(incoming, log_dirs::describe),
        ApiKey::ElectLeaders => now(incoming, replicas::elect_leaders),
        ApiKey::AlterPartitionReassignments => now(incoming, replicas::alter_reassignments),
        ApiKey::ListPartitionReassignments => now(incoming, replicas::list_reassignments),
        ApiKey::DescribeQuorum => now(incoming, quorum::describe),
        ApiKey::UnregisterBroker => now(incoming, quorum::unregister_broker),
        ApiKey::ListConfigResources => now(incoming, list_config_resources::handle),
        ApiKey::DescribeAcls => now(incoming, security::describe_acls),
        ApiKey::CreateAcls => now(incoming, security::create_acls),
        ApiKey::DeleteAcls => now(incoming, security::delete_acls),
        ApiKey::SaslHandshake => now(incoming, security::sasl_handshake),
        ApiKey::SaslAuthenticate => now(incoming, security::sasl_authenticate),
        ApiKey::DescribeUserScramCredentials => now(incoming, security::describe_scram),
        ApiKey::AlterUserScramCredentials => now(incoming, security::alter_scram),
        ApiKey::CreateDelegationToken => now(incoming, security::create_token),
        ApiKey::RenewDelegationToken => now(incoming, security::renew_token),
        ApiKey::ExpireDelegationToken => now(incoming, security::expire_token),
        ApiKey::DescribeDelegationToken => now(incoming, security::describe_token),
        ApiKey::DescribeClientQuotas => now(incoming, client_quotas::describe),
        ApiKey::AlterClientQuotas => now(incoming, client_quotas::alter),
        ApiKey::UpdateFeatures => now(incoming, update_features::handle),
        ApiKey::ShareFetch => later(incoming, share_fetch::fetch),
        ApiKey::ShareGroupHeartbeat => now(incoming, share_group_heartbeat::handle),
        ApiKey::ShareGroupDescribe => now(incoming, share_group_describe::handle),
        ApiKey::ShareAcknowledge => now(incoming, share_fetch::acknowledge_only),
        ApiKey::DescribeShareGroupOffsets => now(incoming, share_offsets::describe),
        ApiKey::AlterShareGroupOffsets => now(incoming, share_offsets::alter),
        ApiKey::DeleteShareGroupOffsets => now(incoming, share_offsets::delete),
        ApiKey::StreamsGroupHeartbeat => now(incoming, streams_group_heartbeat::handle),
        ApiKey::StreamsGroupDescribe => now(incoming, streams_group_describe::handle),
        ApiKey::GetTelemetrySubscriptions => now(incoming, telemetry::subscriptions),
        ApiKey::PushTelemetry => now(incoming, telemetry::push),
        ApiKey::DescribeConfigs => now(incoming, describe_configs::handle),
        ApiKey::CreatePartitions => now(incoming, create_partitions::handle),
        ApiKey::DeleteGroups => now(incoming, delete_groups::handle),
        ApiKey::IncrementalAlterConfigs => now(incoming, incremental_alter_configs::handle),
        ApiKey::OffsetDelete => now(incoming, offset_delete::handle),
        ApiKey::DescribeCluster => now(incoming, describe_cluster::handle),
        ApiKey::DescribeTopicPartitions => now(incoming, describe_topic_partitions::handle),
        _ => Box::pin(async move { Answer::Close(format!("{key:?} is not served")) }),
    }
}

/// The request. A large one is many small things, and others must not wait for all of them; only a Produce, which does not come here, has
/// large things that cost nothing.
fn decoded<R: Request>(incoming: &mut Incoming) -> Result<R, DecodeError> {
    let (bytes, version) = (incoming.decoder.remaining(), incoming.context.version);
    off_turn(bytes, || R::decode(&mut incoming.decoder, version))
}

type Handler<R, F> = fn(Arc<Broker>, RequestContext, R) -> F;

/// The answer is complete before the connection's next request starts.
fn now<R, F>(mut incoming: Incoming, handler: Handler<R, F>) -> BoxFuture<Answer>
where
    R: Request + Send + 'static,
    R::Response: Send,
    F: Future<Output = R::Response> + Send + 'static,
{
    Box::pin(async move {
        let version = incoming.context.version;
        match decoded::<R>(&mut incoming) {
            Ok(request) => {
                let quota = RequestQuota::of(&incoming);
                let handled = Box::pin(handler(incoming.broker, incoming.context, request));
                encoded(&quota.measure(handled).await, version, incoming.correlation_id)
            }
            Err(error) => Answer::Close(format!("bad {} version {version}: {error}", R::NAME)),
        }
    })
}

/// The connection's next request may start while this one waits.
fn later<R, F>(mut incoming: Incoming, handler: Handler<R, F>) -> BoxFuture<Answer>
where
    R: Request + Send + 'static,
    R::Response: Send,
    F: Future<Output = R::Response> + Send + 'static,
{
    Box::pin(async move {
        let version = incoming.context.version;
        let request = match decoded::<R>(&mut incoming) {
            Ok(request) => request,
            Err(error) => return Answer::Close(format!("bad {} version {version}: {error}", R::NAME)),
        };
        let correlation_id = incoming.correlation_id;
        let quota = RequestQuota::of(&incoming);
        let response = Box::pin(handler(incoming.broker, incoming.context, request));
        Answer::Later(Box::pin(
            async move { encode(&quota.measure(response).await, version, correlation_id) },
        ))
    })
}

/// Holds a request against its client's `request_percentage`.
struct RequestQuota {
    broker: Arc<Broker>,
    context: RequestContext,
}

impl RequestQuota {
    fn of(incoming: &Incoming) -> Self {
        Self {
            broker: Arc::clone(&incoming.broker),
            context: incoming.context.clone(),
        }
    }

    /// The response, with the time that its client has to wait.
    async fn measure<R: Response>(self, handled: impl Future<Output = R> + Unpin) -> R {
        let (mut response, worked) = Timed::new(handled).await;
        let image = self.broker.metadata.image();
        let quotas = &self.broker.quotas;
        self.context
            .mute
            .throttle(quotas.record(&image, REQUEST_PERCENTAGE, &self.context, percent(worked)));
        let throttle_ms = self.context.mute.remaining_ms();
        if throttle_ms > 0 {
            response.set_throttle_time_ms(throttle_ms);
        }
        response
    }
}

/// Whether a request of this key and version can be here; for the first bytes of a connection.
pub(crate) fn is_served(key: i16, version: i16) -> bool {
    let key = ApiKey::from_i16(key).and_then(served_versions);
    key.is_some_and(|versions| versions.contains(&version))
}

async fn start_produce(mut incoming: Incoming) -> Answer {
    let version = incoming.context.version;
    if version < *<millstream_protocol::messages::ProduceRequest as millstream_protocol::Message>::VERSIONS.start() {
        // Advertised only for librdkafka's sake (KAFKA-18659); no client sends them to a broker that has newer ones.
        return Answer::Close(format!("Produce version {version} is not supported"));
    }
    let request = match millstream_protocol::Message::decode(&mut incoming.decoder, version) {
        Ok(request) => request,
        Err(error) => return Answer::Close(format!("bad ProduceRequest version {version}: {error}")),
    };
    let correlation_id = incoming.correlation_id;
    let quota = RequestQuota::of(&incoming);
    match produce::start(incoming.broker, incoming.context, request).await {
        produce::Started::Answered(response) => {
            Answer::Soon(Box::pin(
                async move { encode(&quota.measure(response).await, version, correlation_id) },
            ))
        }
        produce::Started::Silent => Answer::Nothing,
        produce::Started::SilentFailure(reason) => Answer::Close(reason),
    }
}

fn encode<R: Response>(response: &R, version: i16, correlation_id: i32) -> Option<Vec<Chunk>> {
    match encode_response(response, version, correlation_id) {
        Ok(chunks) => Some(chunks),
        Err(error) => {
            tracing::error!(response = R::NAME, version, %error, "a response could not be encoded");
            None
        }
    }
}

fn encoded<R: Response>(response: &R, version: i16, correlation_id: i32) -> Answer {
    match encode(response, version, correlation_id) {
        Some(chunks) => Answer::Now(chunks),
        None => Answer::Close(format!("the {} could not be encoded", R::NAME)),
    }
}
