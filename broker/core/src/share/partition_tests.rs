//! Claims about single steps, and random histories against a record-by-record model.

use std::{collections::BTreeMap, sync::Arc};

use millstream_protocol::ErrorCode;
use proptest::prelude::*;

use super::*;

const LIMITS: ShareLimits = ShareLimits {
    in_flight_max: 100,
    delivery_count_max: 2,
    lock_duration_ms: 30,
};

fn batch(first_offset: i64, last_offset: i64) -> LogBatch {
    LogBatch {
        first_offset,
        last_offset,
        is_hidden: false,
    }
}

fn scan(batches: &[LogBatch]) -> LogScan<'_> {
    LogScan {
        first_offset: batches[0].first_offset,
        batches,
    }
}

/// Sends what is given up to a dead-letter topic, as it were.
fn bury(partition: &mut SharePartition) -> Vec<GivenUp> {
    let given_up = partition.given_up(&LIMITS);
    partition.bury(&given_up);
    given_up
}

fn member(name: &str) -> Arc<str> {
    name.into()
}

fn got(first_offset: i64, last_offset: i64, delivery_count: i16) -> Acquired {
    Acquired {
        first_offset,
        last_offset,
        delivery_count,
    }
}

#[test]
fn two_members_get_different_records() {
    let mut partition = SharePartition::starting_at(5);
    assert_eq!(partition.next_offset(&LIMITS), Some(5));
    let a = partition.acquire(0, &member("a"), &LIMITS, scan(&[batch(5, 9)]), 500, false);
    assert_eq!(a, [got(5, 9, 1)]);
    assert_eq!(partition.next_offset(&LIMITS), Some(10));
    let b = partition.acquire(0, &member("b"), &LIMITS, scan(&[batch(5, 9), batch(10, 12)]), 500, false);
    assert_eq!(b, [got(10, 12, 1)]);
}

#[test]
fn accepted_records_move_the_start_and_released_ones_come_again() {
    let mut partition = SharePartition::starting_at(0);
    partition.acquire(0, &member("a"), &LIMITS, scan(&[batch(0, 9)]), 500, false);
    let types = vec![AcknowledgeType::Accept];
    partition
        .acknowledge(1, "a", &LIMITS, &[(0, 3, types.clone()), (5, 9, types)])
        .unwrap();
    assert_eq!(partition.start_offset(), 4);
    partition
        .acknowledge(1, "a", &LIMITS, &[(4, 4, vec![AcknowledgeType::Release])])
        .unwrap();
    assert_eq!(partition.next_offset(&LIMITS), Some(4));
    let again = partition.acquire(2, &member("b"), &LIMITS, scan(&[batch(0, 9)]), 500, false);
    assert_eq!(again, [got(4, 4, 2)]);
    partition
        .acknowledge(3, "b", &LIMITS, &[(4, 4, vec![AcknowledgeType::Release])])
        .unwrap();
    assert_eq!(
        partition.start_offset(),
        4,
        "delivered twice: given up, but in no dead-letter topic yet"
    );
    let reloaded = SharePartition::from_state(&partition.to_state(0));
    assert_eq!(reloaded.given_up(&LIMITS), partition.given_up(&LIMITS));
    let given_up = bury(&mut partition);
    assert_eq!((partition.start_offset(), partition.given_up(&LIMITS)), (10, vec![]));
    assert_eq!(
        (given_up.len(), given_up[0].first_offset, given_up[0].reason),
        (1, 4, GivenUpReason::DeliveryCount)
    );
}

#[test]
fn a_lock_that_ran_out_frees_its_records_unless_it_is_renewed() {
    let mut partition = SharePartition::starting_at(0);
    partition.acquire(0, &member("a"), &LIMITS, scan(&[batch(0, 1)]), 500, false);
    assert_eq!(partition.next_deadline(), Some(30));
    partition
        .acknowledge(20, "a", &LIMITS, &[(1, 1, vec![AcknowledgeType::Renew])])
        .unwrap();
    partition.expire_locks(30, &LIMITS);
    assert_eq!((partition.next_offset(&LIMITS), partition.next_deadline()), (Some(0), Some(50)));
    let late = partition.acknowledge(31, "a", &LIMITS, &[(0, 0, vec![AcknowledgeType::Accept])]);
    assert_eq!(late, Err(ErrorCode::InvalidRecordState));
}

