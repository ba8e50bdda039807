//! OffsetCommit, TxnOffsetCommit and OffsetFetch.

use std::collections::BTreeSet;

use millstream_protocol::error_code::ErrorCode;

use super::{
    CommittedOffset, Decision, FetchedOffset, GroupCoordinator, GroupRecord, GroupState, OffsetCommitPartition, OffsetCommitRequest,
    OffsetFetchRequest, OffsetFetchResponse, PartitionOutcomes,
};
use crate::records::RECORD_STRING_BYTES_MAX;

/// Most bytes of names in the records of one commit. Kafka refuses what does not fit a batch of its offsets topic.
const COMMIT_NAMES_BYTES_MAX: usize = 8 << 20;

impl GroupCoordinator {
    /// OffsetCommit. The records go to the log outside a transaction.
    pub fn commit_offsets(&mut self, now_ms: i64, request: OffsetCommitRequest) -> Decision<PartitionOutcomes> {
        let mut decision = Decision::default();
        if let Err(error) = self.validate_commit(&request, false) {
            return decision.with_response(refuse_all(request, error));
        }
        // Who commits is alive; in CompletingRebalance the commit was refused.
        self.with_group(now_ms, &request.group_id, &mut decision, |group, turn| {
            group.renew_session(turn, &request.member_id)
        });
        self.accept_commit(now_ms, request, decision)
    }

    /// TxnOffsetCommit. The records go to the log as a transactional batch of the producer, and into memory with `apply_transactional`.
    ///
    /// The shell has checked the producer id and epoch, as for any transactional append.
    pub fn commit_offsets_in_transaction(&self, now_ms: i64, request: OffsetCommitRequest) -> Decision<PartitionOutcomes> {
        match self.validate_commit(&request, true) {
            Ok(()) => self.accept_commit(now_ms, request, Decision::default()),
            Err(error) => Decision::<()>::default().with_response(refuse_all(request, error)),
        }
    }

