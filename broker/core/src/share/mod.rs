//! Share groups' records: who has which record of a partition, and what became of it (KIP-932).
//!
//! # States of a record, for one share group
//! | from \ to    | Acquired   | Available                                | Acknowledged | Archived                                             |
//! |--------------|------------|------------------------------------------|--------------|------------------------------------------------------|
//! | Available    | delivered  | -                                        | -            | below the log's start; aborted                       |
//! | Acquired     | lock renewed | released, lock ran out, session closed | accepted     | rejected, a gap, or delivered as often as is allowed |
//! | Acknowledged | -          | -                                        | -            | -                                                    |
//! | Archived     | -          | -                                        | -            | -                                                    |
//!
//! What was rejected, or delivered as often as is allowed, is *given up* on the way to Archived, until it is in the group's dead-letter topic.
//!
//! Everything below the *start offset* is done with; everything from the *end offset* on was never delivered. In between lie at most
//! `group.share.partition.max.record.locks` records, in runs of equal state.
//!
//! [`SharePartition`] is what the partition's leader works with; [`ShareCoordinator`] keeps its durable part in `__share_group_state`.
//! Locks are soft state: after a failover whatever was acquired is available again, with the delivery count that was last written.

mod coordinator;
mod partition;
mod records;

#[cfg(test)]
mod partition_tests;

pub use coordinator::ShareCoordinator;
pub use partition::{AcknowledgeType, Acquired, GivenUp, GivenUpReason, LogBatch, LogScan, ShareLimits, SharePartition};
pub use records::{ShareKey, ShareRecord, ShareState, StateBatch};
