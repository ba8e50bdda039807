use super::*;
use crate::{
    layout::Layout,
    ops::Keys,
    testkit::{CLUSTER, PARTITION, head_of, seg_ref},
};

const TERM: Term = Term {
    cluster_id: CLUSTER,
    incarnation: 0,
    epoch: 5,
    broker: 1,
};

fn version(number: u64) -> HeadVersion {
    HeadVersion::fake(number)
}

fn stored(epoch: i32, broker: i32, seq: u64) -> Versioned {
    let mut head = head_of(vec![seg_ref(0, 10, 100, 5)]);
    head.epoch = epoch;
    head.broker = broker;
    head.seq = seq;
    head.commit_id = CommitId(Ulid::from_parts(1, u128::from(seq)));
    Versioned {
        head,
        version: version(seq),
    }
}

fn append() -> Op {
    Op::Append {
        segment: Box::new(seg_ref(10, 20, 100, 5)),
        epochs: Vec::new(),
        gap_allowed: false,
    }
}

fn claim() -> Op {
    Op::Claim {
        epochs: Vec::new(),
        keys: Keys {
            layout: Layout::new(""),
            partition: PARTITION,
        },
        now_ms: 0,
    }
}

fn id(number: u128) -> Ulid {
    Ulid::from_parts(99, number)
}

fn written(effect: &Effect) -> Head {
    match effect {
        Effect::Write { bytes, .. } => Head::decode(bytes).unwrap(),
        other => panic!("expected a write, got {other:?}"),
    }
}

#[test]
fn an_accepted_write_is_done() {
    let mut commit = Commit::new(PARTITION, TERM, append(), None);
    let write = commit.step(Event::Start(Some(stored(4, 9, 7))), id(1));
    let head = written(&write);
    assert_eq!(
        (head.seq, head.epoch, head.broker, head.remote_end, head.commit_id),
        (8, 5, 1, 20, CommitId(id(1)))
    );
    assert!(matches!(&write, Effect::Write { expected: Some(expected), .. } if *expected == version(7)));
    let done = commit.step(Event::Written(version(8)), id(2));
    assert_eq!(done, Effect::Done(Box::new(Versioned { head, version: version(8) })));
}

#[test]
fn a_refused_write_that_was_applied_is_recognized_by_its_id() {
    let mut commit = Commit::new(PARTITION, TERM, append(), None);
    let head = written(&commit.step(Event::Start(Some(stored(4, 9, 7))), id(1)));
    assert_eq!(commit.step(Event::WriteUnclear, id(2)), Effect::Read);
    let mine = Versioned { head, version: version(8) };
    assert_eq!(commit.step(Event::Read(Some(mine.clone())), id(3)), Effect::Done(Box::new(mine)));
}

#[test]
fn a_commit_below_others_of_the_same_term_is_recognized_too() {
    let mut commit = Commit::new(PARTITION, TERM, append(), None);
    let mut head = written(&commit.step(Event::Start(Some(stored(4, 9, 7))), id(1)));
    commit.step(Event::WriteUnclear, id(2));
    head.stamp(CommitId(id(50)));
    let later = Versioned { head, version: version(9) };
    assert_eq!(commit.step(Event::Read(Some(later.clone())), id(3)), Effect::Done(Box::new(later)));
}

#[test]
fn an_unchanged_head_gets_the_same_bytes_again() {
    let mut commit = Commit::new(PARTITION, TERM, append(), None);
    let first = commit.step(Event::Start(Some(stored(4, 9, 7))), id(1));
    commit.step(Event::WriteUnclear, id(2));
    assert_eq!(commit.step(Event::Read(Some(stored(4, 9, 7))), id(3)), Effect::Wait(1));
    assert_eq!(commit.step(Event::Waited, id(4)), first);
}

#[test]
fn a_head_that_moved_on_within_an_older_term_is_built_upon() {
    let mut commit = Commit::new(PARTITION, TERM, claim(), None);
    commit.step(Event::Start(Some(stored(4, 9, 7))), id(1));
    commit.step(Event::WriteUnclear, id(2));
    let head = written(&commit.step(Event::Read(Some(stored(4, 9, 8))), id(3)));
    assert_eq!((head.seq, head.commit_id), (9, CommitId(id(3))));
}

