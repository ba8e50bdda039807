//! Record sections, and how verdicts change them.
//!
//! A [`Section`] is a run of v2 records whose framing was checked, with the way back from each record to the batch that was handed in.
//! An [`Output`] takes verdicts for one window of a section after the other, from left to right, and copies nothing until the first
//! verdict that changes something. Offset delta, timestamp delta and attributes of a record never change.

use std::ops::Range;

use bytes::Bytes;
use millstream_abi::{HeaderList, RawRecord, RecordReader, Verdict, VerdictReader};

use crate::{
    instance::{AMPLIFICATION_MAX, Failure, REPLY_BYTES_FLOOR},
    policy::{Action, Rules},
    stats::Tally,
    text,
};

/// Records whose length prefixes add up.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    bytes: Bytes,
    record_count: u32,
    /// For each record its index in the batch that was handed in; `None` while they are the same.
    origin: Option<Vec<u32>>,
}

/// Neighbouring records of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    /// Index of the first record.
    pub(crate) first: u32,
    /// How many there are.
    pub(crate) count: u32,
    /// Where their bytes are.
    pub(crate) bytes: Range<usize>,
}

impl Section {
    /// Checks the framing: exactly `record_count` records and nothing behind them. So no plugin can be shown fewer records than the
    /// bytes hold. The inside of the records is the guest's and the verdicts' to read.
    pub(crate) fn new(bytes: Bytes, record_count: i32) -> Result<Self, String> {
        let record_count = u32::try_from(record_count).map_err(|_| format!("{record_count} records"))?;
        let section = Self {
            bytes,
            record_count,
            origin: None,
        };
        let mut end = 0;
        for index in 0..record_count {
            end = record_end(&section.bytes, end).ok_or_else(|| format!("record {index} at byte {end} does not fit"))?;
        }
        if end != section.bytes.len() {
            return Err(format!("{} bytes follow the last record", section.bytes.len() - end));
        }
        Ok(section)
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How many records there are.
    pub(crate) fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Index of a record in the batch that was handed in.
    pub(crate) fn origin_of(&self, record: u32) -> u32 {
        let Some(origin) = &self.origin else { return record };
        usize::try_from(record)
            .ok()
            .and_then(|record| origin.get(record))
            .copied()
            .unwrap_or(record)
    }

    /// All records as one window.
    pub(crate) fn window(&self) -> Window {
        Window {
            first: 0,
            count: self.record_count,
            bytes: 0..self.bytes.len(),
        }
    }

    /// The bytes of a window.
    pub(crate) fn slice(&self, window: &Window) -> &[u8] {
        self.bytes.get(window.bytes.clone()).unwrap_or_default()
    }

    /// A window's two halves; the window must hold two records at least.
    pub(crate) fn halves(&self, window: &Window) -> (Window, Window) {
        let count = window.count / 2;
        let middle = (0..count).fold(window.bytes.start, |end, _| record_end(&self.bytes, end).unwrap_or(end));
        let left = Window {
            first: window.first,
            count,
            bytes: window.bytes.start..middle,
        };
        let right = Window {
            first: window.first + count,
            count: window.count - count,
            bytes: middle..window.bytes.end,
        };
        (left, right)
    }

    /// The bytes of some records, given in ascending order.
    pub(crate) fn records_at(&self, wanted: impl Iterator<Item = u32>) -> Vec<Bytes> {
        let (mut index, mut start) = (0, 0);
        let mut found = Vec::new();
        for record in wanted {
            while index < record {
                start = record_end(&self.bytes, start).unwrap_or(self.bytes.len());
                index += 1;
            }
            let end = record_end(&self.bytes, start).unwrap_or(self.bytes.len());
            found.push(self.bytes.slice(start..end));
        }
        found
    }
}

/// Where the record that starts at `start` ends, by its length prefix.
fn record_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut length = 0_u32;
    for (index, byte) in bytes.get(start..)?.iter().take(5).enumerate() {
        let shift = 7 * u32::try_from(index).ok()?;
        if shift == 28 && *byte > 0x0f {
            return None;
        }
        length |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            // Zigzag: an odd number is a negative length.
            let length = if length & 1 == 0 {
                usize::try_from(length >> 1).ok()?
            } else {
                return None;
            };
            return start.checked_add(index + 1)?.checked_add(length).filter(|end| *end <= bytes.len());
        }
    }
    None
}

/// A record that does more than stay, change or go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Effect {
    /// Index in the batch that was handed in.
    pub(crate) record: u32,
    /// `Reject`, `Divert` or `Stall`.
    pub(crate) action: Action,
    /// `verdict`, `error` or `crash`.
    pub(crate) kind: &'static str,
    /// One line.
    pub(crate) reason: String,
}

