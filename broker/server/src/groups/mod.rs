//! Consumer groups: the shell around [`GroupCoordinator`], one task per partition of `__consumer_offsets`.
//!
//! ```text
//! GroupService   which partition coordinates a group
//! core           the coordinator as the shard sees it, and the requests that it has parked
//! internal_topics  topics of streams groups that the broker creates for them
//! outcomes       answers about partitions that do not all exist
//! ```

mod core;
mod internal_topics;
pub(crate) mod outcomes;

#[cfg(test)]
mod shard_tests;

use std::{collections::BTreeSet, sync::Arc};

use millstream_core::{
    group::{
        Decision, GroupConfig, GroupCoordinator, GroupDescription, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
        LeaveGroupRequest, LeaveGroupResponse, ListedGroup, MigrationPolicy, OffsetCommitRequest, OffsetDeleteResponse, OffsetFetchRequest,
        OffsetFetchResponse, PartitionOutcomes, SyncGroupRequest, SyncGroupResponse,
        modern::{ModernDescription, ModernHeartbeat, ModernHeartbeatResponse, ModernKind, ModernRefusal},
        streams::{StreamsDescription, StreamsHeartbeat, StreamsHeartbeatResponse},
    },
    metadata::names::CONSUMER_OFFSETS,
};
use millstream_protocol::{ErrorCode, record::Marker};

pub(crate) use self::core::GroupShard;
use self::{core::Parked, internal_topics::InternalTopics};
use crate::{
    broker::Broker,
    clock::Clock,
    config::BrokerConfig,
    coordination::{Producer, Shards, sending},
    partition::Partition,
};

/// Groups of one request that are asked about at the same time.
pub(crate) const GROUPS_AT_ONCE: usize = 64;

/// All groups of which this broker is the coordinator.
pub struct GroupService {
    config: GroupConfig,
    shards: Shards<GroupCoordinator, Parked>,
    internal_topics: InternalTopics,
}

impl GroupService {
    /// A service without groups.
    pub fn new(config: &BrokerConfig, clock: &dyn Clock) -> Self {
        Self {
            config: group_config(config),
            shards: Shards::new(CONSUMER_OFFSETS, clock),
            internal_topics: InternalTopics::default(),
        }
    }

    /// Starts to load the groups that the log knows. Requests that come before that is done wait for it.
    pub fn load(&self, broker: &Arc<Broker>) {
        for partition in self.shards.partitions(broker) {
            if let Err(error) = self.shard(&partition) {
                tracing::warn!(partition = partition.id.partition, ?error, "groups are not loaded");
            }
        }
    }

    /// Ends all shards: what is parked is answered, and new requests are refused.
    pub async fn stop(&self) {
        self.shards.stop().await;
    }

    /// Makes sure that the group has a coordinator, and that it is this broker.
    pub(crate) async fn find(&self, broker: &Arc<Broker>, group_id: &str) -> Result<(), ErrorCode> {
        self.shard_of(broker, group_id).await.map(|_| ())
    }

    /// JoinGroup. Waits for the end of the rebalance.
    pub(crate) async fn join_group(&self, broker: &Arc<Broker>, request: JoinGroupRequest) -> Result<JoinGroupResponse, ErrorCode> {
        let shard = self.shard_of(broker, &request.group_id).await?;
        let metadata = Arc::clone(&broker.metadata);
        shard.join_group(request, move || metadata.image()).await
    }

    /// SyncGroup. Waits for the leader's assignment.
    pub(crate) async fn sync_group(&self, broker: &Arc<Broker>, request: SyncGroupRequest) -> Result<SyncGroupResponse, ErrorCode> {
        let shard = self.shard_of(broker, &request.group_id).await?;
        let metadata = Arc::clone(&broker.metadata);
        shard.sync_group(request, move || metadata.image()).await
    }

