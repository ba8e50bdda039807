//! The sticky assignor: who runs and who copies which task.
//!
//! A task stays with the member that had it, as long as that one has not more than its share; else it goes to a member with a copy of its
//! state; else to where least is to do. The share is what is left of the work over the members that are not full.
//!
//! A *process* is the members that say they are in one: they share a disk, so one process never has two copies of a task, and what a
//! process has to do is counted against its number of members.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{RoleTasks, StreamsGroup, Task, topology::Configured};

/// What is left to give, and the share of each member that is not full.
struct Quota {
    tasks: usize,
    members: usize,
    share: usize,
}

impl Quota {
    fn new(tasks: usize, members: usize) -> Self {
        let share = if members == 0 { 0 } else { tasks.div_ceil(members) };
        Self { tasks, members, share }
    }

    /// A member has `count` tasks now. One that has its share is full: the others share the rest.
    fn count(&mut self, count: usize) {
        if count == self.share {
            *self = Self::new(self.tasks.saturating_sub(count), self.members.saturating_sub(1));
        }
    }
}

/// Tasks of a process over its members, as a fraction, so that it can be ordered without rounding.
#[derive(Debug, Clone, Copy)]
struct Load {
    tasks: usize,
    members: usize,
}

impl Ord for Load {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.tasks * other.members).cmp(&(other.tasks * self.members))
    }
}

impl PartialOrd for Load {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Load {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Load {}

#[derive(Default)]
struct Process {
    tasks: usize,
    /// Members by number of tasks.
    by_count: BTreeSet<(usize, usize)>,
    has: BTreeSet<Task>,
}

impl Process {
    fn load(&self) -> Load {
        Load {
            tasks: self.tasks,
            members: self.by_count.len(),
        }
    }
}

struct Member {
    process: usize,
    count: usize,
    tasks: RoleTasks,
}

struct Work {
    members: Vec<Member>,
    processes: Vec<Process>,
    by_load: BTreeSet<(Load, usize)>,
    active_quota: Quota,
    total_quota: Quota,
}

impl Work {
    fn give(&mut self, task: &Task, member: usize, is_active: bool) {
        let Some(to) = self.members.get_mut(member) else { return };
        let Some(process) = self.processes.get_mut(to.process) else {
            return;
        };
        self.by_load.remove(&(process.load(), to.process));
        process.by_count.remove(&(to.count, member));
        to.count += 1;
        process.tasks += 1;
        process.by_count.insert((to.count, member));
        process.has.insert(task.clone());
        self.by_load.insert((process.load(), to.process));
        let tasks = if is_active { &mut to.tasks.active } else { &mut to.tasks.standby };
        tasks.insert(task.clone());
        self.active_quota.count(to.count);
        self.total_quota.count(to.count);
    }

    fn count(&self, member: usize) -> usize {
        self.members.get(member).map_or(0, |member| member.count)
    }

    fn process(&self, member: usize) -> Option<&Process> {
        self.processes.get(self.members.get(member)?.process)
    }

    fn has_copy(&self, member: usize, task: &Task) -> bool {
        self.process(member).is_some_and(|process| process.has.contains(task))
    }

    /// The first of these, or a later one that has less to do, as has its process.
    fn least_busy(&self, candidates: impl Iterator<Item = usize>) -> Option<usize> {
        let mut best: Option<usize> = None;
        for candidate in candidates {
            let is_better = best.is_none_or(|best| {
                let loads = (self.process(candidate).map(Process::load), self.process(best).map(Process::load));
                loads.0 < loads.1 && self.count(candidate) < self.count(best)
            });
            if is_better {
                best = Some(candidate);
            }
        }
        best
    }

