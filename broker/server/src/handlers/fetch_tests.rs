//! Fetches of records that are only in the tier: side by side, and never longer than the client waits.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use millstream_core::{
    metadata::controller::{self, NewTopic},
    transform::{BatchContext, Chain, ChainOutcome, Inspected, PluginStats, PortFuture, Transform, TransformError},
};
use millstream_log::{
    LogDir, LogDirOptions,
    disk::MemoryDisk,
    remote::{RemoteBatches, RemoteBounds, RemoteError, RemoteLog, TierStatus, TieredSource, TopicIdPartition},
};
use millstream_protocol::{
    KString,
    compression::Compression,
    messages::{
        FetchRequest, FetchResponse,
        fetch_request::{FetchPartition, FetchTopic},
    },
    record::{BatchBuilder, BatchHeader, NewRecord},
};
use tokio::{sync::Barrier, time::timeout};
use uuid::Uuid;

use super::fetch;
use crate::{
    Broker, BrokerConfig, BrokerParts, SystemClock,
    context::{ANONYMOUS, RequestContext},
    log_levels::LogLevels,
};

const PARTITIONS: i32 = 4;

struct NoPlugins;

impl Transform for NoPlugins {
    fn inspect(&self, _wasm: Bytes) -> PortFuture<'_, Result<Inspected, TransformError>> {
        Box::pin(async { Err(TransformError::Invalid("none".to_owned())) })
    }

    fn prepare(&self, _chain: Arc<Chain>) -> PortFuture<'_, Result<(), TransformError>> {
        Box::pin(async { Ok(()) })
    }

    fn run(&self, _chain: Arc<Chain>, _context: BatchContext, _records: Bytes) -> PortFuture<'_, ChainOutcome> {
        Box::pin(async { ChainOutcome::Unchanged })
    }

    fn stats(&self) -> Vec<PluginStats> {
        Vec::new()
    }
}

/// A bucket that has the first batch of every partition, and answers when so many are asked for at a time.
struct SlowBucket {
    asked: Barrier,
}

impl RemoteLog for SlowBucket {
    fn attach(&self, _partition: TopicIdPartition, _source: Arc<dyn TieredSource>) {}

    fn detach(&self, _partition: TopicIdPartition, _delete: bool) {}

    fn ready(&self, _partition: TopicIdPartition) -> PortFuture<'_, ()> {
        Box::pin(async {})
    }

    fn bounds(&self, _partition: TopicIdPartition) -> Option<RemoteBounds> {
        Some(RemoteBounds {
            start_offset: 0,
            end_offset: 1,
        })
    }

    fn read(&self, _partition: TopicIdPartition, _offset: i64, _max_bytes: usize) -> PortFuture<'_, Result<RemoteBatches, RemoteError>> {
        Box::pin(async {
            self.asked.wait().await;
            Ok(RemoteBatches {
                bytes: vec![batch()],
                next_offset: 1,
            })
        })
    }

    fn seek_timestamp(&self, _partition: TopicIdPartition, _timestamp: i64) -> PortFuture<'_, Result<Option<i64>, RemoteError>> {
        Box::pin(async { Ok(None) })
    }

    fn status(&self) -> Vec<TierStatus> {
        Vec::new()
    }
}

pub(crate) fn batch() -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(&NewRecord {
        timestamp: 5,
        key: None,
        value: Some(b"v"),
        headers: Vec::new(),
    });
    builder.build().unwrap()
}

