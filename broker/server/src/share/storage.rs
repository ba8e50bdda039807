//! The share coordinator as a shard sees it.

use bytes::Bytes;
use millstream_core::{
    RecordDecodeError,
    share::{ShareCoordinator, ShareKey, ShareRecord, ShareState},
};

use crate::coordination::{Answer, Core, Decided, Effects};

/// A store asks for nothing but its records.
pub(super) struct NoEffects;

impl Effects<ShareCoordinator> for NoEffects {
    fn carry(&mut self, effect: std::convert::Infallible) -> Answer {
        match effect {}
    }
}

/// Nothing to write.
pub(super) fn nothing() -> Decided<ShareCoordinator> {
    all(Vec::new())
}

/// One state to write.
pub(super) fn one(key: ShareKey, value: Option<ShareState>) -> Decided<ShareCoordinator> {
    all(vec![ShareRecord { key, value }])
}

/// Records to write.
pub(super) fn all(records: Vec<ShareRecord>) -> Decided<ShareCoordinator> {
    Decided {
        records,
        effects: Vec::new(),
    }
}

impl Core for ShareCoordinator {
    type Record = ShareRecord;
    type Effect = std::convert::Infallible;

    fn loaded(&mut self, _now_ms: i64) -> Decided<Self> {
        nothing()
    }

    fn tick(&mut self, _now_ms: i64) -> Decided<Self> {
        nothing()
    }

    fn next_deadline(&self) -> Option<i64> {
        None
    }

    fn apply(&mut self, record: &ShareRecord) {
        self.apply(record);
    }

    fn apply_transactional(&mut self, _producer_id: i64, _record: &ShareRecord) {}

    fn apply_marker(&mut self, _producer_id: i64, _commit: bool) {}

    fn encode(record: &ShareRecord) -> (Bytes, Option<Bytes>) {
        (record.encode_key(), record.encode_value())
    }

    fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<ShareRecord>, RecordDecodeError> {
        ShareRecord::decode(key, value)
    }
}
