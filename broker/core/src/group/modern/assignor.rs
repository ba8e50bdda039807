//! Who is to have which partitions. All assignors are pure and deterministic.
//!
//! - `uniform` (Kafka's default): as even as subscriptions allow, and as close to the previous target as evenness allows.
//! - `range`: per topic, contiguous ranges in order of member ids, so that equal topics are split alike.
//! - `simple` (share groups): every member of a topic shares its partitions; with more partitions than members they are dealt out in turn.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::TopicIdPartitions;

/// Name of the assignor that is used when members do not agree on one.
pub(super) const UNIFORM: &str = "uniform";
/// Name of the range assignor.
pub(super) const RANGE: &str = "range";
/// Name of the share groups' assignor.
pub(super) const SIMPLE: &str = "simple";

/// What an assignor looks at.
pub(super) struct Input<'a> {
    /// Topics that each member subscribes to; only those that exist.
    pub subscriptions: &'a BTreeMap<String, BTreeSet<Uuid>>,
    /// Instance ids of the static members.
    pub instances: &'a BTreeMap<String, String>,
    /// Partition count of each subscribed topic.
    pub topics: &'a BTreeMap<Uuid, i32>,
    /// The target so far.
    pub previous: &'a BTreeMap<String, TopicIdPartitions>,
}

type Target = BTreeMap<String, TopicIdPartitions>;

/// The target assignment by the assignor of this name.
pub(super) fn assign(assignor: &str, input: &Input<'_>) -> Target {
    match assignor {
        RANGE => range(input),
        SIMPLE => simple(input),
        _ => uniform(input),
    }
}

fn give(target: &mut Target, member: &str, topic: Uuid, partition: i32) {
    target
        .entry(member.to_owned())
        .or_default()
        .entry(topic)
        .or_default()
        .insert(partition);
}

fn members_of<'a>(input: &'a Input<'_>, topic: Uuid) -> impl Iterator<Item = &'a str> {
    let subscribed = input.subscriptions.iter().filter(move |(_, topics)| topics.contains(&topic));
    subscribed.map(|(member, _)| member.as_str())
}

fn range(input: &Input<'_>) -> Target {
    let mut target: Target = input
        .subscriptions
        .keys()
        .map(|member| (member.clone(), TopicIdPartitions::new()))
        .collect();
    for (&topic, &count) in input.topics {
        let mut members: Vec<&str> = members_of(input, topic).collect();
        // A static member keeps its range when it comes back under another id.
        members.sort_by_key(|member| {
            let instance = input.instances.get(*member);
            (instance.is_none(), instance)
        });
        let Ok(member_count @ 1..) = i32::try_from(members.len()) else {
            continue;
        };
        let (share, extra) = (count / member_count, count % member_count);
        let mut next = 0;
        for (index, member) in (0..).zip(members) {
            for _ in 0..share + i32::from(index < extra) {
                give(&mut target, member, topic, next);
                next += 1;
            }
        }
    }
    target
}

fn simple(input: &Input<'_>) -> Target {
    let mut target: Target = input
        .subscriptions
        .keys()
        .map(|member| (member.clone(), TopicIdPartitions::new()))
        .collect();
    for (&topic, &count) in input.topics {
        let mut members: Vec<&str> = members_of(input, topic).collect();
        // A static member keeps its range when it comes back under another id.
        members.sort_by_key(|member| {
            let instance = input.instances.get(*member);
            (instance.is_none(), instance)
        });
        if members.is_empty() {
            continue;
        }
        // At least one member per partition, at least one partition per member.
        let rounds = usize::try_from(count).unwrap_or(0).max(members.len());
        for (turn, partition) in (0..rounds).zip((0..count).cycle()) {
            give(&mut target, members[turn % members.len()], topic, partition);
        }
    }
    target
}

