//! Consumer groups: the shell around [`GroupCoordinator`](millstream_core::group::GroupCoordinator), one task per partition of `__consumer_offsets`.
//!
//! ```text
//! GroupService   which partition coordinates a group; creates the topic and starts shards on first use
//! shard          the task that owns a coordinator: a command, append, apply, answer once durable
//! outcomes       answers about partitions that do not all exist
//! outbox         answers that wait for the high watermark, in order
//! storage        group records to batches and back
//! time           the coordinator's milliseconds, tied to tokio's timers
//! ```
//! A shard whose log fails ends and thereby refuses what it still held with NOT_COORDINATOR, which makes clients look for the coordinator
//! again; the next request starts a new shard, which loads from the log. So memory is never ahead of the log for longer than one
//! request.

mod outbox;
pub(crate) mod outcomes;
mod shard;
mod storage;
mod time;

#[cfg(test)]
mod shard_tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use millstream_core::{
    group::{
        Decision, GroupConfig, GroupDescription, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
        LeaveGroupResponse, ListedGroup, OffsetCommitRequest, OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse,
        PartitionOutcomes, SyncGroupRequest, SyncGroupResponse, partition_for,
    },
    metadata::names::CONSUMER_OFFSETS,
};
use millstream_protocol::ErrorCode;
use tokio::{sync::watch, task::JoinHandle};

use self::{shard::ShardHandle, time::GroupTime};
use crate::{broker::Broker, clock::Clock, config::BrokerConfig, partition::Partition};

/// Groups of one request that are asked about at the same time.
pub(crate) const GROUPS_AT_ONCE: usize = 64;

/// All groups of which this broker is the coordinator.
pub struct GroupService {
    config: GroupConfig,
    time: GroupTime,
    /// By partition of `__consumer_offsets`.
    shards: Mutex<BTreeMap<i32, Running>>,
    stopping: watch::Sender<bool>,
}

/// A shard that was started; it may have ended since.
struct Running {
    handle: ShardHandle,
    task: JoinHandle<()>,
}

impl GroupService {
    /// A service without groups.
    pub fn new(config: &BrokerConfig, clock: Arc<dyn Clock>) -> Self {
        Self {
            config: group_config(config),
            time: GroupTime::start(&*clock),
            shards: Mutex::default(),
            stopping: watch::Sender::new(false),
        }
    }

    /// Starts to load the groups that the log knows. Requests that come before that is done wait for it.
    pub fn load(&self, broker: &Arc<Broker>) {
        let partitions = offsets_partitions(broker);
        for (number, partition) in partitions {
            if let Err(error) = self.shard(number, partition) {
                tracing::warn!(partition = number, ?error, "groups are not loaded");
            }
        }
    }

    /// Ends all shards: what is parked is answered, and new requests are refused.
    pub async fn stop(&self) {
        let shards = {
            let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
            self.stopping.send_replace(true);
            std::mem::take(&mut *shards)
        };
        for running in shards.into_values() {
            if let Err(error) = running.task.await {
                tracing::error!(%error, "a group shard did not end well");
            }
        }
    }

    /// Makes sure that the group has a coordinator, and that it is this broker.
    pub(crate) async fn find(&self, broker: &Arc<Broker>, group_id: &str) -> Result<(), ErrorCode> {
        self.shard_of(broker, group_id).await.map(|_| ())
    }

    /// JoinGroup. Waits for the end of the rebalance.
    pub(crate) async fn join_group(&self, broker: &Arc<Broker>, request: JoinGroupRequest) -> Result<JoinGroupResponse, ErrorCode> {
        self.shard_of(broker, &request.group_id).await?.join_group(request).await
    }

    /// SyncGroup. Waits for the leader's assignment.
    pub(crate) async fn sync_group(&self, broker: &Arc<Broker>, request: SyncGroupRequest) -> Result<SyncGroupResponse, ErrorCode> {
        self.shard_of(broker, &request.group_id).await?.sync_group(request).await
    }

    /// Heartbeat.
    pub(crate) async fn heartbeat(&self, broker: &Arc<Broker>, request: HeartbeatRequest) -> ErrorCode {
        let shard = match self.shard_of(broker, &request.group_id).await {
            Ok(shard) => shard,
            Err(error) => return error,
        };
        shard
            .call(move |groups, now_ms| answer(groups.heartbeat(now_ms, &request)))
            .await
            .unwrap_or_else(|error| error)
    }

    /// LeaveGroup.
    pub(crate) async fn leave_group(&self, broker: &Arc<Broker>, request: LeaveGroupRequest) -> Result<LeaveGroupResponse, ErrorCode> {
        let shard = self.shard_of(broker, &request.group_id).await?;
        shard.call(move |groups, now_ms| groups.leave_group(now_ms, request)).await
    }