    /// Heartbeat.
    pub(crate) async fn heartbeat(&self, broker: &Arc<Broker>, request: HeartbeatRequest) -> ErrorCode {
        let shard = match self.shard_of(broker, &request.group_id).await {
            Ok(shard) => shard,
            Err(error) => return error,
        };
        shard
            .decide(move |groups, now_ms| answer(groups.heartbeat(now_ms, &request)))
            .await
            .unwrap_or_else(|error| error)
    }

    /// LeaveGroup.
    pub(crate) async fn leave_group(&self, broker: &Arc<Broker>, request: LeaveGroupRequest) -> Result<LeaveGroupResponse, ErrorCode> {
        let shard = self.shard_of(broker, &request.group_id).await?;
        shard.decide(move |groups, now_ms| groups.leave_group(now_ms, request)).await
    }

    /// OffsetCommit, of partitions that exist.
    pub(crate) async fn commit_offsets(&self, broker: &Arc<Broker>, request: OffsetCommitRequest) -> Result<PartitionOutcomes, ErrorCode> {
        let shard = self.shard_of(broker, &request.group_id).await?;
        shard.decide(move |groups, now_ms| groups.commit_offsets(now_ms, request)).await
    }

    /// OffsetFetch.
    pub(crate) async fn fetch_offsets(&self, broker: &Arc<Broker>, request: OffsetFetchRequest) -> Result<OffsetFetchResponse, ErrorCode> {
        let shard = self.shard_of(broker, &request.group_id).await?;
        shard.decide(move |groups, _| answer(groups.fetch_offsets(&request))).await?
    }

    /// OffsetDelete, of partitions that exist.
    pub(crate) async fn delete_offsets(
        &self,
        broker: &Arc<Broker>,
        group_id: String,
        topics: Vec<(String, Vec<i32>)>,
    ) -> Result<OffsetDeleteResponse, ErrorCode> {
        let shard = self.shard_of(broker, &group_id).await?;
        shard.decide(move |groups, _| groups.delete_offsets(&group_id, &topics)).await
    }

    /// DescribeGroups for one group.
    pub(crate) async fn describe_group(&self, broker: &Arc<Broker>, group_id: String) -> Result<GroupDescription, ErrorCode> {
        let shard = self.shard_of(broker, &group_id).await?;
        shard.decide(move |groups, _| answer(groups.describe_group(&group_id))).await
    }

    /// ConsumerGroupHeartbeat and ShareGroupHeartbeat.
    pub(crate) async fn modern_heartbeat(
        &self,
        broker: &Arc<Broker>,
        request: ModernHeartbeat,
    ) -> Result<Result<ModernHeartbeatResponse, ModernRefusal>, ErrorCode> {
        let shard = self.shard_of(broker, &request.group_id).await?;
        let metadata = Arc::clone(&broker.metadata);
        // The newest image when its turn comes: one that is older than another member's would take that member's news back.
        let heartbeat = move |groups: &mut GroupCoordinator, now_ms| groups.modern_heartbeat(now_ms, &request, &metadata.image());
        shard.decide(heartbeat).await
    }

    /// StreamsGroupHeartbeat. Internal topics that the application needs exist when this returns, or its answer says why not.
    pub(crate) async fn streams_heartbeat(
        &self,
        broker: &Arc<Broker>,
        request: StreamsHeartbeat,
    ) -> Result<Result<StreamsHeartbeatResponse, ModernRefusal>, ErrorCode> {
        let shard = self.shard_of(broker, &request.group_id).await?;
        let metadata = Arc::clone(&broker.metadata);
        let heartbeat = move |groups: &mut GroupCoordinator, now_ms| groups.streams_heartbeat(now_ms, &request, &metadata.image());
        let mut answer = shard.decide(heartbeat).await?;
        if let Ok(response) = &mut answer {
            self.internal_topics.create(broker, response).await;
        }
        Ok(answer)
    }

