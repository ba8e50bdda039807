//! Produce (0): validate, run the topic's chain, append, and answer when the acknowledgement is true.
//!
//! Everything up to the append happens before the connection's next request starts, so a producer's batches keep their order;
//! waiting for durability does not hold the connection up.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use millstream_core::{
    metadata::{ClusterImage, image::TopicImage, names::printable},
    quota::PRODUCER_BYTE_RATE,
    txn::ProducerIdAndEpoch,
};
use millstream_log::{Appended, VerificationGuard};
use millstream_protocol::{
    ErrorCode, KString,
    chunk::{Chunk, Records},
    messages::{
        ProduceRequest, ProduceResponse,
        produce_request::{PartitionProduceData, TopicProduceData},
        produce_response::{BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse},
    },
    record::BatchHeader,
};
use uuid::Uuid;

use crate::{
    broker::{Broker, Named},
    context::RequestContext,
    dispatch::BoxFuture,
    errors::append_error_code,
    partition::Partition,
    produce_chain,
    transactions::guard_for,
    validation::{Refused, ValidBatch, header_of, off_turn, validate},
};

/// First version that names topics by id (KIP-516).
const TOPIC_ID_VERSION: i16 = 13;

/// What came of starting a produce request.
pub(crate) enum Started {
    /// All partitions are appended or refused; the response comes when the acknowledgements are true.
    Answered(BoxFuture<ProduceResponse>),
    /// acks=0 and all is well: the client expects no response.
    Silent,
    /// acks=0 and something was refused: closing the connection is the only way to say so (KIP-98's predecessor behaviour, kept by Kafka).
    SilentFailure(String),
}

/// One partition's part of the response, and what has to be durable before it may be sent.
struct PartitionOutcome {
    response: PartitionProduceResponse,
    wait: Option<(Arc<Partition>, i64)>,
}

struct TopicOutcome {
    name: KString,
    topic_id: Uuid,
    partitions: Vec<PartitionOutcome>,
}

pub(crate) async fn start(broker: Arc<Broker>, context: RequestContext, request: ProduceRequest) -> Started {
    let acks = request.acks;
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let image = broker.metadata.image();
    let transactional_id = request.transactional_id.map(String::from);
    let throttle_ms = count_bytes(&broker, &context, &image, &request.topic_data);
    let mut topics = Vec::with_capacity(request.topic_data.len());
    let refusal = refused_as_a_whole(acks, transactional_id.as_deref(), &request.topic_data);
    for topic in request.topic_data {
        topics.push(match &refusal {
            Some(refusal) => refused_topic(topic, refusal),
            None => produce_topic(&broker, &context, &image, topic, acks, transactional_id.as_deref()).await,
        });
    }
    if acks == 0 {
        return match topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .find(|partition| partition.response.error_code != 0)
        {
            None => Started::Silent,
            Some(failed) => Started::SilentFailure(format!(
                "a produce request with acks=0 failed with error {}",
                failed.response.error_code
            )),
        };
    }
    Started::Answered(Box::pin(async move {
        let deadline = tokio::time::Instant::now() + timeout;
        let mut responses = Vec::with_capacity(topics.len());
        for topic in topics {
            let mut partition_responses = Vec::with_capacity(topic.partitions.len());
            for outcome in topic.partitions {
                partition_responses.push(if acks == -1 {
                    acknowledged(outcome, deadline).await
                } else {
                    outcome.response
                });
            }
            responses.push(TopicProduceResponse {
                name: topic.name,
                topic_id: topic.topic_id,
                partition_responses,
            });
        }
        ProduceResponse {
            responses,
            throttle_time_ms: i32::try_from(throttle_ms).unwrap_or(i32::MAX),
            ..ProduceResponse::default()
        }
    }))
}

/// Holds the produced bytes against the client's quota; how long it has to wait.
fn count_bytes(broker: &Broker, context: &RequestContext, image: &ClusterImage, topics: &[TopicProduceData]) -> i64 {
    let partitions = topics.iter().flat_map(|topic| &topic.partition_data);
    let bytes: usize = partitions.filter_map(|data| data.records.as_ref()).map(Records::len).sum();
    let throttle_ms = broker.quotas.record(image, PRODUCER_BYTE_RATE, context, bytes as f64);
    context.mute.throttle(throttle_ms);
    throttle_ms
}

/// The response once everything it acknowledges is durable, or what became of it.
async fn acknowledged(outcome: PartitionOutcome, deadline: tokio::time::Instant) -> PartitionProduceResponse {
    let PartitionOutcome { response, wait } = outcome;
    let Some((partition, log_end_offset)) = wait else { return response };
    if partition.high_watermark() >= log_end_offset {
        return response;
    }
    match tokio::time::timeout_at(deadline, partition.wait_for(log_end_offset)).await {
        Ok(true) => response,
        Ok(false) => refused_response(
            response.index,
            &Refused::new(ErrorCode::KafkaStorageError, "the log directory went offline"),
        ),
        Err(_) => refused_response(
            response.index,
            &Refused::new(ErrorCode::RequestTimedOut, "the batch is not durable yet"),
        ),
    }
}