    /// The least busy member of the least busy process without a copy.
    fn freest(&self, task: &Task) -> Option<usize> {
        let mut processes = self.by_load.iter().filter_map(|(_, process)| self.processes.get(*process));
        let process = processes.find(|process| !process.has.contains(task))?;
        process.by_count.first().map(|(_, member)| *member)
    }
}

/// Assigns every task of a ready topology to the members of a group, which has at least one.
pub(super) fn assign(group: &StreamsGroup, configured: &Configured, standby_replicas: usize) -> BTreeMap<String, RoleTasks> {
    let ids: Vec<&String> = group.members.keys().collect();
    let mut active: Vec<Task> = Vec::new();
    let mut stateful: Vec<Task> = Vec::new();
    for (id, part) in &configured.parts {
        let subtopology: Arc<str> = id.as_str().into();
        for partition in 0..part.tasks {
            let task = Task {
                subtopology: Arc::clone(&subtopology),
                partition,
            };
            if part.is_stateful && standby_replicas > 0 {
                stateful.push(task.clone());
            }
            active.push(task);
        }
    }
    let by_partition = |one: &Task, other: &Task| (one.partition, &one.subtopology).cmp(&(other.partition, &other.subtopology));
    active.sort_by(by_partition);
    stateful.sort_by(|one, other| by_partition(other, one));
    let mut work = start(group, active.len(), stateful.len() * standby_replicas);
    let mut had_active: BTreeMap<&Task, usize> = BTreeMap::new();
    let mut had_standby: BTreeMap<&Task, Vec<usize>> = BTreeMap::new();
    for (member, target) in ids
        .iter()
        .enumerate()
        .filter_map(|(member, id)| Some((member, group.target.get(*id)?)))
    {
        had_active.extend(target.active.iter().map(|task| (task, member)));
        for task in &target.standby {
            had_standby.entry(task).or_default().push(member);
        }
    }
    give_active(&mut work, active, &had_active, &had_standby);
    give_standby(&mut work, stateful, standby_replicas, &had_active, &had_standby);
    let tasks = work.members.into_iter().map(|member| member.tasks);
    ids.into_iter().cloned().zip(tasks).collect()
}

fn start(group: &StreamsGroup, active: usize, copies: usize) -> Work {
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut processes: Vec<Process> = Vec::new();
    let mut members = Vec::new();
    for (number, member) in group.members.values().enumerate() {
        let process = *numbers.entry(&member.metadata.process_id).or_insert_with(|| {
            processes.push(Process::default());
            processes.len() - 1
        });
        if let Some(process) = processes.get_mut(process) {
            process.by_count.insert((0, number));
        }
        members.push(Member {
            process,
            count: 0,
            tasks: RoleTasks::default(),
        });
    }
    let by_load = processes
        .iter()
        .enumerate()
        .map(|(number, process)| (process.load(), number))
        .collect();
    Work {
        active_quota: Quota::new(active, members.len()),
        total_quota: Quota::new(active + copies, members.len()),
        members,
        processes,
        by_load,
    }
}

fn give_active(work: &mut Work, tasks: Vec<Task>, had_active: &BTreeMap<&Task, usize>, had_standby: &BTreeMap<&Task, Vec<usize>>) {
    let mut rest = Vec::new();
    for task in tasks {
        match had_active.get(&task) {
            Some(member) if work.count(*member) < work.active_quota.share => work.give(&task, *member, true),
            _ => rest.push(task),
        }
    }
    let mut last = Vec::new();
    for task in rest {
        let standbys = had_standby.get(&task).into_iter().flatten().copied();
        match work.least_busy(standbys) {
            Some(member) if work.count(member) < work.active_quota.share => work.give(&task, member, true),
            _ => last.push(task),
        }
    }
    last.sort();
    for task in last {
        if let Some(member) = work.freest(&task) {
            work.give(&task, member, true);
        }
    }
}

fn give_standby(
    work: &mut Work,
    tasks: Vec<Task>,
    replicas: usize,
    had_active: &BTreeMap<&Task, usize>,
    had_standby: &BTreeMap<&Task, Vec<usize>>,
) {
    let mut aside: Vec<(Task, usize)> = Vec::new();
    for task in tasks {
        for given in 0..replicas {
            let has_room = |work: &Work, member: usize| work.count(member) < work.total_quota.share;
            let previous = had_active.get(&task).copied().filter(|member| !work.has_copy(*member, &task));
            let standbys = had_standby.get(&task).into_iter().flatten().copied();
            let member = previous.filter(|member| has_room(work, *member)).or_else(|| {
                let without_copy = standbys.filter(|member| !work.has_copy(*member, &task));
                work.least_busy(without_copy).filter(|member| has_room(work, *member))
            });
            let Some(member) = member else {
                aside.push((task.clone(), replicas - given));
                break;
            };
            work.give(&task, member, false);
        }
    }
    aside.sort_by(|one, other| other.cmp(one));
    for (task, replicas) in aside {
        for _ in 0..replicas {
            // Fewer processes than copies: the rest is not made.
            let Some(member) = work.freest(&task) else { break };
            work.give(&task, member, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{MemberMetadata, StreamsMember, topology::ConfiguredPart},
        *,
    };

    fn configured(parts: &[(&str, i32, bool)]) -> Configured {
        let part = |(id, tasks, is_stateful): &(&str, i32, bool)| {
            let part = ConfiguredPart {
                tasks: *tasks,
                is_stateful: *is_stateful,
            };
            ((*id).to_owned(), part)
        };
        Configured {
            parts: parts.iter().map(part).collect(),
            ..Configured::default()
        }
    }

    fn group(members: &[(&str, &str)]) -> StreamsGroup {
        let member = |(id, process): &(&str, &str)| {
            let metadata = MemberMetadata {
                process_id: (*process).to_owned(),
                ..MemberMetadata::default()
            };
            let member = StreamsMember {
                metadata,
                ..StreamsMember::default()
            };
            ((*id).to_owned(), member)
        };
        StreamsGroup {
            members: members.iter().map(member).collect(),
            ..StreamsGroup::default()
        }
    }

    fn assign_to(group: &mut StreamsGroup, configured: &Configured, replicas: usize) {
        group.target = assign(group, configured, replicas);
    }

    fn sizes(group: &StreamsGroup) -> Vec<(usize, usize)> {
        group
            .target
            .values()
            .map(|tasks| (tasks.active.len(), tasks.standby.len()))
            .collect()
    }

    #[test]
    fn tasks_are_spread_and_stay_when_a_member_joins() {
        let topology = configured(&[("0", 4, false), ("1", 2, true)]);
        let mut one = group(&[("a", "p"), ("b", "q")]);
        assign_to(&mut one, &topology, 0);
        assert_eq!(sizes(&one), [(3, 0), (3, 0)]);
        let mut two = group(&[("a", "p"), ("b", "q"), ("c", "r")]);
        two.target = one.target.clone();
        assign_to(&mut two, &topology, 0);
        assert_eq!(sizes(&two), [(2, 0), (2, 0), (2, 0)]);
        for id in ["a", "b"] {
            assert!(two.target[id].active.is_subset(&one.target[id].active), "{id} got a new task");
        }
    }

    #[test]
    fn a_standby_takes_over() {
        let topology = configured(&[("0", 3, true)]);
        let mut one = group(&[("a", "p"), ("b", "q"), ("c", "r")]);
        assign_to(&mut one, &topology, 1);
        assert_eq!(one.target.values().map(|tasks| tasks.standby.len()).sum::<usize>(), 3);
        let mut two = group(&[("b", "q"), ("c", "r")]);
        two.target = one.target.clone();
        assign_to(&mut two, &topology, 1);
        for task in &one.target["a"].active {
            let copies = ["b", "c"].into_iter().filter(|id| one.target[*id].standby.contains(task));
            let [copy] = copies.collect::<Vec<_>>()[..] else {
                panic!("copies of {task:?}")
            };
            assert!(two.target[copy].active.contains(task), "{task:?} is not where its copy was");
        }
    }

    #[test]
    fn one_process_gets_no_second_copy() {
        let topology = configured(&[("0", 3, true)]);
        let mut group = group(&[("a", "p"), ("b", "p")]);
        assign_to(&mut group, &topology, 2);
        assert_eq!(group.target.values().map(|tasks| tasks.standby.len()).sum::<usize>(), 0);
    }

    proptest! {
        /// Every task is active once; no process has two copies; there are as many standbys as processes allow.
        #[test]
        fn assignments_are_complete_and_safe(
            parts in prop::collection::vec((0..9_i32, any::<bool>()), 1..4),
            rounds in prop::collection::vec(prop::collection::vec((0..8_u8, 0..4_u8), 1..7), 1..5),
            replicas in 0..3_usize,
        ) {
            let names: Vec<String> = (0..parts.len()).map(|id| id.to_string()).collect();
            let parts: Vec<_> = names.iter().zip(&parts).map(|(id, (tasks, stateful))| (id.as_str(), *tasks, *stateful)).collect();
            let topology = configured(&parts);
            let mut target = BTreeMap::new();
            for round in rounds {
                let members: Vec<(String, String)> = round.iter().map(|(id, process)| (format!("m{id}"), format!("p{process}"))).collect();
                let named: Vec<_> = members.iter().map(|(id, process)| (id.as_str(), process.as_str())).collect();
                let mut group = group(&named);
                group.target = target;
                assign_to(&mut group, &topology, replicas);
                prop_assert_eq!(group.target.keys().collect::<Vec<_>>(), group.members.keys().collect::<Vec<_>>());
                let processes: BTreeSet<_> = group.members.values().map(|member| &member.metadata.process_id).collect();
                for (id, tasks, is_stateful) in &parts {
                    for partition in 0..*tasks {
                        let task = Task { subtopology: (*id).into(), partition };
                        let active = group.target.values().filter(|tasks| tasks.active.contains(&task)).count();
                        prop_assert_eq!(active, 1);
                        let mut holders = Vec::new();
                        for (member, tasks) in &group.target {
                            let copies = usize::from(tasks.active.contains(&task)) + usize::from(tasks.standby.contains(&task));
                            holders.extend(vec![&group.members[member].metadata.process_id; copies]);
                        }
                        let distinct: BTreeSet<_> = holders.iter().collect();
                        prop_assert_eq!(distinct.len(), holders.len());
                        let copies = if *is_stateful { replicas.min(processes.len() - 1) } else { 0 };
                        prop_assert_eq!(holders.len(), 1 + copies);
                    }
                }
                let counted: usize = group.target.values().map(|tasks| tasks.active.len()).sum();
                prop_assert_eq!(counted, parts.iter().map(|(_, tasks, _)| usize::try_from(*tasks).unwrap()).sum::<usize>());
                target = group.target;
            }
        }
    }
}
