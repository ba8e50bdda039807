//! Fetch (1): long polls over sessions; local batches as file ranges, cold ones from the tier, views through their chains.
//!
//! A pass reads every partition of the request. The plain ones cost no await; cold and filtered ones are read next to each other and
//! never past `max_wait`: what is not there by then fills a cache in the background, and the next poll finds it. If a pass finds
//! less than `min_bytes`, the request waits for a high watermark to advance.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use millstream_core::{metadata::ClusterImage, quota::CONSUMER_BYTE_RATE};
use millstream_protocol::{
    ErrorCode, KString,
    chunk::Records,
    messages::{
        FetchRequest, FetchResponse,
        fetch_request::FetchPartition,
        fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData},
    },
};
use tokio::{sync::Notify, time::Instant};
use uuid::Uuid;

use crate::{
    broker::{Broker, Named},
    context::RequestContext,
    errors::log_error_code,
    fetch_sessions::{FetchKey, FetchPlan, FetchWish, Told},
    partition::{Isolation, Partition},
    views::{self, ReadWish, ScannedRecords},
};

/// First version with sessions, and with an error of the request.
const FIRST_WITH_SESSIONS: i16 = 7;
/// First version that names topics by id.
const TOPIC_ID_VERSION: i16 = 13;
/// Longest that a fetch waits, whatever the client asks.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// Shortest time given to the tier and to views, for clients that do not want to wait at all.
const SLOW_READ_MIN: Duration = Duration::from_millis(10);

/// Cold partitions and views that one fetch reads at the same time.
const SLOW_READS_MAX: usize = 32;
/// Bytes that each of them is counted with.
const SLOW_READ_BYTES: usize = 1 << 20;

/// What was found in one partition.
struct Found {
    error: ErrorCode,
    high_watermark: i64,
    log_start_offset: i64,
    last_stable_offset: i64,
    records: Records,
    /// For readers of committed records.
    aborted: Option<Vec<AbortedTransaction>>,
}

impl Found {
    fn error(error: ErrorCode) -> Self {
        Self {
            error,
            high_watermark: -1,
            log_start_offset: -1,
            last_stable_offset: -1,
            records: Records::empty(),
            // Kafka has an empty list where it knows no such partition.
            aborted: matches!(error, ErrorCode::UnknownTopicId | ErrorCode::UnknownTopicOrPartition).then(Vec::new),
        }
    }

    fn at(partition: &Partition, error: ErrorCode, records: Records) -> Self {
        Self {
            error,
            high_watermark: partition.high_watermark(),
            log_start_offset: partition.log().log_start_offset(),
            last_stable_offset: partition.last_stable_offset(),
            records,
            aborted: None,
        }
    }

    /// Adds which transactions of `[from, to)` were aborted, if the reader wants to know.
    fn with_aborted(mut self, isolation: Isolation, partition: &Partition, from: i64, to: i64) -> Self {
        if isolation == Isolation::Committed {
            if partition.log().log_start_offset() > from {
                // Retention took the outcome of what was read along.
                return Self::error(ErrorCode::OffsetOutOfRange);
            }
            let aborted = partition.log().aborted_between(from, to).into_iter();
            let aborted = aborted.map(|aborted| AbortedTransaction {
                producer_id: aborted.producer_id,
                first_offset: aborted.first_offset,
            });
            self.aborted = Some(aborted.collect());
        }
        self
    }
}

/// How a partition is read.
enum Source {
    Failed(ErrorCode),
    Log(Arc<Partition>),
    View(Named, Arc<Partition>),
}

struct Item {
    key: FetchKey,
    wish: FetchWish,
    isolation: Isolation,
    source: Source,
}

/// Versions below 7 can say it of partitions only.
fn refused_as_replica(request: &FetchRequest, version: i16) -> FetchResponse {
    let error_code = ErrorCode::ClusterAuthorizationFailed.code();
    if version >= FIRST_WITH_SESSIONS {
        return FetchResponse {
            error_code,
            ..FetchResponse::default()
        };
    }
    let refused = |partition: &FetchPartition| PartitionData {
        partition_index: partition.partition,
        error_code,
        high_watermark: -1,
        records: Some(Records::empty()),
        ..PartitionData::default()
    };
    let topics = request.topics.iter().map(|topic| FetchableTopicResponse {
        topic: topic.topic.clone(),
        partitions: topic.partitions.iter().map(refused).collect(),
        ..FetchableTopicResponse::default()
    });
    FetchResponse {
        responses: topics.collect(),
        ..FetchResponse::default()
    }
}

