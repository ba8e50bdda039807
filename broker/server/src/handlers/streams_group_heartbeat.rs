//! StreamsGroupHeartbeat: the one request of a member of a streams group (KIP-1071).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millstream_core::{
    group::{
        modern::ModernRefusal,
        streams::{
            CopartitionGroup, Endpoint, EndpointTasks, StreamsHeartbeat, StreamsHeartbeatResponse, Subtopology, TASKS_MAX, Task, Tasks,
            TopicInfo, Topology,
        },
    },
    metadata::{
        configs::groups::{
            STREAMS_HEARTBEAT_INTERVAL_MS, STREAMS_INITIAL_REBALANCE_DELAY_MS, STREAMS_NUM_STANDBY_REPLICAS, STREAMS_SESSION_TIMEOUT_MS,
        },
        names::{CONSUMER_OFFSETS, SHARE_GROUP_STATE, TRANSACTION_STATE, check_topic},
    },
};
use millstream_protocol::{
    ErrorCode, KString,
    messages::{
        StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse, streams_group_heartbeat_request as wire,
        streams_group_heartbeat_response::{Endpoint as WireEndpoint, EndpointToPartitions, Status, TaskIds, TopicPartition},
    },
};

use super::consumer_group_heartbeat::group_number;
use crate::{
    broker::Broker,
    context::RequestContext,
    errors::message,
    features::{GroupKind, serves_groups},
};

/// Most names, configurations and copartition groups of a topology. Ours; Kafka has no bound.
const TOPOLOGY_ENTRIES_MAX: usize = 20_000;

pub(crate) async fn handle(
    broker: Arc<Broker>,
    context: RequestContext,
    request: StreamsGroupHeartbeatRequest,
) -> StreamsGroupHeartbeatResponse {
    let image = broker.metadata.image();
    if !serves_groups(&broker, &image, GroupKind::Streams) {
        return StreamsGroupHeartbeatResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            status: Some(Vec::new()),
            ..StreamsGroupHeartbeatResponse::default()
        };
    }
    if let Some(refusal) = request.topology.as_ref().and_then(too_large) {
        return refused(refusal);
    }
    let topology = request.topology.map(topology);
    if let Some(refusal) = topology.as_ref().and_then(|topology| check_names(topology).err()) {
        return refused(refusal);
    }
    let owned = [request.active_tasks, request.standby_tasks, request.warmup_tasks];
    let count = owned.iter().flatten().flatten().map(|ids| ids.partitions.len()).sum::<usize>();
    if count > 2 * TASKS_MAX {
        return refused(ModernRefusal {
            code: ErrorCode::InvalidRequest,
            message: format!("A member cannot have {count} tasks."),
        });
    }
    let setting = |name: &str| group_number(&broker, &image, &request.group_id, name);
    let heartbeat = StreamsHeartbeat {
        session_timeout_ms: setting(STREAMS_SESSION_TIMEOUT_MS),
        heartbeat_interval_ms: setting(STREAMS_HEARTBEAT_INTERVAL_MS),
        initial_rebalance_delay_ms: setting(STREAMS_INITIAL_REBALANCE_DELAY_MS),
        standby_replicas: setting(STREAMS_NUM_STANDBY_REPLICAS),
        group_id: request.group_id.into(),
        member_id: request.member_id.into(),
        member_epoch: request.member_epoch,
        instance_id: request.instance_id.map(String::from),
        rack_id: request.rack_id.map(String::from),
        client_id: context.client_id.to_string(),
        client_host: context.host(),
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        topology,
        owned: owned.map(|ids| ids.map(tasks)),
        process_id: request.process_id.map(String::from),
        endpoint: request.user_endpoint.map(|endpoint| Endpoint {
            host: endpoint.host.into(),
            port: endpoint.port,
        }),
        client_tags: request.client_tags.map(pairs),
        has_task_offsets: request.task_offsets.is_some(),
        has_task_end_offsets: request.task_end_offsets.is_some(),
        shutdown_application: request.shutdown_application,
        endpoint_epoch: request.endpoint_information_epoch,
    };
    match broker.groups.streams_heartbeat(&broker, heartbeat).await {
        Ok(Ok(response)) => to_wire(response),
        Ok(Err(refusal)) => refused(refusal),
        Err(code) => StreamsGroupHeartbeatResponse {
            error_code: code.code(),
            status: Some(Vec::new()),
            ..StreamsGroupHeartbeatResponse::default()
        },
    }
}

