//! The classic consumer group coordinator and the store of committed offsets, for one partition of `__consumer_offsets`.
//!
//! # What it is
//! [`GroupCoordinator`] is a sans-IO state machine: every method takes the time, decides, and returns a [`Decision`] — records
//! for the partition's log, answers to parked requests, and the answer of the call itself. It behaves as Kafka 4.x does for
//! groups with `group.protocol=classic`: same states, same error codes, same number of rebalances.
//!
//! # States
//! | from \ to           | Empty            | PreparingRebalance                           | CompletingRebalance | Stable         | Dead             |
//! |---------------------|------------------|----------------------------------------------|---------------------|----------------|------------------|
//! | Empty               | -                | first member joins                           | -                   | -              | deleted, expired |
//! | PreparingRebalance  | all members left | -                                            | all joined, timeout | -              | unloaded         |
//! | CompletingRebalance | -                | join, leave, session or sync expiry          | -                   | leader's sync  | unloaded         |
//! | Stable              | -                | join, leave, changed metadata, session expiry| -                   | -              | unloaded         |
//!
//! `Dead` is the state of a group that does not exist: it is never stored. [`GroupState::can_become`] is this table in code.
//!
//! # Hard and soft state
//! Hard state ([`HardState`]: the last group record of each group, committed and pending offsets) changes only in
//! [`GroupCoordinator::apply`], [`GroupCoordinator::apply_transactional`] and [`GroupCoordinator::apply_marker`], live and on
//! replay. Soft state (members that are joining, parked requests, timers) lives in the other methods, and is built anew from hard
//! state by [`GroupCoordinator::loaded`] after a failover.
//!
//! # The shell's part
//! 1. Replay: `new`, `apply…` for every record of the partition in log order, then `loaded(now)`.
//! 2. One call at a time. Append `decision.records` in order, as one batch where they fit (expiry and deletions can be many); once the log
//!    took them, `apply` each, in order, before the next call.
//! 3. Send `decision.replies` and `decision.response` only when *every record appended so far* is durable and below the high
//!    watermark — also those of earlier calls, and also for calls without records and for reads. Without this rule a follower could be
//!    told an assignment that a failover forgets (I10), or a fetch could show an offset that is lost again (I9).
//! 4. If an append or its replication fails, memory must not stay ahead of the log: call [`GroupCoordinator::unload`], send its replies and
//!    answer what was waiting for durability with the same error, drop the value, and load again from the log if still the leader.
//! 5. Call `tick(now)` whenever `next_deadline()` has passed.
//!
//! A parked request is known by its [`Token`], chosen by the shell; each is answered exactly once, by the end of `unload` at the latest.
//! All times are milliseconds. `now_ms` is time since the epoch, as records hold it, and must not jump, since sessions are measured with
//! it: the shell takes wall-clock time once, at start, and adds what a monotonic clock says has passed.
//!
//! Groups whose coordinator assigns what members do are in [`modern`] (KIP-848, KIP-932) and [`streams`] (KIP-1071).
//!
//! The clients' versions do not appear here: what a version means is a flag in the request (for example
//! [`JoinGroupRequest::requires_known_member_id`]).

mod config;
mod consumer_protocol;
mod messages;
mod records;
mod timers;

mod group_state;
mod hard_state;
mod state;

pub mod modern;
pub mod streams;

mod join;
mod leave;
mod rebalance;
mod sync;

mod admin;
mod coordinator;
mod expiry;
mod offsets;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod offsets_tests;
#[cfg(test)]
mod protocol_tests;
#[cfg(test)]
mod records_tests;
#[cfg(test)]
mod static_tests;
#[cfg(test)]
mod test_client;

pub use config::{GroupConfig, GroupConfigError, MigrationPolicy};
pub use coordinator::GroupCoordinator;
pub use group_state::GroupState;
pub use hard_state::HardState;
pub use messages::*;
pub use modern::compile_pattern;
pub use records::{CommittedOffset, GroupMetadata, GroupRecord, MemberMetadata};

/// Name of a parked request, chosen by the shell and unique among its parked requests.
pub type Token = u64;

/// The answer to a parked request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The request it answers.
    pub token: Token,
    /// The answer.
    pub response: ParkedResponse,
}

/// The answers that can arrive later than the call that asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParkedResponse {
    /// To [`GroupCoordinator::join_group`].
    Join(JoinGroupResponse),
    /// To [`GroupCoordinator::sync_group`].
    Sync(SyncGroupResponse),
}

/// What a call decided: append the records, then answer. The module doc says when.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use = "records must be appended and applied, replies sent"]
pub struct Decision<R = ()> {
    /// Records for the partition's log, in order.
    pub records: Vec<GroupRecord>,
    /// Answers to parked requests, possibly this one.
    pub replies: Vec<Reply>,
    /// The answer of the call itself; `()` where the caller is parked.
    pub response: R,
}

impl<R> Decision<R> {
    /// The same effects with another answer.
    fn with_response<S>(self, response: S) -> Decision<S> {
        Decision {
            records: self.records,
            replies: self.replies,
            response,
        }
    }
}

/// The partition of `__consumer_offsets` that coordinates a group: Java's `String.hashCode`, made positive, modulo `partitions`.
///
/// Clients and tools rely on the formula. `partitions` below 1 counts as 1.
pub fn partition_for(group_id: &str, partitions: i32) -> i32 {
    let hash = group_id
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka's Utils.abs: Integer.MIN_VALUE has no positive twin and becomes 0.
    hash.checked_abs().unwrap_or(0) % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_is_java_hash_code_modulo_partitions() {
        assert_eq!(partition_for("group", 50), 98_629_247 % 50);
        assert_eq!(partition_for("", 50), 0);
        assert_eq!(partition_for("a", 50), 97 % 50);
        // Hash code Integer.MIN_VALUE.
        assert_eq!(partition_for("polygenelubricants", 50), 0);
        // A surrogate pair counts as two UTF-16 units.
        assert_eq!(partition_for("\u{1F600}", i32::MAX), 0xD83D * 31 + 0xDE00);
        assert_eq!(partition_for("group", 0), 0);
    }
}
