//! The head of a partition: the one mutable object, and the only commit point (I3).
//!
//! A head lists what the bucket holds of a partition between `log_start` and `remote_end`, who committed last, and which objects
//! wait for deletion. Fields that this version does not know are kept when the head is rewritten, so that an older broker does
//! not erase what a newer one added. Offsets named `next` and `*_end` are exclusive.

use std::{fmt::Display, str::FromStr};

use bytes::Bytes;
use millstream_log::remote::{EpochEntry, RemoteBounds, TopicIdPartition};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value};
use ulid::Ulid;
use uuid::Uuid;

use crate::{
    envelope::{self, FormatError},
    layout::{ObjectKind, ObjectName},
};

const MAGIC: [u8; 8] = *b"MSHEAD\0\0";
const PAGE_MAGIC: [u8; 8] = *b"MSPAGE\0\0";
/// How many commit ids a head remembers, to resolve a lost reply after others have committed on top.
const RECENT_COMMITS_MAX: usize = 32;

/// Serializes an id as its text.
mod text {
    use super::{Deserialize, Deserializer, Display, FromStr, Serializer};

    pub fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(super::custom)
    }
}

fn custom<E: serde::de::Error>(error: impl Display) -> E {
    E::custom(error)
}

/// A commit's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommitId(pub Ulid);

impl Serialize for CommitId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for CommitId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ulid::from_string(&text).map(CommitId).map_err(D::Error::custom)
    }
}

/// A leader epoch and its first offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineageEntry {
    /// The leader epoch.
    pub epoch: i32,
    /// First offset written in it.
    pub start: i64,
}

impl From<EpochEntry> for LineageEntry {
    fn from(entry: EpochEntry) -> Self {
        LineageEntry {
            epoch: entry.epoch,
            start: entry.start_offset,
        }
    }
}

/// A reference to a segment object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegRef {
    /// Unique part of the object's name.
    #[serde(with = "text")]
    pub ulid: Ulid,
    /// Leader epoch of the uploader.
    pub epoch: i32,
    /// First offset.
    pub base: i64,
    /// First offset after it.
    pub next: i64,
    /// Size of the object in bytes.
    pub size: u64,
    /// Where the footer starts, which is the size of the record batches in bytes.
    pub footer_pos: u64,
    /// Size of the footer in bytes, trailer not included.
    pub footer_len: u32,
    /// CRC-32C of the record batches.
    pub crc: u32,
    /// Smallest record timestamp in milliseconds, -1 if unknown.
    pub min_ts: i64,
    /// Largest record timestamp in milliseconds, -1 if there is none.
    pub max_ts: i64,
    /// Number of records.
    pub records: u64,
    /// When it was uploaded, in milliseconds; retention uses the smaller of this and `max_ts`.
    pub uploaded_ms: i64,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl SegRef {
    pub(crate) fn name(&self) -> ObjectName {
        ObjectName {
            kind: ObjectKind::Segment,
            base: self.base,
            next: self.next,
            epoch: self.epoch,
            id: self.ulid,
        }
    }
}

/// A reference to a page: the oldest segment references, moved out of the head to keep it small.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRef {
    /// Unique part of the object's name.
    #[serde(with = "text")]
    pub ulid: Ulid,
    /// Leader epoch of the writer.
    pub epoch: i32,
    /// First offset of its first segment.
    pub base: i64,
    /// End of its last segment.
    pub next: i64,
    /// Number of segments.
    pub segments: u32,
    /// Bytes of record batches in them.
    pub bytes: u64,
    /// Largest record timestamp in milliseconds.
    pub max_ts: i64,
    /// When the last of its segments was uploaded, in milliseconds.
    pub uploaded_ms: i64,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl PageRef {
    pub(crate) fn name(&self) -> ObjectName {
        ObjectName {
            kind: ObjectKind::Page,
            base: self.base,
            next: self.next,
            epoch: self.epoch,
            id: self.ulid,
        }
    }
}

/// Offsets that never reached the bucket; readers jump over them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// First missing offset.
    pub base: i64,
    /// First offset after the gap.
    pub next: i64,
    /// Why.
    pub why: String,
}

/// An object that is not referenced any more and waits for deletion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grave {
    /// The object's key below the bucket's root.
    pub key: String,
    /// When it was buried, in milliseconds.
    pub since: i64,
    /// Why.
    pub why: String,
}