/// Why a topology is refused before it is looked at: every entry costs far more memory than its bytes.
fn too_large(topology: &wire::Topology) -> Option<ModernRefusal> {
    let of_topics = |topics: &[wire::TopicInfo]| topics.iter().map(|topic| 1 + topic.topic_configs.len()).sum::<usize>();
    let of_groups = |groups: &[wire::CopartitionGroup]| {
        let indices = groups
            .iter()
            .map(|group| 1 + group.source_topics.len() + group.source_topic_regex.len() + group.repartition_source_topics.len());
        indices.sum::<usize>()
    };
    let of_part = |part: &wire::Subtopology| {
        let names = part.source_topics.len() + part.source_topic_regex.len() + part.repartition_sink_topics.len();
        let topics = of_topics(&part.state_changelog_topics) + of_topics(&part.repartition_source_topics);
        1 + names + topics + of_groups(&part.copartition_groups)
    };
    let entries: usize = topology.subtopologies.iter().map(of_part).sum();
    (entries > TOPOLOGY_ENTRIES_MAX).then(|| ModernRefusal {
        code: ErrorCode::StreamsInvalidTopology,
        message: format!("The topology has {entries} topics, configurations and groups; it can have {TOPOLOGY_ENTRIES_MAX}."),
    })
}

fn pairs(pairs: Vec<wire::KeyValue>) -> Vec<(String, String)> {
    pairs.into_iter().map(|pair| (pair.key.into(), pair.value.into())).collect()
}

fn strings(texts: Vec<KString>) -> Vec<String> {
    texts.into_iter().map(String::from).collect()
}

fn topic(topic: wire::TopicInfo) -> TopicInfo {
    TopicInfo {
        name: topic.name.into(),
        partitions: topic.partitions,
        replication_factor: topic.replication_factor,
        configs: pairs(topic.topic_configs),
    }
}

fn topology(topology: wire::Topology) -> Topology {
    let group = |group: wire::CopartitionGroup| CopartitionGroup {
        sources: group.source_topics,
        source_regexes: group.source_topic_regex,
        repartition_sources: group.repartition_source_topics,
    };
    let part = |part: wire::Subtopology| Subtopology {
        id: part.subtopology_id.into(),
        sources: strings(part.source_topics),
        source_regexes: strings(part.source_topic_regex),
        changelogs: part.state_changelog_topics.into_iter().map(topic).collect(),
        sinks: strings(part.repartition_sink_topics),
        repartition_sources: part.repartition_source_topics.into_iter().map(topic).collect(),
        copartition_groups: part.copartition_groups.into_iter().map(group).collect(),
    };
    Topology {
        epoch: topology.epoch,
        subtopologies: topology.subtopologies.into_iter().map(part).collect(),
    }
}

/// Topics of an application are neither the broker's own nor have names that no topic can have.
fn check_names(topology: &Topology) -> Result<(), ModernRefusal> {
    let mut seen = BTreeSet::new();
    let parts = topology.subtopologies.iter();
    let names: Vec<&str> = parts
        .flat_map(|part| {
            let repartitioned = part.repartition_sources.iter().map(|topic| &topic.name);
            let changelogs = part.changelogs.iter().map(|topic| &topic.name);
            part.sources.iter().chain(&part.sinks).chain(repartitioned).chain(changelogs)
        })
        .map(String::as_str)
        .filter(|name| seen.insert(*name))
        .collect();
    let refused = |message: String| ModernRefusal {
        code: ErrorCode::StreamsInvalidTopology,
        message,
    };
    let of = |is_bad: fn(&str) -> bool| names.iter().copied().filter(|name| is_bad(name)).collect::<Vec<_>>().join(",");
    let internal = of(|name| [CONSUMER_OFFSETS, TRANSACTION_STATE, SHARE_GROUP_STATE].contains(&name));
    if !internal.is_empty() {
        return Err(refused(format!(
            "Use of Kafka internal topics {internal} in a Kafka Streams topology is prohibited."
        )));
    }
    let invalid = of(|name| check_topic(name).is_err());
    if !invalid.is_empty() {
        return Err(refused(format!("Topic names {invalid} are not valid topic names.")));
    }
    Ok(())
}

