//! [`SharePartition`]: the records of one partition in the hands of one share group.

use std::{collections::BTreeMap, sync::Arc};

use millstream_protocol::ErrorCode;

use super::{ShareState, StateBatch};

/// What a group allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareLimits {
    /// `group.share.partition.max.record.locks`: records between start and end.
    pub in_flight_max: i64,
    /// `share.delivery.count.limit`: deliveries before a record is given up.
    pub delivery_count_max: i16,
    /// `share.record.lock.duration.ms`
    pub lock_duration_ms: i64,
}

impl ShareLimits {
    /// How many records of a batch are delivered at once when they were delivered `delivery_count` times before, if not all. One that cannot
    /// be processed must not take its whole batch with it: from half of the deliveries on, but the third at the earliest, they come in ever
    /// smaller pieces, the last time each alone (KAFKA-19903).
    fn piece_of(&self, batch_records: i64, delivery_count: i16) -> Option<i64> {
        let whole = (self.delivery_count_max / 2 + self.delivery_count_max % 2).max(2);
        let halvings = u32::try_from(delivery_count - whole).ok()? + 1;
        if delivery_count >= self.delivery_count_max - 1 {
            return Some(1);
        }
        Some(batch_records.checked_shr(halvings).unwrap_or(0).max(1))
    }
}

/// How a member answers for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcknowledgeType {
    /// There is no such record.
    Gap,
    /// Done.
    Accept,
    /// Somebody else shall try.
    Release,
    /// Nobody can.
    Reject,
    /// It takes longer.
    Renew,
}

impl AcknowledgeType {
    /// The type of a wire code.
    pub fn from_code(code: i8) -> Option<Self> {
        match code {
            0 => Some(Self::Gap),
            1 => Some(Self::Accept),
            2 => Some(Self::Release),
            3 => Some(Self::Reject),
            4 => Some(Self::Renew),
            _ => None,
        }
    }
}

/// Records that a member got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acquired {
    /// First offset.
    pub first_offset: i64,
    /// Last offset.
    pub last_offset: i64,
    /// How often they were delivered, this time included.
    pub delivery_count: i16,
}

/// Why records are not delivered any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUpReason {
    /// A member rejected them.
    Rejected,
    /// They were delivered as often as is allowed.
    DeliveryCount,
}

/// Records that are given up, for the dead-letter topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GivenUp {
    /// First offset.
    pub first_offset: i64,
    /// Last offset.
    pub last_offset: i64,
    /// How often they were delivered.
    pub delivery_count: i16,
    /// Why.
    pub reason: GivenUpReason,
}

/// What a read of the log found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogScan<'a> {
    /// Where the read began: what lies between there and a batch, or between two batches, is gone.
    pub first_offset: i64,
    /// The batches, in order.
    pub batches: &'a [LogBatch],
}

/// A record batch of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBatch {
    /// First offset.
    pub first_offset: i64,
    /// Last offset.
    pub last_offset: i64,
    /// Nobody may see it: a marker, or part of an aborted transaction.
    pub is_hidden: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Available,
    Acquired {
        member: Arc<str>,
        deadline_ms: i64,
    },
    Acknowledged,
    /// Given up, but not yet in the dead-letter topic; after a restart nobody knows why any more.
    GivenUp(Option<GivenUpReason>),
    Archived,
}

impl State {
    fn is_done(&self) -> bool {
        matches!(self, Self::Acknowledged | Self::Archived)
    }
}

/// Records of equal state.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    last_offset: i64,
    state: State,
    delivery_count: i16,
}

/// A share group's view of a partition. The module doc of [`super`] has the states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharePartition {
    state_epoch: i32,
    start_offset: i64,
    end_offset: i64,
    /// By first offset; they cover `start_offset..end_offset` without gaps.
    runs: BTreeMap<i64, Run>,
    is_dirty: bool,
}

