//! The transaction coordinator, for one partition of `__transaction_state`.
//!
//! # What it is
//! [`TransactionCoordinator`] is a sans-IO state machine: every method takes the time, decides, and returns a [`Decision`] — records for the
//! partition's log, transactions whose markers are to be written, and the answer of the call. It behaves as Kafka 4.x does, for clients of
//! both transaction versions: with version 2 (KIP-890) every end of a transaction raises the producer's epoch, so that nothing delayed can
//! reach into the next transaction.
//!
//! # States
//! | from \ to      | Ongoing          | PrepareCommit | PrepareAbort                                 | CompleteCommit  | CompleteAbort   | gone        |
//! |----------------|------------------|---------------|----------------------------------------------|-----------------|-----------------|-------------|
//! | Empty          | partitions added | -             | abort without partitions (version 2)         | -               | -               | id expired  |
//! | Ongoing        | partitions added | EndTxn        | EndTxn, timeout, a new instance, an operator | -               | -               | -           |
//! | PrepareCommit  | -                | -             | -                                            | markers written | -               | -           |
//! | PrepareAbort   | -                | -             | -                                            | -               | markers written | -           |
//! | Complete…      | partitions added | -             | abort without partitions (version 2)         | -               | -               | id expired  |
//!
//! InitProducerId leads from nothing and from Complete… to Empty.
//!
//! # The shell's part
//! As for the group coordinator ([`crate::group`]): replay, `loaded`, append and `apply` before the next call, answers and effects only once
//! everything appended is durable. An [`EndedTransaction`] asks for its markers: when they are durable in every partition that still exists,
//! the shell calls [`TransactionCoordinator::markers_written`]. Until then nobody can use the transactional id, so no transaction can hang
//! while a coordinator lives; on replay the effects come again.

mod coordinator;
mod ending;
mod init;
mod records;

#[cfg(test)]
mod coordinator_tests;
#[cfg(test)]
mod model_tests;

use std::collections::{BTreeMap, BTreeSet};

pub use coordinator::{AddPartitions, TransactionConfig, TransactionCoordinator, TransactionFilter};
pub use ending::{EndTransaction, Outcome};
pub use init::InitProducerId;
use millstream_protocol::ErrorCode;
pub use records::{Transaction, TransactionRecord, TransactionState};

/// Partitions by topic.
pub type TopicPartitions = BTreeMap<String, BTreeSet<i32>>;

/// A producer id and epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerIdAndEpoch {
    /// The id, -1 for none.
    pub id: i64,
    /// The epoch, -1 for none.
    pub epoch: i16,
}

impl ProducerIdAndEpoch {
    /// No producer.
    pub const NONE: Self = Self { id: -1, epoch: -1 };
}

/// The version of the transaction protocol that a client speaks (KIP-890).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum TransactionVersion {
    /// The epoch stays the same from one transaction to the next, and the client adds partitions itself.
    #[default]
    One,
    /// Each end raises the epoch, and writing adds the partition.
    Two,
}

/// A transaction whose outcome is decided: a marker goes to each of its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedTransaction {
    /// Its transactional id.
    pub transactional_id: String,
    /// The producer that the markers name.
    pub producer: ProducerIdAndEpoch,
    /// Committed, not aborted.
    pub commit: bool,
    /// Where the markers go.
    pub partitions: TopicPartitions,
    /// When the outcome was decided: tells this end from others of the same producer.
    pub prepared_ms: i64,
}

/// What a call decided: append the records; once they are durable, write markers and answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use = "records must be appended and applied, markers written"]
pub struct Decision<R = ()> {
    /// Records for the partition's log, in order.
    pub records: Vec<TransactionRecord>,
    /// Transactions that need markers.
    pub ended: Vec<EndedTransaction>,
    /// The answer of the call itself.
    pub response: R,
}

impl<R> Decision<R> {
    /// Only an answer.
    fn answer(response: R) -> Self {
        Self {
            records: Vec::new(),
            ended: Vec::new(),
            response,
        }
    }
}

/// The answer to a request that only succeeds or fails.
pub type Checked<T = ()> = Result<T, ErrorCode>;
