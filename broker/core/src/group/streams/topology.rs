//! What a topology comes to on the topics that exist: how many tasks each part has, which partition counts the internal topics need, and
//! what is missing.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::Arc,
};

use millstream_protocol::ErrorCode;
use uuid::Uuid;

use super::{CopartitionGroup, StreamsStatusCode, Subtopology, TopicInfo, Topology};
use crate::group::modern::ModernRefusal;

/// Most tasks of one topology: all of them must fit into one record. Ours; in Kafka the write fails.
pub const TASKS_MAX: usize = 100_000;
/// Names that a status lists.
const NAMES_SHOWN: usize = 3;

/// An internal topic that has to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternalTopic {
    /// Its name.
    pub name: String,
    /// Its partitions.
    pub partitions: i32,
    /// Its replicas; 0 is the cluster's default.
    pub replication_factor: i16,
    /// Its configuration.
    pub configs: Vec<(String, String)>,
}

/// A part of the application with what was decided for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConfiguredPart {
    /// Number of its tasks, and of the partitions of its changelogs.
    pub tasks: i32,
    /// Whether it has stores.
    pub is_stateful: bool,
}

/// A topology on the topics of one metadata image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Configured {
    /// Hash of ids and partition counts of the topics that it needs and that exist.
    pub topics_hash: u64,
    /// Partition counts of those topics.
    pub counts: BTreeMap<String, i32>,
    /// Why the group is not ready.
    pub problem: Option<(StreamsStatusCode, String)>,
    /// What has to be created.
    pub missing: Arc<[InternalTopic]>,
    /// The parts by id; empty if that much is not known.
    pub parts: BTreeMap<String, ConfiguredPart>,
    /// Partition counts of repartition topics that were decided.
    pub repartition_counts: BTreeMap<String, i32>,
}

impl Configured {
    pub fn is_ready(&self) -> bool {
        self.problem.is_none()
    }
}

fn invalid(message: String) -> ModernRefusal {
    ModernRefusal::new(ErrorCode::StreamsInvalidTopology, message)
}

/// Works out a topology. `lookup` gives id and partition count of a topic that exists.
///
/// # Errors
/// STREAMS_INVALID_TOPOLOGY for a topology that cannot work on any topics.
pub(super) fn configure(topology: &Topology, lookup: impl Fn(&str) -> Option<(Uuid, i32)>) -> Result<Configured, ModernRefusal> {
    let parts = &topology.subtopologies;
    let changelogs = parts.iter().flat_map(|part| &part.changelogs).map(|topic| topic.name.as_str());
    let needed: BTreeSet<&str> = parts.iter().flat_map(Subtopology::inputs).chain(changelogs).collect();
    let mut configured = Configured::default();
    let mut ids = BTreeMap::new();
    for name in needed {
        if let Some((id, count)) = lookup(name) {
            ids.insert(id, count);
            configured.counts.insert(name.to_owned(), count);
        }
    }
    if !ids.is_empty() {
        configured.topics_hash = crate::group::modern::topics_hash(&ids);
    }
    let sources: BTreeSet<&str> = parts.iter().flat_map(|part| &part.sources).map(String::as_str).collect();
    let missing = sources
        .into_iter()
        .filter(|name| !configured.counts.contains_key(*name))
        .collect::<Vec<_>>();
    if !missing.is_empty() {
        let detail = format!("Source topics {} are missing.", list(&missing));
        configured.problem = Some((StreamsStatusCode::MissingSourceTopics, detail));
        return Ok(configured);
    }
    let mut decided = decide_repartition_topics(topology, &configured.counts)?;
    if let Some(detail) = copartition(topology, &configured.counts, &mut decided)? {
        configured.problem = Some((StreamsStatusCode::IncorrectlyPartitionedTopics, detail));
        return Ok(configured);
    }
    let mut tasks_in_all = 0_usize;
    for part in parts {
        let counts = part.inputs().filter_map(|name| known(name, &configured.counts, &decided));
        let tasks = counts.max().ok_or_else(|| {
            let id = &part.id;
            invalid(format!("No source topics found for subtopology {id}"))
        })?;
        tasks_in_all = tasks_in_all.saturating_add(usize::try_from(tasks).unwrap_or(0));
        let is_stateful = !part.changelogs.is_empty();
        configured.parts.insert(part.id.clone(), ConfiguredPart { tasks, is_stateful });
    }
    if tasks_in_all > TASKS_MAX {
        return Err(invalid(format!(
            "The topology has {tasks_in_all} tasks; a group can have {TASKS_MAX}."
        )));
    }
    configured.repartition_counts = decided.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    check_internal_topics(topology, &mut configured);
    Ok(configured)
}

