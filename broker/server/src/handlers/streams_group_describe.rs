//! StreamsGroupDescribe: streams groups with their topology and their members' current and target tasks (KIP-1071).

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use millstream_core::group::streams::{
    RoleTasks, StreamsDescription, StreamsMemberDescription, Subtopology as Part, Tasks, TopicInfo as Topic, Topology as Parts,
};
use millstream_protocol::{
    KString,
    messages::{
        StreamsGroupDescribeRequest, StreamsGroupDescribeResponse,
        streams_group_describe_response::{
            Assignment, DescribedGroup, Endpoint, KeyValue, Member, Subtopology, TaskIds, TopicInfo, Topology,
        },
    },
};

use super::{
    describe_groups::{Refused, described, group_operations},
    once,
    streams_group_heartbeat::by_subtopology,
};
use crate::{broker::Broker, context::RequestContext, features::GroupKind, groups::GROUPS_AT_ONCE};

pub(crate) async fn handle(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: StreamsGroupDescribeRequest,
) -> StreamsGroupDescribeResponse {
    let operations = group_operations(request.include_authorized_operations);
    let groups = stream::iter(once(request.group_ids)).map(|group_id| describe(Arc::clone(&broker), group_id, operations));
    let groups: Vec<DescribedGroup> = groups.buffered(GROUPS_AT_ONCE).collect().await;
    let (groups, refused): (Vec<_>, Vec<_>) = groups.into_iter().partition(|group| group.error_code == 0);
    StreamsGroupDescribeResponse {
        throttle_time_ms: 0,
        groups: refused.into_iter().chain(groups).collect(),
    }
}

async fn describe(broker: Arc<Broker>, group_id: KString, authorized_operations: i32) -> DescribedGroup {
    let look_up = broker.groups.describe_streams(&broker, String::from(group_id.clone()));
    match described(&broker, GroupKind::Streams, &group_id, look_up).await {
        Ok(group) => to_wire(group, authorized_operations),
        Err(Refused { code, message }) => DescribedGroup {
            error_code: code.code(),
            error_message: message,
            group_id,
            ..DescribedGroup::default()
        },
    }
}

fn to_wire(group: StreamsDescription, authorized_operations: i32) -> DescribedGroup {
    DescribedGroup {
        group_id: group.group_id.into(),
        group_state: KString::from_static(group.state),
        group_epoch: group.epoch,
        assignment_epoch: group.assignment_epoch,
        topology: Some(topology(group.topology)),
        members: group.members.into_iter().map(member).collect(),
        authorized_operations,
        ..DescribedGroup::default()
    }
}

fn names(names: Vec<String>) -> Vec<KString> {
    names.into_iter().map(KString::from).collect()
}

fn pair((key, value): (String, String)) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: value.into(),
    }
}

fn topics(topics: Vec<Topic>) -> Vec<TopicInfo> {
    let topics = topics.into_iter().map(|topic| TopicInfo {
        name: topic.name.into(),
        partitions: topic.partitions,
        replication_factor: topic.replication_factor,
        topic_configs: topic.configs.into_iter().map(pair).collect(),
    });
    topics.collect()
}

fn topology(topology: Parts) -> Topology {
    let part = |part: Part| Subtopology {
        subtopology_id: part.id.into(),
        source_topics: names(part.sources),
        repartition_sink_topics: names(part.sinks),
        state_changelog_topics: topics(part.changelogs),
        repartition_source_topics: topics(part.repartition_sources),
    };
    Topology {
        epoch: topology.epoch,
        subtopologies: Some(topology.subtopologies.into_iter().map(part).collect()),
    }
}

fn member(described: StreamsMemberDescription) -> Member {
    let (metadata, current) = (described.member.metadata, described.member.current);
    let assigned = RoleTasks {
        active: current.assigned.active.into_keys().collect(),
        standby: current.assigned.standby,
        warmup: current.assigned.warmup,
    };
    Member {
        member_id: described.member_id.into(),
        member_epoch: current.epoch,
        instance_id: metadata.instance_id.map(KString::from),
        rack_id: metadata.rack_id.map(KString::from),
        client_id: metadata.client_id.into(),
        client_host: metadata.client_host.into(),
        topology_epoch: metadata.topology_epoch,
        process_id: metadata.process_id.into(),
        user_endpoint: metadata.endpoint.map(|endpoint| Endpoint {
            host: endpoint.host.into(),
            port: endpoint.port,
        }),
        client_tags: metadata.client_tags.into_iter().map(pair).collect(),
        task_offsets: Vec::new(),
        task_end_offsets: Vec::new(),
        assignment: assignment(assigned),
        target_assignment: assignment(described.target),
        is_classic: false,
    }
}

fn assignment(tasks: RoleTasks) -> Assignment {
    Assignment {
        active_tasks: task_ids(tasks.active),
        standby_tasks: task_ids(tasks.standby),
        warmup_tasks: task_ids(tasks.warmup),
    }
}

fn task_ids(tasks: Tasks) -> Vec<TaskIds> {
    let ids = by_subtopology(tasks).into_iter().map(|(subtopology, partitions)| TaskIds {
        subtopology_id: KString::from(&*subtopology),
        partitions,
    });
    ids.collect()
}
