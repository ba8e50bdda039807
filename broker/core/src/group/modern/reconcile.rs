//! A member's next step towards its target.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{CurrentAssignment, MemberState, ModernGroup, ModernKind, TopicIdPartitions};

/// What the member should have next. `owned` is what it says it has, if it says so; `wanted` are its topics, if it just chose them.
pub(super) fn next_assignment(
    group: &ModernGroup,
    member_id: &str,
    current: &CurrentAssignment,
    target: &TopicIdPartitions,
    owned: Option<&TopicIdPartitions>,
    wanted: Option<&BTreeSet<Uuid>>,
) -> CurrentAssignment {
    let target_epoch = group.assignment_epoch;
    if group.kind == ModernKind::Share {
        return CurrentAssignment {
            epoch: target_epoch,
            previous_epoch: if current.epoch == target_epoch {
                current.previous_epoch
            } else {
                current.epoch
            },
            state: MemberState::Stable,
            assigned: target.clone(),
            revoking: TopicIdPartitions::new(),
        };
    }
    match current.state {
        MemberState::Stable if current.epoch == target_epoch => without_unwanted(current, owned, wanted),
        // It has not confirmed that it gave up what it was told to.
        MemberState::UnrevokedPartitions if owned.is_none_or(|owned| intersects(owned, &current.revoking)) => {
            without_unwanted(current, owned, wanted)
        }
        MemberState::Stable | MemberState::UnrevokedPartitions | MemberState::UnreleasedPartitions => {
            step(group, member_id, current, target_epoch, target, owned)
        }
    }
}

/// Topics that the member just gave up for a pattern that is not resolved yet go without an epoch.
fn without_unwanted(current: &CurrentAssignment, owned: Option<&TopicIdPartitions>, wanted: Option<&BTreeSet<Uuid>>) -> CurrentAssignment {
    let mut next = current.clone();
    let Some(wanted) = wanted else { return next };
    let (assigned, unwanted): (TopicIdPartitions, TopicIdPartitions) =
        current.assigned.clone().into_iter().partition(|(topic, _)| wanted.contains(topic));
    if unwanted.is_empty() {
        return next;
    }
    next.assigned = assigned;
    let mut revoking = current.revoking.clone();
    for (topic, partitions) in unwanted {
        revoking.entry(topic).or_default().extend(partitions);
    }
    if owned.is_none_or(|owned| intersects(owned, &revoking)) {
        next.state = MemberState::UnrevokedPartitions;
        next.revoking = revoking;
    }
    next
}

fn step(
    group: &ModernGroup,
    member_id: &str,
    current: &CurrentAssignment,
    target_epoch: i32,
    target: &TopicIdPartitions,
    owned: Option<&TopicIdPartitions>,
) -> CurrentAssignment {
    let mut assigned = TopicIdPartitions::new();
    let mut revoking = TopicIdPartitions::new();
    let mut pending = TopicIdPartitions::new();
    let mut must_wait = false;
    for (topic, partitions) in &current.assigned {
        for partition in partitions {
            let is_kept = contains(target, *topic, *partition);
            add(if is_kept { &mut assigned } else { &mut revoking }, *topic, *partition);
        }
    }
    for (topic, partitions) in target {
        for partition in partitions {
            if contains(&assigned, *topic, *partition) {
            } else if is_owned_by_another(group, member_id, *topic, *partition) {
                must_wait = true;
            } else {
                add(&mut pending, *topic, *partition);
            }
        }
    }
    let state = if !revoking.is_empty() && owned.is_none_or(|owned| intersects(owned, &revoking)) {
        // Its epoch stays: commits under it must work until it has given up.
        return CurrentAssignment {
            state: MemberState::UnrevokedPartitions,
            assigned,
            revoking,
            ..*current
        };
    } else if must_wait {
        MemberState::UnreleasedPartitions
    } else {
        MemberState::Stable
    };
    for (topic, partitions) in pending {
        assigned.entry(topic).or_default().extend(partitions);
    }
    CurrentAssignment {
        epoch: target_epoch,
        previous_epoch: if current.epoch == target_epoch {
            current.previous_epoch
        } else {
            current.epoch
        },
        state,
        assigned,
        revoking: TopicIdPartitions::new(),
    }
}

/// Whether others still own something of what the member is to have.
pub(super) fn waits_for_others(group: &ModernGroup, member_id: &str) -> bool {
    let (Some(member), Some(target)) = (group.members.get(member_id), group.target.get(member_id)) else {
        return false;
    };
    target.iter().any(|(topic, partitions)| {
        let mut missing = partitions
            .iter()
            .filter(|partition| !contains(&member.current.assigned, *topic, **partition));
        missing.any(|partition| is_owned_by_another(group, member_id, *topic, *partition))
    })
}

fn is_owned_by_another(group: &ModernGroup, member_id: &str, topic: Uuid, partition: i32) -> bool {
    group.members.iter().any(|(other, member)| {
        other != member_id && (contains(&member.current.assigned, topic, partition) || contains(&member.current.revoking, topic, partition))
    })
}

fn contains(topics: &TopicIdPartitions, topic: Uuid, partition: i32) -> bool {
    topics.get(&topic).is_some_and(|partitions| partitions.contains(&partition))
}

fn add(topics: &mut TopicIdPartitions, topic: Uuid, partition: i32) {
    topics.entry(topic).or_default().insert(partition);
}

fn intersects(one: &TopicIdPartitions, other: &TopicIdPartitions) -> bool {
    one.iter()
        .any(|(topic, partitions)| other.get(topic).is_some_and(|others| !partitions.is_disjoint(others)))
}

/// Whether all of `some` is in `all`.
pub(super) fn is_subset(some: &TopicIdPartitions, all: &TopicIdPartitions) -> bool {
    some.iter().all(|(topic, partitions)| {
        let none = BTreeSet::new();
        partitions.is_subset(all.get(topic).unwrap_or(&none))
    })
}
