//! Changes of a head as pure, idempotent functions.
//!
//! A commit may have to apply its change again, on a head that somebody else has written in between; so each change first asks
//! whether it is already in, and refuses a head that it does not fit. The invariants of the head are kept here.

use millstream_log::remote::EpochEntry;
use thiserror::Error;

use crate::head::{Gap, Grave, Head, LineageEntry, PageRef, SegRef};

/// A change of a head.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// Says that this broker leads; a remote tail that the leader's own log contradicts is cut off (unclean election).
    Claim {
        /// The leader's epochs, to find where its log and the bucket part.
        epochs: Vec<EpochEntry>,
        /// Prefix of the partition's keys, for the graveyard.
        keys: Keys,
        /// The time in milliseconds.
        now_ms: i64,
    },
    /// Adds the next segment.
    Append {
        /// The new segment.
        segment: Box<SegRef>,
        /// The leader's epochs.
        epochs: Vec<EpochEntry>,
        /// Offsets between `remote_end` and the segment are gone for good.
        gap_allowed: bool,
    },
    /// Raises the log start; what lies wholly below it goes to the graveyard.
    Retain {
        /// The new log start offset.
        log_start: i64,
        /// Prefix of the partition's keys, for the graveyard.
        keys: Keys,
        /// Segments of the pages that lie below `log_start`, as read from those pages.
        paged: Vec<SegRef>,
        /// The time in milliseconds.
        now_ms: i64,
    },
    /// Moves the oldest segments to a page that has been uploaded.
    Spill {
        /// The page.
        page: Box<PageRef>,
    },
    /// Forgets objects that have been deleted.
    Bury {
        /// Their keys.
        keys: Vec<String>,
    },
}

/// Turns a reference into a key.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    /// The bucket's layout.
    pub layout: crate::layout::Layout,
    /// The partition.
    pub partition: millstream_log::remote::TopicIdPartition,
}

impl Keys {
    fn grave(&self, name: &crate::layout::ObjectName, why: &str, now_ms: i64) -> Grave {
        Grave {
            key: self.layout.object(self.partition, name).to_string(),
            since: now_ms,
            why: why.to_owned(),
        }
    }
}

/// What applying a change gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// The head has to be written.
    Changed,
    /// The head already says so.
    AlreadyIn,
}

/// Why a change does not fit a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpRejected {
    /// The segment does not start where the bucket ends.
    #[error("segment starts at {base}, the bucket ends at {remote_end}")]
    NotContiguous {
        /// First offset of the segment.
        base: i64,
        /// End of the bucket.
        remote_end: i64,
    },
    /// The page does not match the oldest segments.
    #[error("page {base}..{next} does not match the oldest segments")]
    PageMismatch {
        /// First offset of the page.
        base: i64,
        /// End of the page.
        next: i64,
    },
    /// The leader's log contradicts offsets that are in pages already.
    #[error("the log parts from the bucket at {offset}, inside a page: rebuild the head")]
    DivergesInPage {
        /// Where they part.
        offset: i64,
    },
}

impl Op {
    /// Applies the change to `head`, which is left in an unspecified state if the change is rejected.
    pub fn apply(&self, head: &mut Head) -> Result<Applied, OpRejected> {
        match self {
            Op::Claim { epochs, keys, now_ms } => claim(head, epochs, keys, *now_ms),
            Op::Append {
                segment,
                epochs,
                gap_allowed,
            } => append(head, segment, epochs, *gap_allowed),
            Op::Retain {
                log_start,
                keys,
                paged,
                now_ms,
            } => Ok(retain(head, *log_start, keys, paged, *now_ms)),
            Op::Spill { page } => spill(head, page),
            Op::Bury { keys } => Ok(bury(head, keys)),
        }
    }
}

fn claim(head: &mut Head, epochs: &[EpochEntry], keys: &Keys, now_ms: i64) -> Result<Applied, OpRejected> {
    let Some(offset) = divergence(&head.lineage, head.remote_end, epochs) else {
        return Ok(Applied::Changed);
    };
    if head.pages.last().is_some_and(|page| page.next > offset) {
        return Err(OpRejected::DivergesInPage { offset });
    }
    let kept = head.segs.partition_point(|seg| seg.next <= offset);
    let cut = head.segs.split_off(kept);
    head.graveyard
        .extend(cut.iter().map(|seg| keys.grave(&seg.name(), "diverged", now_ms)));
    let paged_end = head.pages.last().map(|page| page.next);
    head.remote_end = head
        .segs
        .last()
        .map(|seg| seg.next)
        .or(paged_end)
        .or(cut.first().map(|seg| seg.base))
        .unwrap_or(offset);
    head.log_start = head.log_start.min(head.remote_end);
    let end = head.remote_end;
    head.lineage.retain(|entry| entry.start < end);
    head.gaps.retain(|gap| gap.next <= end);
    Ok(Applied::Changed)
}