    fn validate_commit(&self, request: &OffsetCommitRequest, is_transactional: bool) -> Result<(), ErrorCode> {
        if request.group_id.len() > RECORD_STRING_BYTES_MAX {
            return Err(ErrorCode::InvalidGroupId);
        }
        // A commit with generation -1 comes from a consumer that assigns partitions itself, or from an administrator who resets offsets.
        let is_simple = request.generation_id < 0;
        let names_member = !is_simple || !request.member_id.is_empty() || request.group_instance_id.is_some();
        if let Some(group) = self.hard.streams(&request.group_id) {
            let is_member = group.members.contains_key(&request.member_id);
            return if is_transactional && !names_member {
                Ok(())
            } else if !is_transactional && is_member && !request.knows_group_id_not_found {
                // A version that cannot say that the epoch is stale.
                Err(ErrorCode::UnsupportedVersion)
            } else {
                self.check_streams_commit(group, request)
                    .map_err(|error| told(error, is_transactional))
            };
        }
        if self.hard.modern(&request.group_id).is_some() {
            let epoch = request.generation_id;
            if is_transactional && !names_member {
                return Ok(());
            }
            if !is_transactional && !request.knows_group_id_not_found && self.is_modern_member(&request.group_id, &request.member_id) {
                // A version that cannot say that the epoch is stale.
                return Err(ErrorCode::UnsupportedVersion);
            }
            return self
                .check_member_epoch(&request.group_id, &request.member_id, epoch, true)
                .map_err(|error| told(error, is_transactional));
        }
        let Some(group) = self.groups.get(&request.group_id) else {
            return if is_simple {
                Ok(())
            } else if self.hard.has_offsets(&request.group_id) {
                // A group that only has offsets has no members.
                Err(ErrorCode::UnknownMemberId)
            } else if request.knows_group_id_not_found && !is_transactional {
                Err(ErrorCode::GroupIdNotFound)
            } else {
                Err(ErrorCode::IllegalGeneration)
            };
        };
        if is_simple && group.state() == GroupState::Empty {
            return Ok(());
        }
        if names_member {
            group.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
            if request.generation_id != group.generation {
                return Err(ErrorCode::IllegalGeneration);
            }
        } else if !is_transactional {
            return Err(ErrorCode::UnknownMemberId);
        }
        // The member has to learn of the new generation first. A transaction carries on: its producer may not know the group at all.
        if !is_transactional && group.state() == GroupState::CompletingRebalance {
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }

    /// Bytes of names that the records of a commit would repeat, one for each partition.
    fn names_bytes(request: &OffsetCommitRequest) -> usize {
        let of_topic =
            |(topic, partitions): &(String, Vec<OffsetCommitPartition>)| partitions.len() * (request.group_id.len() + topic.len());
        request.topics.iter().map(of_topic).sum()
    }

    fn accept_commit(&self, now_ms: i64, request: OffsetCommitRequest, mut decision: Decision) -> Decision<PartitionOutcomes> {
        if Self::names_bytes(&request) > COMMIT_NAMES_BYTES_MAX {
            return decision.with_response(refuse_all(request, ErrorCode::InvalidCommitOffsetSize));
        }
        let expire_timestamp_ms = request.retention_time_ms.map(|retention_ms| now_ms.saturating_add(retention_ms));
        let mut outcomes = Vec::with_capacity(request.topics.len());
        for (topic, partitions) in request.topics {
            let mut topic_outcomes = Vec::with_capacity(partitions.len());
            for committed in partitions {
                let partition = committed.partition;
                let metadata = committed.metadata.unwrap_or_default();
                let outcome = self.check_partition(&topic, &metadata);
                topic_outcomes.push((partition, outcome));
                if outcome == ErrorCode::None {
                    let commit = CommittedOffset {
                        offset: committed.offset,
                        // The record version with an expire time has no leader epoch: memory must be what a replay gives.
                        leader_epoch: if expire_timestamp_ms.is_some() {
                            -1
                        } else {
                            committed.leader_epoch
                        },
                        metadata,
                        commit_timestamp_ms: now_ms,
                        expire_timestamp_ms,
                    };
                    let (group_id, topic) = (request.group_id.clone(), topic.clone());
                    decision.records.push(GroupRecord::Offset {
                        group_id,
                        topic,
                        partition,
                        value: Some(commit),
                    });
                }
            }
            outcomes.push((topic, topic_outcomes));
        }
        decision.with_response(outcomes)
    }

    fn check_partition(&self, topic: &str, metadata: &str) -> ErrorCode {
        if topic.len() > RECORD_STRING_BYTES_MAX {
            ErrorCode::InvalidTopicException
        } else if metadata.len() > self.config.offset_metadata_bytes_max.min(RECORD_STRING_BYTES_MAX) {
            ErrorCode::OffsetMetadataTooLarge
        } else {
            ErrorCode::None
        }
    }

    /// OffsetFetch for one group. An unknown group or partition is offset -1 without an error.
    ///
    /// Reads applied state; rule 3 of the module doc makes it durable state.
    pub fn fetch_offsets(&self, request: &OffsetFetchRequest) -> Result<OffsetFetchResponse, ErrorCode> {
        let group_id = request.group_id.as_str();
        if let Some((member_id, epoch)) = &request.member {
            match self.hard.streams(group_id) {
                Some(group) => Self::check_streams_fetch(group, member_id, *epoch)?,
                None => self.check_member_epoch(group_id, member_id, *epoch, false)?,
            }
        }
        // Each once: a short list of repeats must not become a long answer.
        let mut seen = BTreeSet::new();
        let mut fetch_topic = |topic: &String, partitions: &[i32]| {
            let fetched = partitions
                .iter()
                .filter(|partition| seen.insert((topic.clone(), **partition)))
                .map(|partition| self.fetch_offset(group_id, topic, *partition, request.require_stable))
                .collect();
            (topic.clone(), fetched)
        };
        Ok(match &request.topics {
            Some(topics) => topics.iter().map(|(topic, partitions)| fetch_topic(topic, partitions)).collect(),
            None => {
                let topics = self.hard.offsets(group_id).into_iter().flatten();
                topics
                    .map(|(topic, partitions)| fetch_topic(topic, &partitions.keys().copied().collect::<Vec<_>>()))
                    .collect()
            }
        })
    }

    fn fetch_offset(&self, group_id: &str, topic: &str, partition: i32, require_stable: bool) -> FetchedOffset {
        let none = |error_code| FetchedOffset {
            partition,
            offset: -1,
            leader_epoch: -1,
            metadata: String::new(),
            error_code,
        };
        if require_stable && self.hard.has_pending(group_id, topic, partition) {
            return none(ErrorCode::UnstableOffsetCommit);
        }
        self.hard.offset(group_id, topic, partition).map_or_else(
            || none(ErrorCode::None),
            |commit| FetchedOffset {
                partition,
                offset: commit.offset,
                leader_epoch: commit.leader_epoch,
                metadata: commit.metadata.clone(),
                error_code: ErrorCode::None,
            },
        )
    }
}

/// The error in words that the request's clients know: TxnOffsetCommit has no stale epochs.
fn told(error: ErrorCode, is_transactional: bool) -> ErrorCode {
    match error {
        ErrorCode::StaleMemberEpoch if is_transactional => ErrorCode::IllegalGeneration,
        other => other,
    }
}

fn refuse_all(request: OffsetCommitRequest, error: ErrorCode) -> PartitionOutcomes {
    let refuse = |partitions: Vec<OffsetCommitPartition>| partitions.into_iter().map(|commit| (commit.partition, error)).collect();
    request
        .topics
        .into_iter()
        .map(|(topic, partitions)| (topic, refuse(partitions)))
        .collect()
}