/// The head of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The cluster that committed last.
    #[serde(with = "text")]
    pub cluster_id: Uuid,
    /// Counts restores of a cluster from its bucket; outranks every epoch.
    pub incarnation: u64,
    /// The topic.
    #[serde(with = "text")]
    pub topic_uuid: Uuid,
    /// The partition's number.
    pub partition: i32,
    /// Counts commits.
    pub seq: u64,
    /// Leader epoch of the last committer.
    pub epoch: i32,
    /// Broker that committed last.
    pub broker: i32,
    /// The last commit.
    pub commit_id: CommitId,
    /// The commits before it, newest first.
    pub prev_commit_ids: Vec<CommitId>,
    /// First offset that may be read, over all tiers.
    pub log_start: i64,
    /// End of what the bucket holds.
    pub remote_end: i64,
    /// Leader epochs below `remote_end`.
    pub lineage: Vec<LineageEntry>,
    /// Spilled references, oldest first.
    pub pages: Vec<PageRef>,
    /// Segment references, oldest first.
    pub segs: Vec<SegRef>,
    /// Holes in the bucket's offsets.
    pub gaps: Vec<Gap>,
    /// Objects that wait for deletion.
    pub graveyard: Vec<Grave>,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Head {
    /// The head of a partition of which nothing is in the bucket.
    pub(crate) fn genesis(cluster_id: Uuid, partition: TopicIdPartition, start: i64) -> Head {
        Head {
            cluster_id,
            incarnation: 0,
            topic_uuid: partition.topic_id,
            partition: partition.partition,
            seq: 0,
            epoch: -1,
            broker: -1,
            commit_id: CommitId(Ulid::nil()),
            prev_commit_ids: Vec::new(),
            log_start: start,
            remote_end: start,
            lineage: Vec::new(),
            pages: Vec::new(),
            segs: Vec::new(),
            gaps: Vec::new(),
            graveyard: Vec::new(),
            extra: Map::new(),
        }
    }

    /// Makes this the head of commit `id`, on top of the one it was read from.
    pub(crate) fn stamp(&mut self, id: CommitId) {
        self.prev_commit_ids.insert(0, self.commit_id);
        self.prev_commit_ids.truncate(RECENT_COMMITS_MAX);
        self.commit_id = id;
        self.seq += 1;
    }

    /// Whether commit `id` is this head or one of those it was built on.
    pub(crate) fn includes(&self, id: CommitId) -> bool {
        self.commit_id == id || self.prev_commit_ids.contains(&id)
    }

    /// What can be read; `None` if nothing.
    pub fn bounds(&self) -> Option<RemoteBounds> {
        (self.log_start < self.remote_end).then_some(RemoteBounds {
            start_offset: self.log_start,
            end_offset: self.remote_end,
        })
    }

    /// Bytes of record batches that the head refers to.
    pub fn bytes(&self) -> u64 {
        self.pages
            .iter()
            .map(|page| page.bytes)
            .chain(self.segs.iter().map(|seg| seg.footer_pos))
            .fold(0, u64::saturating_add)
    }

    /// Number of segment objects that the head refers to.
    pub fn segment_count(&self) -> usize {
        self.segs.len() + self.pages.iter().map(|page| page.segments as usize).sum::<usize>()
    }

    /// Encodes the head for the bucket.
    pub fn encode(&self) -> Bytes {
        seal_json(MAGIC, self)
    }

    /// Decodes and checks a head.
    pub fn decode(bytes: &[u8]) -> Result<Head, FormatError> {
        let head: Head = open_json("head", MAGIC, bytes)?;
        head.check()?;
        Ok(head)
    }

    /// I1 and I3 as far as a head shows them: ranges in order, no overlap, holes only where a gap says so.
    fn check(&self) -> Result<(), FormatError> {
        let broken = |reason| Err(FormatError::Inconsistent { what: "head", reason });
        if self.log_start < 0 || self.log_start > self.remote_end {
            return broken("log start above remote end");
        }
        if self
            .lineage
            .windows(2)
            .any(|pair| matches!(pair, [a, b] if a.epoch >= b.epoch || a.start > b.start))
        {
            return broken("lineage is not in order");
        }
        let ranges = self
            .pages
            .iter()
            .map(|page| (page.base, page.next))
            .chain(self.segs.iter().map(|seg| (seg.base, seg.next)));
        let mut end: Option<i64> = None;
        for (base, next) in ranges {
            if base < 0 || base >= next {
                return broken("empty or negative range");
            }
            if end.is_some_and(|end| base != end && !self.gaps.iter().any(|gap| gap.base == end && gap.next == base)) {
                return broken("ranges do not follow each other");
            }
            end = Some(next);
        }
        if end.is_some_and(|end| end != self.remote_end) {
            return broken("last range does not end at remote end");
        }
        if self.segs.iter().any(|seg| {
            u64::from(seg.footer_len)
                .checked_add(seg.footer_pos)
                .is_none_or(|end| end > seg.size)
        }) {
            return broken("footer outside its object");
        }
        Ok(())
    }
}

/// A page's document.
#[derive(Debug, Serialize, Deserialize)]
struct Page {
    segs: Vec<SegRef>,
}

/// Encodes a page.
pub(crate) fn encode_page(segs: &[SegRef]) -> Bytes {
    seal_json(PAGE_MAGIC, &Page { segs: segs.to_vec() })
}

/// Decodes a page and checks it against its reference.
pub(crate) fn decode_page(page: &PageRef, bytes: &[u8]) -> Result<Vec<SegRef>, FormatError> {
    let Page { segs } = open_json("page", PAGE_MAGIC, bytes)?;
    let ordered = segs.windows(2).all(|pair| matches!(pair, [a, b] if a.next <= b.base)) && segs.iter().all(|seg| seg.base < seg.next);
    let matches = segs.first().map(|seg| seg.base) == Some(page.base)
        && segs.last().map(|seg| seg.next) == Some(page.next)
        && u32::try_from(segs.len()) == Ok(page.segments);
    if ordered && matches {
        Ok(segs)
    } else {
        Err(FormatError::Inconsistent {
            what: "page",
            reason: "segments do not match the reference",
        })
    }
}

fn seal_json(magic: [u8; 8], document: &impl Serialize) -> Bytes {
    // These documents have string keys and no failing serializers, so JSON can hold every one of them.
    let json = serde_json::to_vec(document).unwrap_or_else(|error| panic!("document does not serialize: {error}"));
    envelope::seal(magic, &json)
}

fn open_json<T: for<'de> Deserialize<'de>>(what: &'static str, magic: [u8; 8], bytes: &[u8]) -> Result<T, FormatError> {
    let json = envelope::open(what, magic, bytes)?;
    serde_json::from_slice(&json).map_err(|error| FormatError::Document {
        what,
        reason: error.to_string(),
    })
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