impl SharePartition {
    /// A partition that was never read, from `start_offset` on.
    pub fn starting_at(start_offset: i64) -> Self {
        Self {
            state_epoch: 0,
            start_offset,
            end_offset: start_offset,
            runs: BTreeMap::new(),
            is_dirty: true,
        }
    }

    /// The partition as it was last written.
    pub fn from_state(state: &ShareState) -> Self {
        let mut partition = Self {
            state_epoch: state.state_epoch,
            is_dirty: false,
            ..Self::starting_at(state.start_offset)
        };
        for batch in &state.batches {
            // What is not told of was available.
            let first_offset = batch.first_offset.max(partition.end_offset);
            partition.extend_to(first_offset);
            let Some(end_offset) = batch.last_offset.checked_add(1).filter(|end| *end > first_offset) else {
                continue;
            };
            let run = Run {
                last_offset: batch.last_offset,
                state: match batch.state {
                    2 => State::Acknowledged,
                    3 => State::GivenUp(None),
                    4 => State::Archived,
                    _ => State::Available,
                },
                delivery_count: batch.delivery_count,
            };
            partition.end_offset = end_offset;
            partition.runs.insert(first_offset, run);
        }
        partition.advance();
        partition
    }

    /// What has to be durable.
    pub fn to_state(&self, now_ms: i64) -> ShareState {
        let batches = self.runs.iter().map(|(first_offset, run)| StateBatch {
            first_offset: *first_offset,
            last_offset: run.last_offset,
            state: match run.state {
                State::Available | State::Acquired { .. } => 0,
                State::Acknowledged => 2,
                State::GivenUp(_) => 3,
                State::Archived => 4,
            },
            delivery_count: run.delivery_count,
        });
        ShareState {
            state_epoch: self.state_epoch,
            start_offset: self.start_offset,
            write_ms: now_ms,
            batches: batches.collect(),
        }
    }

    /// Everything below is done with.
    pub fn start_offset(&self) -> i64 {
        self.start_offset
    }

    /// Records above the start that are done with, for the lag.
    pub fn done_above_start(&self) -> i64 {
        let done = self.runs.iter().filter(|(_, run)| run.state.is_done());
        done.map(|(first_offset, run)| run.last_offset - first_offset + 1).sum()
    }

