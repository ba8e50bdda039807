//! Deliveries: what is available in a share partition is read from the log and given to a member.

use std::sync::Arc;

use millstream_core::share::{Acquired, LogBatch, LogScan, ShareKey};
use millstream_log::AbortedTransaction;
use millstream_protocol::{
    ErrorCode,
    chunk::{Chunk, Records},
    record::{BatchHeader, split_batches},
};
use tokio::{sync::Notify, time::Instant};

use super::{Loaded, ShareConfig};
use crate::{
    broker::Broker,
    partition::{Isolation, Partition},
    views::{self, ReadWish},
};

/// What a member wants from one partition.
pub(crate) struct DeliveryWish<'a> {
    pub member: &'a Arc<str>,
    pub max_bytes: usize,
    pub max_records: i64,
    /// Records of one entry of the answer, about.
    pub batch_size: i64,
    pub is_strict: bool,
    pub deadline: Instant,
}

/// What it got.
pub(crate) struct Delivered {
    pub records: Records,
    pub acquired: Vec<Acquired>,
    /// When the next lock of the partition runs out.
    pub next_deadline_ms: Option<i64>,
}

/// Gives a member what is available. Registers `waiter` to be woken when more may be.
pub(crate) async fn deliver(
    broker: &Arc<Broker>,
    key: &ShareKey,
    partition: &Arc<Partition>,
    config: &ShareConfig,
    wish: &DeliveryWish<'_>,
    waiter: &Arc<Notify>,
) -> Result<Delivered, ErrorCode> {
    let loaded = broker.shares.partition(broker, key, partition, config).await?;
    partition.wake_on_advance(waiter);
    loaded.wake_on_release(waiter);
    let now_ms = broker.clock.wall_ms();
    let log_start = partition.log().log_start_offset();
    loaded.with(|state| {
        state.log_starts_at(log_start);
        state.expire_locks(now_ms, &config.limits);
    });
    let end = partition.readable_end(config.isolation);
    let mut delivered = (Records::empty(), Vec::new());
    let mut next = loaded.with(|state| state.next_offset(&config.limits));
    while let Some(offset) = next.filter(|offset| *offset < end) {
        delivered = from_log(broker, &loaded, partition, config, wish, offset).await?;
        next = loaded.with(|state| state.next_offset(&config.limits));
        // Somebody else was faster, or there was nothing to see: what follows may be for this member.
        if !delivered.1.is_empty() || next.is_some_and(|next| next <= offset) || *broker.stopping.borrow() {
            break;
        }
    }
    Ok(Delivered {
        records: delivered.0,
        acquired: delivered.1,
        next_deadline_ms: loaded.with(|state| state.next_deadline()),
    })
}

async fn from_log(
    broker: &Arc<Broker>,
    loaded: &Arc<Loaded>,
    partition: &Arc<Partition>,
    config: &ShareConfig,
    wish: &DeliveryWish<'_>,
    offset: i64,
) -> Result<(Records, Vec<Acquired>), ErrorCode> {
    let read = ReadWish {
        offset,
        isolation: config.isolation,
        max_bytes: wish.max_bytes,
        deadline: wish.deadline,
    };
    let Some(memory) = broker.answer_memory.reserve(wish.max_bytes, wish.deadline).await else {
        return Ok((Records::empty(), Vec::new()));
    };
    let scanned = views::read_topic(broker, partition, &read).await?;
    let aborted = match config.isolation {
        Isolation::Committed => partition.log().aborted_between(offset, scanned.next_offset),
        Isolation::Uncommitted => Vec::new(),
    };
    let mut headers: Vec<LogBatch> = Vec::new();
    let mut batches = Vec::new();
    let bytes = scanned.records.into_bytes().ok_or(ErrorCode::KafkaStorageError)?;
    for item in split_batches(bytes) {
        let (header, batch) = item.map_err(|_| ErrorCode::CorruptMessage)?;
        headers.push(LogBatch {
            first_offset: header.base_offset,
            last_offset: header.last_offset(),
            is_hidden: header.is_control() || is_aborted(&header, &aborted),
        });
        batches.push(batch);
    }
    let now_ms = broker.clock.wall_ms();
    let scan = LogScan {
        first_offset: offset,
        batches: &headers,
    };
    let acquired = loaded.with(|state| state.acquire(now_ms, wish.member, &config.limits, scan, wish.max_records, wish.is_strict));
    let needed = |header: &LogBatch| {
        let overlaps = |run: &Acquired| run.first_offset <= header.last_offset && run.last_offset >= header.first_offset;
        acquired.iter().any(overlaps)
    };
    let mut records = Records::empty();
    for (_, batch) in headers.iter().zip(batches).filter(|(header, _)| needed(header)) {
        records.push(Chunk::Bytes(batch));
    }
    memory.hold(std::iter::once(&mut records));
    let acquired = in_pieces(acquired, &headers, wish.batch_size);
    Ok((records, acquired))
}

fn is_aborted(header: &BatchHeader, aborted: &[AbortedTransaction]) -> bool {
    let covers = |transaction: &AbortedTransaction| {
        transaction.producer_id == header.producer_id
            && transaction.first_offset <= header.base_offset
            && transaction.last_offset >= header.base_offset
    };
    header.is_transactional() && aborted.iter().any(covers)
}

/// Long runs in pieces of about `batch_size` records that end where batches of the log end, so that clients acknowledge what belongs together.
fn in_pieces(acquired: Vec<Acquired>, batches: &[LogBatch], batch_size: i64) -> Vec<Acquired> {
    let mut pieces = Vec::with_capacity(acquired.len());
    for run in acquired {
        let mut first_offset = run.first_offset;
        for batch in batches.iter().filter(|batch| batch.last_offset >= run.first_offset) {
            if batch.last_offset >= run.last_offset {
                break;
            }
            if batch.last_offset - first_offset + 1 >= batch_size.max(1) {
                pieces.push(Acquired {
                    first_offset,
                    last_offset: batch.last_offset,
                    ..run
                });
                first_offset = batch.last_offset + 1;
            }
        }
        pieces.push(Acquired { first_offset, ..run });
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_cut_at_batch_ends() {
        let batches: Vec<LogBatch> = (0..4)
            .map(|index| LogBatch {
                first_offset: index * 10,
                last_offset: index * 10 + 9,
                is_hidden: false,
            })
            .collect();
        let run = Acquired {
            first_offset: 5,
            last_offset: 39,
            delivery_count: 1,
        };
        let ends = |size| {
            in_pieces(vec![run], &batches, size)
                .iter()
                .map(|piece| piece.last_offset)
                .collect::<Vec<_>>()
        };
        assert_eq!(ends(10), [19, 29, 39]);
        assert_eq!(ends(1), [9, 19, 29, 39]);
        assert_eq!(ends(1_000), [39]);
    }
}