/// The first offset at which the bucket and the leader's log may hold different records: where the log goes on to a later epoch
/// than the bucket's last one, if the bucket goes further.
fn divergence(remote: &[LineageEntry], remote_end: i64, local: &[EpochEntry]) -> Option<i64> {
    let last = remote.last()?;
    let successor = local.iter().find(|entry| entry.epoch > last.epoch)?;
    (successor.start_offset < remote_end).then_some(successor.start_offset)
}

fn append(head: &mut Head, segment: &SegRef, epochs: &[EpochEntry], gap_allowed: bool) -> Result<Applied, OpRejected> {
    if head.segs.iter().any(|seg| seg.ulid == segment.ulid) {
        return Ok(Applied::AlreadyIn);
    }
    if segment.base != head.remote_end {
        if !gap_allowed || segment.base < head.remote_end {
            return Err(OpRejected::NotContiguous {
                base: segment.base,
                remote_end: head.remote_end,
            });
        }
        if head.segs.is_empty() && head.pages.is_empty() {
            head.log_start = segment.base;
        } else {
            head.gaps.push(Gap {
                base: head.remote_end,
                next: segment.base,
                why: "not offloaded".to_owned(),
            });
        }
    }
    head.segs.push(segment.clone());
    head.remote_end = segment.next;
    head.lineage = merged_lineage(&head.lineage, epochs, head.remote_end);
    Ok(Applied::Changed)
}

/// The bucket's epochs, continued by those of the leader that are newer.
fn merged_lineage(remote: &[LineageEntry], local: &[EpochEntry], end: i64) -> Vec<LineageEntry> {
    let mut merged = remote.to_vec();
    for entry in local.iter().filter(|entry| entry.start_offset < end) {
        if merged
            .last()
            .is_none_or(|last| entry.epoch > last.epoch && entry.start_offset >= last.start)
        {
            merged.push(LineageEntry::from(*entry));
        }
    }
    merged
}

fn retain(head: &mut Head, log_start: i64, keys: &Keys, paged: &[SegRef], now_ms: i64) -> Applied {
    let log_start = log_start.min(head.remote_end);
    if log_start <= head.log_start {
        return Applied::AlreadyIn;
    }
    head.log_start = log_start;
    // Only a page whose segments the caller has read can go, else their objects would be lost from sight.
    let known = |page: &PageRef| paged.iter().any(|seg| seg.next == page.next);
    let pages_below = head.pages.iter().take_while(|page| page.next <= log_start && known(page)).count();
    let pages: Vec<PageRef> = head.pages.drain(..pages_below).collect();
    let paged_end = pages.last().map_or(i64::MIN, |page| page.next);
    head.graveyard.extend(
        paged
            .iter()
            .filter(|seg| seg.next <= paged_end)
            .map(|seg| keys.grave(&seg.name(), "retention", now_ms)),
    );
    head.graveyard
        .extend(pages.iter().map(|page| keys.grave(&page.name(), "retention", now_ms)));
    if head.pages.is_empty() {
        let below = head.segs.partition_point(|seg| seg.next <= log_start);
        let segs: Vec<SegRef> = head.segs.drain(..below).collect();
        head.graveyard
            .extend(segs.iter().map(|seg| keys.grave(&seg.name(), "retention", now_ms)));
    }
    head.gaps.retain(|gap| gap.next > log_start);
    Applied::Changed
}

fn spill(head: &mut Head, page: &PageRef) -> Result<Applied, OpRejected> {
    if head.pages.iter().any(|known| known.ulid == page.ulid) {
        return Ok(Applied::AlreadyIn);
    }
    let moved = page.segments as usize;
    let matches = head.segs.first().map(|seg| seg.base) == Some(page.base)
        && moved.checked_sub(1).and_then(|last| head.segs.get(last)).map(|seg| seg.next) == Some(page.next);
    if !matches {
        return Err(OpRejected::PageMismatch {
            base: page.base,
            next: page.next,
        });
    }
    head.segs.drain(..moved);
    head.pages.push(page.clone());
    Ok(Applied::Changed)
}

fn bury(head: &mut Head, keys: &[String]) -> Applied {
    let before = head.graveyard.len();
    head.graveyard.retain(|grave| !keys.contains(&grave.key));
    if head.graveyard.len() == before {
        Applied::AlreadyIn
    } else {
        Applied::Changed
    }
}

#[cfg(test)]
#[path = "ops_tests.rs"]
mod tests;
