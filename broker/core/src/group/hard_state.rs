//! What the log of the partition says: group metadata, committed offsets, and offsets of open transactions.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    CommittedOffset, GroupMetadata, GroupRecord,
    modern::{ModernChange, ModernGroup, ModernRecord},
    streams::{StreamsChange, StreamsGroup, StreamsRecord},
};

/// Offsets by topic and partition.
pub(super) type OffsetsByTopic = BTreeMap<String, BTreeMap<i32, StoredOffset>>;

/// A committed offset and its place in the order of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredOffset {
    /// The commit.
    pub commit: CommittedOffset,
    /// Grows by one with every applied record: tells which of a plain and a transactional commit is later.
    pub sequence: u64,
}

/// State that the log defines. Equal logs give equal states.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HardState {
    groups: BTreeMap<String, GroupMetadata>,
    modern: BTreeMap<String, ModernGroup>,
    streams: BTreeMap<String, StreamsGroup>,
    offsets: BTreeMap<String, OffsetsByTopic>,
    /// By producer id, then group: what a commit marker will make visible.
    pending: BTreeMap<i64, BTreeMap<String, OffsetsByTopic>>,
    sequence: u64,
}

impl HardState {
    /// Group metadata by group id.
    pub(super) fn groups(&self) -> &BTreeMap<String, GroupMetadata> {
        &self.groups
    }

    /// A consumer or share group.
    pub(super) fn modern(&self, group_id: &str) -> Option<&ModernGroup> {
        self.modern.get(group_id)
    }

    /// Consumer and share groups by id.
    pub(super) fn modern_groups(&self) -> &BTreeMap<String, ModernGroup> {
        &self.modern
    }

    /// Whether a group, if there is one, is neither a consumer, a share nor a streams group.
    pub(super) fn is_classic(&self, group_id: &str) -> bool {
        !self.modern.contains_key(group_id) && !self.streams.contains_key(group_id)
    }

    fn apply_modern(&mut self, record: &ModernRecord) {
        if record.change == ModernChange::Group(None) {
            self.modern.remove(&record.group_id);
            return;
        }
        let is_tombstone = match &record.change {
            ModernChange::Group(value) => value.is_none(),
            ModernChange::Member(_, value) => value.is_none(),
            ModernChange::TargetEpoch(value) => value.is_none(),
            ModernChange::Target(_, value) => value.is_none(),
            ModernChange::Current(_, value) => value.is_none(),
            ModernChange::Regex(_, value) => value.is_none(),
        };
        if is_tombstone && !self.modern.contains_key(&record.group_id) {
            return;
        }
        let group = self
            .modern
            .entry(record.group_id.clone())
            .or_insert_with(|| ModernGroup::new(record.kind));
        group.apply(&record.change);
    }

    /// A streams group.
    pub(super) fn streams(&self, group_id: &str) -> Option<&StreamsGroup> {
        self.streams.get(group_id)
    }

    /// Streams groups by id.
    pub(super) fn streams_groups(&self) -> &BTreeMap<String, StreamsGroup> {
        &self.streams
    }

    fn apply_streams(&mut self, record: &StreamsRecord) {
        if record.change == StreamsChange::Group(None) {
            self.streams.remove(&record.group_id);
        } else if let Some(group) = self.streams.get_mut(&record.group_id) {
            group.apply(&record.change);
        } else if !record.change.is_tombstone() {
            self.streams.entry(record.group_id.clone()).or_default().apply(&record.change);
        }
    }

    /// Ids of groups with committed offsets, or with some that wait for a transaction's end.
    pub(super) fn groups_with_offsets(&self) -> impl Iterator<Item = &String> {
        self.offsets.keys().chain(self.pending.values().flat_map(BTreeMap::keys))
    }

    /// Whether the group has committed offsets, or some that wait for a transaction's end.
    pub(super) fn has_offsets(&self, group_id: &str) -> bool {
        self.offsets.contains_key(group_id) || self.has_any_pending(group_id)
    }

    /// Committed offsets of a group.
    pub(super) fn offsets(&self, group_id: &str) -> Option<&OffsetsByTopic> {
        self.offsets.get(group_id)
    }

    /// One committed offset.
    pub(super) fn offset(&self, group_id: &str, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.offsets.get(group_id)?.get(topic)?.get(&partition).map(|stored| &stored.commit)
    }

    /// Whether an open transaction holds an offset of the partition.
    pub(super) fn has_pending(&self, group_id: &str, topic: &str, partition: i32) -> bool {
        self.pending_of_group(group_id)
            .any(|offsets| offsets.get(topic).is_some_and(|topic| topic.contains_key(&partition)))
    }

