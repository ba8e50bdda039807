//! ListOffsets (2): where a partition starts and ends, and which record is the first at or after a time.
//!
//! A view answers with its source's offsets: they are its own, and a fetch from any of them is right.

use std::{collections::BTreeSet, sync::Arc};

use millstream_core::metadata::ClusterImage;
use millstream_log::{
    LogError, TimestampAndOffset,
    remote::{RemoteError, RemoteLog},
};
use millstream_protocol::{
    ErrorCode,
    messages::{
        ListOffsetsRequest, ListOffsetsResponse,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
    },
    record::{BatchHeader, RecordIter, TimestampType, split_batches},
};

use crate::{
    broker::{Broker, Named},
    context::RequestContext,
    errors::{log_error_code, remote_error_code},
    partition::{Isolation, Partition},
    validation::SECTION_BYTES_MAX,
};

// The numbers that stand for places instead of times (KIP-79, KIP-734, KIP-405, KIP-1005).
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// The first version that knows each place.
const PLACES: [(i64, i16); 6] = [
    (LATEST, 0),
    (EARLIEST, 0),
    (MAX_TIMESTAMP, 7),
    (EARLIEST_LOCAL, 8),
    (LATEST_TIERED, 9),
    (EARLIEST_PENDING_UPLOAD, 11),
];

/// First version whose answers carry leader epochs.
const LEADER_EPOCH_VERSION: i16 = 4;

/// Bytes of cold batches read at a time while searching for a time.
const SEARCH_BYTES: usize = 1 << 20;

pub(crate) async fn handle(broker: Arc<Broker>, context: RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let image = broker.metadata.image();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let isolation = Isolation::from_wire(request.isolation_level);
        let mut topic = list_topic(&broker, &image, topic, isolation, context.version).await;
        if context.version < LEADER_EPOCH_VERSION {
            // Not ignorable in the schema: an older client must not be told.
            topic.partitions.iter_mut().for_each(|partition| partition.leader_epoch = -1);
        }
        topics.push(topic);
    }
    ListOffsetsResponse {
        topics,
        ..ListOffsetsResponse::default()
    }
}

async fn list_topic(
    broker: &Arc<Broker>,
    image: &ClusterImage,
    topic: ListOffsetsTopic,
    isolation: Isolation,
    version: i16,
) -> ListOffsetsTopicResponse {
    let named = Named::by_name(image, &topic.name);
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<i32> = topic
        .partitions
        .iter()
        .map(|wish| wish.partition_index)
        .filter(|index| !seen.insert(*index))
        .collect();
    let mut refused = BTreeSet::new();
    let mut partitions: Vec<ListOffsetsPartitionResponse> = Vec::with_capacity(topic.partitions.len());
    for wish in topic.partitions {
        if twice.contains(&wish.partition_index) {
            if refused.insert(wish.partition_index) {
                partitions.push(failed(wish.partition_index, ErrorCode::InvalidRequest));
            }
            continue;
        }
        let partition = named
            .as_ref()
            .and_then(|named| broker.partition(named.stored_in(), wish.partition_index));
        partitions.push(match partition {
            None => failed(wish.partition_index, ErrorCode::UnknownTopicOrPartition),
            Some(partition) => list_partition(broker, partition, &wish, isolation, version).await,
        });
    }
    ListOffsetsTopicResponse {
        name: topic.name,
        partitions,
    }
}

fn failed(partition_index: i32, error: ErrorCode) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse {
        partition_index,
        error_code: error.code(),
        timestamp: -1,
        offset: -1,
        leader_epoch: -1,
    }
}