#[test]
fn a_later_term_or_the_same_term_of_another_broker_fences() {
    for (epoch, broker) in [(6, 1), (6, 9), (5, 9)] {
        let mut commit = Commit::new(PARTITION, TERM, append(), None);
        let effect = commit.step(Event::Start(Some(stored(epoch, broker, 7))), id(1));
        assert_eq!(
            effect,
            Effect::Failed(CommitError::Fenced {
                incarnation: 0,
                epoch,
                broker
            })
        );
    }
}

#[test]
fn a_won_commit_under_a_later_term_is_fenced_all_the_same() {
    let mut commit = Commit::new(PARTITION, TERM, append(), None);
    let mut head = written(&commit.step(Event::Start(Some(stored(4, 9, 7))), id(1)));
    commit.step(Event::WriteUnclear, id(2));
    head.stamp(CommitId(id(50)));
    head.epoch = 6;
    let effect = commit.step(Event::Read(Some(Versioned { head, version: version(9) })), id(3));
    assert!(matches!(effect, Effect::Failed(CommitError::Fenced { epoch: 6, .. })));
}

#[test]
fn another_cluster_is_refused_unless_this_one_is_its_restoration() {
    let mut foreign = stored(9, 9, 7);
    foreign.head.cluster_id = Uuid::from_u128(66);
    let effect = Commit::new(PARTITION, TERM, append(), None).step(Event::Start(Some(foreign.clone())), id(1));
    assert!(matches!(effect, Effect::Failed(CommitError::ForeignCluster { .. })));
    let restored = Term {
        incarnation: 1,
        epoch: 1,
        ..TERM
    };
    let head = written(&Commit::new(PARTITION, restored, claim(), None).step(Event::Start(Some(foreign)), id(1)));
    assert_eq!((head.cluster_id, head.incarnation, head.epoch), (CLUSTER, 1, 1));
}

#[test]
fn a_first_head_is_only_written_where_one_is_allowed() {
    let mut commit = Commit::new(PARTITION, TERM, claim(), None);
    assert_eq!(commit.step(Event::Start(None), id(1)), Effect::Read);
    assert_eq!(commit.step(Event::Read(None), id(2)), Effect::Failed(CommitError::HeadMissing));
    let mut commit = Commit::new(PARTITION, TERM, claim(), Some(40));
    commit.step(Event::Start(None), id(1));
    let write = commit.step(Event::Read(None), id(2));
    assert!(matches!(write, Effect::Write { expected: None, .. }));
    assert_eq!((written(&write).log_start, written(&write).remote_end), (40, 40));
}

#[test]
fn a_head_that_vanishes_during_a_commit_is_not_replaced_by_a_first_one() {
    let mut commit = Commit::new(PARTITION, TERM, claim(), Some(0));
    commit.step(Event::Start(Some(stored(4, 9, 7))), id(1));
    commit.step(Event::WriteUnclear, id(2));
    assert_eq!(commit.step(Event::Read(None), id(3)), Effect::Failed(CommitError::HeadMissing));
}

#[test]
fn a_segment_that_no_longer_fits_is_rejected_and_not_forced_in() {
    let mut commit = Commit::new(PARTITION, TERM, append(), None);
    let mut moved = stored(4, 9, 8);
    moved.head.segs.push(seg_ref(10, 15, 100, 5));
    moved.head.remote_end = 15;
    commit.step(Event::Start(Some(stored(4, 9, 7))), id(1));
    commit.step(Event::WriteUnclear, id(2));
    let effect = commit.step(Event::Read(Some(moved)), id(3));
    assert!(matches!(
        effect,
        Effect::Failed(CommitError::Rejected(OpRejected::NotContiguous { base: 10, remote_end: 15 }))
    ));
}

#[test]
fn a_silent_store_is_given_up_after_a_bounded_number_of_attempts() {
    let mut commit = Commit::new(PARTITION, TERM, append(), None);
    let mut effect = commit.step(Event::Start(None), id(0));
    let mut waits = 0;
    while effect != Effect::Failed(CommitError::Unresolved) {
        effect = match effect {
            Effect::Read => commit.step(Event::ReadFailed, id(1)),
            Effect::Wait(_) => {
                waits += 1;
                commit.step(Event::Waited, id(1))
            }
            other => panic!("unexpected {other:?}"),
        };
    }
    assert_eq!(waits, ATTEMPTS_MAX);
}