    /// StreamsGroupDescribe for one group.
    pub(crate) async fn describe_streams(
        &self,
        broker: &Arc<Broker>,
        group_id: String,
    ) -> Result<Result<StreamsDescription, ModernRefusal>, ErrorCode> {
        let shard = self.shard_of(broker, &group_id).await?;
        let metadata = Arc::clone(&broker.metadata);
        shard
            .decide(move |groups, _| answer(groups.describe_streams(&group_id, &metadata.image())))
            .await
    }

    /// ConsumerGroupDescribe and ShareGroupDescribe for one group.
    pub(crate) async fn describe_modern(
        &self,
        broker: &Arc<Broker>,
        kind: ModernKind,
        group_id: String,
    ) -> Result<Result<ModernDescription, ModernRefusal>, ErrorCode> {
        let shard = self.shard_of(broker, &group_id).await?;
        shard.decide(move |groups, _| answer(groups.describe_modern(kind, &group_id))).await
    }

    /// Makes sure that there is a share group, and that it has no members.
    pub(crate) async fn create_empty_share_group(&self, broker: &Arc<Broker>, group_id: String) -> Result<(), ErrorCode> {
        let shard = self.shard_of(broker, &group_id).await?;
        shard.decide(move |groups, _| groups.create_empty_share_group(&group_id)).await?
    }

    /// DeleteGroups for one group.
    pub(crate) async fn delete_group(&self, broker: &Arc<Broker>, group_id: String) -> ErrorCode {
        let shard = match self.shard_of(broker, &group_id).await {
            Ok(shard) => shard,
            Err(error) => return error,
        };
        let outcomes = shard.decide(move |groups, _| groups.delete_groups(&[group_id])).await;
        outcomes.map_or_else(
            |error| error,
            |outcomes| outcomes.first().map_or(ErrorCode::GroupIdNotFound, |(_, outcome)| *outcome),
        )
    }

    /// ListGroups.
    pub(crate) async fn list_groups(
        &self,
        broker: &Arc<Broker>,
        states: Vec<String>,
        types: Vec<String>,
    ) -> Result<Vec<ListedGroup>, ErrorCode> {
        let filters = Arc::new((states, types));
        let mut listed = Vec::new();
        for shard in self.all_shards(broker)? {
            let filters = Arc::clone(&filters);
            listed.extend(
                shard
                    .decide(move |groups, _| answer(groups.list_groups(&filters.0, &filters.1)))
                    .await?,
            );
        }
        Ok(listed)
    }

    /// A topic was deleted: so are all offsets committed for it.
    pub async fn topic_deleted(&self, broker: &Arc<Broker>, topic: &str) {
        let topics = Arc::new(BTreeSet::from([topic.to_owned()]));
        // A stopping service has no shards left; the offsets then stay until they expire.
        for shard in self.all_shards(broker).unwrap_or_default() {
            let topics = Arc::clone(&topics);
            if let Err(error) = shard.decide(move |groups, _| groups.topics_deleted(&topics)).await {
                tracing::warn!(topic, ?error, "offsets of a deleted topic remain until they expire");
            }
        }
    }

    /// The partition of the offsets topic that coordinates a group.
    pub(crate) async fn partition_of(&self, broker: &Arc<Broker>, group_id: &str) -> Result<Arc<Partition>, ErrorCode> {
        self.shards.partition_of(broker, group_id).await
    }

    /// TxnOffsetCommit, of partitions that exist; the partition is part of the producer's transaction.
    pub(crate) async fn commit_offsets_in_transaction(
        &self,
        partition: &Arc<Partition>,
        producer: Producer,
        request: OffsetCommitRequest,
    ) -> Result<PartitionOutcomes, ErrorCode> {
        let shard = self.shard(partition)?;
        shard
            .run(move |shard, sender| {
                let decision = shard.core.commit_offsets_in_transaction(shard.now_ms(), request);
                let written = shard.write_transactional(producer, &decision.records)?;
                shard.answer(sending(sender, written.map(|()| decision.response)));
                Ok(())
            })
            .await?
    }