async fn list_partition(
    broker: &Arc<Broker>,
    partition: Arc<Partition>,
    wish: &ListOffsetsPartition,
    isolation: Isolation,
    version: i16,
) -> ListOffsetsPartitionResponse {
    let index = wish.partition_index;
    let is_known = |(place, since): &(i64, i16)| *place == wish.timestamp && version >= *since;
    if wish.timestamp < 0 && !PLACES.iter().any(is_known) {
        return failed(index, ErrorCode::UnsupportedVersion);
    }
    if wish.current_leader_epoch >= 0 && wish.current_leader_epoch != partition.leader_epoch() {
        let older = wish.current_leader_epoch < partition.leader_epoch();
        return failed(
            index,
            if older {
                ErrorCode::FencedLeaderEpoch
            } else {
                ErrorCode::UnknownLeaderEpoch
            },
        );
    }
    let log = Arc::clone(partition.log());
    let epochs = Arc::clone(&partition);
    let place = |offset: i64| Ok(Some(TimestampAndOffset { timestamp: -1, offset }));
    let found = match wish.timestamp {
        LATEST => place(partition.readable_end(isolation)),
        EARLIEST => place(log.log_start_offset()),
        EARLIEST_LOCAL => place(log.local_start_offset().max(log.log_start_offset())),
        LATEST_TIERED => {
            let bounds = broker.remote.as_ref().and_then(|remote| remote.bounds(partition.id));
            place(bounds.map_or(-1, |bounds| bounds.end_offset - 1))
        }
        MAX_TIMESTAMP => {
            let end = partition.readable_end(isolation);
            // One that may not be read yet hides the others, as in Kafka.
            blocking(move || Ok(log.max_timestamp()?.filter(|found| found.offset < end))).await
        }
        timestamp if timestamp >= 0 => by_time(broker, &partition, timestamp, isolation).await,
        EARLIEST_PENDING_UPLOAD => {
            let bounds = broker.remote.as_ref().and_then(|remote| remote.bounds(partition.id));
            place(bounds.map_or(-1, |bounds| bounds.end_offset))
        }
        _ => return failed(index, ErrorCode::UnsupportedVersion),
    };
    match found {
        Ok(found) => {
            let TimestampAndOffset { timestamp, offset } = found.unwrap_or(TimestampAndOffset { timestamp: -1, offset: -1 });
            let epoch_at = |offset| epochs.log().epoch_at(offset).unwrap_or_else(|| epochs.leader_epoch());
            let leader_epoch = if offset < 0 { -1 } else { epoch_at(offset) };
            ListOffsetsPartitionResponse {
                partition_index: index,
                error_code: 0,
                timestamp,
                offset,
                leader_epoch,
            }
        }
        Err(error) => failed(index, error),
    }
}

async fn blocking(
    search: impl FnOnce() -> Result<Option<TimestampAndOffset>, LogError> + Send + 'static,
) -> Result<Option<TimestampAndOffset>, ErrorCode> {
    match tokio::task::spawn_blocking(search).await {
        Ok(found) => found.map_err(|error| {
            tracing::warn!(%error, "search by time failed");
            log_error_code(&error)
        }),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// The first record at or after a time, in the tier or in the local log, whichever comes first.
pub(crate) async fn by_time(
    broker: &Broker,
    partition: &Arc<Partition>,
    timestamp: i64,
    isolation: Isolation,
) -> Result<Option<TimestampAndOffset>, ErrorCode> {
    if let Some(remote) = &broker.remote
        && partition.log().local_start_offset() > partition.log().log_start_offset()
    {
        match search_remote(&**remote, partition, timestamp).await {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(topic = %partition.topic, %error, "search by time in the tier failed");
                return Err(remote_error_code(&error));
            }
        }
    }
    let partition = Arc::clone(partition);
    blocking(move || partition.log().offset_for_timestamp(timestamp, partition.readable_end(isolation))).await
}

/// The first record at or after a time below the local log's start.
async fn search_remote(remote: &dyn RemoteLog, partition: &Partition, timestamp: i64) -> Result<Option<TimestampAndOffset>, RemoteError> {
    let local_start = partition.log().local_start_offset();
    let Some(start) = remote.seek_timestamp(partition.id, timestamp).await? else {
        return Ok(None);
    };
    let mut next = start.max(partition.log().log_start_offset());
    while next < local_start {
        let batches = remote.read(partition.id, next, SEARCH_BYTES).await?;
        if batches.next_offset <= next {
            break;
        }
        next = batches.next_offset;
        for (header, batch) in batches.bytes.into_iter().flat_map(split_batches).flatten() {
            if header.max_timestamp < timestamp || header.base_offset >= local_start {
                continue;
            }
            if let Some(found) = first_at(partition, &header, &batch, timestamp) {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}

fn first_at(partition: &Partition, header: &BatchHeader, batch: &bytes::Bytes, timestamp: i64) -> Option<TimestampAndOffset> {
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Some(TimestampAndOffset {
            timestamp: header.max_timestamp,
            offset: header.base_offset,
        });
    }
    let section = header
        .compression()
        .ok()?
        .decompress(&batch.slice(BatchHeader::SIZE..), SECTION_BYTES_MAX)
        .ok()?;
    let start = partition.log().log_start_offset();
    RecordIter::new(&section, header.record_count)
        .map_while(Result::ok)
        .find_map(|record| {
            let found = TimestampAndOffset {
                timestamp: header.base_timestamp.saturating_add(record.timestamp_delta),
                offset: header.base_offset.saturating_add(i64::from(record.offset_delta)),
            };
            (found.timestamp >= timestamp && found.offset >= start).then_some(found)
        })
}
