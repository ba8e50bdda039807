//! ShareFetch and ShareAcknowledge: a member of a share group gets records, and says what became of those it got (KIP-932).

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use millstream_core::share::{AcknowledgeType, ShareKey};
use millstream_protocol::{
    ErrorCode, KString,
    chunk::Records,
    messages::{
        ShareAcknowledgeRequest, ShareAcknowledgeResponse, ShareFetchRequest, ShareFetchResponse,
        share_acknowledge_response::{self, ShareAcknowledgeTopicResponse},
        share_fetch_request,
        share_fetch_response::{AcquiredRecords, LeaderIdAndEpoch, PartitionData, ShareFetchableTopicResponse},
    },
};
use tokio::{sync::Notify, time::Instant};
use uuid::Uuid;

use crate::{
    broker::{Broker, Named},
    context::RequestContext,
    partition::Partition,
    share::{Delivered, DeliveryWish, SessionRequest, ShareConfig, deliver},
};

/// Longest that a fetch waits, whatever the client asks.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// Bytes that a fetch returns of one partition, about.
const PARTITION_BYTES_MAX: usize = 1 << 20;
/// `share.acquire.mode=record_limit` (KIP-1206): not one record more than asked for.
const STRICT_MODE: i8 = 1;
/// The epoch of the request that ends a session.
const FINAL_EPOCH: i32 = -1;

type TopicPartitionId = (Uuid, i32);
type Answers = Vec<(i64, i64, Vec<AcknowledgeType>)>;

/// Answers for records, or why they cannot be read.
type ParsedAnswers = BTreeMap<TopicPartitionId, Result<Answers, ErrorCode>>;

/// Who asks.
struct Asker {
    group_id: String,
    member: Arc<str>,
}

impl Asker {
    fn of(group_id: Option<&KString>, member_id: Option<&KString>) -> Result<Self, ErrorCode> {
        match (group_id, member_id) {
            (Some(group_id), Some(member_id)) if !group_id.is_empty() && !member_id.is_empty() => Ok(Self {
                group_id: group_id.to_string(),
                member: member_id.as_str().into(),
            }),
            _ => Err(ErrorCode::InvalidRequest),
        }
    }

    fn key(&self, (topic_id, partition): TopicPartitionId) -> ShareKey {
        ShareKey {
            group_id: self.group_id.clone(),
            topic_id,
            partition,
        }
    }
}

fn find(broker: &Broker, (topic_id, partition): TopicPartitionId) -> Result<Arc<Partition>, ErrorCode> {
    let image = broker.metadata.image();
    match Named::by_id(&image, topic_id).ok_or(ErrorCode::UnknownTopicId)? {
        Named::Topic(topic) => broker.partition(&topic, partition).ok_or(ErrorCode::UnknownTopicOrPartition),
        // What a view hides must not be delivered, and what it passes over cannot be acknowledged.
        Named::View(..) => Err(ErrorCode::TopicAuthorizationFailed),
    }
}

pub(crate) async fn fetch(broker: Arc<Broker>, context: RequestContext, request: ShareFetchRequest) -> ShareFetchResponse {
    let refused = |error: ErrorCode| ShareFetchResponse {
        error_code: error.code(),
        ..ShareFetchResponse::default()
    };
    let asker = match Asker::of(request.group_id.as_ref(), request.member_id.as_ref()) {
        Ok(asker) => asker,
        Err(error) => return refused(error),
    };
    let (added, answers) = match read_fetch(&request) {
        Ok(read) => read,
        Err(error) => return refused(error),
    };
    let forgotten = request.forgotten_topics_data.iter();
    let forgotten = forgotten.flat_map(|topic| topic.partitions.iter().map(|partition| (topic.topic_id, *partition)));
    let session = SessionRequest {
        group_id: &asker.group_id,
        member_id: &asker.member,
        epoch: request.share_session_epoch,
        client: SocketAddr::new(context.client_address, context.client_port),
        added,
        forgotten: forgotten.collect(),
    };
    let partitions = match broker.shares.sessions.fetch(session, broker.clock.wall_ms()) {
        Ok(partitions) => partitions,
        Err(error) => return refused(error),
    };
    let mut response = Response::default();
    for (id, answers) in answers {
        let outcome = acknowledge(&broker, &asker, id, answers).await;
        response.partition(id).acknowledge_error_code = code(outcome);
    }
    if request.share_session_epoch == 0 {
        // The first answer of a session names all its partitions.
        for id in &partitions {
            response.partition(*id);
        }
    }
    let image = broker.metadata.image();
    let config = broker.shares.config(&broker, &image, &asker.group_id);
    if request.share_session_epoch == FINAL_EPOCH {
        release(&broker, &asker).await;
    } else if !request.is_renew_ack {
        collect(&broker, &asker, &config, &request, &partitions, &mut response).await;
    }
    ShareFetchResponse {
        acquisition_lock_timeout_ms: i32::try_from(config.limits.lock_duration_ms).unwrap_or(i32::MAX),
        responses: response.into_topics(),
        ..ShareFetchResponse::default()
    }
}

