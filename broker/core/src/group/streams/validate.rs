//! What a heartbeat must say, and which epochs and tasks it may name.

use std::collections::BTreeSet;

use millstream_protocol::ErrorCode;

use super::{CurrentTasks, StreamsHeartbeat, Subtopology, Topology, reconcile::owns_only, topology::Configured};
use crate::{
    group::modern::{LEAVE_EPOCH, ModernRefusal, STATIC_LEAVE_EPOCH},
    metadata::names::TOPIC_NAME_BYTES_MAX,
    records::RECORD_STRING_BYTES_MAX,
};

type Checked = Result<(), ModernRefusal>;

fn invalid(message: impl Into<String>) -> Checked {
    Err(ModernRefusal::new(ErrorCode::InvalidRequest, message))
}

fn invalid_topology(message: String) -> Checked {
    Err(ModernRefusal::new(ErrorCode::StreamsInvalidTopology, message))
}

pub(super) fn validate(request: &StreamsHeartbeat) -> Checked {
    check_features(request)?;
    if request.member_id.trim().is_empty() {
        return invalid("MemberId can't be empty.");
    }
    if request.group_id.trim().is_empty() {
        return invalid("GroupId can't be empty.");
    }
    if request.rack_id.as_ref().is_some_and(|id| id.trim().is_empty()) {
        return invalid("RackId can't be empty.");
    }
    if request.member_epoch == 0 {
        check_join(request)?;
    }
    if request.member_epoch == STATIC_LEAVE_EPOCH {
        return invalid("InstanceId can't be null.");
    }
    if request.member_epoch < LEAVE_EPOCH {
        let epoch = request.member_epoch;
        return invalid(format!("MemberEpoch is {epoch}, but must be greater than or equal to -2."));
    }
    let said = request.owned.iter().flatten().count();
    if said != 0 && said != request.owned.len() {
        return invalid("If one task-type is non-null, all must be non-null.");
    }
    if request.member_epoch != 0 && request.topology.is_some() {
        return invalid("Topology can only be provided when (re-)joining.");
    }
    check_texts(request)
}

/// What the protocol has and Kafka 4.2 does not do yet.
fn check_features(request: &StreamsHeartbeat) -> Checked {
    let [_, _, warmup] = &request.owned;
    let parts = request.topology.iter().flat_map(|topology| &topology.subtopologies);
    if request.instance_id.is_some() {
        invalid("Static membership is not yet supported.")
    } else if request.has_task_offsets {
        invalid("TaskOffsets are not supported yet.")
    } else if request.has_task_end_offsets {
        invalid("TaskEndOffsets are not supported yet.")
    } else if warmup.as_ref().is_some_and(|tasks| !tasks.is_empty()) {
        invalid("WarmupTasks are not supported yet.")
    } else if parts.flat_map(|part| &part.source_regexes).next().is_some() {
        invalid("Regular expressions for source topics are not supported yet.")
    } else {
        Ok(())
    }
}

fn check_join(request: &StreamsHeartbeat) -> Checked {
    if request.rebalance_timeout_ms == -1 {
        return invalid("RebalanceTimeoutMs must be provided in first request.");
    }
    for (owned, name) in request.owned.iter().zip(["ActiveTasks", "StandbyTasks", "WarmupTasks"]) {
        if owned.as_ref().is_none_or(|tasks| !tasks.is_empty()) {
            return invalid(format!("{name} must be empty when (re-)joining."));
        }
    }
    match &request.topology {
        Some(topology) => check_topology(topology),
        None => invalid("Topology must be non-null when (re-)joining."),
    }
}

/// Kafka finds only the first of these by itself, and fails with UNKNOWN_SERVER_ERROR on the others.
fn check_topology(topology: &Topology) -> Checked {
    for topic in topology.subtopologies.iter().flat_map(|part| &part.changelogs) {
        if topic.partitions != 0 {
            let (name, partitions) = (&topic.name, topic.partitions);
            return invalid_topology(format!(
                "Changelog topic {name} must have an undefined partition count, but it is set to {partitions}."
            ));
        }
    }
    if topology.epoch < 0 {
        return invalid_topology(format!("The topology epoch {} is negative.", topology.epoch));
    }
    let mut ids = BTreeSet::new();
    for part in &topology.subtopologies {
        if !ids.insert(&part.id) {
            return invalid_topology(format!("Subtopology {} is there twice.", part.id));
        }
        check_part(part)?;
    }
    Ok(())
}