async fn produce_topic(
    broker: &Arc<Broker>,
    context: &RequestContext,
    image: &ClusterImage,
    topic: TopicProduceData,
    acks: i16,
    transactional_id: Option<&str>,
) -> TopicOutcome {
    let target = match writable_topic(image, context.version, &topic) {
        Ok(target) => target,
        Err(refusal) => return refused_topic(topic, &refusal),
    };
    let appending = topic
        .partition_data
        .into_iter()
        .map(|data| produce_partition(broker, context, target, data, acks, transactional_id));
    TopicOutcome {
        name: topic.name,
        topic_id: topic.topic_id,
        partitions: join_all(appending).await,
    }
}

/// Why nothing of a request is stored, as in Kafka.
fn refused_as_a_whole(acks: i16, transactional_id: Option<&str>, topics: &[TopicProduceData]) -> Option<Refused> {
    let partitions = || topics.iter().flat_map(|topic| &topic.partition_data);
    if transactional_id.is_none() && partitions().any(is_transactional) {
        return Some(without_id());
    }
    let message = || format!("acks must be 0, 1 or -1 (all), not {acks}");
    (!(-1..=1).contains(&acks)).then(|| Refused::new(ErrorCode::InvalidRequiredAcks, message()))
}

fn without_id() -> Refused {
    let message = "a transactional batch needs a transactional id";
    Refused::new(ErrorCode::TransactionalIdAuthorizationFailed, message)
}

fn is_transactional(data: &PartitionProduceData) -> bool {
    let first = data.records.as_ref().and_then(|records| records.chunks().first());
    matches!(first, Some(Chunk::Bytes(bytes)) if BatchHeader::parse(bytes).is_ok_and(|header| header.is_transactional()))
}

fn refused_topic(topic: TopicProduceData, refusal: &Refused) -> TopicOutcome {
    let partitions = topic.partition_data.iter();
    TopicOutcome {
        partitions: partitions.map(|data| refused_outcome(data.index, refusal)).collect(),
        name: topic.name,
        topic_id: topic.topic_id,
    }
}

fn writable_topic<'a>(image: &'a ClusterImage, version: i16, topic: &TopicProduceData) -> Result<&'a Arc<TopicImage>, Refused> {
    let name = if version >= TOPIC_ID_VERSION {
        let known = image.names.get(&topic.topic_id);
        known.ok_or_else(|| Refused::new(ErrorCode::UnknownTopicId, format!("no topic has the id {}", topic.topic_id)))?
    } else {
        topic.name.as_str()
    };
    if let Some(topic) = image.topic(name) {
        if topic.internal {
            return Err(Refused::new(
                ErrorCode::InvalidTopicException,
                format!("{name} is written by the broker only"),
            ));
        }
        return Ok(topic);
    }
    match Named::by_name(image, name) {
        Some(named) => {
            let message = format!("{name} is a view; produce to its topic {} instead", named.stored_in().name);
            Err(Refused::new(ErrorCode::InvalidTopicException, message))
        }
        None => Err(Refused::new(
            ErrorCode::UnknownTopicOrPartition,
            format!("topic {:?} does not exist", printable(name)),
        )),
    }
}

async fn produce_partition(
    broker: &Arc<Broker>,
    context: &RequestContext,
    topic: &Arc<TopicImage>,
    data: PartitionProduceData,
    acks: i16,
    transactional_id: Option<&str>,
) -> PartitionOutcome {
    let index = data.index;
    let Some(partition) = broker.partition(topic, index) else {
        let message = format!("topic {} has no partition {index}", topic.name);
        return refused_outcome(index, &Refused::new(ErrorCode::UnknownTopicOrPartition, message));
    };
    let in_sync = usize::try_from(index)
        .ok()
        .and_then(|index| topic.partitions.get(index))
        .map_or(0, |replicas| replicas.isr.len());
    let wanted = usize::try_from(partition.topic_config().min_insync_replicas).unwrap_or(1);
    if acks == -1 && in_sync < wanted {
        let message = format!("{in_sync} replicas are in sync, min.insync.replicas wants {wanted}");
        return refused_outcome(index, &Refused::new(ErrorCode::NotEnoughReplicas, message));
    }
    let records = data.records.and_then(|records| records.into_bytes()).unwrap_or_default();
    match append(broker, context, topic, &partition, records, transactional_id).await {
        Ok(appended) => {
            let wait = (acks == -1).then(|| (Arc::clone(&partition), appended.log_end_offset));
            let response = PartitionProduceResponse {
                index,
                base_offset: appended.base_offset,
                log_append_time_ms: appended.log_append_time_ms,
                log_start_offset: partition.log().log_start_offset(),
                ..PartitionProduceResponse::default()
            };
            PartitionOutcome { response, wait }
        }
        Err(refusal) => {
            tracing::debug!(topic = %topic.name, partition = index, code = %refusal.code, reason = %refusal.message, "batch refused");
            refused_outcome(index, &refusal)
        }
    }
}