/// Gathers records from the session's partitions until there are some, or time is over.
async fn collect(
    broker: &Arc<Broker>,
    asker: &Asker,
    config: &ShareConfig,
    request: &ShareFetchRequest,
    partitions: &[TopicPartitionId],
    response: &mut Response,
) {
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(WAIT_MAX);
    let deadline = Instant::now() + wait;
    let max_bytes = usize::try_from(request.max_bytes)
        .unwrap_or(0)
        .min(broker.config.size("fetch.max.bytes"));
    for id in partitions {
        // Where a group begins is settled by its first fetch, also in partitions that this fetch has no room for.
        if let Ok(partition) = find(broker, *id)
            && let Err(error) = broker.shares.partition(broker, &asker.key(*id), &partition, config).await
        {
            response.partition(*id).error_code = error.code();
        }
    }
    loop {
        // A new one each time: those left behind in idle partitions are forgotten there.
        let waiter = Arc::new(Notify::new());
        let mut bytes = 0;
        let mut failed = false;
        let mut next_lock_ms: Option<i64> = None;
        let mut records_left = i64::from(request.max_records).max(0);
        for id in partitions {
            if records_left <= 0 || bytes > 0 && bytes >= max_bytes {
                break;
            }
            let wish = DeliveryWish {
                member: &asker.member,
                max_bytes: max_bytes.saturating_sub(bytes).clamp(1, PARTITION_BYTES_MAX),
                max_records: records_left,
                batch_size: request.batch_size.into(),
                is_strict: request.share_acquire_mode == STRICT_MODE,
                deadline: deadline.max(Instant::now() + Duration::from_millis(100)),
            };
            let delivered = match find(broker, *id) {
                Ok(partition) => deliver(broker, &asker.key(*id), &partition, config, &wish, &waiter).await,
                Err(error) => Err(error),
            };
            match delivered {
                Ok(Delivered {
                    records,
                    acquired,
                    next_deadline_ms,
                }) => {
                    next_lock_ms = next_lock_ms.into_iter().chain(next_deadline_ms).min();
                    if acquired.is_empty() {
                        continue;
                    }
                    bytes += records.len();
                    records_left -= acquired.iter().map(|run| run.last_offset - run.first_offset + 1).sum::<i64>();
                    response.add(*id, records, acquired);
                }
                Err(error) => {
                    failed = true;
                    response.partition(*id).error_code = error.code();
                }
            }
        }
        if bytes > 0 || failed || Instant::now() >= deadline || partitions.is_empty() {
            return;
        }
        let now_ms = broker.clock.wall_ms();
        let until_lock = next_lock_ms.map(|lock_ms| Duration::from_millis(u64::try_from(lock_ms - now_ms).unwrap_or(0).max(1)));
        let wake = until_lock.map_or(deadline, |wait| deadline.min(Instant::now() + wait));
        // Cancel safe: all only wait.
        tokio::select! {
            () = waiter.notified() => {}
            () = tokio::time::sleep_until(wake) => {}
            () = broker.stopped() => return,
        }
    }
}

pub(crate) async fn acknowledge_only(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: ShareAcknowledgeRequest,
) -> ShareAcknowledgeResponse {
    let refused = |error: ErrorCode| ShareAcknowledgeResponse {
        error_code: error.code(),
        ..ShareAcknowledgeResponse::default()
    };
    let asker = match Asker::of(request.group_id.as_ref(), request.member_id.as_ref()) {
        Ok(asker) => asker,
        Err(error) => return refused(error),
    };
    let now_ms = broker.clock.wall_ms();
    let sessions = &broker.shares.sessions;
    let is_last = match sessions.acknowledge(&asker.group_id, &asker.member, request.share_session_epoch, now_ms) {
        Ok(is_last) => is_last,
        Err(error) => return refused(error),
    };
    let mut topics: BTreeMap<Uuid, Vec<share_acknowledge_response::PartitionData>> = BTreeMap::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let id = (topic.topic_id, partition.partition_index);
            let batches = partition.acknowledgement_batches.iter();
            let answers = batches.map(|batch| (batch.first_offset, batch.last_offset, &batch.acknowledge_types[..]));
            let outcome = acknowledge(&broker, &asker, id, parse(answers, request.is_renew_ack)).await;
            topics
                .entry(topic.topic_id)
                .or_default()
                .push(share_acknowledge_response::PartitionData {
                    partition_index: partition.partition_index,
                    error_code: code(outcome),
                    ..Default::default()
                });
        }
    }
    if is_last {
        release(&broker, &asker).await;
    }
    let config = broker.shares.config(&broker, &broker.metadata.image(), &asker.group_id);
    let topics = topics
        .into_iter()
        .map(|(topic_id, partitions)| ShareAcknowledgeTopicResponse { topic_id, partitions });
    ShareAcknowledgeResponse {
        acquisition_lock_timeout_ms: i32::try_from(config.limits.lock_duration_ms).unwrap_or(i32::MAX),
        responses: topics.collect(),
        ..ShareAcknowledgeResponse::default()
    }
}