    /// OffsetCommit, of partitions that exist.
    pub(crate) async fn commit_offsets(&self, broker: &Arc<Broker>, request: OffsetCommitRequest) -> Result<PartitionOutcomes, ErrorCode> {
        let shard = self.shard_of(broker, &request.group_id).await?;
        shard.call(move |groups, now_ms| groups.commit_offsets(now_ms, request)).await
    }

    /// OffsetFetch.
    pub(crate) async fn fetch_offsets(&self, broker: &Arc<Broker>, request: OffsetFetchRequest) -> Result<OffsetFetchResponse, ErrorCode> {
        let shard = self.shard_of(broker, &request.group_id).await?;
        shard.call(move |groups, _| answer(groups.fetch_offsets(&request))).await
    }

    /// OffsetDelete, of partitions that exist.
    pub(crate) async fn delete_offsets(
        &self,
        broker: &Arc<Broker>,
        group_id: String,
        topics: Vec<(String, Vec<i32>)>,
    ) -> Result<OffsetDeleteResponse, ErrorCode> {
        let shard = self.shard_of(broker, &group_id).await?;
        shard.call(move |groups, _| groups.delete_offsets(&group_id, &topics)).await
    }

    /// DescribeGroups for one group.
    pub(crate) async fn describe_group(&self, broker: &Arc<Broker>, group_id: String) -> Result<GroupDescription, ErrorCode> {
        let shard = self.shard_of(broker, &group_id).await?;
        shard.call(move |groups, _| answer(groups.describe_group(&group_id))).await
    }

    /// DeleteGroups for one group.
    pub(crate) async fn delete_group(&self, broker: &Arc<Broker>, group_id: String) -> ErrorCode {
        let shard = match self.shard_of(broker, &group_id).await {
            Ok(shard) => shard,
            Err(error) => return error,
        };
        let outcomes = shard.call(move |groups, _| groups.delete_groups(&[group_id])).await;
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
                    .call(move |groups, _| answer(groups.list_groups(&filters.0, &filters.1)))
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
            if let Err(error) = shard.call(move |groups, _| groups.topics_deleted(&topics)).await {
                tracing::warn!(topic, ?error, "offsets of a deleted topic remain until they expire");
            }
        }
    }

    /// The shard of a group. The offsets topic springs into being for the first group.
    async fn shard_of(&self, broker: &Arc<Broker>, group_id: &str) -> Result<ShardHandle, ErrorCode> {
        if let Some((number, partition)) = offsets_partition(broker, group_id) {
            return self.shard(number, partition);
        }
        // Also when the topic is known and its logs are not open yet: the answer comes after they are.
        let created = broker.auto_create(vec![CONSUMER_OFFSETS.to_owned()]).await;
        if let Some((number, partition)) = offsets_partition(broker, group_id) {
            return self.shard(number, partition);
        }
        let refusal = created.map(|outcomes| outcomes.into_iter().find_map(Result::err));
        tracing::warn!(group_id, ?refusal, "no partition of the offsets topic for the group");
        Err(ErrorCode::CoordinatorNotAvailable)
    }

    fn all_shards(&self, broker: &Broker) -> Result<Vec<ShardHandle>, ErrorCode> {
        offsets_partitions(broker)
            .into_iter()
            .map(|(number, partition)| self.shard(number, partition))
            .collect()
    }

    fn shard(&self, number: i32, partition: Arc<Partition>) -> Result<ShardHandle, ErrorCode> {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        // A shard on a closed log could only load and fail.
        if *self.stopping.borrow() || partition.is_closed() {
            return Err(ErrorCode::NotCoordinator);
        }
        if let Some(running) = shards.get(&number).filter(|shard| !shard.handle.has_ended()) {
            return Ok(running.handle.clone());
        }
        let (handle, task) = shard::start(partition, self.config.clone(), self.time, self.stopping.subscribe());
        shards.insert(
            number,
            Running {
                handle: handle.clone(),
                task,
            },
        );
        Ok(handle)
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

/// The partition of the offsets topic that coordinates a group, if it is open here.
fn offsets_partition(broker: &Broker, group_id: &str) -> Option<(i32, Arc<Partition>)> {
    let topic = broker.internal_topic(CONSUMER_OFFSETS)?;
    let number = partition_for(group_id, i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX));
    Some((number, broker.partition(&topic, number)?))
}

/// All partitions of the offsets topic that are open here.
fn offsets_partitions(broker: &Broker) -> Vec<(i32, Arc<Partition>)> {
    let Some(topic) = broker.internal_topic(CONSUMER_OFFSETS) else {
        return Vec::new();
    };
    let numbers = (0_i32..).zip(&topic.partitions).map(|(number, _)| number);
    numbers
        .filter_map(|number| Some((number, broker.partition(&topic, number)?)))
        .collect()
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
