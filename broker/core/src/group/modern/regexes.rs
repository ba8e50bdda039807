//! Patterns that members subscribe to, and which topics they mean.
//!
//! A group knows what its patterns mean from its log, and gives its members nothing else. A heartbeat that finds a pattern of which that
//! is not known, or one that matches a new topic, leaves the finding here; the next tick, which is due at once, writes it down and makes
//! an epoch of it. So a pattern costs its first member a second heartbeat, as with Kafka, where matching is asynchronous as well.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use uuid::Uuid;

use super::{ModernChange, ModernGroup, ModernKind, ModernRecord, ResolvedRegex, heartbeat::Turn, re2::translate, target::TOPICS_UNKNOWN};
use crate::{
    group::{Decision, GroupCoordinator, GroupRecord, timers::TimerKey},
    metadata::ClusterImage,
};

/// Longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 4_096;

/// Patterns that are remembered.
const PATTERNS_MAX: usize = 1_000;

/// Topics by pattern.
type TopicsByRegex = BTreeMap<String, BTreeSet<String>>;

/// Resolved patterns of one version of the metadata.
#[derive(Debug, Default)]
pub(in crate::group) struct Regexes {
    version: u64,
    topics: TopicsByRegex,
    /// By group: what is to be written down.
    found: BTreeMap<String, Matches>,
}

/// What a heartbeat found out about its group's patterns.
#[derive(Debug, Default)]
pub(super) struct Matches {
    pub topics: TopicsByRegex,
    /// Version of the metadata.
    version: u64,
    /// Some member is to have what it does not want any more: even a pattern that matches nothing makes an epoch then, or nobody would
    /// get that.
    is_stale: bool,
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
    let pattern = translate(pattern);
    // The bare pattern first: brackets that close what is added here would change what is meant.
    Regex::new(&pattern).ok()?;
    Regex::new(&format!("^(?:{pattern})$")).ok()
}

impl Regexes {
    /// The topics and views that a pattern means.
    fn resolve(&mut self, pattern: &str, image: &ClusterImage) -> &BTreeSet<String> {
        if self.version != image.epoch || self.topics.len() >= PATTERNS_MAX {
            self.topics.clear();
            self.version = image.epoch;
        }
        self.topics.entry(pattern.to_owned()).or_insert_with(|| {
            let Some(regex) = compile(pattern) else { return BTreeSet::new() };
            let topics = image.topics.values().filter(|topic| !topic.internal).map(|topic| &topic.name);
            let names = topics.chain(image.views.keys());
            names.filter(|name| regex.is_match(name)).cloned().collect()
        })
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
                found.insert(regex.clone(), topics.clone());
            }
        }
        let is_unwanted = |id: &String, topic: &Uuid| subscriptions.get(id).is_some_and(|wanted| !wanted.contains(topic));
        let mut targets = group.target.iter();
        Matches {
            is_stale: !found.is_empty() && targets.any(|(id, target)| target.keys().any(|topic| is_unwanted(id, topic))),
            topics: found,
            version: image.epoch,
        }
    }

    /// Lets the next tick write down what patterns mean.
    pub(super) fn write_down(&mut self, now_ms: i64, group_id: &str, found: Matches) {
        if !found.topics.is_empty() {
            self.regexes.found.insert(group_id.to_owned(), found);
            let group_id = group_id.to_owned();
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
        let mut has_news = found.is_stale;
        for (regex, topics) in found.topics.into_iter().filter(|(regex, _)| subscribed.contains(regex)) {
            let none = BTreeSet::new();
            has_news |= *group.regexes.get(&regex).map_or(&none, |known| &known.topics) != topics;
            let resolved = ResolvedRegex {
                topics,
                version: found.version,
                resolved_ms: now_ms,
            };
            changes.push(ModernChange::Regex(regex, Some(resolved)));
        }
        if has_news {
            // The next heartbeat knows the metadata.
            changes.push(ModernChange::Group(Some((group.epoch + 1, TOPICS_UNKNOWN))));
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
