//! Patterns that members subscribe to, and which topics they mean.
//!
//! A group knows what its patterns mean from its log, and gives its members nothing else. A heartbeat that finds a pattern of which that
//! is not known, or one that matches a new topic, leaves the finding here; the next tick, which is due at once, writes it down and makes
//! an epoch of it. So a pattern costs its first member a second heartbeat, as with Kafka, where matching is asynchronous as well.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use regex::Regex;
use uuid::Uuid;

use super::{
    ModernChange, ModernGroup, ModernHeartbeat, ModernKind, ModernRecord, ResolvedRegex, heartbeat::Turn, re2::translate,
    target::TOPICS_UNKNOWN,
};
use crate::{
    group::{Decision, GroupCoordinator, GroupRecord, timers::TimerKey},
    metadata::ClusterImage,
};

/// Longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 4_096;

/// Patterns that are remembered.
const PATTERNS_MAX: usize = 1_000;

/// Topics by pattern.
type TopicsByRegex = BTreeMap<String, Arc<BTreeSet<String>>>;

/// Resolved patterns of one version of the metadata.
#[derive(Debug, Default)]
pub(in crate::group) struct Regexes {
    version: u64,
    topics: TopicsByRegex,
    /// By group: what is to be written down.
    found: BTreeMap<String, Matches>,
}

/// What a heartbeat found out about its group's patterns.
#[derive(Debug)]
pub(super) struct Matches {
    topics: TopicsByRegex,
    /// Version of the metadata.
    version: u64,
    /// Set if some member is to have what it does not want any more, to the epoch of that: unless another follows, even a pattern that
    /// matches nothing makes one, or nobody would get what is left. Kafka leaves it with nobody.
    stale_epoch: Option<i32>,
}

impl Matches {
    /// Whether the request brings a pattern that means more than a record can hold, and that its group has no older meaning of.
    pub fn brings_too_much(&self, request: &ModernHeartbeat, group: Option<&ModernGroup>, bytes_max: usize) -> bool {
        let Some((regex, topics)) = request.regex.as_ref().and_then(|regex| self.topics.get_key_value(regex)) else {
            return false;
        };
        record_bytes(topics) > bytes_max && group.is_none_or(|group| !group.regexes.contains_key(regex))
    }
}

/// No less than a pattern's record takes.
fn record_bytes(topics: &BTreeSet<String>) -> usize {
    topics.iter().map(|name| name.len() + 3).sum::<usize>() + 64
}

/// Whether a pattern can be used. The syntax is RE2's, as in Kafka; matching takes linear time.
pub(super) fn is_valid(pattern: &str) -> bool {
    compile(pattern).is_some()
}

/// An RE2 pattern for whole names; `None` if it is not valid, or too long.
pub fn compile(pattern: &str) -> Option<Regex> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return None;
    }
    let pattern = translate(pattern)?;
    // The bare pattern first: brackets that close what is added here would change what is meant.
    Regex::new(&pattern).ok()?;
    Regex::new(&format!("^(?:{pattern})$")).ok()
}

impl Regexes {
    /// The topics and views that a pattern means.
    fn resolve(&mut self, pattern: &str, image: &ClusterImage) -> Arc<BTreeSet<String>> {
        if self.version != image.epoch {
            self.topics.clear();
            self.version = image.epoch;
        }
        if let Some(topics) = self.topics.get(pattern) {
            return Arc::clone(topics);
        }
        if self.topics.len() >= PATTERNS_MAX {
            self.topics.clear();
        }
        let topics = image.topics.values().filter(|topic| !topic.internal).map(|topic| &topic.name);
        let names = topics.chain(image.views.keys());
        let matches = compile(pattern).map_or_else(BTreeSet::new, |regex| names.filter(|name| regex.is_match(name)).cloned().collect());
        let matches = Arc::new(matches);
        self.topics.insert(pattern.to_owned(), Arc::clone(&matches));
        matches
    }
}

impl ModernGroup {
    fn subscribed_regexes(&self) -> BTreeSet<&String> {
        let members = self.members.values();
        members.filter_map(|member| member.subscription.regex.as_ref()).collect()
    }

