//! Records of streams groups read back as they were written.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::{
    CopartitionGroup, CurrentTasks, Endpoint, HeldTasks, MemberMetadata, NOT_VALIDATED, NUM_STANDBY_REPLICAS, RoleTasks, Subtopology, Task,
    TaskState, Tasks, TopicInfo, Topology, records::*,
};
use crate::records::{RecordDecodeError, put_unsigned_varint};

fn check(change: StreamsChange) {
    let record = StreamsRecord {
        group_id: "g".to_owned(),
        change,
    };
    let (key, value) = (record.encode_key(), record.encode_value());
    assert_eq!(StreamsRecord::decode(&key, value.as_deref()), Ok(Some(record)));
    if let Some(value) = value {
        for end in 0..value.len() - 1 {
            // A reader stops where it knows the rest; it never panics.
            drop(StreamsRecord::decode(&key, Some(&value[..end])));
        }
    }
}

fn task(subtopology: &str, partition: i32) -> Task {
    Task {
        subtopology: subtopology.into(),
        partition,
    }
}

fn samples() -> Vec<StreamsChange> {
    let mut samples = Vec::new();
    let mut add = |change| samples.push(change);
    let tasks = RoleTasks {
        active: [task("0", 0), task("0", 3), task("1", 0)].into(),
        standby: [task("1", 1)].into(),
        warmup: Tasks::new(),
    };
    let held = HeldTasks {
        active: [(task("0", 0), 3), (task("1", 4), 5)].into(),
        standby: [task("1", 1)].into(),
        warmup: [task("2", 0)].into(),
    };
    let current = CurrentTasks {
        epoch: 5,
        previous_epoch: 4,
        state: TaskState::UnreleasedTasks,
        assigned: held.clone(),
        revoking: HeldTasks::default(),
    };
    let member = MemberMetadata {
        rack_id: Some("r".to_owned()),
        client_id: "c".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        rebalance_timeout_ms: 300_000,
        process_id: "p".to_owned(),
        endpoint: Some(Endpoint {
            host: "localhost".to_owned(),
            port: 60_000,
        }),
        client_tags: [("zone".to_owned(), "a".to_owned())].into(),
        ..MemberMetadata::default()
    };
    let group = GroupValue {
        epoch: 7,
        topics_hash: u64::MAX,
        validated_epoch: 0,
        assignment_configs: [(NUM_STANDBY_REPLICAS.to_owned(), "1".to_owned())].into(),
    };
    add(StreamsChange::Group(Some(GroupValue {
        validated_epoch: NOT_VALIDATED,
        ..group.clone()
    })));
    add(StreamsChange::Group(Some(group)));
    add(StreamsChange::Group(None));
    add(StreamsChange::Member("m".to_owned(), Some(MemberMetadata::default())));
    add(StreamsChange::Member("m".to_owned(), Some(member)));
    add(StreamsChange::TargetEpoch(Some(7)));
    add(StreamsChange::Target("m".to_owned(), Some(tasks)));
    add(StreamsChange::Current("m".to_owned(), Some(current)));
    add(StreamsChange::Current("m".to_owned(), None));
    let topic = |name: &str| TopicInfo {
        name: name.to_owned(),
        partitions: 3,
        replication_factor: 1,
        configs: vec![("cleanup.policy".to_owned(), "compact".to_owned())],
    };
    let topology = Topology {
        epoch: 1,
        subtopologies: vec![Subtopology {
            id: "0".to_owned(),
            sources: vec!["b".to_owned(), "a".to_owned()],
            source_regexes: vec!["c.*".to_owned()],
            changelogs: vec![topic("log")],
            sinks: vec!["out".to_owned()],
            repartition_sources: vec![topic("in")],
            copartition_groups: vec![CopartitionGroup {
                sources: vec![0, 1],
                source_regexes: Vec::new(),
                repartition_sources: vec![0],
            }],
        }],
    };
    add(StreamsChange::Topology(Some(Arc::new(topology))));
    add(StreamsChange::Topology(None));
    samples
}

#[test]
fn records_read_back() {
    samples().into_iter().for_each(check);
}

#[test]
fn fuzz_records_of_streams_groups() {
    let records = samples().into_iter().map(|change| StreamsRecord {
        group_id: "g".to_owned(),
        change,
    });
    let corpus: Vec<_> = records
        .filter_map(|record| Some(millstream_fuzz::pair(&record.encode_key(), &record.encode_value()?)))
        .collect();
    millstream_fuzz::fuzz("records of streams groups", &corpus, |input| {
        let Some((key, value)) = millstream_fuzz::split(input) else {
            return false;
        };
        let Ok(Some(record)) = StreamsRecord::decode(key, Some(value)) else {
            return false;
        };
        let again = StreamsRecord::decode(&record.encode_key(), record.encode_value().as_deref());
        assert_eq!(again, Ok(Some(record)));
        true
    });
}

#[test]
fn a_current_assignment_without_assignment_epochs_counts_from_the_members_epoch() {
    let mut value = BytesMut::new();
    value.put_slice(&[0, 0, 0, 0, 0, 9, 0, 0, 0, 8, 1]);
    put_tasks(&mut value, &[task("0", 2)].into());
    for _ in 0..5 {
        put_tasks(&mut value, &Tasks::new());
    }
    put_unsigned_varint(&mut value, 0);
    let key = StreamsRecord {
        group_id: "g".to_owned(),
        change: StreamsChange::Current("m".to_owned(), None),
    };
    let read = StreamsRecord::decode(&key.encode_key(), Some(&value)).unwrap().unwrap();
    let StreamsChange::Current(_, Some(current)) = read.change else {
        panic!("{read:?}")
    };
    assert_eq!(current.assigned.active, [(task("0", 2), 9)].into());
}

#[test]
fn as_many_assignment_epochs_as_partitions() {
    let mut value = BytesMut::new();
    value.put_slice(&[0, 0, 0, 0, 0, 9, 0, 0, 0, 8, 1]);
    value.put_slice(&[2, 2, b'0', 2, 0, 0, 0, 2, 1, 0, 1, 1]);
    let key = StreamsRecord {
        group_id: "g".to_owned(),
        change: StreamsChange::Current("m".to_owned(), None),
    };
    assert_eq!(
        StreamsRecord::decode(&key.encode_key(), Some(&value)),
        Err(RecordDecodeError::BadLength(0))
    );
}