/// Keeps what members have up to their even share, hands out the rest to those with the least, then evens out.
fn uniform(input: &Input<'_>) -> Target {
    let mut target: Target = input
        .subscriptions
        .keys()
        .map(|member| (member.clone(), TopicIdPartitions::new()))
        .collect();
    let total: usize = input.topics.values().map(|count| usize::try_from(*count).unwrap_or(0)).sum();
    let Some(quota) = total.checked_div(input.subscriptions.len()) else {
        return target;
    };
    let mut free: BTreeSet<(Uuid, i32)> = input
        .topics
        .iter()
        .flat_map(|(topic, count)| (0..*count).map(|number| (*topic, number)))
        .collect();
    let mut loads: BTreeMap<&str, usize> = input.subscriptions.keys().map(|member| (member.as_str(), 0)).collect();
    let alike = input.subscriptions.values().collect::<BTreeSet<_>>().len() == 1;
    // With equal subscriptions as many members as there are partitions left over may keep one more.
    let mut extras = if alike { total % input.subscriptions.len() } else { 0 };
    for (member, topics) in input.subscriptions {
        for (topic, partitions) in input.previous.get(member).into_iter().flatten() {
            for partition in partitions {
                let load = loads.get(member.as_str()).copied().unwrap_or(0);
                let has_room = !alike || load < quota || load == quota && extras > 0;
                if topics.contains(topic) && has_room && free.remove(&(*topic, *partition)) {
                    if alike && load == quota {
                        extras -= 1;
                    }
                    give(&mut target, member, *topic, *partition);
                    loads.insert(member, load + 1);
                }
            }
        }
    }
    let mut by_load: BTreeSet<(usize, &str)> = loads.iter().map(|(member, load)| (*load, *member)).collect();
    for (topic, partition) in free {
        let wants = |member: &str| input.subscriptions.get(member).is_some_and(|topics| topics.contains(&topic));
        let Some(&(load, member)) = by_load.iter().find(|(_, member)| wants(member)) else {
            continue;
        };
        by_load.remove(&(load, member));
        by_load.insert((load + 1, member));
        give(&mut target, member, topic, partition);
    }
    if !alike {
        even_out(input, &mut target, by_load);
    }
    target
}

/// Moves partitions from members with many to members with at least two fewer that want them. Each move makes the spread smaller, so this ends.
fn even_out(input: &Input<'_>, target: &mut Target, mut by_load: BTreeSet<(usize, &str)>) {
    while let Some((from, to, topic, partition)) = a_move(input, target, &by_load) {
        let of = |member: &str| by_load.iter().find(|(_, other)| *other == member).copied();
        let (Some((from_load, from)), Some((to_load, to))) = (of(&from), of(&to)) else {
            return;
        };
        by_load.remove(&(from_load, from));
        by_load.remove(&(to_load, to));
        by_load.insert((from_load - 1, from));
        by_load.insert((to_load + 1, to));
        if let Some(partitions) = target.get_mut(from).and_then(|topics| topics.get_mut(&topic)) {
            partitions.remove(&partition);
            if partitions.is_empty() {
                target.entry(from.to_owned()).or_default().remove(&topic);
            }
        }
        give(target, to, topic, partition);
    }
}

