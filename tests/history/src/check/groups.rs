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

/// I10: owners by time.
pub(super) fn check_owners(history: &History, found: &mut Found) {
    let mut owners: BTreeMap<&str, BTreeMap<Partition, &str>> = BTreeMap::new();
    for (at_ms, event) in &history.events {
        match event {
            Event::Holds { group, member, partitions } => {
                let owners = owners.entry(group).or_default();
                owners.retain(|partition, owner| *owner != member || partitions.contains(partition));
                for partition in partitions {
                    let owner = owners.entry(*partition).or_insert(member);
                    if *owner != member {
                        found.add("I10", format!("{group} at {at_ms}: {owner} and {member} own {partition}"));
                    }
                }
            }
            Event::AtRest { group, partitions } => {
                let owned: BTreeSet<&Partition> = owners.get(group.as_str()).into_iter().flat_map(BTreeMap::keys).collect();
                for partition in partitions.iter().filter(|partition| !owned.contains(partition)) {
                    found.add("I10", format!("{group} at {at_ms}: nobody owns {partition}"));
                }
            }
            _ => {}
        }
    }
}