fn check_part(part: &Subtopology) -> Checked {
    let id = &part.id;
    for topics in [&part.repartition_sources, &part.changelogs] {
        let mut names = BTreeSet::new();
        for topic in topics {
            let name = &topic.name;
            if !names.insert(name) {
                return invalid_topology(format!("Subtopology {id} names topic {name} twice."));
            }
            if topic.partitions < 0 {
                return invalid_topology(format!("Topic {name} can't have {} partitions.", topic.partitions));
            }
            let keys: BTreeSet<&String> = topic.configs.iter().map(|(key, _)| key).collect();
            if keys.len() != topic.configs.len() {
                return invalid_topology(format!("Topic {name} has a configuration twice."));
            }
        }
    }
    for group in &part.copartition_groups {
        let fits = |index: &i16, length: usize| usize::try_from(*index).is_ok_and(|index| index < length);
        let all_fit = group.sources.iter().all(|index| fits(index, part.sources.len()))
            && group.source_regexes.is_empty()
            && group
                .repartition_sources
                .iter()
                .all(|index| fits(index, part.repartition_sources.len()));
        if !all_fit {
            return invalid_topology(format!("A copartition group of subtopology {id} names a topic that is not there."));
        }
    }
    Ok(())
}

/// Longest host of an endpoint, in bytes: that of a DNS name.
const HOST_BYTES_MAX: usize = 255;

/// Texts that records can hold.
fn check_texts(request: &StreamsHeartbeat) -> Checked {
    let tags = request.client_tags.iter().flatten();
    let parts = || request.topology.iter().flat_map(|topology| &topology.subtopologies);
    let topics = || parts().flat_map(|part| part.changelogs.iter().chain(&part.repartition_sources));
    let mut names = parts()
        .flat_map(|part| part.sources.iter().chain(&part.sinks))
        .chain(topics().map(|topic| &topic.name));
    if names.any(|name| name.len() > TOPIC_NAME_BYTES_MAX) {
        return invalid("A topic name is too long.");
    }
    if request
        .endpoint
        .as_ref()
        .is_some_and(|endpoint| endpoint.host.len() > HOST_BYTES_MAX)
    {
        return invalid("The host of UserEndpoint is too long.");
    }
    let keys: BTreeSet<&String> = tags.clone().map(|(key, _)| key).collect();
    if keys.len() != tags.clone().count() {
        return invalid("A client tag is there twice.");
    }
    let mut texts = [&request.group_id, &request.member_id, &request.client_id, &request.client_host]
        .into_iter()
        .chain(&request.rack_id)
        .chain(&request.process_id)
        .chain(tags.flat_map(|(key, value)| [key, value]))
        .chain(parts().map(|part| &part.id))
        .chain(topics().flat_map(|topic| &topic.configs).flat_map(|(key, value)| [key, value]));
    if texts.any(|text| text.len() > RECORD_STRING_BYTES_MAX) {
        return invalid("A name is too long.");
    }
    Ok(())
}

/// Whether a member that is known may speak in this epoch.
pub(super) fn check_epoch(request: &StreamsHeartbeat, current: &CurrentTasks) -> Checked {
    let (named, epoch) = (request.member_epoch, current.epoch);
    let fenced = |than: &str| {
        let message = format!(
            "The streams group member has a {than} member epoch ({named}) than the one known by the group coordinator ({epoch}). The member must abandon all its partitions and rejoin."
        );
        Err(ModernRefusal::new(ErrorCode::FencedMemberEpoch, message))
    };
    if named > epoch {
        return fenced("greater");
    }
    // The answer with its new epoch may have been lost: then it still has what it had.
    let owned = request.owned_tasks();
    let is_retry = named == current.previous_epoch && owned.is_some_and(|owned| owns_only(&owned, &current.assigned));
    if named < epoch && !is_retry {
        return fenced("smaller");
    }
    Ok(())
}

/// Tasks that a member names must be tasks of the topology.
pub(super) fn check_owned(request: &StreamsHeartbeat, configured: &Configured) -> Checked {
    for task in request.owned.iter().flatten().flatten() {
        let (id, partition) = (&task.subtopology, task.partition);
        let Some(part) = configured.parts.get(&**id) else {
            return invalid(format!("Subtopology {id} does not exist in the topology."));
        };
        if !(0..part.tasks).contains(&partition) {
            let tasks = part.tasks;
            return invalid(format!(
                "Task {partition} for subtopology {id} is invalid. Number of tasks for this subtopology: {tasks}"
            ));
        }
    }
    Ok(())
}