async fn append(
    broker: &Arc<Broker>,
    context: &RequestContext,
    topic: &Arc<TopicImage>,
    partition: &Partition,
    records: Bytes,
    transactional_id: Option<&str>,
) -> Result<Appended, Refused> {
    let config = partition.topic_config();
    let now_ms = broker.clock.wall_ms();
    if partition.is_closed() {
        return Err(Refused::new(ErrorCode::KafkaStorageError, "the partition's log is offline"));
    }
    let compressed = records.get(22).is_some_and(|attributes| attributes & 7 != 0);
    // The transaction first, as in Kafka: what is refused for its records is still a part of it, and what follows it must not take its place.
    let header = header_of(&records)?;
    let guard = transaction_guard(broker, context, partition, transactional_id, &header).await?;
    let valid = off_turn(if compressed { records.len() } else { 0 }, || {
        validate(&records, &config, context.version, now_ms)
    })?;
    let chain = broker
        .plugins
        .produce_chain(topic)
        .map_err(|missing| Refused::new(ErrorCode::KafkaStorageError, missing.to_string()))?;
    let (header, batch) = match chain {
        Some(chain) => {
            // A retried batch must not run through the plugins again: they may have diverted records of it.
            if let Some(duplicate) = partition
                .log()
                .find_duplicate(&valid.header)
                .map_err(|error| refused_append(&error))?
            {
                return Ok(duplicate);
            }
            let changed = produce_chain::apply(broker, context, partition, chain, &config, valid, records).await?;
            if changed.0.record_count == 0 && !changed.0.has_producer_id() {
                // Nothing is left and nobody counts sequences: there is nothing to store.
                let log_end_offset = partition.log().log_end_offset();
                return Ok(Appended {
                    base_offset: -1,
                    log_end_offset,
                    log_append_time_ms: -1,
                    duplicate: false,
                    dirty_bytes: 0,
                    rolled: false,
                });
            }
            changed
        }
        None => recompress(&config, valid, records)?,
    };
    let appended = partition.append(&header, &batch, now_ms, guard).map_err(|error| {
        tracing::warn!(topic = %topic.name, partition = partition.id.partition, %error, "append refused");
        refused_append(&error)
    })?;
    broker
        .metrics
        .produced(&topic.name, u64::from(header.record_count.unsigned_abs()), batch.len() as u64);
    Ok(appended)
}

/// What a transactional batch needs to be appended.
async fn transaction_guard(
    broker: &Arc<Broker>,
    context: &RequestContext,
    partition: &Partition,
    transactional_id: Option<&str>,
    header: &BatchHeader,
) -> Result<Option<VerificationGuard>, Refused> {
    if !header.is_transactional() {
        return Ok(None);
    }
    let Some(transactional_id) = transactional_id else {
        return Err(without_id());
    };
    let producer = ProducerIdAndEpoch {
        id: header.producer_id,
        epoch: header.producer_epoch,
    };
    let guard = guard_for(broker, partition, transactional_id, producer, header.base_sequence, context).await;
    guard.map_err(|code| Refused::new(code, format!("the transaction of {transactional_id:?} does not allow this write")))
}

fn refused_append(error: &millstream_log::AppendError) -> Refused {
    Refused::new(append_error_code(error), error.to_string())
}

/// The batch as the topic wants it stored: as it came, unless `compression.type` names another codec.
fn recompress(
    config: &millstream_core::metadata::configs::TopicConfig,
    valid: ValidBatch,
    records: Bytes,
) -> Result<(BatchHeader, Bytes), Refused> {
    let codec = produce_chain::stored_codec(config, valid.codec);
    let header = produce_chain::honest_header(&valid);
    if codec == valid.codec && header == valid.header {
        return Ok((header, records));
    }
    let encoded = produce_chain::encode(config, &header, codec, &valid.section, valid.header.record_count)?;
    let max = usize::try_from(config.max_message_bytes).unwrap_or(0);
    if encoded.1.len() > max {
        let size = encoded.1.len();
        let message = format!("the batch is {size} bytes large as compression.type wants it, max.message.bytes is {max}");
        return Err(Refused::new(ErrorCode::MessageTooLarge, message));
    }
    Ok(encoded)
}

fn refused_outcome(index: i32, refusal: &Refused) -> PartitionOutcome {
    PartitionOutcome {
        response: refused_response(index, refusal),
        wait: None,
    }
}

fn refused_response(index: i32, refusal: &Refused) -> PartitionProduceResponse {
    let record_errors = refusal.records.iter().map(|(index, message)| BatchIndexAndErrorMessage {
        batch_index: *index,
        batch_index_error_message: Some(KString::from(message.as_str())),
    });
    PartitionProduceResponse {
        index,
        error_code: refusal.code.code(),
        base_offset: -1,
        log_append_time_ms: -1,
        log_start_offset: -1,
        record_errors: record_errors.collect(),
        error_message: Some(KString::from(refusal.message.as_str())),
        ..PartitionProduceResponse::default()
    }
}