    /// Whether something changed that has to be written, once.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.is_dirty)
    }

    /// What could not be written has to be written later.
    pub fn set_dirty(&mut self) {
        self.is_dirty = true;
    }

    /// Whether something has to be written.
    pub fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// Records that are given up and not yet [buried](Self::bury).
    pub fn given_up(&self, limits: &ShareLimits) -> Vec<GivenUp> {
        let mut given_up = Vec::new();
        for (first_offset, run) in &self.runs {
            let State::GivenUp(reason) = run.state else { continue };
            let guess = if run.delivery_count >= limits.delivery_count_max {
                GivenUpReason::DeliveryCount
            } else {
                GivenUpReason::Rejected
            };
            given_up.push(GivenUp {
                first_offset: *first_offset,
                last_offset: run.last_offset,
                delivery_count: run.delivery_count,
                reason: reason.unwrap_or(guess),
            });
        }
        given_up
    }

    /// Given-up records are in the dead-letter topic, or there is none: they are done with.
    pub fn bury(&mut self, given_up: &[GivenUp]) {
        for gone in given_up {
            let is_dirty = &mut self.is_dirty;
            let bury = |_: i64, run: &mut Run| {
                if let State::GivenUp(_) = run.state {
                    run.state = State::Archived;
                    *is_dirty = true;
                }
            };
            change(&mut self.runs, gone.first_offset, gone.last_offset, bury);
        }
        self.advance();
    }

    /// The first offset that could be delivered now, if the limits allow any.
    pub fn next_offset(&self, limits: &ShareLimits) -> Option<i64> {
        let available = self.runs.iter().find(|(_, run)| run.state == State::Available);
        match available {
            Some((first_offset, _)) => Some(*first_offset),
            None => (self.end_offset - self.start_offset < limits.in_flight_max).then_some(self.end_offset),
        }
    }

    /// Gives a member what is available in the batches that `scan` found. At least one record if there is one; about
    /// `records_max`, whole batches, unless `is_strict`.
    pub fn acquire(
        &mut self,
        now_ms: i64,
        member: &Arc<str>,
        limits: &ShareLimits,
        scan: LogScan<'_>,
        records_max: i64,
        is_strict: bool,
    ) -> Vec<Acquired> {
        let deadline_ms = now_ms.saturating_add(limits.lock_duration_ms);
        let mut acquired: Vec<Acquired> = Vec::new();
        let mut left = records_max.max(1);
        let mut scanned_to = scan.first_offset;
        'batches: for batch in scan.batches {
            if left <= 0 {
                break;
            }
            let after = batch.last_offset.saturating_add(1);
            // Batches that compaction removed leave a hole before this one.
            let nothing_before = if batch.is_hidden { after } else { batch.first_offset };
            self.pass_over(scanned_to, nothing_before, limits);
            scanned_to = after;
            if batch.is_hidden {
                continue;
            }
            let end = self.start_offset.saturating_add(limits.in_flight_max);
            let last_offset = batch.last_offset.min(end - 1);
            self.extend_to(last_offset + 1);
            let first_offset = batch.first_offset.max(self.start_offset);
            let batch_records = batch.last_offset - batch.first_offset + 1;
            for (first_offset, found_last, delivery_count) in self.available_between(first_offset, last_offset) {
                let piece = limits.piece_of(batch_records, delivery_count);
                if left <= 0 || piece.is_some() && !acquired.is_empty() {
                    break 'batches;
                }
                let mut last_offset = found_last;
                if is_strict {
                    last_offset = last_offset.min(first_offset + left - 1);
                }
                if let Some(piece) = piece {
                    last_offset = last_offset.min(first_offset + piece - 1);
                    left = 0;
                }
                left -= last_offset - first_offset + 1;
                let state = State::Acquired {
                    member: Arc::clone(member),
                    deadline_ms,
                };
                acquired.extend(self.deliver(first_offset, last_offset, &state));
            }
        }
        self.advance();
        acquired
    }

    fn deliver(&mut self, first_offset: i64, last_offset: i64, state: &State) -> Vec<Acquired> {
        let mut acquired = Vec::new();
        self.change(first_offset, last_offset, |first_offset, run| {
            run.state = state.clone();
            run.delivery_count = run.delivery_count.saturating_add(1);
            acquired.push(Acquired {
                first_offset,
                last_offset: run.last_offset,
                delivery_count: run.delivery_count,
            });
        });
        acquired
    }

    /// First and last offsets, and how often each was delivered.
    fn available_between(&self, first_offset: i64, last_offset: i64) -> Vec<(i64, i64, i16)> {
        if first_offset > last_offset {
            return Vec::new();
        }
        let before = self.runs.range(..=first_offset).next_back();
        let from = before.map_or(first_offset, |(first_offset, _)| *first_offset);
        let overlapping = self
            .runs
            .range(from..=last_offset)
            .filter(|(_, run)| run.last_offset >= first_offset);
        let available = overlapping.filter(|(_, run)| run.state == State::Available);
        available
            .map(|(first, run)| ((*first).max(first_offset), run.last_offset.min(last_offset), run.delivery_count))
            .collect()
    }

    /// From `first_offset` up to `end_offset` there is nothing for anybody.
    fn pass_over(&mut self, first_offset: i64, end_offset: i64, limits: &ShareLimits) {
        let is_next = first_offset <= self.end_offset && end_offset > self.end_offset;
        if is_next && self.runs.is_empty() {
            self.start_offset = end_offset;
            self.end_offset = end_offset;
            self.is_dirty = true;
            return;
        }
        if is_next {
            self.extend_to(end_offset.min(self.start_offset.saturating_add(limits.in_flight_max)));
        }
        for (first_offset, last_offset, _) in self.available_between(first_offset, end_offset - 1) {
            self.is_dirty = true;
            self.change(first_offset, last_offset, |_, run| run.state = State::Archived);
        }
        self.advance_start();
    }

    fn extend_to(&mut self, end_offset: i64) {
        if end_offset > self.end_offset {
            let run = Run {
                last_offset: end_offset - 1,
                state: State::Available,
                delivery_count: 0,
            };
            self.runs.insert(self.end_offset, run);
            self.end_offset = end_offset;
        }
    }

    /// A member's answers, ranges of offsets with one type for all or one for each. All are taken, or none.
    pub fn acknowledge(
        &mut self,
        now_ms: i64,
        member: &str,
        limits: &ShareLimits,
        answers: &[(i64, i64, Vec<AcknowledgeType>)],
    ) -> Result<(), ErrorCode> {
        for (first_offset, last_offset, types) in answers {
            let count = last_offset
                .checked_sub(*first_offset)
                .and_then(|count| count.checked_add(1))
                .unwrap_or(0);
            let fits = types.len() == 1 || i64::try_from(types.len()) == Ok(count);
            if *first_offset < 0 || count < 1 || !fits {
                return Err(ErrorCode::InvalidRequest);
            }
            self.check_acquired(member, *first_offset, *last_offset)?;
        }
        for (first_offset, last_offset, types) in answers {
            if let [one] = types[..] {
                self.answer(now_ms, limits, *first_offset, *last_offset, one);
                continue;
            }
            for (offset, kind) in (*first_offset..=*last_offset).zip(types) {
                self.answer(now_ms, limits, offset, offset, *kind);
            }
        }
        self.advance();
        Ok(())
    }

    fn check_acquired(&self, member: &str, first_offset: i64, last_offset: i64) -> Result<(), ErrorCode> {
        if last_offset < self.start_offset {
            // The log's start has moved beyond; there is nothing to answer for.
            return Ok(());
        }
        if last_offset >= self.end_offset {
            return Err(ErrorCode::InvalidRecordState);
        }
        let mut overlapping = self.runs.range(..=last_offset).filter(|(_, run)| run.last_offset >= first_offset);
        let is_members = |run: &Run| matches!(&run.state, State::Acquired { member: owner, .. } if **owner == *member);
        if overlapping.all(|(_, run)| is_members(run)) {
            Ok(())
        } else {
            Err(ErrorCode::InvalidRecordState)
        }
    }

    fn answer(&mut self, now_ms: i64, limits: &ShareLimits, first_offset: i64, last_offset: i64, kind: AcknowledgeType) {
        let first_offset = first_offset.max(self.start_offset);
        if first_offset > last_offset {
            return;
        }
        let limits = *limits;
        self.change(first_offset, last_offset, |_, run| match kind {
            AcknowledgeType::Accept => run.state = State::Acknowledged,
            AcknowledgeType::Gap => run.state = State::Archived,
            AcknowledgeType::Reject => run.state = State::GivenUp(Some(GivenUpReason::Rejected)),
            AcknowledgeType::Release => release(run, &limits),
            AcknowledgeType::Renew => {
                if let State::Acquired { deadline_ms, .. } = &mut run.state {
                    *deadline_ms = now_ms.saturating_add(limits.lock_duration_ms);
                }
            }
        });
        self.is_dirty |= kind != AcknowledgeType::Renew;
    }

    /// A member's session is over: what it holds becomes available.
    pub fn release_all(&mut self, member: &str, limits: &ShareLimits) {
        self.release_where(limits, |owner, _| owner == member);
    }

    /// Frees records whose lock ran out.
    pub fn expire_locks(&mut self, now_ms: i64, limits: &ShareLimits) {
        if self.next_deadline().is_some_and(|deadline_ms| deadline_ms <= now_ms) {
            self.release_where(limits, |_, deadline_ms| deadline_ms <= now_ms);
        }
    }

    fn release_where(&mut self, limits: &ShareLimits, is_meant: impl Fn(&str, i64) -> bool) {
        for run in self.runs.values_mut() {
            if let State::Acquired { member, deadline_ms } = &run.state
                && is_meant(member, *deadline_ms)
            {
                release(run, limits);
                self.is_dirty = true;
            }
        }
        self.advance();
    }

    /// When the next lock runs out.
    pub fn next_deadline(&self) -> Option<i64> {
        let deadlines = self.runs.values().filter_map(|run| match run.state {
            State::Acquired { deadline_ms, .. } => Some(deadline_ms),
            State::Available | State::Acknowledged | State::GivenUp(_) | State::Archived => None,
        });
        deadlines.min()
    }

    /// The log starts later now: what lies below is gone.
    pub fn log_starts_at(&mut self, log_start_offset: i64) {
        if log_start_offset <= self.start_offset {
            return;
        }
        self.is_dirty = true;
        if log_start_offset >= self.end_offset {
            self.runs.clear();
            self.start_offset = log_start_offset;
            self.end_offset = log_start_offset;
            return;
        }
        self.split_at(log_start_offset);
        self.runs = self.runs.split_off(&log_start_offset);
        self.start_offset = log_start_offset;
        self.advance();
    }

    fn change(&mut self, first_offset: i64, last_offset: i64, action: impl FnMut(i64, &mut Run)) {
        change(&mut self.runs, first_offset, last_offset, action);
    }

    fn split_at(&mut self, offset: i64) {
        split_at(&mut self.runs, offset);
    }

    fn advance_start(&mut self) {
        while let Some(entry) = self.runs.first_entry() {
            if !entry.get().state.is_done() {
                break;
            }
            self.start_offset = entry.remove().last_offset + 1;
            self.is_dirty = true;
        }
    }

    /// Moves the start over what is done with, and joins neighbours of equal state.
    fn advance(&mut self) {
        self.advance_start();
        let runs = std::mem::take(&mut self.runs);
        for (first_offset, run) in runs {
            match self.runs.last_entry() {
                Some(mut last) if last.get().state == run.state && last.get().delivery_count == run.delivery_count => {
                    last.get_mut().last_offset = run.last_offset;
                }
                _ => drop(self.runs.insert(first_offset, run)),
            }
        }
        assert!(
            self.runs
                .first_key_value()
                .is_none_or(|(first_offset, _)| *first_offset == self.start_offset),
            "runs begin at {:?}, not at the start offset {}",
            self.runs.keys().next(),
            self.start_offset
        );
    }
}

/// Takes records from their member: available again, or given up.
fn release(run: &mut Run, limits: &ShareLimits) {
    run.state = if run.delivery_count < limits.delivery_count_max {
        State::Available
    } else {
        State::GivenUp(Some(GivenUpReason::DeliveryCount))
    };
}

/// Changes runs, cut so that they lie wholly within the range.
fn change(runs: &mut BTreeMap<i64, Run>, first_offset: i64, last_offset: i64, mut action: impl FnMut(i64, &mut Run)) {
    split_at(runs, first_offset);
    split_at(runs, last_offset + 1);
    for (first_offset, run) in runs.range_mut(first_offset..=last_offset) {
        action(*first_offset, run);
    }
}

fn split_at(runs: &mut BTreeMap<i64, Run>, offset: i64) {
    let Some((_, run)) = runs.range_mut(..offset).next_back() else {
        return;
    };
    if run.last_offset >= offset {
        let after = run.clone();
        run.last_offset = offset - 1;
        runs.insert(offset, after);
    }
}