    /// Resolved patterns that nobody has when these members are gone.
    pub(super) fn forgotten_regexes(&self, gone: &BTreeSet<String>) -> Vec<String> {
        let rest = self.members.iter().filter(|(id, _)| !gone.contains(*id));
        let wanted: BTreeSet<&String> = rest.filter_map(|(_, member)| member.subscription.regex.as_ref()).collect();
        self.regexes.keys().filter(|regex| !wanted.contains(regex)).cloned().collect()
    }

    /// Whether it makes an epoch that a member goes from one pattern to another. One that is not resolved makes its epoch when it is.
    pub(super) fn makes_epoch(&self, old: Option<&String>, new: Option<&String>) -> bool {
        old != new && new.is_none_or(|regex| self.regexes.contains_key(regex))
    }
}

/// Takes out the patterns that nobody has any more.
pub(super) fn forget_regexes(turn: &mut Turn<'_>, group: &mut ModernGroup) {
    for regex in group.forgotten_regexes(&BTreeSet::new()) {
        group.regexes.remove(&regex);
        turn.record(ModernChange::Regex(regex, None));
    }
}

impl GroupCoordinator {
    /// Patterns of the group that are not resolved yet, or match what they did not.
    pub(super) fn new_matches(
        &mut self,
        group: &ModernGroup,
        subscriptions: &BTreeMap<String, BTreeSet<Uuid>>,
        image: &ClusterImage,
    ) -> Matches {
        let mut found = TopicsByRegex::new();
        for regex in group.subscribed_regexes() {
            let topics = self.regexes.resolve(regex, image);
            let known = group.regexes.get(regex);
            if known.is_none_or(|known| !topics.is_subset(&known.topics)) {
                found.insert(regex.clone(), topics);
            }
        }
        let is_unwanted = |id: &String, topic: &Uuid| subscriptions.get(id).is_some_and(|wanted| !wanted.contains(topic));
        let mut targets = group.target.iter();
        let is_stale = !found.is_empty() && targets.any(|(id, target)| target.keys().any(|topic| is_unwanted(id, topic)));
        Matches {
            stale_epoch: is_stale.then_some(group.epoch),
            topics: found,
            version: image.epoch,
        }
    }

    /// Lets the next tick write down what patterns mean. One that came to mean more than a record holds keeps what it meant.
    pub(super) fn write_down(&mut self, now_ms: i64, group_id: &str, mut found: Matches) {
        found
            .topics
            .retain(|_, topics| record_bytes(topics) <= self.config.group_record_bytes_max);
        let group_id = group_id.to_owned();
        if found.topics.is_empty() {
            self.regexes.found.remove(&group_id);
        } else {
            self.regexes.found.insert(group_id.clone(), found);
            self.timers.schedule(TimerKey::Regexes { group_id }, now_ms);
        }
    }

    /// What the patterns of a group mean comes to its log.
    pub(in crate::group) fn on_regexes(&mut self, now_ms: i64, group_id: &str, decision: &mut Decision) {
        let Some(found) = self.regexes.found.remove(group_id) else {
            return;
        };
        let Some(group) = self.hard.modern(group_id).filter(|group| group.kind == ModernKind::Consumer) else {
            return;
        };
        let subscribed = group.subscribed_regexes();
        let mut changes = Vec::new();
        let mut has_news = found.stale_epoch == Some(group.epoch);
        for (regex, topics) in found.topics.into_iter().filter(|(regex, _)| subscribed.contains(regex)) {
            let known = group.regexes.get(&regex);
            has_news |= known.map_or(!topics.is_empty(), |known| known.topics != topics);
            let resolved = ResolvedRegex {
                topics,
                version: found.version,
                resolved_ms: now_ms,
            };
            changes.push(ModernChange::Regex(regex, Some(resolved)));
        }
        if has_news {
            // First: if a crash cuts here, the patterns are found again. The next heartbeat knows the metadata.
            changes.insert(0, ModernChange::Group(Some((group.epoch + 1, TOPICS_UNKNOWN))));
        }
        decision.records.extend(changes.into_iter().map(|change| {
            GroupRecord::Modern(ModernRecord {
                kind: ModernKind::Consumer,
                group_id: group_id.to_owned(),
                change,
            })
        }));
    }
}