    /// Whether an open transaction holds any offset of the group.
    pub(super) fn has_any_pending(&self, group_id: &str) -> bool {
        self.pending_of_group(group_id).next().is_some()
    }

    fn pending_of_group<'a>(&'a self, group_id: &'a str) -> impl Iterator<Item = &'a OffsetsByTopic> {
        self.pending.values().filter_map(move |groups| groups.get(group_id))
    }

    /// A record outside a transaction.
    pub(super) fn apply(&mut self, record: &GroupRecord) {
        self.sequence += 1;
        match record {
            GroupRecord::Group {
                group_id,
                value: Some(value),
            } => {
                self.groups.insert(group_id.clone(), value.clone());
            }
            GroupRecord::Group { group_id, value: None } => {
                self.groups.remove(group_id);
            }
            GroupRecord::Offset {
                group_id,
                topic,
                partition,
                value: Some(commit),
            } => {
                let stored = StoredOffset {
                    commit: commit.clone(),
                    sequence: self.sequence,
                };
                put(self.offsets.entry(group_id.clone()).or_default(), topic, *partition, stored);
            }
            GroupRecord::Offset {
                group_id,
                topic,
                partition,
                value: None,
            } => self.forget_offset(group_id, topic, *partition),
            GroupRecord::Modern(record) => self.apply_modern(record),
            GroupRecord::Streams(record) => self.apply_streams(record),
        }
    }

    /// A record inside a producer's transaction. Only commits are written that way; Kafka ignores the rest, and so do we.
    pub(super) fn apply_transactional(&mut self, producer_id: i64, record: &GroupRecord) {
        self.sequence += 1;
        if let GroupRecord::Offset {
            group_id,
            topic,
            partition,
            value: Some(commit),
        } = record
        {
            let stored = StoredOffset {
                commit: commit.clone(),
                sequence: self.sequence,
            };
            let offsets = self.pending.entry(producer_id).or_default().entry(group_id.clone()).or_default();
            put(offsets, topic, *partition, stored);
        }
    }

    /// The end of a producer's transaction.
    pub(super) fn apply_marker(&mut self, producer_id: i64, committed: bool) {
        let Some(groups) = self.pending.remove(&producer_id) else { return };
        if !committed {
            return;
        }
        for (group_id, topics) in groups {
            let offsets = self.offsets.entry(group_id).or_default();
            for (topic, partitions) in topics {
                let slots = offsets.entry(topic).or_default();
                for (partition, stored) in partitions {
                    // A plain commit written after the transactional one wins, as the later record.
                    if slots.get(&partition).is_none_or(|existing| existing.sequence < stored.sequence) {
                        slots.insert(partition, stored);
                    }
                }
            }
        }
    }

    /// A tombstone also drops pending offsets of the partition: the group or the topic is gone.
    fn forget_offset(&mut self, group_id: &str, topic: &str, partition: i32) {
        remove(&mut self.offsets, group_id, topic, partition);
        for groups in self.pending.values_mut() {
            remove(groups, group_id, topic, partition);
        }
        self.pending.retain(|_, groups| !groups.is_empty());
    }

    /// Every offset of a group or of a topic, committed or pending, as (group, topic, partition).
    pub(super) fn offset_keys(&self, wanted: impl Fn(&str, &str) -> bool) -> BTreeSet<(String, String, i32)> {
        let mut keys = BTreeSet::new();
        for groups in std::iter::once(&self.offsets).chain(self.pending.values()) {
            for (group_id, topics) in groups {
                for (topic, partitions) in topics.iter().filter(|(topic, _)| wanted(group_id, topic)) {
                    keys.extend(partitions.keys().map(|partition| (group_id.clone(), topic.clone(), *partition)));
                }
            }
        }
        keys
    }
}

fn put(offsets: &mut OffsetsByTopic, topic: &str, partition: i32, stored: StoredOffset) {
    match offsets.get_mut(topic) {
        Some(partitions) => {
            partitions.insert(partition, stored);
        }
        None => {
            offsets.insert(topic.to_owned(), BTreeMap::from([(partition, stored)]));
        }
    }
}

/// Removes an offset, and the maps that it leaves empty.
fn remove(groups: &mut BTreeMap<String, OffsetsByTopic>, group_id: &str, topic: &str, partition: i32) {
    let Some(topics) = groups.get_mut(group_id) else { return };
    if let Some(partitions) = topics.get_mut(topic) {
        partitions.remove(&partition);
        if partitions.is_empty() {
            topics.remove(topic);
        }
    }
    if topics.is_empty() {
        groups.remove(group_id);
    }
}
