//! The transactions of one log: which are open, which were aborted, and how far the log is stable (KIP-98).
//!
//! A transaction is open from its first batch to its marker. The *last stable offset* is the first offset of the earliest transaction whose
//! outcome is not below the high watermark yet: also of one that has ended, as long as its marker could be lost again.
//!
//! The outcomes of aborted transactions are kept as long as the log has records of them, in memory and in every producer snapshot:
//! 24 bytes each.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, BytesMut};

/// A transaction that was aborted, for readers of committed records only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Its producer.
    pub producer_id: i64,
    /// Offset of its first record.
    pub first_offset: i64,
    /// Offset of its abort marker.
    pub last_offset: i64,
}

/// The transactions of one log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Transactions {
    /// First offset of each open transaction, by producer.
    open: BTreeMap<i64, i64>,
    /// First offset and marker offset of transactions that ended, until the high watermark has passed the marker. Not in snapshots.
    ended: BTreeMap<i64, i64>,
    /// By marker offset.
    aborted: Vec<AbortedTransaction>,
}

impl Transactions {
    /// Where the producer's open transaction begins.
    pub fn open_since(&self, producer_id: i64) -> Option<i64> {
        self.open.get(&producer_id).copied()
    }

    /// A transactional batch at `base_offset` was appended.
    pub fn continued(&mut self, producer_id: i64, base_offset: i64) {
        self.open.entry(producer_id).or_insert(base_offset);
    }

    /// A marker at `offset` was appended.
    pub fn ended(&mut self, producer_id: i64, offset: i64, commit: bool) {
        // Markers also reach partitions that the transaction never wrote to.
        let Some(first_offset) = self.open.remove(&producer_id) else {
            return;
        };
        self.ended.insert(first_offset, offset);
        if !commit {
            self.aborted.push(AbortedTransaction {
                producer_id,
                first_offset,
                last_offset: offset,
            });
        }
    }

    /// First offset that readers of committed records may not see while the log is safe up to `high_watermark`.
    pub fn last_stable_offset(&mut self, high_watermark: i64) -> i64 {
        self.ended.retain(|_, marker| *marker >= high_watermark);
        let open = self.open.values().min();
        let ended = self.ended.first_key_value().map(|(first_offset, _)| first_offset);
        open.into_iter().chain(ended).copied().fold(high_watermark, i64::min)
    }

    /// Whether no transaction is open and no outcome can be lost.
    pub fn is_quiet(&self) -> bool {
        self.open.is_empty() && self.ended.is_empty()
    }

    /// Aborted transactions with records in `[from, to)`, by first offset.
    pub fn aborted_between(&self, from: i64, to: i64) -> Vec<AbortedTransaction> {
        let start = self.aborted.partition_point(|aborted| aborted.last_offset < from);
        let mut found: Vec<_> = self.aborted[start..]
            .iter()
            .filter(|aborted| aborted.first_offset < to)
            .copied()
            .collect();
        found.sort_unstable_by_key(|aborted| aborted.first_offset);
        found
    }

    /// Forgets outcomes of which the log has no records any more.
    pub fn forget_below(&mut self, log_start_offset: i64) {
        let gone = self.aborted.partition_point(|aborted| aborted.last_offset < log_start_offset);
        self.aborted.drain(..gone);
    }

    /// `count u32 | { producer id i64 | first offset i64 | last offset i64 }*`; open transactions are in the producers' entries.
    pub fn encode(&self, bytes: &mut BytesMut) {
        bytes.put_u32(u32::try_from(self.aborted.len()).unwrap_or(u32::MAX));
        for aborted in &self.aborted {
            bytes.put_i64(aborted.producer_id);
            bytes.put_i64(aborted.first_offset);
            bytes.put_i64(aborted.last_offset);
        }
    }

    /// The inverse of `encode`; `None` if the bytes end early.
    pub fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let mut transactions = Self::default();
        for _ in 0..bytes.try_get_u32().ok()? {
            transactions.aborted.push(AbortedTransaction {
                producer_id: bytes.try_get_i64().ok()?,
                first_offset: bytes.try_get_i64().ok()?,
                last_offset: bytes.try_get_i64().ok()?,
            });
        }
        Some(transactions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stable_end_waits_for_the_earliest_outcome_below_the_high_watermark() {
        let mut transactions = Transactions::default();
        assert_eq!(transactions.last_stable_offset(10), 10);
        transactions.continued(1, 10);
        transactions.continued(2, 12);
        transactions.continued(1, 14);
        assert_eq!(transactions.last_stable_offset(16), 10);
        transactions.ended(1, 16, true);
        assert_eq!(transactions.last_stable_offset(16), 10, "the marker itself is not safe yet");
        assert_eq!(transactions.last_stable_offset(17), 12);
        transactions.ended(2, 17, false);
        assert_eq!(transactions.last_stable_offset(18), 18);
    }

    #[test]
    fn aborted_transactions_are_found_by_overlap_and_sorted_by_first_offset() {
        let mut transactions = Transactions::default();
        transactions.continued(1, 5);
        transactions.continued(2, 3);
        transactions.ended(1, 8, false);
        transactions.ended(2, 9, false);
        transactions.ended(3, 10, false);
        let firsts = |from, to| {
            transactions
                .aborted_between(from, to)
                .iter()
                .map(|aborted| aborted.first_offset)
                .collect::<Vec<_>>()
        };
        assert_eq!(firsts(0, 100), [3, 5]);
        assert_eq!(firsts(9, 100), [3]);
        assert_eq!(firsts(0, 5), [3]);
        assert_eq!(firsts(10, 100), Vec::<i64>::new());
        transactions.forget_below(9);
        assert_eq!(transactions.aborted_between(0, 100).len(), 1);
    }
}
