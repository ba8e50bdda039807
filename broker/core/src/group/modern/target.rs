//! What the members of a group are to have: their subscriptions resolved, and a new target for a new epoch.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use uuid::Uuid;

use super::{
    ModernChange, ModernGroup, ModernKind, ModernMember,
    assignor::{self, Input, RANGE, SIMPLE, UNIFORM},
    heartbeat::Turn,
};
use crate::{
    group::{GroupConfig, GroupCoordinator},
    metadata::ClusterImage,
};

impl GroupCoordinator {
    /// The partition counts of all subscribed topics by id, and which of them each member wants.
    pub(super) fn resolve(&mut self, group: &ModernGroup, image: &ClusterImage) -> (BTreeMap<Uuid, i32>, BTreeMap<String, BTreeSet<Uuid>>) {
        if self.topic_names.len() > 2 * image.names.len() + 1_000 {
            // Most are of topics that are gone.
            self.topic_names.retain(|id, _| image.names.contains_key(id));
        }
        let mut topics = BTreeMap::new();
        let mut subscriptions = BTreeMap::new();
        for (member_id, member) in &group.members {
            let mut wanted = BTreeSet::new();
            let subscription = &member.subscription;
            let regex = subscription.regex.as_ref().and_then(|regex| group.regexes.get(regex));
            let by_pattern = regex.into_iter().flat_map(|resolved| resolved.topics.iter());
            for name in subscription.topics.iter().chain(by_pattern) {
                if let Some((id, partitions)) = topic_or_view(image, name) {
                    if group.kind == ModernKind::Consumer {
                        self.topic_names.entry(id).or_insert_with(|| name.clone());
                    }
                    topics.insert(id, partitions);
                    wanted.insert(id);
                }
            }
            subscriptions.insert(member_id.clone(), wanted);
        }
        (topics, subscriptions)
    }
}

pub(in crate::group) fn topic_or_view(image: &ClusterImage, name: &str) -> Option<(Uuid, i32)> {
    let count = |partitions: usize| i32::try_from(partitions).unwrap_or(i32::MAX);
    if let Some(topic) = image.topic(name) {
        return Some((topic.id, count(topic.partitions.len())));
    }
    let (root, _) = image.view_path(name)?;
    Some((image.view(name)?.id, count(root.partitions.len())))
}

/// Stands for the hash of topics in an epoch that was made without the metadata, because somebody left or patterns were resolved, until the
/// next heartbeat; 0 says that a group needs a new epoch.
pub(in crate::group) const TOPICS_UNKNOWN: u64 = 1;

/// FNV-1a over ids and partition counts: what a group epoch was made for.
pub(in crate::group) fn topics_hash(topics: &BTreeMap<Uuid, i32>) -> u64 {
    let bytes = topics
        .iter()
        .flat_map(|(id, partitions)| id.into_bytes().into_iter().chain(partitions.to_be_bytes()));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Computes a target for the group's epoch and records what changes.
pub(super) fn retarget(
    turn: &mut Turn<'_>,
    group: &mut ModernGroup,
    config: &GroupConfig,
    topics: &BTreeMap<Uuid, i32>,
    subscriptions: &BTreeMap<String, BTreeSet<Uuid>>,
) {
    let name = preferred_assignor(group, config);
    let instance = |(id, member): (&String, &ModernMember)| Some((id.clone(), member.subscription.instance_id.clone()?));
    let instances = group.members.iter().filter_map(instance).collect();
    let input = Input {
        subscriptions,
        instances: &instances,
        topics,
        previous: &group.target,
    };
    let target = assignor::assign(name, &input);
    for (member_id, partitions) in &target {
        if group.target.get(member_id) != Some(partitions) {
            turn.record(ModernChange::Target(member_id.clone(), Some(partitions.clone())));
        }
    }
    group.target = target;
    group.assignment_epoch = group.epoch;
    turn.record(ModernChange::TargetEpoch(Some(group.epoch)));
}

/// The assignor that most members prefer; a tie goes to the first of `group.consumer.assignors`.
pub(super) fn preferred_assignor(group: &ModernGroup, config: &GroupConfig) -> &'static str {
    if group.kind == ModernKind::Share {
        return SIMPLE;
    }
    let votes = |name: &str| {
        let members = group.members.values();
        members
            .filter(|member| member.subscription.assignor.as_deref() == Some(name))
            .count()
    };
    match votes(RANGE).cmp(&votes(UNIFORM)) {
        Ordering::Less => UNIFORM,
        Ordering::Equal if config.consumer_assignors.first().is_some_and(|first| first == RANGE) => RANGE,
        Ordering::Equal => UNIFORM,
        Ordering::Greater => RANGE,
    }
}
