//! DescribeLogDirs and AlterReplicaLogDirs: where partitions lie on disk. There is one log directory a broker.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use millstream_protocol::{
    ErrorCode, KString,
    messages::{
        AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, DescribeLogDirsRequest, DescribeLogDirsResponse,
        alter_replica_log_dirs_response::{AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult},
        describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic},
    },
};

use crate::{broker::Broker, context::RequestContext, partition::Partition};

pub(crate) async fn describe(broker: Arc<Broker>, _context: RequestContext, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let wanted = request.topics.map(|topics| {
        let topics = topics.into_iter().map(|topic| (topic.topic.to_string(), topic.partitions));
        topics.collect::<BTreeMap<_, _>>()
    });
    let is_wanted = |partition: &Partition| {
        let numbers = wanted.as_ref().map(|wanted| wanted.get(&partition.topic));
        numbers.is_none_or(|numbers| numbers.is_some_and(|numbers| numbers.contains(&partition.id.partition)))
    };
    let mut topics: BTreeMap<String, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for partition in broker.all_partitions().iter().filter(|partition| is_wanted(partition)) {
        let described = DescribeLogDirsPartition {
            partition_index: partition.id.partition,
            partition_size: i64::try_from(partition.log().local_bytes()).unwrap_or(i64::MAX),
            offset_lag: 0,
            is_future_key: false,
        };
        topics.entry(partition.topic.clone()).or_default().push(described);
    }
    let topics = topics.into_iter().map(|(name, partitions)| DescribeLogDirsTopic {
        name: name.into(),
        partitions,
    });
    let (total_bytes, usable_bytes) = space(&broker.config.data_dir);
    let error = if broker.is_offline() {
        ErrorCode::KafkaStorageError
    } else {
        ErrorCode::None
    };
    DescribeLogDirsResponse {
        results: vec![DescribeLogDirsResult {
            error_code: error.code(),
            log_dir: log_dir(&broker),
            topics: topics.collect(),
            total_bytes,
            usable_bytes,
        }],
        ..DescribeLogDirsResponse::default()
    }
}

fn log_dir(broker: &Broker) -> KString {
    broker.config.data_dir.display().to_string().into()
}

/// Size of the file system and what is left of it; -1 where that cannot be known.
fn space(path: &Path) -> (i64, i64) {
    let bytes = |blocks: u64, size: u64| i64::try_from(blocks.saturating_mul(size)).unwrap_or(i64::MAX);
    rustix::fs::statvfs(path).map_or((-1, -1), |stat| {
        (bytes(stat.f_blocks, stat.f_frsize), bytes(stat.f_bavail, stat.f_frsize))
    })
}

pub(crate) async fn alter(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let image = broker.metadata.image();
    let own = log_dir(&broker);
    let mut results = Vec::new();
    for dir in request.dirs {
        for topic in dir.topics {
            let partitions = topic.partitions.into_iter().map(|partition_index| {
                let error = if dir.path != own {
                    ErrorCode::LogDirNotFound
                } else if image
                    .topic(&topic.name)
                    .and_then(|image| broker.partition(image, partition_index))
                    .is_none()
                {
                    ErrorCode::UnknownTopicOrPartition
                } else {
                    ErrorCode::None
                };
                AlterReplicaLogDirPartitionResult {
                    partition_index,
                    error_code: error.code(),
                }
            });
            let partitions = partitions.collect();
            results.push(AlterReplicaLogDirTopicResult {
                topic_name: topic.name,
                partitions,
            });
        }
    }
    AlterReplicaLogDirsResponse {
        throttle_time_ms: 0,
        results,
    }
}
