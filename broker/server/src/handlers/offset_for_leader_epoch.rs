//! OffsetForLeaderEpoch (KIP-101, KIP-320): where a leader epoch ended, so that a client or follower sees whether its log diverged.

use std::sync::Arc;

use millstream_core::metadata::ClusterImage;
use millstream_log::remote::EpochEntry;
use millstream_protocol::{
    ErrorCode,
    messages::{
        OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
        offset_for_leader_epoch_request::OffsetForLeaderPartition,
        offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
    },
};

use crate::{
    broker::{Broker, Named},
    context::RequestContext,
};

/// What stands for an epoch or offset that is not known.
const UNDEFINED: i32 = -1;

/// Handles a request.
pub async fn handle(broker: Arc<Broker>, _context: RequestContext, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let image = broker.metadata.image();
    let topics = request.topics.into_iter().map(|topic| {
        let answer = |asked: OffsetForLeaderPartition| match end_offset(&broker, &image, &topic.topic, &asked) {
            Ok((leader_epoch, end_offset)) => EpochEndOffset {
                partition: asked.partition,
                leader_epoch,
                end_offset,
                ..Default::default()
            },
            Err(error) => EpochEndOffset {
                error_code: error.code(),
                partition: asked.partition,
                ..Default::default()
            },
        };
        OffsetForLeaderTopicResult {
            partitions: topic.partitions.into_iter().map(answer).collect(),
            topic: topic.topic,
        }
    });
    OffsetForLeaderEpochResponse {
        topics: topics.collect(),
        ..Default::default()
    }
}

fn end_offset(broker: &Broker, image: &ClusterImage, name: &str, asked: &OffsetForLeaderPartition) -> Result<(i32, i64), ErrorCode> {
    let named = Named::by_name(image, name).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let partition = broker
        .partition(named.stored_in(), asked.partition)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let leader_epoch = partition.leader_epoch();
    check_leader_epoch(asked.current_leader_epoch, leader_epoch)?;
    // Read before the epochs: the end must not lie in an epoch that they do not have yet.
    let log_end_offset = partition.log().log_end_offset();
    Ok(epoch_end(
        partition.log().epochs(),
        leader_epoch,
        log_end_offset,
        asked.leader_epoch,
    ))
}

/// Compares what a client takes for the current leader epoch (-1: it does not know) with what it is.
fn check_leader_epoch(claimed: i32, current: i32) -> Result<(), ErrorCode> {
    match claimed {
        UNDEFINED => Ok(()),
        _ if claimed < current => Err(ErrorCode::FencedLeaderEpoch),
        _ if claimed > current => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

/// The largest epoch that is not above `asked`, and its end (exclusive). An epoch before all known ones ended where the log's first one
/// starts; one that is yet to come is undefined.
fn epoch_end(mut epochs: Vec<EpochEntry>, leader_epoch: i32, log_end_offset: i64, asked: i32) -> (i32, i64) {
    // The log learns of an epoch with its first record. The leadership began before: clients know its epoch from ListOffsets.
    if epochs.last().is_none_or(|last| last.epoch < leader_epoch) {
        epochs.push(EpochEntry {
            epoch: leader_epoch,
            start_offset: log_end_offset,
        });
    }
    let is_known = asked >= 0 && epochs.last().is_some_and(|last| asked <= last.epoch);
    if !is_known {
        return (UNDEFINED, i64::from(UNDEFINED));
    }
    let floor = epochs.iter().rev().find(|entry| entry.epoch <= asked);
    let next = epochs.iter().find(|entry| entry.epoch > asked);
    (
        floor.map_or(asked, |entry| entry.epoch),
        next.map_or(log_end_offset, |entry| entry.start_offset),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_leader_epoch_must_be_the_current_one() {
        assert_eq!([check_leader_epoch(-1, 4), check_leader_epoch(4, 4)], [Ok(()), Ok(())]);
        assert_eq!(check_leader_epoch(3, 4), Err(ErrorCode::FencedLeaderEpoch));
        assert_eq!(check_leader_epoch(5, 4), Err(ErrorCode::UnknownLeaderEpoch));
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_starts() {
        let epochs = [(2, 10), (5, 20)]
            .map(|(epoch, start_offset)| EpochEntry { epoch, start_offset })
            .to_vec();
        let end = |asked| epoch_end(epochs.clone(), 5, 30, asked);
        assert_eq!([end(2), end(3), end(5)], [(2, 20), (2, 20), (5, 30)]);
        assert_eq!(end(1), (1, 10), "before the first record that is kept");
        assert_eq!([end(6), end(-1)], [(-1, -1); 2]);
    }

    #[test]
    fn a_leadership_without_records_has_an_epoch() {
        let epochs = vec![EpochEntry { epoch: 2, start_offset: 0 }];
        assert_eq!([epoch_end(epochs.clone(), 3, 8, 2), epoch_end(epochs, 3, 8, 3)], [(2, 8), (3, 8)]);
        assert_eq!(epoch_end(Vec::new(), 0, 0, 0), (0, 0));
    }
}
