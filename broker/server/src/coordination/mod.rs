//! The shell around the sans-IO coordinators: groups, transactions, share groups. Each partition of an internal topic has one coordinator,
//! owned by one task.
//!
//! ```text
//! Core      what a coordinator is, seen from here: it decides, and applies records
//! shard     the task that owns it: a command, append, apply, answer once durable
//! shards    the shards of one internal topic: found by key, started on first use, stopped together
//! outbox    answers that wait for the high watermark, in order
//! storage   records to batches and back
//! time      the coordinator's milliseconds, tied to tokio's timers
//! ```
//! A shard whose log fails ends and thereby refuses what it still held with NOT_COORDINATOR, which makes clients look for the coordinator
//! again; the next request starts a new shard, which loads from the log. So memory is never ahead of the log for longer than one
//! request.

mod outbox;
mod shard;
mod shards;
mod storage;
mod time;

use bytes::Bytes;
use millstream_core::RecordDecodeError;

pub(crate) use self::{
    outbox::Answer,
    shard::{Producer, ShardHandle, sending},
    shards::Shards,
};
#[cfg(test)]
pub(crate) use self::{shard::start, time::CoordinatorTime};

/// Records and what is to be done once they are durable.
pub(crate) struct Decided<C: Core> {
    pub records: Vec<C::Record>,
    pub effects: Vec<C::Effect>,
}

/// A coordinator. `apply` is the only mutator of what the log defines, live and on replay.
pub(crate) trait Core: Send + Sized + 'static {
    /// One change of hard state.
    type Record: Send;
    /// What a decision asks for besides records, once these are durable.
    type Effect: Send + 'static;

    /// Replay is over.
    fn loaded(&mut self, now_ms: i64) -> Decided<Self>;
    /// Does what is due.
    fn tick(&mut self, now_ms: i64) -> Decided<Self>;
    /// When `tick` is due.
    fn next_deadline(&self) -> Option<i64>;
    /// A record that the log took.
    fn apply(&mut self, record: &Self::Record);
    /// A record that the log took within a producer's transaction.
    fn apply_transactional(&mut self, producer_id: i64, record: &Self::Record);
    /// The end marker of a producer's transaction.
    fn apply_marker(&mut self, producer_id: i64, commit: bool);
    /// Key and value of a record; no value is a tombstone.
    fn encode(record: &Self::Record) -> (Bytes, Option<Bytes>);
    /// The inverse of `encode`; `Ok(None)` for records of something else.
    fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<Self::Record>, RecordDecodeError>;
}

/// Turns a coordinator's effects into what happens when they may.
pub(crate) trait Effects<C: Core>: Send + 'static {
    /// What to run once everything appended so far is durable. Dropped instead, it refuses.
    fn carry(&mut self, effect: C::Effect) -> Answer;
}
