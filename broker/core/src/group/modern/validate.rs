//! What a heartbeat must say, and which epochs it may name.

use millstream_protocol::ErrorCode;

use super::{
    CurrentAssignment, LEAVE_EPOCH, ModernHeartbeat, ModernKind, ModernRefusal, STATIC_LEAVE_EPOCH, reconcile::is_subset, regexes,
};
use crate::{group::GroupConfig, metadata::names::TOPIC_NAME_BYTES_MAX, records::RECORD_STRING_BYTES_MAX};

pub(super) fn check_epoch(request: &ModernHeartbeat, current: &CurrentAssignment) -> Result<(), ModernRefusal> {
    let named = request.member_epoch;
    let fenced = |than: &str| {
        let (kind, epoch) = (request.kind.name(), current.epoch);
        let message = format!(
            "The {kind} group member has a {than} member epoch ({named}) than the one known by the group coordinator ({epoch}). The member must abandon all its partitions and rejoin."
        );
        Err(ModernRefusal::new(ErrorCode::FencedMemberEpoch, message))
    };
    if named > current.epoch {
        return fenced("greater");
    }
    // The answer with its new epoch may have been lost: then it still has what it had.
    let is_retry = named == current.previous_epoch
        && (request.kind == ModernKind::Share || request.owned.as_ref().is_some_and(|owned| is_subset(owned, &current.assigned)));
    if named < current.epoch && !is_retry {
        return fenced("smaller");
    }
    Ok(())
}

pub(super) fn validate(request: &ModernHeartbeat, config: &GroupConfig) -> Result<(), ModernRefusal> {
    let invalid = |message: &str| Err(ModernRefusal::new(ErrorCode::InvalidRequest, message));
    if request.group_id.trim().is_empty() {
        return invalid("GroupId can't be empty.");
    }
    let texts = [
        Some(&request.group_id),
        Some(&request.member_id),
        request.instance_id.as_ref(),
        request.rack_id.as_ref(),
    ];
    let topics = request.topics.iter().flatten();
    if topics.clone().any(|topic| topic.len() > TOPIC_NAME_BYTES_MAX) {
        return invalid("A topic name is too long.");
    }
    if texts
        .into_iter()
        .flatten()
        .chain([&request.client_id])
        .chain(topics)
        .any(|text| text.len() > RECORD_STRING_BYTES_MAX)
    {
        return invalid("A name is too long.");
    }
    if request.member_id.trim().is_empty() {
        return invalid("MemberId can't be empty.");
    }
    if request.instance_id.as_ref().is_some_and(|id| id.trim().is_empty()) {
        return invalid("InstanceId can't be empty.");
    }
    if request.rack_id.as_ref().is_some_and(|id| id.trim().is_empty()) {
        return invalid("RackId can't be empty.");
    }
    if request.member_epoch < STATIC_LEAVE_EPOCH || request.kind == ModernKind::Share && request.member_epoch < LEAVE_EPOCH {
        return invalid("MemberEpoch is invalid.");
    }
    if request.member_epoch == STATIC_LEAVE_EPOCH && request.instance_id.is_none() {
        return invalid("InstanceId can't be null.");
    }
    if request.member_epoch == 0 {
        let names_topics = request.topics.as_ref().is_some_and(|topics| !topics.is_empty());
        let names_pattern = request.regex.as_ref().is_some_and(|regex| !regex.is_empty());
        match request.kind {
            ModernKind::Share if request.topics.is_none() => return invalid("SubscribedTopicNames must be set in first request."),
            ModernKind::Share => {}
            ModernKind::Consumer => {
                if request.rebalance_timeout_ms == -1 {
                    return invalid("RebalanceTimeoutMs must be provided in first request.");
                }
                if request.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
                    return invalid("TopicPartitions must be empty when (re-)joining.");
                }
                if !names_topics && !names_pattern && request.topics.is_none() {
                    return invalid("Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.");
                }
            }
        }
    }
    if let Some(regex) = request.regex.as_ref().filter(|regex| !regex.is_empty())
        && !regexes::is_valid(regex)
    {
        let message = format!("SubscribedTopicRegex `{regex}` is not a valid regular expression.");
        return Err(ModernRefusal::new(ErrorCode::InvalidRegularExpression, message));
    }
    if let Some(assignor) = &request.assignor
        && !config.consumer_assignors.contains(assignor)
    {
        let supported = config.consumer_assignors.join(", ");
        let message = format!("ServerAssignor {assignor} is not supported. Supported assignors: {supported}.");
        return Err(ModernRefusal::new(ErrorCode::UnsupportedAssignor, message));
    }
    Ok(())
}
