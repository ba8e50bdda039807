//! What happened in a run, as the clients saw it: every call with its end, and every fault.
//!
//! A call that got no answer ends as [`Event::Unknown`], or not at all: it may have happened. Only [`Event::Fail`] says that it did not.

use std::{collections::BTreeMap, fmt, ops::Range};

use uuid::Uuid;

/// Number of a call, unique in a history.
pub type CallId = u64;

/// A partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Send one batch; an idempotent producer may try several times, which is one call. Values are unique, and grow per producer.
    Send {
        /// Who sends.
        producer: usize,
        /// Where to.
        partition: Partition,
        /// The records.
        values: Vec<u64>,
    },
    /// Read what is visible from an offset on.
    Read {
        /// Where.
        partition: Partition,
        /// First offset wanted.
        from: i64,
        /// The run is over: nothing is left out.
        last: bool,
    },
    /// Commit the group's offset.
    Commit {
        /// Where.
        partition: Partition,
        /// Next offset to read.
        offset: i64,
    },
    /// Ask for the group's committed offset.
    FetchCommitted {
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// The batch starts at this offset.
    Sent(i64),
    /// Offsets and values of records.
    Records(Vec<(i64, u64)>),
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A call begins.
    Invoke(CallId, Call),
    /// It went well.
    Ok(CallId, Answer),
    /// It did not happen, and never will.
    Fail(CallId, String),
    /// Nobody will learn what became of it.
    Unknown(CallId),
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