pub(crate) async fn handle(broker: Arc<Broker>, context: RequestContext, request: FetchRequest) -> FetchResponse {
    let plan = match broker.sessions.plan(&request, broker.clock.wall_ms()) {
        Ok(plan) => plan,
        Err(error) => {
            return FetchResponse {
                error_code: error.code(),
                ..FetchResponse::default()
            };
        }
    };
    if request.replica_id >= 0 || request.replica_state.replica_id >= 0 {
        // Only brokers fetch as replicas, and never on a client listener (CVE-2018-1288).
        return refused_as_replica(&request, context.version);
    }
    let max_bytes = usize::try_from(request.max_bytes)
        .unwrap_or(0)
        .min(broker.config.size("fetch.max.bytes"));
    let at_once = broker.quotas.at_once(&broker.metadata.image(), CONSUMER_BYTE_RATE, &context);
    let max_bytes = at_once.map_or(max_bytes, |bytes| max_bytes.min(bytes as usize));
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(WAIT_MAX);
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0).min(max_bytes);
    let isolation = Isolation::from_wire(request.isolation_level);
    let deadline = Instant::now() + wait;
    loop {
        // A new one each time: those left behind in idle partitions are forgotten there.
        let waiter = Arc::new(Notify::new());
        let image = broker.metadata.image();
        let items: Vec<Item> = plan
            .partitions
            .iter()
            .map(|(key, wish)| Item {
                isolation,
                ..resolve(&broker, &image, context.version, key, *wish)
            })
            .collect();
        // Registered before reading, so that nothing appended in between is missed.
        for item in &items {
            if let Source::Log(partition) | Source::View(_, partition) = &item.source {
                partition.wake_on_advance(&waiter);
            }
        }
        let found = read_all(&broker, &image, &items, max_bytes, deadline).await;
        let bytes: usize = found.iter().map(|found| found.records.len()).sum();
        let failed = found.iter().any(|found| found.error != ErrorCode::None);
        if bytes >= min_bytes || failed || items.is_empty() || Instant::now() >= deadline {
            return throttled(&broker, &context, &image, respond(&plan, &items, found), bytes);
        }
        tokio::select! {
            () = waiter.notified() => {}
            () = tokio::time::sleep_until(deadline) => {}
            () = broker.stopped() => return respond(&plan, &items, found),
        }
    }
}

/// Holds the fetched bytes against the client's quota. A client above it gets its records, and waits afterwards.
fn throttled(broker: &Broker, context: &RequestContext, image: &ClusterImage, response: FetchResponse, bytes: usize) -> FetchResponse {
    let throttle_ms = broker.quotas.record(image, CONSUMER_BYTE_RATE, context, bytes as f64);
    context.mute.throttle(throttle_ms);
    FetchResponse {
        throttle_time_ms: i32::try_from(throttle_ms).unwrap_or(i32::MAX),
        ..response
    }
}

fn resolve(broker: &Broker, image: &ClusterImage, version: i16, key: &FetchKey, wish: FetchWish) -> Item {
    let by_id = version >= TOPIC_ID_VERSION;
    let named = if by_id {
        Named::by_id(image, key.topic_id)
    } else {
        Named::by_name(image, &key.topic)
    };
    let source = match named {
        None if by_id => Source::Failed(ErrorCode::UnknownTopicId),
        None => Source::Failed(ErrorCode::UnknownTopicOrPartition),
        Some(named) => match broker.partition(named.stored_in(), key.partition) {
            None => Source::Failed(ErrorCode::UnknownTopicOrPartition),
            Some(partition) => match check_epoch(&partition, wish.current_leader_epoch) {
                Some(error) => Source::Failed(error),
                None if matches!(named, Named::View(..)) => Source::View(named, partition),
                None => Source::Log(partition),
            },
        },
    };
    Item {
        key: key.clone(),
        wish,
        isolation: Isolation::Uncommitted,
        source,
    }
}

