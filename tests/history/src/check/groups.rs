//! I9 and I10: what groups commit and own.

use std::collections::{BTreeMap, BTreeSet};

use super::{Ended, Found};
use crate::history::{Answer, Call, Event, History, Partition};

/// What was committed for a group's partition.
#[derive(Default)]
struct Commits {
    /// Offset, with the first time that somebody tried to commit it and was not refused.
    tried: BTreeMap<i64, usize>,
    /// Times of acknowledgement, with the largest offset acknowledged until then.
    acknowledged: BTreeMap<usize, i64>,
}

impl Commits {
    fn add(&mut self, ended: &Ended<'_>, offset: i64) {
        if ended.has_failed() {
            return;
        }
        self.tried.entry(offset).or_insert(ended.invoked);
        if let Some((at, _)) = ended.ok() {
            self.acknowledged.insert(at, offset);
        }
    }

    fn raise(&mut self) {
        let mut largest = i64::MIN;
        for offset in self.acknowledged.values_mut() {
            largest = largest.max(*offset);
            *offset = largest;
        }
    }
}

/// I9: commits. Members read on from what was committed and never go back, so the group's commits only grow.
pub(super) fn check_commits(calls: &[Ended<'_>], found: &mut Found) {
    let mut commits: BTreeMap<(&str, Partition), Commits> = BTreeMap::new();
    for ended in calls {
        if let Call::Commit { group, partition, offset } = ended.call {
            commits.entry((group, *partition)).or_default().add(ended, *offset);
        }
    }
    commits.values_mut().for_each(Commits::raise);
    let none = Commits::default();
    for ended in calls {
        let (Call::FetchCommitted { group, partition }, Some((answered, Answer::Committed(committed)))) = (ended.call, ended.ok()) else {
            continue;
        };
        let known = commits.get(&(group.as_str(), *partition)).unwrap_or(&none);
        if let Some((_, acknowledged)) = known.acknowledged.range(..ended.invoked).next_back()
            && committed < acknowledged
        {
            found.add(
                "I9",
                format!("{group} {partition}: {committed} is committed after {acknowledged} was acknowledged"),
            );
        }
        if *committed != -1 && known.tried.get(committed).is_none_or(|invoked| *invoked > answered) {
            found.add("I9", format!("{group} {partition}: nobody committed {committed}"));
        }
    }
}

/// I10: owners by generation, as the leader of a classic group decided.
pub(super) fn check_generations(calls: &[Ended<'_>], found: &mut Found) {
    let mut owners: BTreeMap<(i32, i32), &str> = BTreeMap::new();
    for ended in calls {
        let (Call::Sync { generation, member }, Some((_, Answer::Owns(numbers)))) = (ended.call, ended.ok()) else {
            continue;
        };
        for number in numbers {
            let owner = owners.entry((*generation, *number)).or_insert(member);
            if *owner != member {
                found.add(
                    "I10",
                    format!("generation {generation}: {owner} and {member} own partition {number}"),
                );
            }
        }
    }
}

/// I10: owners by time. A member that was silent for longer than its session believes until it is heard again that it has what others
/// have by then; that it lost it, it says.
pub(super) fn check_owners(history: &History, found: &mut Found) {
    let mut owners: BTreeMap<&str, BTreeMap<Partition, BTreeSet<&str>>> = BTreeMap::new();
    // By group, member and partition: who got what the member still had, and when.
    let mut taken: BTreeMap<(&str, &str, Partition), (&str, i64)> = BTreeMap::new();
    let complain = |found: &mut Found, (group, member, partition): (&str, &str, Partition), (other, at_ms): (&str, i64)| {
        found.add("I10", format!("{group} at {at_ms}: {member} and {other} own {partition}"));
    };
    for (at_ms, event) in &history.events {
        match event {
            Event::Holds {
                group,
                member,
                partitions,
                lost,
            } => {
                for (partition, owners) in owners.entry(group).or_default() {
                    if !partitions.contains(partition) && owners.remove(member.as_str()) {
                        let key = (group.as_str(), member.as_str(), *partition);
                        if let Some(other) = taken.remove(&key).filter(|_| !lost) {
                            complain(found, key, other);
                        }
                    }
                }
                for partition in partitions {
                    let owners = owners.entry(group).or_default().entry(*partition).or_default();
                    if owners.insert(member) {
                        for owner in owners.iter().filter(|owner| **owner != member.as_str()) {
                            taken.entry((group, owner, *partition)).or_insert((member, *at_ms));
                        }
                    }
                }
            }
            Event::AtRest { group, partitions } => {
                let owners = owners.get(group.as_str());
                let is_owned = |partition: &&Partition| {
                    owners
                        .and_then(|owners| owners.get(partition))
                        .is_some_and(|owners| !owners.is_empty())
                };
                for partition in partitions.iter().filter(|partition| !is_owned(partition)) {
                    found.add("I10", format!("{group} at {at_ms}: nobody owns {partition}"));
                }
            }
            _ => {}
        }
    }
    for (key, other) in taken {
        complain(found, key, other);
    }
}