    /// The end of a producer's transaction on a partition of the offsets topic.
    pub(crate) async fn write_marker(
        &self,
        partition: &Arc<Partition>,
        producer_id: i64,
        producer_epoch: i16,
        marker: Marker,
    ) -> Result<(), ErrorCode> {
        let shard = self.shard(partition)?;
        shard
            .run(move |shard, sender| {
                let written = shard.write_marker(producer_id, producer_epoch, marker)?;
                shard.answer(sending(sender, written));
                Ok(())
            })
            .await?
    }

    async fn shard_of(&self, broker: &Arc<Broker>, group_id: &str) -> Result<GroupShard, ErrorCode> {
        self.shard(&self.shards.partition_of(broker, group_id).await?)
    }

    fn all_shards(&self, broker: &Broker) -> Result<Vec<GroupShard>, ErrorCode> {
        self.shards
            .partitions(broker)
            .iter()
            .map(|partition| self.shard(partition))
            .collect()
    }

    fn shard(&self, partition: &Arc<Partition>) -> Result<GroupShard, ErrorCode> {
        self.shards
            .shard(partition, || (GroupCoordinator::new(self.config.clone()), Parked::default()))
    }
}

/// A decision that only answers.
fn answer<R>(response: R) -> Decision<R> {
    Decision {
        records: Vec::new(),
        replies: Vec::new(),
        response,
    }
}

/// The coordinator's settings from the broker's.
pub(crate) fn group_config(config: &BrokerConfig) -> GroupConfig {
    let int = |name: &str| i32::try_from(config.number(name)).unwrap_or(i32::MAX);
    GroupConfig {
        session_timeout_ms_min: int("group.min.session.timeout.ms"),
        session_timeout_ms_max: int("group.max.session.timeout.ms"),
        initial_rebalance_delay_ms: int("group.initial.rebalance.delay.ms"),
        members_max: config.size("group.max.size"),
        offset_metadata_bytes_max: config.size("offset.metadata.max.bytes"),
        offsets_retention_ms: config.number("offsets.retention.minutes").saturating_mul(60_000),
        offsets_retention_check_interval_ms: config.number("offsets.retention.check.interval.ms"),
        consumer_session_timeout_ms: int("group.consumer.session.timeout.ms"),
        share_session_timeout_ms: int("group.share.session.timeout.ms"),
        streams_session_timeout_ms: int("group.streams.session.timeout.ms"),
        consumer_members_max: config.size("group.consumer.max.size"),
        share_members_max: config.size("group.share.max.size"),
        streams_members_max: config.size("group.streams.max.size"),
        consumer_assignors: config
            .text("group.consumer.assignors")
            .split(',')
            .map(|name| name.trim().to_owned())
            .collect(),
        // Its values were checked when it was set.
        migration: MigrationPolicy::from_name(config.text("group.consumer.migration.policy").trim()).unwrap_or_default(),
        ..GroupConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, path::PathBuf};

    use millstream_core::metadata::configs::Overrides;

    use super::*;

    fn config(values: &[(&str, &str)]) -> BrokerConfig {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        BrokerConfig {
            node_id: 1,
            data_dir: PathBuf::new(),
            kafka_address: any,
            advertised: None,
            admin_address: any,
            allow_insecure: false,
            values: values
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect::<Overrides>(),
        }
    }

    #[test]
    fn default_settings_are_those_of_the_core() {
        assert_eq!(group_config(&config(&[])), GroupConfig::default());
        assert_eq!(group_config(&config(&[])).validate(), Ok(()));
    }

    #[test]
    fn settings_follow_the_broker_configuration() {
        let values = [
            ("group.min.session.timeout.ms", "100"),
            ("group.initial.rebalance.delay.ms", "0"),
            ("offsets.retention.minutes", "2"),
        ];
        let settings = group_config(&config(&values));
        assert_eq!((settings.session_timeout_ms_min, settings.initial_rebalance_delay_ms), (100, 0));
        assert_eq!(settings.offsets_retention_ms, 120_000);
    }
}
