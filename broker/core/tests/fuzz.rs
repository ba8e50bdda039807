//! Damaged records of the internal topics are errors, never a panic; what can be read can be written and read again.

use millstream_core::{
    group::GroupRecord,
    share::{ShareKey, SharePartition, ShareRecord, ShareState, StateBatch},
    txn::TransactionRecord,
};
use millstream_fuzz::{fuzz, pair, split};
use uuid::Uuid;

#[test]
fn fuzz_group_records() {
    let classic = b"\0\x04\0\0\0\x09consumer\0\0\0\x07\x06range\x02m\0\0\0\0\0\0\x01\x02\x02\x02m\0\x02c\x03/h\0\0\0\x02\0\0\0\x01\x02s\x01\x01\x05\x01z\0";
    let mut corpus = vec![
        pair(b"\0\x02\0\x01g", classic),
        pair(
            b"\0\x01\0\x01g\0\x01t\0\0\0\x03",
            b"\0\x03\0\0\0\0\0\0\0\x05\xff\xff\xff\xff\0\x01m\0\0\0\0\0\0\0\x09",
        ),
    ];
    // A member of a consumer group that speaks the classic protocol.
    corpus.push(pair(
        b"\0\x05\0\x01g\0\x01m",
        b"\0\0\0\0\x02c\x03/h\x02\x02t\0\0\0\x75\x30\0\x01\0\x11\x01\0\0\x27\x10\x02\x06range\x02m\0\0",
    ));
    fuzz("group records", &corpus, |input| {
        let Some((key, value)) = split(input) else { return false };
        let reads_back = |value: Option<&[u8]>| {
            let Ok(Some(record)) = GroupRecord::decode(key, value) else {
                return false;
            };
            let again = GroupRecord::decode(&record.encode_key(), record.encode_value().as_deref());
            assert_eq!(again, Ok(Some(record)));
            true
        };
        reads_back(None) | reads_back(Some(value))
    });
}

#[test]
fn fuzz_transaction_records() {
    let value = b"\0\x01\0\0\0\0\0\0\0\x07\0\x03\0\0\xea\x60\x01\x02\x02t\x02\0\0\0\0\0\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x08\0";
    let corpus = [
        pair(b"\0\0\0\x01t", value),
        pair(
            b"\0\0\0\x01t",
            b"\0\0\0\0\0\0\0\0\0\x07\0\x03\0\0\xea\x60\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ),
    ];
    fuzz("transaction records", &corpus, |input| {
        let Some((key, value)) = split(input) else { return false };
        let Ok(record) = TransactionRecord::decode(key, Some(value)) else {
            return false;
        };
        let again = TransactionRecord::decode(&record.encode_key(), record.encode_value().as_deref());
        assert_eq!(again, Ok(record));
        true
    });
}

#[test]
fn fuzz_share_records() {
    let batches = (0..4_i64).map(|number| StateBatch {
        first_offset: number * 10,
        last_offset: number * 10 + 9,
        state: [0, 2, 3, 4][number as usize],
        delivery_count: 2,
    });
    let record = ShareRecord {
        key: ShareKey {
            group_id: "g".into(),
            topic_id: Uuid::from_u128(3),
            partition: 1,
        },
        value: Some(ShareState {
            state_epoch: 0,
            start_offset: 0,
            write_ms: 5,
            batches: batches.collect(),
        }),
    };
    let corpus = [pair(&record.encode_key(), &record.encode_value().unwrap())];
    fuzz("share records", &corpus, |input| {
        let Some((key, value)) = split(input) else { return false };
        let Ok(Some(record)) = ShareRecord::decode(key, Some(value)) else {
            return false;
        };
        if let Some(state) = &record.value {
            // What is nonsense in there must not bring down who works with it.
            let partition = SharePartition::from_state(state);
            assert_eq!(
                SharePartition::from_state(&partition.to_state(0)).start_offset(),
                partition.start_offset()
            );
        }
        let again = ShareRecord::decode(&record.encode_key(), record.encode_value().as_deref());
        assert_eq!(again, Ok(Some(record)));
        true
    });
}