fn check_epoch(partition: &Partition, epoch: i32) -> Option<ErrorCode> {
    match epoch.cmp(&partition.leader_epoch()) {
        _ if epoch < 0 => None,
        std::cmp::Ordering::Less => Some(ErrorCode::FencedLeaderEpoch),
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some(ErrorCode::UnknownLeaderEpoch),
    }
}

/// Reads the partitions in turn under one byte budget: plain ones first, then what takes time, side by side.
async fn read_all(broker: &Arc<Broker>, image: &Arc<ClusterImage>, items: &[Item], max_bytes: usize, deadline: Instant) -> Vec<Found> {
    let mut left = max_bytes;
    let mut any = false;
    let mut found: Vec<Option<Found>> = Vec::with_capacity(items.len());
    for item in items {
        let quick = read_quick(item, left, !any);
        if let Some(found) = &quick {
            left = left.saturating_sub(found.records.len());
            any |= !found.records.is_empty();
            if let Source::Log(partition) = &item.source
                && !found.records.is_empty()
            {
                broker.metrics.fetched(&partition.topic, found.records.len() as u64);
            }
        }
        found.push(quick);
    }
    // What takes time is read in waves, bounded in number and bytes, as each of these reads may return a batch whatever is left. Those
    // that have nothing end at once, so that many idle ones do not keep the others from their turn.
    let deadline = deadline.max(Instant::now() + SLOW_READ_MIN);
    let slow: Vec<usize> = (0..items.len()).filter(|index| found[*index].is_none()).collect();
    let wanted = |index: &usize| usize::try_from(items[*index].wish.max_bytes).unwrap_or(0);
    let wanted = slow.iter().map(wanted).fold(0_usize, usize::saturating_add).min(left);
    let memory = if slow.is_empty() {
        None
    } else {
        broker.answer_memory.reserve(wanted, deadline).await
    };
    // Without memory all of them get their turn later.
    let mut rest = if memory.is_some() { &slow[..] } else { &[] };
    while !rest.is_empty() {
        let (wave, after) = rest.split_at(rest.len().min((left / SLOW_READ_BYTES).clamp(1, SLOW_READS_MAX)));
        let share = (left / wave.len()).max(1);
        let reads = wave.iter().map(|index| read_slow(broker, image, &items[*index], share, deadline));
        for (index, result) in wave.iter().zip(join_all(reads).await) {
            left = left.saturating_sub(result.records.len());
            any |= !result.records.is_empty();
            found[*index] = Some(result);
        }
        if any && left == 0 || Instant::now() >= deadline {
            break;
        }
        rest = after;
    }
    if let Some(memory) = memory {
        let read = found.iter_mut().enumerate().filter(|(index, _)| slow.binary_search(index).is_ok());
        memory.hold(read.filter_map(|(_, found)| Some(&mut found.as_mut()?.records)));
    }
    // The others get their turn with the next fetch.
    let later = items.iter().map(|item| match &item.source {
        Source::Failed(error) => Found::error(*error),
        Source::Log(partition) | Source::View(_, partition) => Found::at(partition, ErrorCode::None, Records::empty()),
    });
    found.into_iter().zip(later).map(|(found, later)| found.unwrap_or(later)).collect()
}

