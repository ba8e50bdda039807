//! What happened in a run, as the clients saw it: every call with its end, and every fault.
//!
//! A call that got no answer ends as [`Event::Unknown`], or not at all: it may have happened. Only [`Event::Fail`] says that it did not.
//!
//! As text a history has one line per event, `[milliseconds,{"invoke":[1,{"send":{…}}]}]`, so that clients in any language can write it.

use std::{collections::BTreeMap, fmt, io::BufRead, ops::Range};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Number of a call, unique in a history.
pub type CallId = u64;

/// Number of a transaction, unique in a history.
pub type TransactionId = u64;

/// A partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Partition {
    /// The topic.
    pub topic: Uuid,
    /// Its number.
    pub number: i32,
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.number)
    }
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Send one batch; an idempotent producer may try several times, which is one call. Values are unique, and grow per producer,
    /// whose number is their upper half.
    Send {
        /// Who sends.
        producer: usize,
        /// Where to.
        partition: Partition,
        /// The records.
        values: Vec<u64>,
        /// The transaction that it is part of.
        #[serde(default)]
        transaction: Option<TransactionId>,
        /// Time of each of the records in milliseconds, if the checker may know.
        #[serde(default)]
        timestamp: Option<i64>,
    },
    /// End a transaction.
    EndTransaction {
        /// Which.
        transaction: TransactionId,
        /// Or abort it.
        commit: bool,
    },
    /// Read what is visible from an offset on.
    Read {
        /// Where.
        partition: Partition,
        /// First offset wanted.
        from: i64,
        /// Only what is committed (`isolation.level=read_committed`).
        #[serde(default)]
        committed: bool,
        /// The run is over: nothing is left out.
        #[serde(default)]
        last: bool,
    },
    /// Ask where a log starts and ends.
    Bounds {
        /// Where.
        partition: Partition,
        /// The run is over: no transaction is open.
        #[serde(default)]
        last: bool,
    },
    /// Ask for the first offset at or after a time.
    OffsetAt {
        /// Where.
        partition: Partition,
        /// The time, in milliseconds.
        timestamp: i64,
    },
    /// Ask where a leader epoch ended (OffsetForLeaderEpoch).
    EpochEnd {
        /// Where.
        partition: Partition,
        /// The epoch.
        epoch: i32,
    },
    /// Commit a group's offset.
    Commit {
        /// Whose.
        group: String,
        /// Where.
        partition: Partition,
        /// Next offset to read.
        offset: i64,
    },
    /// Ask for a group's committed offset.
    FetchCommitted {
        /// Whose.
        group: String,
        /// Where.
        partition: Partition,
    },
    /// Ask for the assignment of a generation.
    Sync {
        /// The generation.
        generation: i32,
        /// Who asks.
        member: String,
    },
    /// Create a topic.
    CreateTopic {
        /// Its id.
        topic: Uuid,
    },
    /// Delete a topic.
    DeleteTopic {
        /// Its id.
        topic: Uuid,
    },
    /// Delete a partition's records below an offset.
    DeleteRecords {
        /// Where.
        partition: Partition,
        /// The first offset to keep.
        before: i64,
    },
    /// Set a topic's `retention.ms`.
    SetRetention {
        /// The topic.
        topic: Uuid,
        /// The value, unique in the run.
        value: String,
    },
    /// Take a block of producer ids.
    TakeProducerIds,
    /// List the topics.
    ListTopics,
}

/// What a client is told when a call went well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is done.
    Done,
    /// The batch starts at this offset.
    Sent(i64),
    /// Offsets and values of records.
    Records(Vec<(i64, u64)>),
    /// The bounds of a log.
    Bounds {
        /// First offset that can be read.
        start: i64,
        /// The last stable offset: up to here everything is committed or aborted.
        stable: i64,
        /// The high watermark.
        end: i64,
    },
    /// An offset, -1 if there is none.
    Offset(i64),
    /// The committed offset, -1 if there is none.
    Committed(i64),
    /// The partitions that the member owns.
    Owns(Vec<i32>),
    /// The topics with their `retention.ms`, if it is set.
    Topics(BTreeMap<Uuid, Option<String>>),
    /// A block of producer ids.
    ProducerIds(Range<i64>),
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A call begins.
    Invoke(CallId, Call),
    /// It went well.
    Ok(CallId, Answer),
    /// It did not happen, and never will.
    Fail(CallId, String),
    /// Nobody will learn what became of it.
    Unknown(CallId),
    /// From now on a member of a group has these partitions, and no others. A member that gives some up says so before it tells the
    /// broker, and one that gets some after the broker told it.
    Holds {
        /// The group.
        group: String,
        /// Who.
        member: String,
        /// All that it has.
        partitions: Vec<Partition>,
        /// What it has no more was not given up: it was silent for too long, and learns only now that others may have it.
        #[serde(default)]
        lost: bool,
    },
    /// Nothing moves any more in a group that reads these partitions: each must have an owner.
    AtRest {
        /// The group.
        group: String,
        /// What it reads.
        partitions: Vec<Partition>,
    },
    /// A topic is compacted. The key of a record is its value modulo `keys`, and a record may go once a later one has its key.
    Compacted {
        /// The topic.
        topic: Uuid,
        /// How many keys there are.
        keys: u64,
    },
    /// Something was broken or mended on purpose.
    Fault(String),
}

/// All that happened, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Virtual time in milliseconds, and what happened.
    pub events: Vec<(i64, Event)>,
    next_call: CallId,
}

impl History {
    /// Begins a call.
    pub fn invoke(&mut self, now_ms: i64, call: Call) -> CallId {
        self.next_call += 1;
        self.events.push((now_ms, Event::Invoke(self.next_call, call)));
        self.next_call
    }

    /// Reads the lines that real clients wrote. They may come from several places: order is by time, and among equals as they come.
    pub fn read(lines: impl BufRead) -> Result<Self> {
        let mut events: Vec<(i64, Event)> = Vec::new();
        for (index, line) in lines.lines().enumerate() {
            let line = line.context("read a history")?;
            events.push(serde_json::from_str(&line).with_context(|| format!("line {} of a history: {line}", index + 1))?);
        }
        events.sort_by_key(|(at_ms, _)| *at_ms);
        Ok(Self { events, next_call: 0 })
    }

    /// Adds an event.
    pub fn push(&mut self, now_ms: i64, event: Event) {
        self.events.push((now_ms, event));
    }

    /// A number that tells two histories apart: FNV-1a over their text.
    pub fn hash(&self) -> u64 {
        let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
        for event in &self.events {
            // Writing to a number cannot fail.
            let _ = fmt::write(&mut hash, format_args!("{event:?}\n"));
        }
        hash.0
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.events.iter().try_for_each(|(at_ms, event)| writeln!(f, "{at_ms} {event:?}"))
    }
}

struct Fnv(u64);

impl fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}