/// The bounds of what a plugin may make of its input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutputLimits {
    section_bytes_max: usize,
    record_bytes_max: usize,
}

impl OutputLimits {
    /// For a batch that came in with `section_bytes`: four times as much, and 64 KiB however small it was.
    pub(crate) fn new(section_bytes: usize, record_bytes_max: usize) -> Self {
        Self {
            section_bytes_max: section_bytes.saturating_mul(AMPLIFICATION_MAX).max(REPLY_BYTES_FLOOR),
            record_bytes_max,
        }
    }
}

/// What one link makes of a section.
pub(crate) struct Output {
    input: Section,
    rules: Rules,
    limits: OutputLimits,
    written: Written,
    effects: Vec<Effect>,
    tally: Tally,
    scratch: Vec<u8>,
}

/// The part of an output that a bad reply must not leave behind.
#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    origin: Vec<u32>,
    /// Kept records that are not copied yet.
    run: Option<Window>,
    changed: bool,
}

struct Mark {
    bytes: usize,
    origin: usize,
    effects: usize,
    run: Option<Window>,
    changed: bool,
    tally: Tally,
}

/// Why verdicts could not be applied.
#[derive(Debug)]
pub(crate) enum ApplyError {
    /// The reply is at fault.
    Reply(Failure),
    /// The records are: their inside is no v2 record.
    Records(String),
}

impl Output {
    /// Starts with nothing written.
    pub(crate) fn new(input: Section, rules: Rules, limits: OutputLimits) -> Self {
        Self {
            input,
            rules,
            limits,
            written: Written::default(),
            effects: Vec::new(),
            tally: Tally::default(),
            scratch: Vec::new(),
        }
    }

    /// The section the verdicts are about.
    pub(crate) fn input(&self) -> &Section {
        &self.input
    }

    /// Applies a reply to its window, wholly or not at all. Windows come from left to right.
    pub(crate) fn apply(&mut self, window: &Window, reply: &[u8]) -> Result<(), ApplyError> {
        let verdicts = VerdictReader::new(reply, window.count).map_err(bad_reply)?;
        let mark = self.mark();
        let applied = if verdicts.keeps_all() {
            self.keep(window.clone());
            Ok(())
        } else {
            self.apply_each(window, verdicts)
        };
        let checked = applied.and_then(|()| self.check_size());
        if checked.is_err() {
            self.rewind(mark);
        }
        checked
    }

    fn apply_each(&mut self, window: &Window, verdicts: VerdictReader<'_>) -> Result<(), ApplyError> {
        let input = self.input.bytes.clone();
        let slice = input.get(window.bytes.clone()).unwrap_or_default();
        let mut records = RecordReader::new(slice, i32::try_from(window.count).unwrap_or(i32::MAX));
        let mut at = Window {
            first: window.first,
            count: 1,
            bytes: window.bytes.start..window.bytes.start,
        };
        for verdict in verdicts {
            let verdict = verdict.map_err(bad_reply)?;
            let record = match records.next() {
                Some(Ok(record)) => record,
                Some(Err(error)) => return Err(ApplyError::Records(error.to_string())),
                None => return Err(ApplyError::Records("too few records".to_owned())),
            };
            at.bytes = at.bytes.end..at.bytes.end + record.raw.len();
            match verdict {
                Verdict::Keep => self.keep(at.clone()),
                Verdict::Drop => self.act(at.clone(), Action::Drop, "verdict", ""),
                Verdict::Replace { key, value, headers } => {
                    let new = RawRecord {
                        key: key.unwrap_or(record.key),
                        value: value.unwrap_or(record.value),
                        ..record
                    };
                    self.replace(at.first, &new, headers)?;
                }
                Verdict::Reject(reason) => self.act(at.clone(), self.rules.on_reject(), "verdict", reason),
                Verdict::Divert(reason) => self.act(at.clone(), self.rules.on_divert(), "verdict", reason),
                Verdict::Error(reason) => {
                    self.tally.errors += 1;
                    self.act(at.clone(), self.rules.on_failure(), "error", reason);
                }
            }
            at.first += 1;
        }
        Ok(())
    }

    /// Does with the records of a window what was decided without a new content.
    pub(crate) fn act(&mut self, window: Window, action: Action, kind: &'static str, reason: &str) {
        let count = u64::from(window.count);
        match action {
            Action::Keep => return self.keep(window),
            Action::Drop => self.tally.dropped += count,
            Action::Reject => self.tally.rejected += count,
            Action::Divert => self.tally.diverted += count,
            Action::Stall => {}
        }
        self.written.changed = true;
        if matches!(action, Action::Reject | Action::Divert | Action::Stall) {
            let record = self.input.origin_of(window.first);
            self.effects.push(Effect {
                record,
                action,
                kind,
                reason: text::line(reason),
            });
        }
    }