/// The partition count of a topic: what it has, or else what it will have.
fn known(name: &str, counts: &BTreeMap<String, i32>, decided: &BTreeMap<&str, i32>) -> Option<i32> {
    counts.get(name).or_else(|| decided.get(name)).copied()
}

/// Repartition topics without a number of their own get as many partitions as the most that the part reads which writes them.
///
/// A part is looked at as soon as one of its inputs is known, in the order of parts: what is known later does not count.
fn decide_repartition_topics<'a>(topology: &'a Topology, counts: &BTreeMap<String, i32>) -> Result<BTreeMap<&'a str, i32>, ModernRefusal> {
    let parts = &topology.subtopologies;
    let repartitioned = || parts.iter().flat_map(|part| &part.repartition_sources);
    let fixed = repartitioned().filter(|topic| topic.partitions != 0);
    let mut decided: BTreeMap<&str, i32> = fixed.map(|topic| (topic.name.as_str(), topic.partitions)).collect();
    let mut readers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut is_done = vec![false; parts.len()];
    let mut ready = BTreeSet::new();
    for (index, part) in parts.iter().enumerate() {
        for topic in &part.repartition_sources {
            readers.entry(&topic.name).or_default().push(index);
        }
        let knows_one = !part.sources.is_empty()
            || part
                .repartition_sources
                .iter()
                .any(|topic| decided.contains_key(topic.name.as_str()));
        if knows_one {
            ready.insert(index);
        }
    }
    let mut next = 0;
    while let Some(index) = ready.range(next..).next().or_else(|| ready.first()).copied() {
        ready.remove(&index);
        next = index + 1;
        let Some(part) = parts.get(index) else { continue };
        let of_sources = part.sources.iter().filter_map(|name| counts.get(name));
        let of_repartitioned = part.repartition_sources.iter().filter_map(|topic| decided.get(topic.name.as_str()));
        let Some(count) = of_sources.chain(of_repartitioned).max().copied() else {
            continue;
        };
        if let Some(done) = is_done.get_mut(index) {
            *done = true;
        }
        for sink in &part.sinks {
            if decided.contains_key(sink.as_str()) {
                continue;
            }
            decided.insert(sink, count);
            let readers = readers.get(sink.as_str()).into_iter().flatten();
            ready.extend(readers.filter(|reader| is_done.get(**reader) == Some(&false)));
        }
    }
    if parts
        .iter()
        .flat_map(|part| &part.sinks)
        .any(|sink| !decided.contains_key(sink.as_str()))
    {
        let message = "Failed to compute number of partitions for all repartition topics. There may be loops in the topology that cannot be resolved.";
        return Err(invalid(message.to_owned()));
    }
    if repartitioned().any(|topic| !decided.contains_key(topic.name.as_str())) {
        let message = "Failed to compute number of partitions for all repartition topics, because a repartition source topic is never used as a sink topic.";
        return Err(invalid(message.to_owned()));
    }
    Ok(decided)
}