fn a_move(input: &Input<'_>, target: &Target, by_load: &BTreeSet<(usize, &str)>) -> Option<(String, String, Uuid, i32)> {
    for (from_load, from) in by_load.iter().rev() {
        let lighter = by_load.iter().take_while(|(load, _)| load + 2 <= *from_load);
        for (_, to) in lighter {
            let wanted = input.subscriptions.get(*to)?;
            let owned = target.get(*from).into_iter().flatten();
            let shared = owned
                .filter(|(topic, _)| wanted.contains(topic))
                .find_map(|(topic, partitions)| Some((*topic, *partitions.last()?)));
            if let Some((topic, partition)) = shared {
                return Some(((*from).to_owned(), (*to).to_owned(), topic, partition));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn run(assignor: &str, members: &[(&str, &[u128])], topics: &[(u128, i32)], previous: &Target) -> Target {
        let subscriptions = members
            .iter()
            .map(|(member, topics)| ((*member).to_owned(), topics.iter().map(|topic| id(*topic)).collect()))
            .collect();
        let topics = topics.iter().map(|(topic, count)| (id(*topic), *count)).collect();
        assign(
            assignor,
            &Input {
                subscriptions: &subscriptions,
                instances: &BTreeMap::new(),
                topics: &topics,
                previous,
            },
        )
    }

    fn count(target: &Target, member: &str) -> usize {
        target[member].values().map(BTreeSet::len).sum()
    }

    #[test]
    fn range_splits_equal_topics_alike() {
        let target = run(RANGE, &[("a", &[1, 2]), ("b", &[1, 2])], &[(1, 3), (2, 3)], &Target::new());
        assert_eq!(
            target["a"],
            TopicIdPartitions::from([(id(1), [0, 1].into()), (id(2), [0, 1].into())])
        );
        assert_eq!(target["b"], TopicIdPartitions::from([(id(1), [2].into()), (id(2), [2].into())]));
    }

    #[test]
    fn uniform_moves_no_more_than_it_must() {
        let one = run(UNIFORM, &[("a", &[1])], &[(1, 6)], &Target::new());
        let two = run(UNIFORM, &[("a", &[1]), ("b", &[1])], &[(1, 6)], &one);
        assert_eq!((count(&two, "a"), count(&two, "b")), (3, 3));
        assert!(two["a"][&id(1)].is_subset(&one["a"][&id(1)]));
        let again = run(UNIFORM, &[("a", &[1]), ("b", &[1])], &[(1, 6)], &two);
        assert_eq!(again, two);
    }

    #[test]
    fn uniform_respects_subscriptions() {
        let target = run(
            UNIFORM,
            &[("a", &[1]), ("b", &[1, 2]), ("c", &[2])],
            &[(1, 4), (2, 1)],
            &Target::new(),
        );
        assert!(target["a"].keys().all(|topic| *topic == id(1)) && target["c"].keys().all(|topic| *topic == id(2)));
        assert_eq!((count(&target, "a"), count(&target, "b"), count(&target, "c")), (2, 2, 1));
    }

    #[test]
    fn simple_gives_every_member_something() {
        let target = run(SIMPLE, &[("a", &[1]), ("b", &[1]), ("c", &[1])], &[(1, 2)], &Target::new());
        assert_eq!(["a", "b", "c"].map(|member| count(&target, member)), [1, 1, 1]);
        let target = run(SIMPLE, &[("a", &[1]), ("b", &[1])], &[(1, 5)], &Target::new());
        assert_eq!((count(&target, "a"), count(&target, "b")), (3, 2));
    }

    proptest! {
        #[test]
        fn every_partition_has_one_member_and_loads_are_even(
            subscriptions in proptest::collection::btree_map("[a-e]", proptest::collection::btree_set(0..4_u128, 1..4), 1..5),
            counts in proptest::collection::vec(0..6_i32, 4),
            previous in proptest::collection::btree_map("[a-e]", proptest::collection::btree_map(0..4_u128, proptest::collection::btree_set(0..6_i32, 1..4), 0..4), 0..5),
            assignor in prop_oneof![Just(UNIFORM), Just(RANGE)],
        ) {
            let subscriptions: BTreeMap<String, BTreeSet<Uuid>> =
                subscriptions.into_iter().map(|(member, topics)| (member, topics.into_iter().map(id).collect())).collect();
            let wanted: BTreeSet<Uuid> = subscriptions.values().flatten().copied().collect();
            let topics: BTreeMap<Uuid, i32> = (0..4_u128).zip(counts).map(|(topic, count)| (id(topic), count)).filter(|(topic, _)| wanted.contains(topic)).collect();
            let previous: Target = previous
                .into_iter()
                .map(|(member, topics)| (member, topics.into_iter().map(|(topic, partitions)| (id(topic), partitions)).collect()))
                .collect();
            let target = assign(assignor, &Input { subscriptions: &subscriptions, instances: &BTreeMap::new(), topics: &topics, previous: &previous });
            let mut seen = BTreeSet::new();
            for (member, assigned) in &target {
                for (topic, partitions) in assigned {
                    prop_assert!(subscriptions[member].contains(topic));
                    for partition in partitions {
                        prop_assert!(*partition < topics[topic]);
                        prop_assert!(seen.insert((*topic, *partition)), "two members have it");
                    }
                }
            }
            let total: i32 = topics.values().sum();
            prop_assert_eq!(seen.len(), usize::try_from(total).unwrap());
            if assignor == UNIFORM && subscriptions.values().collect::<BTreeSet<_>>().len() == 1 {
                let loads: Vec<usize> = target.keys().map(|member| count(&target, member)).collect();
                prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1);
            }
        }
    }
}
