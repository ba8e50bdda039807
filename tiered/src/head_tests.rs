use proptest::prelude::*;

use super::*;
use crate::testkit::{CLUSTER, PARTITION, head_of, seg_ref};

const GOLDEN_V1: &[u8] = include_bytes!("../fixtures/head-v1.bin");

/// The head in `fixtures/head-v1.bin`, written by format version 1.
fn golden() -> Head {
    let mut head = head_of(vec![seg_ref(10, 20, 1000, 5), seg_ref(25, 30, 2000, 6)]);
    head.incarnation = 2;
    head.seq = 41;
    head.epoch = 6;
    head.broker = 3;
    head.commit_id = CommitId(Ulid::from_parts(5, 6));
    head.prev_commit_ids = vec![CommitId(Ulid::from_parts(4, 6))];
    head.log_start = 12;
    head.lineage = vec![LineageEntry { epoch: 1, start: 0 }, LineageEntry { epoch: 6, start: 25 }];
    head.pages = vec![PageRef {
        ulid: Ulid::from_parts(1, 1),
        epoch: 1,
        base: 0,
        next: 10,
        segments: 2,
        bytes: 500,
        max_ts: 4,
        uploaded_ms: 9,
        extra: Map::new(),
    }];
    head.gaps = vec![Gap {
        base: 20,
        next: 25,
        why: "not offloaded".to_owned(),
    }];
    head.graveyard = vec![Grave {
        key: "t/x".to_owned(),
        since: 7,
        why: "retention".to_owned(),
    }];
    head.extra.insert("from_the_future".to_owned(), Value::from(vec![1, 2]));
    head
}

#[test]
fn a_head_of_version_1_still_reads_the_same() {
    assert_eq!(Head::decode(GOLDEN_V1).unwrap(), golden());
    assert_eq!(Head::decode(&golden().encode()).unwrap(), golden());
}

#[test]
fn unknown_fields_survive_a_rewrite() {
    let mut document = serde_json::to_value(golden()).unwrap();
    document["new_at_top"] = Value::from("a");
    document["segs"][0]["idx"] = serde_json::json!({"pos": 1});
    document["pages"][0]["new_in_page"] = Value::from(true);
    let frame = envelope::seal(MAGIC, &serde_json::to_vec(&document).unwrap());
    let mut head = Head::decode(&frame).unwrap();
    head.stamp(CommitId(Ulid::from_parts(9, 9)));
    let rewritten: Value = serde_json::from_slice(&envelope::open("head", MAGIC, &head.encode()).unwrap()).unwrap();
    assert_eq!(rewritten["new_at_top"], document["new_at_top"]);
    assert_eq!(rewritten["segs"][0]["idx"], document["segs"][0]["idx"]);
    assert_eq!(rewritten["pages"][0]["new_in_page"], document["pages"][0]["new_in_page"]);
}

#[test]
fn heads_that_contradict_themselves_are_refused() {
    let broken: [fn(&mut Head); 7] = [
        |head| head.remote_end += 1,
        |head| head.log_start = head.remote_end + 1,
        |head| head.log_start = -1,
        |head| head.gaps.clear(),
        |head| head.segs[0].next = 21,
        |head| head.segs[1].footer_pos = u64::MAX,
        |head| head.lineage.reverse(),
    ];
    for (number, damage) in broken.iter().enumerate() {
        let mut head = golden();
        damage(&mut head);
        let decoded = Head::decode(&head.encode());
        assert!(
            matches!(decoded, Err(FormatError::Inconsistent { .. })),
            "damage {number}: {decoded:?}"
        );
    }
}

#[test]
fn a_head_remembers_a_bounded_number_of_commits() {
    let mut head = Head::genesis(CLUSTER, PARTITION, 0);
    for number in 0..100 {
        head.stamp(CommitId(Ulid::from_parts(1, number)));
    }
    assert!(head.includes(CommitId(Ulid::from_parts(1, 99 - RECENT_COMMITS_MAX as u128))));
    assert!(!head.includes(CommitId(Ulid::from_parts(1, 98 - RECENT_COMMITS_MAX as u128))));
}

#[test]
fn a_page_must_match_its_reference() {
    let segs = vec![seg_ref(0, 10, 100, 5), seg_ref(10, 20, 100, 5)];
    let mut page = PageRef {
        base: 0,
        next: 20,
        segments: 2,
        ..golden().pages[0].clone()
    };
    assert_eq!(decode_page(&page, &encode_page(&segs)).unwrap(), segs);
    page.next = 21;
    assert!(decode_page(&page, &encode_page(&segs)).is_err());
}

proptest! {
    #[test]
    fn damaged_documents_never_panic(at in 0_usize..2000, to: u8) {
        let mut json = serde_json::to_vec(&golden()).unwrap();
        if let Some(byte) = json.get_mut(at) {
            *byte = to;
        }
        let _ = Head::decode(&envelope::seal(MAGIC, &json));
    }
}

#[test]
fn fuzz_head() {
    let json = envelope::open("head", MAGIC, GOLDEN_V1).unwrap();
    millstream_fuzz::fuzz("head", &[GOLDEN_V1.to_vec(), json], |bytes| {
        // Also as a writer with a mistake would have sealed it.
        Head::decode(bytes).is_ok() | Head::decode(&envelope::seal(MAGIC, bytes)).is_ok()
    });
}
