use super::*;
use crate::{
    layout::Layout,
    testkit::{PARTITION, head_of, seg_ref},
};

fn keys() -> Keys {
    Keys {
        layout: Layout::new(""),
        partition: PARTITION,
    }
}

fn append(base: i64, next: i64, gap_allowed: bool) -> Op {
    let epochs = vec![
        EpochEntry { epoch: 1, start_offset: 0 },
        EpochEntry {
            epoch: 4,
            start_offset: 15,
        },
    ];
    Op::Append {
        segment: Box::new(seg_ref(base, next, 100, 5)),
        epochs,
        gap_allowed,
    }
}

fn ten_each(count: i64) -> Head {
    head_of((0..count).map(|number| seg_ref(number * 10, number * 10 + 10, 100, 5)).collect())
}

#[test]
fn appending_twice_changes_nothing() {
    let mut head = ten_each(1);
    assert_eq!(append(10, 20, false).apply(&mut head), Ok(Applied::Changed));
    assert_eq!((head.remote_end, head.segs.len()), (20, 2));
    assert_eq!(head.lineage.last(), Some(&LineageEntry { epoch: 4, start: 15 }));
    assert_eq!(append(10, 20, false).apply(&mut head), Ok(Applied::AlreadyIn));
}

#[test]
fn a_segment_must_start_where_the_bucket_ends_unless_a_gap_is_declared() {
    let mut head = ten_each(1);
    assert_eq!(
        append(15, 20, false).apply(&mut head),
        Err(OpRejected::NotContiguous { base: 15, remote_end: 10 })
    );
    assert_eq!(
        append(5, 20, true).apply(&mut head),
        Err(OpRejected::NotContiguous { base: 5, remote_end: 10 })
    );
    assert_eq!(append(15, 20, true).apply(&mut head), Ok(Applied::Changed));
    assert_eq!(
        head.gaps,
        [Gap {
            base: 10,
            next: 15,
            why: "not offloaded".to_owned()
        }]
    );
    assert!(Head::decode(&head.encode()).is_ok());
}

#[test]
fn retention_buries_what_lies_wholly_below_the_start() {
    let mut head = ten_each(3);
    let retain = |log_start| Op::Retain {
        log_start,
        keys: keys(),
        paged: Vec::new(),
        now_ms: 77,
    };
    assert_eq!(retain(15).apply(&mut head), Ok(Applied::Changed));
    assert_eq!((head.log_start, head.segs.len(), head.graveyard.len()), (15, 2, 1));
    assert_eq!(head.graveyard[0].since, 77);
    assert_eq!(retain(15).apply(&mut head), Ok(Applied::AlreadyIn));
    assert_eq!(retain(500).apply(&mut head), Ok(Applied::Changed));
    assert_eq!((head.log_start, head.remote_end, head.segs.len()), (30, 30, 0));
    assert!(Head::decode(&head.encode()).is_ok());
}

#[test]
fn a_claim_cuts_off_what_the_new_leader_contradicts() {
    let mut head = ten_each(3);
    head.lineage = vec![LineageEntry { epoch: 1, start: 0 }];
    // The new leader's epoch 2 begins at 15, inside the second segment.
    let epochs = vec![
        EpochEntry { epoch: 1, start_offset: 0 },
        EpochEntry {
            epoch: 2,
            start_offset: 15,
        },
    ];
    assert_eq!(
        Op::Claim {
            epochs,
            keys: keys(),
            now_ms: 1
        }
        .apply(&mut head),
        Ok(Applied::Changed)
    );
    assert_eq!((head.remote_end, head.segs.len(), head.graveyard.len()), (10, 1, 2));
    assert!(Head::decode(&head.encode()).is_ok());
}

#[test]
fn a_claim_of_a_leader_that_goes_on_keeps_everything() {
    let mut head = ten_each(3);
    head.lineage = vec![LineageEntry { epoch: 1, start: 0 }];
    let epochs = vec![
        EpochEntry { epoch: 1, start_offset: 0 },
        EpochEntry {
            epoch: 2,
            start_offset: 30,
        },
    ];
    Op::Claim {
        epochs,
        keys: keys(),
        now_ms: 1,
    }
    .apply(&mut head)
    .unwrap();
    assert_eq!((head.remote_end, head.segs.len(), head.graveyard.len()), (30, 3, 0));
}