/// Gives the repartition topics of each copartition group the group's number of partitions; says what does not fit.
fn copartition<'a>(
    topology: &'a Topology,
    counts: &BTreeMap<String, i32>,
    decided: &mut BTreeMap<&'a str, i32>,
) -> Result<Option<String>, ModernRefusal> {
    let repartitioned = topology.subtopologies.iter().flat_map(|part| &part.repartition_sources);
    let fixed: BTreeSet<&str> = repartitioned
        .filter(|topic| topic.partitions != 0)
        .map(|topic| topic.name.as_str())
        .collect();
    // Nothing below changes these.
    let of_fixed = fixed.iter().map(|name| known(name, counts, decided).unwrap_or(0));
    let fixed_number = all_equal(of_fixed.collect::<Vec<_>>().iter());
    for part in &topology.subtopologies {
        for group in &part.copartition_groups {
            let (sources, internal) = members_of(part, group);
            if sources.is_empty() && internal.is_empty() {
                continue;
            }
            let count_of = |name: &&'a str| (*name, known(name, counts, decided).unwrap_or(0));
            let of_sources: BTreeMap<&str, i32> = sources.iter().map(count_of).collect();
            let of_internal: BTreeMap<&str, i32> = internal.iter().map(count_of).collect();
            let number = if !of_sources.is_empty() {
                match all_equal(of_sources.values()) {
                    Some(number) => number,
                    None => return Ok(Some(differing(&of_sources))),
                }
            } else if !fixed.is_empty() {
                match fixed_number {
                    Some(number) => number,
                    None => return Ok(Some(differing(&of_internal))),
                }
            } else {
                of_internal.values().copied().max().unwrap_or(0)
            };
            if number == 0 {
                let names = internal.iter().copied().collect::<Vec<_>>().join(", ");
                return Err(invalid(format!(
                    "All topics in the copartition group had undefined partition number: [{names}]"
                )));
            }
            for name in internal {
                let count = of_internal.get(name).copied().unwrap_or(0);
                if fixed.contains(name) && count != number {
                    return Ok(Some(format!(
                        "Number of partitions [{count}] of repartition topic [{name}] doesn't match number of partitions [{number}] of the source topic."
                    )));
                }
                decided.insert(name, number);
            }
        }
    }
    Ok(None)
}

fn members_of<'a>(part: &'a Subtopology, group: &CopartitionGroup) -> (BTreeSet<&'a str>, BTreeSet<&'a str>) {
    let at = |index: &i16| usize::try_from(*index).ok();
    let sources = group.sources.iter().filter_map(|index| part.sources.get(at(index)?));
    let internal = group
        .repartition_sources
        .iter()
        .filter_map(|index| part.repartition_sources.get(at(index)?));
    (
        sources.map(String::as_str).collect(),
        internal.map(|topic| topic.name.as_str()).collect(),
    )
}

fn all_equal<'a>(mut counts: impl Iterator<Item = &'a i32>) -> Option<i32> {
    let first = *counts.next()?;
    counts.all(|count| *count == first).then_some(first)
}

fn differing(counts: &BTreeMap<&str, i32>) -> String {
    let pairs: Vec<String> = counts.iter().map(|(name, count)| format!("{name}={count}")).collect();
    let pairs = pairs.join(", ");
    format!("Following topics do not have the same number of partitions: [{{{pairs}}}]")
}

/// Internal topics that exist must fit, others must be created.
fn check_internal_topics(topology: &Topology, configured: &mut Configured) {
    let mut missing: BTreeMap<&str, InternalTopic> = BTreeMap::new();
    for part in &topology.subtopologies {
        let tasks = configured.parts.get(&part.id).map_or(0, |part| part.tasks);
        let repartitioned = part.repartition_sources.iter().map(|topic| {
            let decided = configured.repartition_counts.get(&topic.name).copied();
            let count = if topic.partitions == 0 {
                decided.unwrap_or(0)
            } else {
                topic.partitions
            };
            (topic, count)
        });
        let changelogs = part.changelogs.iter().map(|topic| (topic, tasks));
        for (topic, expected) in repartitioned.chain(changelogs) {
            match configured.counts.get(&topic.name).map(|found| (found, found.cmp(&expected))) {
                Some((_, Ordering::Equal)) => {}
                Some((found, _)) => {
                    let name = &topic.name;
                    let detail = format!("Existing topic {name} has different number of partitions: expected {expected}, found {found}");
                    configured.problem = Some((StreamsStatusCode::IncorrectlyPartitionedTopics, detail));
                    configured.parts.clear();
                    return;
                }
                None => {
                    missing.insert(&topic.name, to_create(topic, expected));
                }
            }
        }
    }
    if missing.is_empty() {
        return;
    }
    let names: Vec<&str> = missing.keys().copied().collect();
    let detail = format!("Internal topics are missing: {}", list(&names));
    configured.problem = Some((StreamsStatusCode::MissingInternalTopics, detail));
    configured.missing = missing.into_values().collect();
}

