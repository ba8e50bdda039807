//! A member's next step towards its target.

use std::collections::{BTreeMap, BTreeSet};

use millstream_protocol::ErrorCode;

use super::{CurrentTasks, HeldTasks, RoleTasks, StreamsGroup, Task, TaskState, Tasks};
use crate::group::modern::ModernRefusal;

/// What the member should have next. `owned` is what it says it has, if it says so.
///
/// # Errors
/// FENCED_MEMBER_EPOCH if the log says something about the member that only a newer version understands, and the member has tasks.
pub(super) fn next_tasks(
    group: &StreamsGroup,
    member_id: &str,
    current: &CurrentTasks,
    target_epoch: i32,
    target: &RoleTasks,
    owned: Option<&RoleTasks>,
) -> Result<CurrentTasks, ModernRefusal> {
    let from = match current.state {
        TaskState::Stable if current.epoch == target_epoch => return Ok(current.clone()),
        TaskState::Stable | TaskState::UnreleasedTasks => current.epoch,
        // It has not confirmed that it gave up what it was told to.
        TaskState::UnrevokedTasks if owned.is_none_or(|owned| has_any(owned, &current.revoking)) => return Ok(current.clone()),
        // It has given up what it was told to: another thing that is taken away has its own time.
        TaskState::UnrevokedTasks => (current.epoch + 1).min(target_epoch),
        TaskState::Unknown if owned.is_none_or(|owned| *owned != RoleTasks::default()) => {
            let message = "The streams group member is in a unknown state. The member must abandon all its tasks and rejoin.";
            return Err(ModernRefusal::new(ErrorCode::FencedMemberEpoch, message));
        }
        TaskState::Unknown => target_epoch,
    };
    Ok(step(group, member_id, current, from, target_epoch, target, owned))
}

fn step(
    group: &StreamsGroup,
    member_id: &str,
    current: &CurrentTasks,
    from: i32,
    target_epoch: i32,
    target: &RoleTasks,
    owned: Option<&RoleTasks>,
) -> CurrentTasks {
    let assigned = &current.assigned;
    let (kept_active, revoked_active): (BTreeMap<_, _>, BTreeMap<_, _>) = assigned
        .active
        .clone()
        .into_iter()
        .partition(|(task, _)| target.active.contains(task));
    let (kept_standby, revoked_standby) = split(&assigned.standby, &target.standby);
    let (kept_warmup, revoked_warmup) = split(&assigned.warmup, &target.warmup);
    let mut kept = HeldTasks {
        active: kept_active,
        standby: kept_standby,
        warmup: kept_warmup,
    };
    let revoking = HeldTasks {
        active: revoked_active,
        standby: revoked_standby,
        warmup: revoked_warmup,
    };
    if !revoking.is_empty() && owned.is_none_or(|owned| has_any(owned, &revoking)) {
        // Its epoch stays: commits under it must work until it has given up.
        return CurrentTasks {
            epoch: from,
            previous_epoch: current.epoch,
            state: TaskState::UnrevokedTasks,
            assigned: kept,
            revoking,
        };
    }
    let held = Held::of(group, member_id);
    let (free, taken): (Vec<&Task>, Vec<&Task>) = target
        .active
        .iter()
        .filter(|task| !kept.active.contains_key(*task))
        .partition(|task| !held.active.contains(*task) && !held.copied_by_process.contains(*task));
    let mut must_wait = !taken.is_empty();
    kept.active.extend(free.into_iter().map(|task| (task.clone(), target_epoch)));
    for (wanted, has) in [(&target.standby, &mut kept.standby), (&target.warmup, &mut kept.warmup)] {
        for task in wanted {
            if has.contains(task) {
            } else if held.run_by_process.contains(task) || held.copied_by_process.contains(task) {
                must_wait = true;
            } else {
                has.insert(task.clone());
            }
        }
    }
    CurrentTasks {
        epoch: target_epoch,
        previous_epoch: current.epoch,
        state: if must_wait { TaskState::UnreleasedTasks } else { TaskState::Stable },
        assigned: kept,
        revoking: HeldTasks::default(),
    }
}

/// Who has what, by the last records: assigned, or still to be given up.
#[derive(Default)]
struct Held<'a> {
    /// Active anywhere.
    active: BTreeSet<&'a Task>,
    /// Active in the member's process.
    run_by_process: BTreeSet<&'a Task>,
    /// Standby or warm-up in the member's process.
    copied_by_process: BTreeSet<&'a Task>,
}

impl<'a> Held<'a> {
    fn of(group: &'a StreamsGroup, member_id: &str) -> Self {
        let process_id = group.members.get(member_id).map(|member| &member.metadata.process_id);
        let mut held = Self::default();
        for member in group.members.values() {
            let is_same_process = Some(&member.metadata.process_id) == process_id;
            for tasks in [&member.current.assigned, &member.current.revoking] {
                held.active.extend(tasks.active.keys());
                if is_same_process {
                    held.run_by_process.extend(tasks.active.keys());
                    held.copied_by_process.extend(tasks.standby.iter().chain(&tasks.warmup));
                }
            }
        }
        held
    }
}

fn split(has: &Tasks, target: &Tasks) -> (Tasks, Tasks) {
    has.iter().cloned().partition(|task| target.contains(task))
}

fn has_any(owned: &RoleTasks, tasks: &HeldTasks) -> bool {
    tasks.active.keys().any(|task| owned.active.contains(task))
        || !owned.standby.is_disjoint(&tasks.standby)
        || !owned.warmup.is_disjoint(&tasks.warmup)
}

/// Whether a member that says it has `owned` has nothing but what it was given.
pub(super) fn owns_only(owned: &RoleTasks, assigned: &HeldTasks) -> bool {
    owned.active.iter().all(|task| assigned.active.contains_key(task))
        && owned.standby.is_subset(&assigned.standby)
        && owned.warmup.is_subset(&assigned.warmup)
}
