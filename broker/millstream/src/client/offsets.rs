//! Offsets: where partitions start and end, and what groups committed.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use millstream_protocol::messages::{
    FindCoordinatorRequest, ListOffsetsRequest, OffsetCommitRequest, OffsetFetchRequest,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    offset_fetch_request::OffsetFetchRequestGroup,
};

use super::kafka::{Kafka, check};

/// Stands for the end of a partition.
pub const LATEST: i64 = -1;
/// Stands for the start of a partition.
pub const EARLIEST: i64 = -2;

/// Offsets that a group committed, by topic and partition.
pub type Committed = BTreeMap<(String, i32), i64>;

impl Kafka {
    /// The offsets at a place ([`EARLIEST`], [`LATEST`]) of some partitions.
    pub async fn offsets(&mut self, topic: &str, partitions: &[i32], place: i64) -> Result<BTreeMap<i32, i64>> {
        let partition = |index: &i32| ListOffsetsPartition {
            partition_index: *index,
            current_leader_epoch: -1,
            timestamp: place,
        };
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: topic.into(),
                partitions: partitions.iter().map(partition).collect(),
            }],
            ..ListOffsetsRequest::default()
        };
        let mut offsets = BTreeMap::new();
        for partition in self.call(&request).await?.topics.into_iter().flat_map(|topic| topic.partitions) {
            let index = partition.partition_index;
            check(partition.error_code, None, || format!("offsets of {topic} partition {index}"))?;
            offsets.insert(index, partition.offset);
        }
        Ok(offsets)
    }

    /// Waits until the group's coordinator is there; the first question about a group creates `__consumer_offsets`.
    pub async fn find_coordinator(&mut self, group: &str) -> Result<()> {
        let request = FindCoordinatorRequest {
            coordinator_keys: vec![group.into()],
            ..FindCoordinatorRequest::default()
        };
        let found = self
            .call_until_settled(&request, |response| {
                response.coordinators.first().map_or(0, |found| found.error_code)
            })
            .await?;
        let coordinator = found
            .coordinators
            .first()
            .with_context(|| format!("no answer about group {group}"))?;
        check(coordinator.error_code, coordinator.error_message.as_ref(), || {
            format!("find the coordinator of group {group}")
        })
    }

    /// Everything that a group committed.
    pub async fn committed(&mut self, group: &str) -> Result<Committed> {
        let request = OffsetFetchRequest {
            groups: vec![OffsetFetchRequestGroup {
                group_id: group.into(),
                topics: None,
                ..OffsetFetchRequestGroup::default()
            }],
            ..OffsetFetchRequest::default()
        };
        let response = self
            .call_until_settled(&request, |response| response.groups.first().map_or(0, |group| group.error_code))
            .await?;
        let mut committed = Committed::new();
        for answer in response.groups {
            check(answer.error_code, None, || format!("offsets of group {group}"))?;
            for topic in answer.topics {
                for partition in topic.partitions {
                    check(partition.error_code, None, || format!("offsets of group {group} on {}", topic.name))?;
                    if partition.committed_offset >= 0 {
                        committed.insert(
                            (topic.name.as_str().to_owned(), partition.partition_index),
                            partition.committed_offset,
                        );
                    }
                }
            }
        }
        Ok(committed)
    }

    /// Commits positions on a topic for a group that has no members.
    pub async fn commit(&mut self, group: &str, topic: &str, positions: &BTreeMap<i32, i64>) -> Result<()> {
        let partition = |(index, offset): (&i32, &i64)| OffsetCommitRequestPartition {
            partition_index: *index,
            committed_offset: *offset,
            committed_leader_epoch: -1,
            committed_metadata: None,
        };
        let request = OffsetCommitRequest {
            group_id: group.into(),
            // Generation -1 is a commit from outside the group's protocol; it is refused while the group has members.
            generation_id_or_member_epoch: -1,
            topics: vec![OffsetCommitRequestTopic {
                name: topic.into(),
                partitions: positions.iter().map(partition).collect(),
                ..OffsetCommitRequestTopic::default()
            }],
            ..OffsetCommitRequest::default()
        };
        let code = |response: &millstream_protocol::messages::OffsetCommitResponse| {
            let mut partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            partitions
                .find(|partition| partition.error_code != 0)
                .map_or(0, |partition| partition.error_code)
        };
        let response = self.call_until_settled(&request, code).await?;
        check(code(&response), None, || format!("commit offsets of group {group}"))
    }
}