fn to_create(topic: &TopicInfo, partitions: i32) -> InternalTopic {
    InternalTopic {
        name: topic.name.clone(),
        partitions,
        replication_factor: topic.replication_factor,
        configs: topic.configs.clone(),
    }
}

/// The first names, and how many more there are.
fn list<T: Display>(names: &[T]) -> String {
    let shown: Vec<String> = names.iter().take(NAMES_SHOWN).map(T::to_string).collect();
    let shown = shown.join(", ");
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} additional topics"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(id: &str, sources: &[&str], sinks: &[&str], repartition_sources: &[(&str, i32)], changelogs: &[&str]) -> Subtopology {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let topic = |(name, partitions): &(&str, i32)| TopicInfo {
            name: (*name).to_owned(),
            partitions: *partitions,
            ..TopicInfo::default()
        };
        Subtopology {
            id: id.to_owned(),
            sources: owned(sources),
            sinks: owned(sinks),
            repartition_sources: repartition_sources.iter().map(topic).collect(),
            changelogs: changelogs.iter().map(|name| topic(&(name, 0))).collect(),
            ..Subtopology::default()
        }
    }

    fn joined(mut part: Subtopology, sources: &[i16], repartition_sources: &[i16]) -> Subtopology {
        part.copartition_groups.push(CopartitionGroup {
            sources: sources.to_vec(),
            source_regexes: Vec::new(),
            repartition_sources: repartition_sources.to_vec(),
        });
        part
    }

    fn on(topics: &[(&str, i32)], subtopologies: Vec<Subtopology>) -> Result<Configured, ModernRefusal> {
        let topology = Topology { epoch: 0, subtopologies };
        configure(&topology, |name| {
            let index = topics.iter().position(|(known, _)| *known == name)?;
            Some((Uuid::from_u128(index as u128 + 1), topics[index].1))
        })
    }

    fn problem(topics: &[(&str, i32)], parts: Vec<Subtopology>) -> Option<(StreamsStatusCode, String)> {
        on(topics, parts).unwrap().problem
    }

    fn refusal(topics: &[(&str, i32)], parts: Vec<Subtopology>) -> String {
        let refusal = on(topics, parts).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::StreamsInvalidTopology);
        refusal.message
    }

    #[test]
    fn a_topology_on_existing_topics_is_ready() {
        let parts = vec![part("0", &["in"], &["mid"], &[], &[]), part("1", &[], &[], &[("mid", 0)], &["log"])];
        let ready = on(&[("in", 4), ("mid", 4), ("log", 4)], parts.clone()).unwrap();
        assert_eq!(ready.problem, None);
        assert_eq!((ready.parts["0"].tasks, ready.parts["0"].is_stateful), (4, false));
        assert_eq!((ready.parts["1"].tasks, ready.parts["1"].is_stateful), (4, true));
        let other = on(&[("in", 5), ("mid", 5), ("log", 5)], parts).unwrap();
        assert_ne!(ready.topics_hash, other.topics_hash);
    }

    #[test]
    fn missing_sources_come_first_and_a_list_is_short() {
        let parts = vec![part("0", &["e", "b", "a", "d", "c"], &[], &[("never", 0)], &[])];
        let detail = "Source topics a, b, c and 1 additional topics are missing.";
        let expected = Some((StreamsStatusCode::MissingSourceTopics, detail.to_owned()));
        assert_eq!(problem(&[("e", 1)], parts), expected);
    }

    #[test]
    fn internal_topics_that_are_missing_are_named_with_what_they_need() {
        let parts = vec![
            part("0", &["in"], &["mid"], &[], &[]),
            part("1", &["in2"], &[], &[("mid", 0)], &["log"]),
        ];
        let configured = on(&[("in", 4), ("in2", 6)], parts).unwrap();
        let detail = "Internal topics are missing: log, mid";
        assert_eq!(
            configured.problem,
            Some((StreamsStatusCode::MissingInternalTopics, detail.to_owned()))
        );
        let missing: Vec<_> = configured
            .missing
            .iter()
            .map(|topic| (topic.name.as_str(), topic.partitions))
            .collect();
        assert_eq!(missing, [("log", 6), ("mid", 4)]);
    }

    #[test]
    fn a_chain_of_repartition_topics_is_decided_in_any_order() {
        let parts = vec![
            part("0", &[], &["c"], &[("b", 0)], &[]),
            part("1", &[], &["b"], &[("a", 0)], &[]),
            part("2", &["in"], &["a"], &[], &[]),
            part("3", &[], &[], &[("c", 0)], &[]),
        ];
        let configured = on(&[("in", 7)], parts).unwrap();
        assert!(configured.missing.iter().all(|topic| topic.partitions == 7));
        assert_eq!(configured.missing.len(), 3);
    }

    #[test]
    fn loops_and_unused_repartition_topics_are_refused() {
        let parts = vec![part("0", &[], &["a"], &[("b", 0)], &[]), part("1", &[], &["b"], &[("a", 0)], &[])];
        assert!(refusal(&[], parts).ends_with("There may be loops in the topology that cannot be resolved."));
        let parts = vec![part("0", &["in"], &[], &[("b", 0)], &[])];
        assert!(refusal(&[("in", 1)], parts).ends_with("because a repartition source topic is never used as a sink topic."));
        let parts = vec![part("7", &[], &[], &[], &["log"])];
        assert_eq!(refusal(&[], parts), "No source topics found for subtopology 7");
    }

    #[test]
    fn sources_of_a_join_need_equal_counts() {
        let parts = vec![joined(part("0", &["b", "a"], &[], &[], &[]), &[0, 1], &[])];
        let detail = "Following topics do not have the same number of partitions: [{a=1, b=2}]";
        let expected = Some((StreamsStatusCode::IncorrectlyPartitionedTopics, detail.to_owned()));
        assert_eq!(problem(&[("a", 1), ("b", 2)], parts), expected);
    }

    #[test]
    fn a_joined_repartition_topic_follows_the_source() {
        let parts = vec![
            part("0", &["wide"], &["mid"], &[], &[]),
            joined(part("1", &["in"], &[], &[("mid", 0)], &[]), &[0], &[0]),
        ];
        let configured = on(&[("wide", 9), ("in", 2)], parts).unwrap();
        assert_eq!(configured.missing[0].partitions, 2);
        let parts = vec![
            part("0", &["wide"], &["mid"], &[], &[]),
            joined(part("1", &["in"], &[], &[("mid", 3)], &[]), &[0], &[0]),
        ];
        let detail = "Number of partitions [3] of repartition topic [mid] doesn't match number of partitions [2] of the source topic.";
        let expected = Some((StreamsStatusCode::IncorrectlyPartitionedTopics, detail.to_owned()));
        assert_eq!(problem(&[("wide", 9), ("in", 2)], parts), expected);
    }

    #[test]
    fn joined_repartition_topics_get_the_most_or_the_fixed_number() {
        let parts = |fixed| {
            vec![
                part("0", &["a"], &["x"], &[], &[]),
                part("1", &["b"], &["y"], &[], &[]),
                joined(part("2", &[], &[], &[("x", 0), ("y", fixed)], &[]), &[], &[0, 1]),
            ]
        };
        let topics = [("a", 2), ("b", 5)];
        let counts = |fixed| -> Vec<i32> {
            let configured = on(&topics, parts(fixed)).unwrap();
            configured.missing.iter().map(|topic| topic.partitions).collect()
        };
        assert_eq!(counts(0), [5, 5]);
        assert_eq!(counts(3), [3, 3]);
    }

    #[test]
    fn an_internal_topic_with_another_count_is_in_the_way() {
        let parts = vec![part("0", &["in"], &[], &[], &["log"])];
        let detail = "Existing topic log has different number of partitions: expected 4, found 3";
        let expected = Some((StreamsStatusCode::IncorrectlyPartitionedTopics, detail.to_owned()));
        assert_eq!(problem(&[("in", 4), ("log", 3)], parts), expected);
    }

    #[test]
    fn more_tasks_than_a_record_holds_are_refused() {
        let parts = (0..11).map(|id| part(&id.to_string(), &["in"], &[], &[], &[])).collect();
        assert!(refusal(&[("in", 10_000)], parts).contains("110000 tasks"));
    }
}
