//! The commit protocol as a state machine without I/O: feed it what happened, do what it says.
//!
//! | state | event | next |
//! |---|---|---|
//! | start | cached head | propose |
//! | start, no cache | — | read |
//! | reading | head; one of my commits is in it | done, or fenced if a later term is on top |
//! | reading | head unchanged since my unanswered write | wait, then write the same bytes again |
//! | reading | any other head | propose |
//! | reading | failed | wait, then read |
//! | writing | accepted | done |
//! | writing | refused or unknown | read |
//!
//! *Propose* checks the term, applies the change and writes `If-Match`. A refused write is not proof of a loss: the store's client
//! may have sent it twice, and the first one won. So the head is read again and the commit ids in it decide. A later term, or the
//! same term of another broker, fences this one (safety rests on this compare-and-set alone, not on clocks or deletion order).

use std::cmp::Ordering;

use bytes::Bytes;
use millstream_log::remote::TopicIdPartition;
use thiserror::Error;
use ulid::Ulid;
use uuid::Uuid;

use crate::{
    head::{CommitId, Head},
    head_store::HeadVersion,
    ops::{Applied, Op, OpRejected},
};

/// How often one commit reads or writes again before it gives up; the caller then starts over from a fresh head.
const ATTEMPTS_MAX: u32 = 10;

/// Who commits. Terms are ordered by incarnation, then epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Term {
    /// The cluster.
    pub cluster_id: Uuid,
    /// How often the cluster was restored from its bucket.
    pub incarnation: u64,
    /// Leader epoch.
    pub epoch: i32,
    /// The broker.
    pub broker: i32,
}

/// A head and the version of the object that held it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Versioned {
    /// The head.
    pub head: Head,
    /// The version to compare with on the next write.
    pub version: HeadVersion,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// The commit begins, with the head that the caller has seen last.
    Start(Option<Versioned>),
    /// The head was read; `None` if there is none.
    Read(Option<Versioned>),
    /// The head could not be read.
    ReadFailed,
    /// The write was accepted.
    Written(HeadVersion),
    /// The write was refused, failed, or nobody knows.
    WriteUnclear,
    /// The wait is over.
    Waited,
}

/// What to do next.
#[derive(Debug, PartialEq)]
pub(crate) enum Effect {
    /// Read the head.
    Read,
    /// Write the head if it still has this version (`None`: if there is no head).
    Write {
        /// The version to compare with.
        expected: Option<HeadVersion>,
        /// The new head.
        bytes: Bytes,
    },
    /// Wait; the n-th wait in a row.
    Wait(u32),
    /// The change is committed.
    Done(Box<Versioned>),
    /// The change is not committed, or it is not known whether it is.
    Failed(CommitError),
}

/// Why a commit did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommitError {
    /// Somebody else leads the partition.
    #[error("fenced by broker {broker} with incarnation {incarnation}, epoch {epoch}")]
    Fenced {
        /// The other cluster's incarnation.
        incarnation: u64,
        /// The other leader's epoch.
        epoch: i32,
        /// The other leader.
        broker: i32,
    },
    /// Another cluster owns this partition.
    #[error("partition belongs to cluster {cluster_id}")]
    ForeignCluster {
        /// That cluster.
        cluster_id: Uuid,
    },
    /// There was a head and now there is none.
    #[error("the head is missing; rebuild it from the segment objects")]
    HeadMissing,
    /// The change does not fit the head any more.
    #[error(transparent)]
    Rejected(#[from] OpRejected),
    /// The store did not answer often enough to know.
    #[error("the outcome of the commit is unknown")]
    Unresolved,
}

#[derive(Debug)]
struct Sent {
    expected: Option<HeadVersion>,
    /// `seq` of the head that was expected.
    base_seq: Option<u64>,
    head: Head,
    bytes: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterWait {
    Read,
    Resend,
}

/// One commit under way.
#[derive(Debug)]
pub(crate) struct Commit {
    partition: TopicIdPartition,
    term: Term,
    op: Op,
    /// Where a first head would start; `None` forbids a first head.
    genesis: Option<i64>,
    tried: Vec<CommitId>,
    sent: Option<Sent>,
    after_wait: AfterWait,
    attempts: u32,
}

impl Commit {
    /// Prepares the commit of `op`.
    pub fn new(partition: TopicIdPartition, term: Term, op: Op, genesis: Option<i64>) -> Commit {
        Commit {
            partition,
            term,
            op,
            genesis,
            tried: Vec::new(),
            sent: None,
            after_wait: AfterWait::Read,
            attempts: 0,
        }
    }