/// What can be read without waiting; `None` for cold offsets and views.
fn read_quick(item: &Item, max_bytes: usize, min_one: bool) -> Option<Found> {
    let partition = match &item.source {
        Source::Failed(error) => return Some(Found::error(*error)),
        Source::View(..) => return None,
        Source::Log(partition) => partition,
    };
    let log = partition.log();
    let offset = item.wish.offset;
    if offset < log.log_start_offset() || offset > log.log_end_offset() {
        return Some(Found::error(ErrorCode::OffsetOutOfRange));
    }
    if item.wish.last_fetched_epoch > partition.leader_epoch() {
        // It read what this log never held.
        return Some(Found::error(ErrorCode::OffsetOutOfRange));
    }
    if offset < log.local_start_offset() || log.has_empty_batches() {
        return None;
    }
    let budget = usize::try_from(item.wish.max_bytes).unwrap_or(0).min(max_bytes);
    if budget == 0 && !min_one {
        return Some(Found::at(partition, ErrorCode::None, Records::empty()));
    }
    let read = log
        .read(offset, partition.readable_end(item.isolation), budget, min_one)
        .and_then(|read| read.map(|read| Ok((read.chunk()?, read.next_offset()))).transpose());
    Some(match read {
        Ok(Some((chunk, next_offset))) => {
            let records = std::iter::once(chunk).collect();
            Found::at(partition, ErrorCode::None, records).with_aborted(item.isolation, partition, offset, next_offset)
        }
        Ok(None) => Found::at(partition, ErrorCode::None, Records::empty()).with_aborted(item.isolation, partition, offset, offset),
        // The segment may have been trimmed since the check above; the tier has it then.
        Err(_) if offset < log.local_start_offset() && offset >= log.log_start_offset() => return None,
        Err(error) => {
            tracing::warn!(topic = %partition.topic, partition = partition.id.partition, offset, %error, "read failed");
            Found::at(partition, log_error_code(&error), Records::empty())
        }
    })
}

async fn read_slow(broker: &Arc<Broker>, image: &Arc<ClusterImage>, item: &Item, share: usize, deadline: Instant) -> Found {
    let wish = ReadWish {
        offset: item.wish.offset,
        isolation: item.isolation,
        max_bytes: usize::try_from(item.wish.max_bytes).unwrap_or(0).min(share).max(1),
        deadline,
    };
    let found = |partition: &Partition, scanned: ScannedRecords| {
        let found = Found::at(partition, ErrorCode::None, scanned.records);
        found.with_aborted(item.isolation, partition, item.wish.offset, scanned.next_offset)
    };
    match &item.source {
        Source::Failed(error) => Found::error(*error),
        Source::Log(partition) => match views::read_topic(broker, partition, &wish).await {
            Ok(scanned) => {
                broker.metrics.fetched(&partition.topic, scanned.records.len() as u64);
                found(partition, scanned)
            }
            Err(error) => Found::at(partition, error, Records::empty()),
        },
        Source::View(named, partition) => match views::read(broker, image, named, partition, &wish).await {
            Ok(scanned) => found(partition, scanned),
            Err(error) => Found::at(partition, error, Records::empty()),
        },
    }
}

fn respond(plan: &FetchPlan, items: &[Item], found: Vec<Found>) -> FetchResponse {
    let mut responses: Vec<FetchableTopicResponse> = Vec::new();
    let mut places = BTreeMap::new();
    for (item, found) in items.iter().zip(found) {
        let told = Told {
            high_watermark: found.high_watermark,
            log_start_offset: found.log_start_offset,
        };
        if !plan.tells(&item.key, told, !found.records.is_empty(), found.error != ErrorCode::None) {
            continue;
        }
        let data = PartitionData {
            partition_index: item.key.partition,
            error_code: found.error.code(),
            high_watermark: found.high_watermark,
            last_stable_offset: found.last_stable_offset,
            log_start_offset: found.log_start_offset,
            aborted_transactions: found.aborted,
            preferred_read_replica: -1,
            records: Some(found.records),
            ..PartitionData::default()
        };
        topic_of(&mut responses, &mut places, &item.key).partitions.push(data);
    }
    FetchResponse {
        session_id: plan.session_id,
        responses,
        ..FetchResponse::default()
    }
}

/// The topic's part of the response.
fn topic_of<'a, 'k>(
    responses: &'a mut Vec<FetchableTopicResponse>,
    places: &mut BTreeMap<(&'k str, Uuid), usize>,
    key: &'k FetchKey,
) -> &'a mut FetchableTopicResponse {
    let index = *places.entry((&key.topic, key.topic_id)).or_insert_with(|| {
        responses.push(FetchableTopicResponse {
            topic: KString::from(&*key.topic),
            topic_id: key.topic_id,
            ..FetchableTopicResponse::default()
        });
        responses.len() - 1
    });
    &mut responses[index]
}
