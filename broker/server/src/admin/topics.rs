//! The cluster and its topics.

use std::sync::Arc;

use axum::{Json, extract::State};
use millstream_core::metadata::{configs::Overrides, id, image::TopicImage};
use serde::Serialize;

use super::{bindings::BindingBody, error::ApiError, extract::FromPath};
use crate::broker::Broker;

#[derive(Serialize)]
pub(super) struct ClusterBody {
    cluster_id: String,
    version: &'static str,
    node_id: i32,
    kafka_host: String,
    kafka_port: u16,
    metadata_epoch: u64,
    topics: usize,
    views: usize,
    plugins: usize,
    partitions: usize,
    offline: bool,
}

pub(super) async fn cluster(State(broker): State<Arc<Broker>>) -> Json<ClusterBody> {
    let image = broker.metadata.image();
    let (kafka_host, kafka_port) = broker.advertised();
    Json(ClusterBody {
        cluster_id: image.cluster_id_text(),
        version: env!("CARGO_PKG_VERSION"),
        node_id: broker.config.node_id,
        kafka_host,
        kafka_port,
        metadata_epoch: image.epoch,
        topics: image.topics.len(),
        views: image.views.len(),
        plugins: image.plugins.len(),
        partitions: image.topics.values().map(|topic| topic.partitions.len()).sum(),
        offline: broker.is_offline(),
    })
}

#[derive(Serialize)]
pub(super) struct TopicBody {
    name: String,
    id: String,
    internal: bool,
    created_ms: i64,
    partitions: usize,
    bindings: usize,
    local_bytes: u64,
}

pub(super) async fn list(State(broker): State<Arc<Broker>>) -> Json<Vec<TopicBody>> {
    let image = broker.metadata.image();
    let one = |topic: &Arc<TopicImage>| TopicBody {
        name: topic.name.clone(),
        id: id::render(topic.id),
        internal: topic.internal,
        created_ms: topic.created_ms,
        partitions: topic.partitions.len(),
        bindings: topic.bindings.len(),
        local_bytes: partitions(&broker, topic)
            .iter()
            .filter_map(|partition| partition.local_bytes)
            .sum(),
    };
    Json(image.topics.values().map(one).collect())
}

#[derive(Serialize)]
pub(super) struct TopicDetailsBody {
    name: String,
    id: String,
    internal: bool,
    created_ms: i64,
    configs: Overrides,
    bindings: Vec<BindingBody>,
    partitions: Vec<PartitionBody>,
}

/// Offsets and sizes are null while the partition is not on this broker.
#[derive(Serialize)]
struct PartitionBody {
    partition: i32,
    leader: i32,
    leader_epoch: i32,
    replicas: Vec<i32>,
    isr: Vec<i32>,
    log_start_offset: Option<i64>,
    local_start_offset: Option<i64>,
    high_watermark: Option<i64>,
    log_end_offset: Option<i64>,
    local_bytes: Option<u64>,
}

pub(super) async fn describe(
    State(broker): State<Arc<Broker>>,
    FromPath(name): FromPath<String>,
) -> Result<Json<TopicDetailsBody>, ApiError> {
    let image = broker.metadata.image();
    let topic = find(image.topic(&name), &name)?;
    Ok(Json(TopicDetailsBody {
        name: topic.name.clone(),
        id: id::render(topic.id),
        internal: topic.internal,
        created_ms: topic.created_ms,
        configs: topic.configs.clone(),
        bindings: topic.bindings.iter().map(BindingBody::from).collect(),
        partitions: partitions(&broker, topic),
    }))
}

/// A topic, or that there is none.
pub(super) fn find<'a>(topic: Option<&'a Arc<TopicImage>>, name: &str) -> Result<&'a Arc<TopicImage>, ApiError> {
    topic.ok_or_else(|| ApiError::not_found(format!("there is no topic '{name}'")))
}

fn partitions(broker: &Broker, topic: &TopicImage) -> Vec<PartitionBody> {
    (0i32..)
        .zip(&topic.partitions)
        .map(|(number, image)| {
            let partition = broker.partition(topic, number);
            let log = partition.as_ref().map(|partition| partition.log());
            PartitionBody {
                partition: number,
                leader: image.leader,
                leader_epoch: image.leader_epoch,
                replicas: image.replicas.clone(),
                isr: image.isr.clone(),
                log_start_offset: log.map(|log| log.log_start_offset()),
                local_start_offset: log.map(|log| log.local_start_offset()),
                high_watermark: partition.as_ref().map(|partition| partition.high_watermark()),
                log_end_offset: log.map(|log| log.log_end_offset()),
                local_bytes: log.map(|log| log.local_bytes()),
            }
        })
        .collect()
}