/// What one member gets of eight records: it gives back what comes with the third, and accepts the rest.
#[test]
fn a_record_that_nobody_can_process_goes_alone_in_the_end() {
    let limits = ShareLimits {
        delivery_count_max: 5,
        ..LIMITS
    };
    let mut partition = SharePartition::starting_at(0);
    let mut deliveries = Vec::new();
    for round in 0_i64..12 {
        let got = partition.acquire(round * 100, &member("a"), &limits, scan(&[batch(0, 7)]), 500, false);
        deliveries.push(
            got.iter()
                .map(|run| (run.first_offset, run.last_offset, run.delivery_count))
                .collect::<Vec<_>>(),
        );
        let takes_poison = got.iter().any(|run| (run.first_offset..=run.last_offset).contains(&2));
        for run in got {
            let kind = if takes_poison {
                AcknowledgeType::Release
            } else {
                AcknowledgeType::Accept
            };
            partition
                .acknowledge(round * 100, "a", &limits, &[(run.first_offset, run.last_offset, vec![kind])])
                .unwrap();
        }
    }
    let wanted: [&[(i64, i64, i16)]; 12] = [
        &[(0, 7, 1)],
        &[(0, 7, 2)],
        &[(0, 7, 3)],
        // Half of the batch, then each for the last time alone, then the other half.
        &[(0, 3, 4)],
        &[(0, 0, 5)],
        &[(1, 1, 5)],
        &[(2, 2, 5)],
        &[(3, 3, 5)],
        &[(4, 7, 4)],
        &[],
        &[],
        &[],
    ];
    assert_eq!(deliveries, wanted);
    assert_eq!(
        partition
            .given_up(&limits)
            .iter()
            .map(|gone| (gone.first_offset, gone.last_offset))
            .collect::<Vec<_>>(),
        [(2, 2)]
    );
}

#[test]
fn nobody_answers_for_what_it_does_not_hold() {
    let mut partition = SharePartition::starting_at(0);
    partition.acquire(0, &member("a"), &LIMITS, scan(&[batch(0, 3)]), 500, false);
    let accept = || vec![AcknowledgeType::Accept];
    let before = partition.clone();
    for bad in [(0, 0, accept()), (0, 9, accept())] {
        assert_eq!(partition.acknowledge(1, "b", &LIMITS, &[bad]), Err(ErrorCode::InvalidRecordState));
    }
    let half = [(0, 1, accept()), (2, 8, accept())];
    assert_eq!(partition.acknowledge(1, "a", &LIMITS, &half), Err(ErrorCode::InvalidRecordState));
    for bad in [
        (3, 2, accept()),
        (0, 3, vec![]),
        (0, 3, vec![AcknowledgeType::Accept; 2]),
        (-1, 0, accept()),
        (0, i64::MAX, accept()),
    ] {
        assert!(partition.acknowledge(1, "a", &LIMITS, &[bad]).is_err());
    }
    assert_eq!(partition, before, "all or nothing");
}

#[test]
fn a_strict_limit_is_kept_to_the_record() {
    let mut partition = SharePartition::starting_at(0);
    let batches = [batch(0, 9), batch(10, 19)];
    assert_eq!(partition.acquire(0, &member("a"), &LIMITS, scan(&batches), 3, true), [got(0, 2, 1)]);
    assert_eq!(
        partition.acquire(0, &member("a"), &LIMITS, scan(&batches), 8, false),
        [got(3, 9, 1), got(10, 19, 1)]
    );
}

#[test]
fn no_more_than_the_limit_is_in_flight() {
    let mut partition = SharePartition::starting_at(0);
    let acquired = partition.acquire(0, &member("a"), &LIMITS, scan(&[batch(0, 149)]), 500, false);
    assert_eq!(acquired, [got(0, 99, 1)]);
    assert_eq!(partition.next_offset(&LIMITS), None);
}

#[test]
fn holes_and_hidden_batches_are_passed_over() {
    let mut partition = SharePartition::starting_at(0);
    let hidden = LogBatch {
        is_hidden: true,
        ..batch(3, 4)
    };
    let read = LogScan {
        first_offset: 0,
        batches: &[batch(2, 2), hidden, batch(5, 5)],
    };
    let acquired = partition.acquire(0, &member("a"), &LIMITS, read, 500, false);
    assert_eq!(acquired, [got(2, 2, 1), got(5, 5, 1)]);
    partition
        .acknowledge(1, "a", &LIMITS, &[(2, 2, vec![AcknowledgeType::Accept])])
        .unwrap();
    assert_eq!(partition.start_offset(), 5);
}

#[test]
fn a_hole_that_compaction_made_later_stops_nobody() {
    let mut partition = SharePartition::starting_at(0);
    partition.acquire(0, &member("a"), &LIMITS, scan(&[batch(0, 4), batch(5, 9)]), 500, false);
    partition.release_all("a", &LIMITS);
    assert_eq!(partition.next_offset(&LIMITS), Some(0));
    let read = LogScan {
        first_offset: 0,
        batches: &[batch(5, 6), batch(8, 9)],
    };
    let acquired = partition.acquire(1, &member("b"), &LIMITS, read, 500, false);
    assert_eq!(acquired, [got(5, 6, 2), got(8, 9, 2)]);
    assert_eq!((partition.start_offset(), partition.next_offset(&LIMITS)), (5, Some(10)));
}