    fn keep(&mut self, window: Window) {
        match &mut self.written.run {
            Some(run) if run.bytes.end == window.bytes.start => {
                run.count += window.count;
                run.bytes.end = window.bytes.end;
            }
            _ => {
                self.flush();
                self.written.run = Some(window);
            }
        }
    }

    /// Copies the kept records that wait for it.
    fn flush(&mut self) {
        if let Some(run) = self.written.run.take() {
            self.written.bytes.extend_from_slice(self.input.slice(&run));
            self.written
                .origin
                .extend((0..run.count).map(|offset| self.input.origin_of(run.first + offset)));
        }
    }

    fn replace(&mut self, index: u32, record: &RawRecord<'_>, headers: Option<HeaderList<'_>>) -> Result<(), ApplyError> {
        self.flush();
        self.written.changed = true;
        self.tally.replaced += 1;
        self.scratch.clear();
        encode_body(&mut self.scratch, record, headers);
        let before = self.written.bytes.len();
        put_bytes(&mut self.written.bytes, &self.scratch);
        self.written.origin.push(self.input.origin_of(index));
        let record_bytes = self.written.bytes.len() - before;
        if record_bytes > self.limits.record_bytes_max {
            return Err(bad_reply(format!(
                "a record of {record_bytes} bytes, the maximum is {}",
                self.limits.record_bytes_max
            )));
        }
        self.check_size()
    }

    fn check_size(&self) -> Result<(), ApplyError> {
        let waiting = self.written.run.as_ref().map_or(0, |run| run.bytes.len());
        let bytes = self.written.bytes.len() + waiting;
        if bytes > self.limits.section_bytes_max {
            return Err(bad_reply(format!(
                "an output of {bytes} bytes, the maximum is {}",
                self.limits.section_bytes_max
            )));
        }
        Ok(())
    }

    fn mark(&self) -> Mark {
        let written = &self.written;
        Mark {
            bytes: written.bytes.len(),
            origin: written.origin.len(),
            effects: self.effects.len(),
            run: written.run.clone(),
            changed: written.changed,
            tally: self.tally,
        }
    }

    fn rewind(&mut self, mark: Mark) {
        self.written.bytes.truncate(mark.bytes);
        self.written.origin.truncate(mark.origin);
        self.effects.truncate(mark.effects);
        self.written.run = mark.run;
        self.written.changed = mark.changed;
        self.tally = mark.tally;
    }

    /// The first record that stalls the chain, if any.
    pub(crate) fn stall_reason(&self) -> Option<&str> {
        self.effects
            .iter()
            .find(|effect| effect.action == Action::Stall)
            .map(|effect| effect.reason.as_str())
    }

    /// The section as it goes on, whether it changed, and what else there is to do.
    pub(crate) fn finish(mut self) -> (Section, bool, Vec<Effect>, Tally) {
        if !self.written.changed {
            return (self.input, false, self.effects, self.tally);
        }
        self.flush();
        let record_count = u32::try_from(self.written.origin.len()).unwrap_or(u32::MAX);
        let section = Section {
            bytes: self.written.bytes.into(),
            record_count,
            origin: Some(self.written.origin),
        };
        (section, true, self.effects, self.tally)
    }
}

fn bad_reply(message: impl std::fmt::Display) -> ApplyError {
    ApplyError::Reply(Failure::bad_reply(message))
}

/// A record without its length prefix.
fn encode_body(out: &mut Vec<u8>, record: &RawRecord<'_>, headers: Option<HeaderList<'_>>) {
    out.extend(record.attributes.to_le_bytes());
    put_varlong(out, record.timestamp_delta);
    put_varlong(out, i64::from(record.offset_delta));
    put_nullable(out, record.key);
    put_nullable(out, record.value);
    match headers {
        Some(headers) => {
            put_length(out, headers.len());
            for header in headers.iter() {
                put_bytes(out, header.key.as_bytes());
                put_nullable(out, header.value);
            }
        }
        None => {
            put_length(out, record.headers.len());
            for header in record.headers {
                put_bytes(out, header.key);
                put_nullable(out, header.value);
            }
        }
    }
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => put_bytes(out, bytes),
        None => put_varlong(out, -1),
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Lengths that go in here were bounded by a reply's or a section's size.
fn put_length(out: &mut Vec<u8>, length: usize) {
    put_varlong(out, i64::try_from(length).unwrap_or(i64::MAX));
}

fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    loop {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            return out.push(low & 0x7f);
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
#[path = "section_tests.rs"]
mod tests;