fn tasks(ids: Vec<wire::TaskIds>) -> Tasks {
    let mut tasks = Tasks::new();
    for ids in ids {
        let subtopology: Arc<str> = ids.subtopology_id.as_str().into();
        tasks.extend(ids.partitions.into_iter().map(|partition| Task {
            subtopology: Arc::clone(&subtopology),
            partition,
        }));
    }
    tasks
}

fn refused(refusal: ModernRefusal) -> StreamsGroupHeartbeatResponse {
    StreamsGroupHeartbeatResponse {
        error_code: refusal.code.code(),
        error_message: Some(message(&refusal.message)),
        status: Some(Vec::new()),
        ..StreamsGroupHeartbeatResponse::default()
    }
}

/// Partitions by subtopology.
pub(super) fn by_subtopology(tasks: Tasks) -> BTreeMap<Arc<str>, Vec<i32>> {
    let mut grouped: BTreeMap<Arc<str>, Vec<i32>> = BTreeMap::new();
    for task in tasks {
        grouped.entry(task.subtopology).or_default().push(task.partition);
    }
    grouped
}

fn task_ids(tasks: Tasks) -> Vec<TaskIds> {
    let ids = by_subtopology(tasks).into_iter().map(|(subtopology, partitions)| TaskIds {
        subtopology_id: KString::from(&*subtopology),
        partitions,
    });
    ids.collect()
}

fn to_wire(response: StreamsHeartbeatResponse) -> StreamsGroupHeartbeatResponse {
    let (active, standby, warmup) = match response.tasks {
        Some(tasks) => (Some(tasks.active), Some(tasks.standby), Some(tasks.warmup)),
        None => (None, None, None),
    };
    let statuses = response.statuses.into_iter().map(|status| Status {
        status_code: status.code as i8,
        status_detail: message(&status.detail),
    });
    StreamsGroupHeartbeatResponse {
        member_id: response.member_id.into(),
        member_epoch: response.member_epoch,
        heartbeat_interval_ms: response.heartbeat_interval_ms,
        status: Some(statuses.collect()),
        active_tasks: active.map(task_ids),
        standby_tasks: standby.map(task_ids),
        warmup_tasks: warmup.map(task_ids),
        endpoint_information_epoch: response.endpoint_epoch,
        partitions_by_user_endpoint: response
            .endpoints
            .map(|endpoints| endpoints.into_iter().map(endpoint_to_wire).collect()),
        ..StreamsGroupHeartbeatResponse::default()
    }
}

fn endpoint_to_wire(at: EndpointTasks) -> EndpointToPartitions {
    let partitions = |topics: Vec<(String, Vec<i32>)>| {
        let topics = topics.into_iter().map(|(topic, partitions)| TopicPartition {
            topic: topic.into(),
            partitions,
        });
        topics.collect()
    };
    EndpointToPartitions {
        user_endpoint: WireEndpoint {
            host: at.endpoint.host.into(),
            port: at.endpoint.port,
        },
        active_partitions: partitions(at.active),
        standby_partitions: partitions(at.standby),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topology_of_too_many_entries_is_refused() {
        let with = |count: usize| wire::Topology {
            epoch: 0,
            subtopologies: vec![wire::Subtopology {
                source_topics: vec![KString::from_static("t"); count - 1],
                ..wire::Subtopology::default()
            }],
        };
        assert_eq!(too_large(&with(TOPOLOGY_ENTRIES_MAX)), None);
        let refusal = too_large(&with(TOPOLOGY_ENTRIES_MAX + 1)).unwrap();
        assert_eq!(refusal.code, ErrorCode::StreamsInvalidTopology);
    }

    #[test]
    fn topics_of_the_broker_and_impossible_names_are_refused() {
        let of = |sources: &[&str]| Topology {
            epoch: 0,
            subtopologies: vec![Subtopology {
                sources: sources.iter().map(|name| (*name).to_owned()).collect(),
                ..Subtopology::default()
            }],
        };
        assert!(check_names(&of(&["a", "b.c"])).is_ok());
        let message = |sources| check_names(&of(sources)).unwrap_err().message;
        let internal = "Use of Kafka internal topics __consumer_offsets in a Kafka Streams topology is prohibited.";
        assert_eq!(message(&["a b", "__consumer_offsets"]), internal);
        assert_eq!(message(&["a b", "ok", ".."]), "Topic names a b,.. are not valid topic names.");
    }
}