#[test]
fn a_hole_longer_than_what_may_be_in_flight_is_passed_at_once() {
    let mut partition = SharePartition::starting_at(0);
    let hidden = LogBatch {
        is_hidden: true,
        ..batch(0, 5_000)
    };
    let acquired = partition.acquire(0, &member("a"), &LIMITS, scan(&[hidden, batch(9_000, 9_001)]), 500, false);
    assert_eq!((acquired, partition.start_offset()), (vec![got(9_000, 9_001, 1)], 9_000));
}

#[test]
fn damaged_states_are_read_without_overflow() {
    let mut state = SharePartition::starting_at(0).to_state(0);
    state.batches.push(StateBatch {
        first_offset: 0,
        last_offset: i64::MAX,
        state: 2,
        delivery_count: 1,
    });
    assert_eq!(SharePartition::from_state(&state).start_offset(), 0);
}

#[test]
fn what_is_written_reads_back_without_locks() {
    let mut partition = SharePartition::starting_at(0);
    partition.acquire(0, &member("a"), &LIMITS, scan(&[batch(0, 9)]), 500, false);
    partition
        .acknowledge(1, "a", &LIMITS, &[(3, 5, vec![AcknowledgeType::Accept])])
        .unwrap();
    let mut again = SharePartition::from_state(&partition.to_state(1));
    partition.release_all("a", &LIMITS);
    assert_eq!(
        again.acquire(2, &member("b"), &LIMITS, scan(&[batch(0, 9)]), 500, false),
        [got(0, 2, 2), got(6, 9, 2)]
    );
    again.log_starts_at(7);
    assert_eq!(again.start_offset(), 7);
    again.log_starts_at(50);
    assert_eq!((again.start_offset(), again.next_offset(&LIMITS)), (50, Some(50)));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Model {
    Available(i16),
    Held(i16, u8, i64),
    Done,
}

proptest! {
    #[test]
    fn runs_agree_with_single_records(steps in proptest::collection::vec((0..5_u8, 0..3_u8, 0..40_i64, 1..12_i64, 0..5_i8), 1..60)) {
        let limits = ShareLimits { in_flight_max: 40, ..LIMITS };
        let mut partition = SharePartition::starting_at(0);
        let mut model: BTreeMap<i64, Model> = BTreeMap::new();
        let mut now_ms = 0;
        for (step, who, offset, length, kind) in steps {
            let name = member(&who.to_string());
            let (first, last) = (offset, offset + length - 1);
            let start = partition.start_offset();
            match step {
                0 | 1 => {
                    let Some(next) = partition.next_offset(&limits) else { continue };
                    let acquired = partition.acquire(now_ms, &name, &limits, scan(&[batch(next, next + length - 1)]), 500, false);
                    for run in acquired {
                        for offset in run.first_offset..=run.last_offset {
                            let before = model.insert(offset, Model::Held(run.delivery_count, who, now_ms + limits.lock_duration_ms));
                            let count = match before { None => 0, Some(Model::Available(count)) => count, other => panic!("{offset} was {other:?}") };
                            prop_assert_eq!(run.delivery_count, count + 1);
                        }
                    }
                }
                2 => {
                    let kind = AcknowledgeType::from_code(kind).unwrap();
                    let holds = (first.max(start)..=last).all(|offset| matches!(model.get(&offset), Some(Model::Held(_, owner, _)) if *owner == who));
                    let outcome = partition.acknowledge(now_ms, &name, &limits, &[(first, last, vec![kind])]);
                    prop_assert_eq!(outcome.is_ok(), last < start || holds);
                    if outcome.is_ok() {
                        for offset in first.max(start)..=last {
                            let Some(Model::Held(count, owner, deadline_ms)) = model.get(&offset).copied() else { continue };
                            model.insert(offset, match kind {
                                AcknowledgeType::Release if count < limits.delivery_count_max => Model::Available(count),
                                AcknowledgeType::Renew => { let _ = deadline_ms; Model::Held(count, owner, now_ms + limits.lock_duration_ms) }
                                _ => Model::Done,
                            });
                        }
                    }
                }
                3 => {
                    now_ms += offset;
                    partition.expire_locks(now_ms, &limits);
                    for state in model.values_mut() {
                        if let Model::Held(count, _, deadline_ms) = *state && deadline_ms <= now_ms {
                            *state = if count < limits.delivery_count_max { Model::Available(count) } else { Model::Done };
                        }
                    }
                }
                _ => {
                    partition.release_all(&name, &limits);
                    for state in model.values_mut() {
                        if let Model::Held(count, owner, _) = *state && owner == who {
                            *state = if count < limits.delivery_count_max { Model::Available(count) } else { Model::Done };
                        }
                    }
                }
            }
            bury(&mut partition);
            let first_open = model.iter().find(|(_, state)| **state != Model::Done).map(|(offset, _)| *offset);
            let end = model.keys().next_back().map_or(0, |last| last + 1);
            prop_assert_eq!(partition.start_offset(), first_open.unwrap_or(end));
        }
    }
}