/// A broker with a topic whose partitions have two records each, the first of them in the bucket only.
pub(crate) async fn broker(disk: &MemoryDisk, asked_at_a_time: i32) -> Arc<Broker> {
    let options = LogDirOptions {
        path: "/data".into(),
        disk: Arc::new(disk.clone()),
        clock: Arc::new(|| 0),
    };
    let any = "127.0.0.1:0".parse().unwrap();
    let parts = BrokerParts {
        config: BrokerConfig {
            node_id: 1,
            data_dir: "/data".into(),
            kafka_address: any,
            advertised: None,
            admin_address: any,
            allow_insecure: false,
            values: BTreeMap::new(),
        },
        cluster_id: Uuid::from_u128(7),
        clock: Arc::new(SystemClock),
        log_dir: LogDir::open(options).unwrap(),
        remote: Some(Arc::new(SlowBucket {
            asked: Barrier::new(asked_at_a_time as usize),
        })),
        transform: Arc::new(NoPlugins),
        log_levels: Arc::new(LogLevels::new(BTreeMap::new(), |_| {})),
    };
    let broker = Broker::start(parts).await.unwrap();
    let new = NewTopic {
        name: "t".to_owned(),
        id: Uuid::from_u128(8),
        num_partitions: PARTITIONS,
        replication_factor: 1,
        assignments: Vec::new(),
        configs: Vec::new(),
    };
    let create = move |context: &controller::Context<'_>| controller::create_topics(context, &[new], false);
    assert!(broker.metadata.decide(true, create).await.unwrap().iter().all(Result::is_ok));
    for number in 0..PARTITIONS {
        let topic = Arc::clone(broker.metadata.image().topic("t").unwrap());
        let partition = broker.partition(&topic, number).unwrap();
        for _ in 0..2 {
            let bytes = batch();
            partition.append(&BatchHeader::parse(&bytes).unwrap(), &bytes, 0, None).unwrap();
            partition.log().roll_if_older(10, 0).unwrap();
        }
        while partition.high_watermark() < 2 {
            tokio::task::yield_now().await;
        }
        partition.log().sync(0).unwrap();
        partition.log().trim_local(1).unwrap();
        assert_eq!(partition.log().local_start_offset(), 1);
    }
    broker
}

pub(crate) fn context(version: i16) -> RequestContext {
    RequestContext {
        version,
        client_id: KString::from_static("c"),
        client_address: [127, 0, 0, 1].into(),
        client_port: 1,
        began: tokio::time::Instant::now(),
        principal: ANONYMOUS,
        mute: Arc::default(),
        software: Arc::default(),
    }
}

async fn fetch_all(broker: &Arc<Broker>, max_wait_ms: i32) -> FetchResponse {
    let partitions = (0..PARTITIONS).map(|partition| FetchPartition {
        partition,
        fetch_offset: 0,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    });
    let request = FetchRequest {
        max_wait_ms,
        min_bytes: 1,
        max_bytes: 1 << 25,
        session_epoch: -1,
        replica_id: -1,
        topics: vec![FetchTopic {
            topic: KString::from_static("t"),
            partitions: partitions.collect(),
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    fetch::handle(Arc::clone(broker), context(12), request).await
}

/// Partitions with records, and without an error.
fn answered(response: &FetchResponse) -> usize {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    let with_records = partitions.inspect(|partition| assert_eq!(partition.error_code, 0));
    with_records
        .filter(|partition| partition.records.as_ref().is_some_and(|records| !records.is_empty()))
        .count()
}

#[tokio::test]
async fn cold_partitions_are_read_side_by_side() {
    let broker = broker(&MemoryDisk::new(), PARTITIONS).await;
    assert_eq!(answered(&fetch_all(&broker, 60_000).await), PARTITIONS as usize);
    broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_bucket_that_does_not_answer_holds_nobody_longer_than_he_waits() {
    let broker = broker(&MemoryDisk::new(), PARTITIONS + 1).await;
    let response = timeout(Duration::from_secs(60), fetch_all(&broker, 200)).await;
    assert_eq!(answered(&response.unwrap()), 0);
    broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn nobody_fetches_as_a_replica_and_old_versions_hear_it_of_each_partition() {
    let broker = broker(&MemoryDisk::new(), 1).await;
    for (version, wanted) in [(6, (0, Some(31))), (7, (31, None))] {
        let request = FetchRequest {
            replica_id: 2,
            session_epoch: -1,
            topics: vec![FetchTopic {
                topic: KString::from_static("t"),
                partitions: vec![FetchPartition::default()],
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        };
        let response = fetch::handle(Arc::clone(&broker), context(version), request).await;
        let of_partition = response.responses.first().map(|topic| topic.partitions[0].error_code);
        assert_eq!((response.error_code, of_partition), wanted, "version {version}");
    }
    broker.shutdown().await.unwrap();
}
