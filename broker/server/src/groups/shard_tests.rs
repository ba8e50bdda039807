//! A shard on a disk in memory that can be full, fail to sync, and be used again.

use std::sync::Arc;

use bytes::Bytes;
use millstream_core::{
    group::{Decision, GroupConfig, GroupCoordinator, JoinGroupRequest, OffsetCommitPartition, OffsetCommitRequest, OffsetFetchRequest},
    metadata::{
        ClusterImage,
        configs::{BrokerLayers, Overrides, TopicConfig},
    },
};
use millstream_log::{LogDir, LogDirOptions, disk::MemoryDisk, remote::TopicIdPartition};
use millstream_protocol::ErrorCode;
use tokio::{sync::watch, task::JoinHandle};
use uuid::Uuid;

use super::{GroupShard, Parked};
use crate::{
    clock::SystemClock,
    coordination::{CoordinatorTime, start},
    partition::{Partition, log_config},
};

struct Fixture {
    disk: MemoryDisk,
    partition: Arc<Partition>,
    stopping: watch::Sender<bool>,
}

impl Fixture {
    fn new() -> Self {
        let disk = MemoryDisk::new();
        let options = LogDirOptions {
            path: "/data".into(),
            disk: Arc::new(disk.clone()),
            clock: Arc::new(|| 0),
        };
        let dir = LogDir::open(options).unwrap();
        let config = Arc::new(TopicConfig::resolve(&Overrides::new(), &BrokerLayers::none()));
        let log = dir.open_log("offsets-0", log_config(&config, 1_000)).unwrap();
        dir.sync_names().unwrap();
        let id = TopicIdPartition {
            topic_id: Uuid::nil(),
            partition: 0,
        };
        let partition = Partition::new(id, "__consumer_offsets".to_owned(), 0, log, dir, config);
        Self {
            disk,
            partition,
            stopping: watch::Sender::new(false),
        }
    }

    fn start(&self) -> (GroupShard, JoinHandle<()>) {
        let config = GroupConfig {
            initial_rebalance_delay_ms: 60_000,
            ..GroupConfig::default()
        };
        start(
            Arc::clone(&self.partition),
            GroupCoordinator::new(config),
            Parked::default(),
            CoordinatorTime::start(&SystemClock),
            self.stopping.subscribe(),
        )
    }
}

async fn commit(shard: &GroupShard, offset: i64) -> Result<ErrorCode, ErrorCode> {
    let committed = OffsetCommitPartition {
        partition: 0,
        offset,
        leader_epoch: -1,
        metadata: None,
    };
    let request = OffsetCommitRequest {
        group_id: "g".to_owned(),
        generation_id: -1,
        member_id: String::new(),
        group_instance_id: None,
        retention_time_ms: None,
        knows_group_id_not_found: false,
        topics: vec![("t".to_owned(), vec![committed])],
    };
    let outcomes = shard.decide(move |groups, now_ms| groups.commit_offsets(now_ms, request)).await?;
    Ok(outcomes[0].1[0].1)
}

async fn fetch(shard: &GroupShard) -> Result<i64, ErrorCode> {
    let request = OffsetFetchRequest {
        group_id: "g".to_owned(),
        topics: Some(vec![("t".to_owned(), vec![0])]),
        member: None,
        require_stable: false,
    };
    let read = move |response| Decision {
        records: Vec::new(),
        replies: Vec::new(),
        response,
    };
    let fetched = shard.decide(move |groups, _| read(groups.fetch_offsets(&request))).await??;
    Ok(fetched[0].1[0].offset)
}

fn join_request() -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: "g".to_owned(),
        member_id: String::new(),
        group_instance_id: None,
        client_id: "c".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::new())],
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_uuid: Uuid::nil(),
        requires_known_member_id: false,
        supports_skipping_assignment: false,
    }
}

#[tokio::test]
async fn acknowledged_commit_survives_a_new_shard() {
    let fixture = Fixture::new();
    let (first, task) = fixture.start();
    assert_eq!(fetch(&first).await, Ok(-1));
    assert_eq!(commit(&first, 41).await, Ok(ErrorCode::None));
    assert_eq!(commit(&first, 42).await, Ok(ErrorCode::None));
    assert!(fixture.partition.high_watermark() >= 2);
    fixture.stopping.send_replace(true);
    task.await.unwrap();
    assert!(first.has_ended());

    fixture.stopping.send_replace(false);
    let (second, _) = fixture.start();
    assert_eq!(fetch(&second).await, Ok(42));
}

#[tokio::test]
async fn commit_that_is_not_durable_is_not_acknowledged() {
    let fixture = Fixture::new();
    let (shard, _) = fixture.start();
    assert_eq!(fetch(&shard).await, Ok(-1));
    fixture.disk.fail_sync_after(0);
    assert_eq!(commit(&shard, 42).await, Err(ErrorCode::NotCoordinator));
    assert_eq!(fetch(&shard).await, Err(ErrorCode::NotCoordinator));
}

#[tokio::test]
async fn refused_append_ends_the_shard_and_memory_is_loaded_anew() {
    let fixture = Fixture::new();
    let (first, task) = fixture.start();
    assert_eq!(commit(&first, 41).await, Ok(ErrorCode::None));
    fixture.disk.set_capacity(Some(0));
    assert_eq!(commit(&first, 42).await, Err(ErrorCode::NotCoordinator));
    task.await.unwrap();
    assert!(first.has_ended());

    fixture.disk.set_capacity(None);
    let (second, _) = fixture.start();
    assert_eq!(fetch(&second).await, Ok(41));
    assert_eq!(commit(&second, 43).await, Ok(ErrorCode::None));
}

#[tokio::test]
async fn parked_join_is_refused_when_the_service_stops() {
    let fixture = Fixture::new();
    let (shard, task) = fixture.start();
    let joining = tokio::spawn({
        let shard = shard.clone();
        async move {
            shard
                .join_group(join_request(), || Arc::new(ClusterImage::empty(Uuid::nil())))
                .await
        }
    });
    // Once the group is listed, its first member is parked for the initial delay.
    let list = || {
        shard.decide(|groups, _| Decision {
            records: Vec::new(),
            replies: Vec::new(),
            response: groups.list_groups(&[], &[]).len(),
        })
    };
    while list().await != Ok(1) {
        tokio::task::yield_now().await;
    }
    fixture.stopping.send_replace(true);
    task.await.unwrap();
    assert_eq!(joining.await.unwrap(), Err(ErrorCode::NotCoordinator));
}