async fn acknowledge(
    broker: &Arc<Broker>,
    asker: &Asker,
    id: TopicPartitionId,
    answers: Result<Answers, ErrorCode>,
) -> Result<(), ErrorCode> {
    let answers = answers?;
    find(broker, id)?;
    let (broker, key, member) = (Arc::clone(broker), asker.key(id), Arc::clone(&asker.member));
    // Goes on when the client's connection breaks.
    let task = tokio::spawn(async move { broker.shares.acknowledge(&broker, &key, &member, answers).await });
    task.await.unwrap_or(Err(ErrorCode::UnknownServerError))
}

/// Ends a session. Goes on when the client's connection breaks.
async fn release(broker: &Arc<Broker>, asker: &Asker) {
    let (broker, group_id, member) = (Arc::clone(broker), asker.group_id.clone(), Arc::clone(&asker.member));
    let task = tokio::spawn(async move { broker.shares.release(&broker, &group_id, &member).await });
    if let Err(error) = task.await {
        tracing::error!(%error, "the end of a share session failed");
    }
}

fn code(outcome: Result<(), ErrorCode>) -> i16 {
    outcome.err().unwrap_or(ErrorCode::None).code()
}

/// The partitions of a request, and the answers that come with them.
fn read_fetch(request: &ShareFetchRequest) -> Result<(Vec<TopicPartitionId>, ParsedAnswers), ErrorCode> {
    let mut added = Vec::new();
    let mut answers = ParsedAnswers::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let id = (topic.topic_id, partition.partition_index);
            let batches: &[share_fetch_request::AcknowledgementBatch] = &partition.acknowledgement_batches;
            if !batches.is_empty() {
                if request.share_session_epoch == 0 {
                    // Nothing can have been delivered in a session that begins.
                    return Err(ErrorCode::InvalidRequest);
                }
                let read = batches
                    .iter()
                    .map(|batch| (batch.first_offset, batch.last_offset, &batch.acknowledge_types[..]));
                if answers.insert(id, parse(read, request.is_renew_ack)).is_some() {
                    return Err(ErrorCode::InvalidRequest);
                }
            }
            added.push(id);
        }
    }
    Ok((added, answers))
}

fn parse<'a>(batches: impl Iterator<Item = (i64, i64, &'a [i8])>, may_renew: bool) -> Result<Answers, ErrorCode> {
    let mut answers = Answers::new();
    let mut previous_last = -1;
    for (first_offset, last_offset, codes) in batches {
        // In order, without overlap.
        if first_offset <= previous_last || last_offset < first_offset {
            return Err(ErrorCode::InvalidRequest);
        }
        previous_last = last_offset;
        let types: Option<Vec<AcknowledgeType>> = codes.iter().map(|code| AcknowledgeType::from_code(*code)).collect();
        let types = types.filter(|types| may_renew || !types.contains(&AcknowledgeType::Renew));
        answers.push((first_offset, last_offset, types.ok_or(ErrorCode::InvalidRequest)?));
    }
    Ok(answers)
}

/// The answer as it grows.
#[derive(Default)]
struct Response {
    partitions: BTreeMap<TopicPartitionId, PartitionData>,
}

impl Response {
    fn partition(&mut self, id: TopicPartitionId) -> &mut PartitionData {
        // The leader is told of where it is another one.
        self.partitions.entry(id).or_insert_with(|| PartitionData {
            partition_index: id.1,
            current_leader: LeaderIdAndEpoch::default(),
            records: Records::empty(),
            ..PartitionData::default()
        })
    }

    fn add(&mut self, id: TopicPartitionId, records: Records, acquired: Vec<millstream_core::share::Acquired>) {
        let partition = self.partition(id);
        partition.records = records;
        let acquired = acquired.into_iter().map(|run| AcquiredRecords {
            first_offset: run.first_offset,
            last_offset: run.last_offset,
            delivery_count: run.delivery_count,
        });
        partition.acquired_records = acquired.collect();
    }

    fn into_topics(self) -> Vec<ShareFetchableTopicResponse> {
        let mut topics: Vec<ShareFetchableTopicResponse> = Vec::new();
        for ((topic_id, _), partition) in self.partitions {
            match topics.last_mut() {
                Some(topic) if topic.topic_id == topic_id => topic.partitions.push(partition),
                _ => topics.push(ShareFetchableTopicResponse {
                    topic_id,
                    partitions: vec![partition],
                }),
            }
        }
        topics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_must_be_in_order_and_of_known_types() {
        let parsed = |batches: &[(i64, i64, &[i8])], may_renew| parse(batches.iter().copied(), may_renew).is_ok();
        assert!(parsed(&[(0, 3, &[1]), (4, 5, &[2, 3])], false));
        assert!(!parsed(&[(0, 3, &[1]), (3, 5, &[1])], false));
        assert!(!parsed(&[(3, 2, &[1])], false));
        assert!(!parsed(&[(0, 0, &[9])], false));
        assert!(!parsed(&[(0, 0, &[4])], false) && parsed(&[(0, 0, &[4])], true));
    }
}