    /// Takes an event and says what to do. `fresh` is an id that was never used; it may stay unused.
    pub fn step(&mut self, event: Event, fresh: Ulid) -> Effect {
        match event {
            Event::Start(Some(cached)) => self.propose(Some(cached), fresh),
            Event::Start(None) => Effect::Read,
            Event::Read(found) => self.read(found, fresh),
            Event::ReadFailed => self.wait(AfterWait::Read),
            Event::Written(version) => {
                let sent = self
                    .sent
                    .take()
                    .unwrap_or_else(|| panic!("a write of {} was accepted that was not sent", self.partition));
                Effect::Done(Box::new(Versioned { head: sent.head, version }))
            }
            Event::WriteUnclear => Effect::Read,
            Event::Waited => match (self.after_wait, &self.sent) {
                (AfterWait::Resend, Some(sent)) => Effect::Write {
                    expected: sent.expected.clone(),
                    bytes: sent.bytes.clone(),
                },
                (AfterWait::Resend, None) | (AfterWait::Read, _) => Effect::Read,
            },
        }
    }

    fn wait(&mut self, then: AfterWait) -> Effect {
        self.after_wait = then;
        self.attempts += 1;
        if self.attempts > ATTEMPTS_MAX {
            Effect::Failed(CommitError::Unresolved)
        } else {
            Effect::Wait(self.attempts)
        }
    }

    fn read(&mut self, found: Option<Versioned>, fresh: Ulid) -> Effect {
        let Some(sent) = &self.sent else {
            return self.propose(found, fresh);
        };
        if let Some(found) = found.as_ref().filter(|found| self.tried.iter().any(|id| found.head.includes(*id))) {
            return match self.fence(&found.head) {
                Ok(()) => Effect::Done(Box::new(found.clone())),
                Err(error) => Effect::Failed(error),
            };
        }
        if found.as_ref().map(|found| found.head.seq) == sent.base_seq {
            return self.wait(AfterWait::Resend);
        }
        // The version that was expected is gone for good, so that write can never land.
        self.attempts += 1;
        if self.attempts > ATTEMPTS_MAX {
            return Effect::Failed(CommitError::Unresolved);
        }
        self.propose(found, fresh)
    }

    fn propose(&mut self, found: Option<Versioned>, fresh: Ulid) -> Effect {
        match self.proposal(found, CommitId(fresh)) {
            Ok(effect) => effect,
            Err(error) => Effect::Failed(error),
        }
    }

    fn proposal(&mut self, found: Option<Versioned>, id: CommitId) -> Result<Effect, CommitError> {
        let (mut head, expected, base_seq) = match (&found, self.genesis) {
            (Some(found), _) => (found.head.clone(), Some(found.version.clone()), Some(found.head.seq)),
            // A first head after somebody saw one would forget offsets (failure matrix row 24).
            (None, Some(start)) if self.sent.as_ref().is_none_or(|sent| sent.base_seq.is_none()) => {
                (Head::genesis(self.term.cluster_id, self.partition, start), None, None)
            }
            (None, _) => return Err(CommitError::HeadMissing),
        };
        self.fence(&head)?;
        match (self.op.apply(&mut head)?, found) {
            (Applied::AlreadyIn, Some(found)) => return Ok(Effect::Done(Box::new(found))),
            (Applied::AlreadyIn, None) | (Applied::Changed, _) => {}
        }
        head.cluster_id = self.term.cluster_id;
        head.incarnation = self.term.incarnation;
        head.epoch = self.term.epoch;
        head.broker = self.term.broker;
        head.stamp(id);
        self.tried.push(id);
        let bytes = head.encode();
        self.sent = Some(Sent {
            expected: expected.clone(),
            base_seq,
            head,
            bytes: bytes.clone(),
        });
        Ok(Effect::Write { expected, bytes })
    }

    fn fence(&self, head: &Head) -> Result<(), CommitError> {
        if head.topic_uuid != self.partition.topic_id || head.partition != self.partition.partition {
            return Err(CommitError::ForeignCluster {
                cluster_id: head.cluster_id,
            });
        }
        let fenced = CommitError::Fenced {
            incarnation: head.incarnation,
            epoch: head.epoch,
            broker: head.broker,
        };
        let foreign = head.cluster_id != self.term.cluster_id;
        match (head.incarnation, head.epoch).cmp(&(self.term.incarnation, self.term.epoch)) {
            _ if foreign && head.incarnation >= self.term.incarnation => Err(CommitError::ForeignCluster {
                cluster_id: head.cluster_id,
            }),
            Ordering::Less => Ok(()),
            Ordering::Equal if head.broker == self.term.broker => Ok(()),
            Ordering::Equal | Ordering::Greater => Err(fenced),
        }
    }
}

#[cfg(test)]
#[path = "commit_tests.rs"]
mod tests;
