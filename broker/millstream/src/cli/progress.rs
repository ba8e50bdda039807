//! A line on standard error that says how far long work is. Only people see it: there is none if standard error is no terminal.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// Shorter work shows nothing.
const SILENT: Duration = Duration::from_secs(1);
/// Pause between two updates.
const INTERVAL: Duration = Duration::from_millis(200);

/// Counts records and bytes.
pub struct Progress {
    verb: &'static str,
    started: Instant,
    shown: Option<Instant>,
    enabled: bool,
    records: u64,
    bytes: u64,
}

impl Progress {
    /// Starts counting; `verb` is what happens to the records.
    pub fn new(verb: &'static str) -> Self {
        Self {
            verb,
            started: Instant::now(),
            shown: None,
            enabled: io::stderr().is_terminal(),
            records: 0,
            bytes: 0,
        }
    }

    /// Counts one more record.
    pub fn add(&mut self, bytes: usize) {
        self.records += 1;
        self.bytes += bytes as u64;
        // The clock is asked now and then only.
        if self.enabled && self.records.is_multiple_of(256) {
            self.show();
        }
    }

    /// Removes the line.
    pub fn clear(&mut self) {
        if self.shown.take().is_some() {
            super::output::note("\r\x1b[K");
        }
    }

    /// Records, MB and seconds so far, in words.
    pub fn summary(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        let (records, megabytes) = (self.records, self.bytes as f64 / 1e6);
        let per_second = records as f64 / seconds.max(1e-9);
        format!(
            "{} {records} records, {megabytes:.1} MB in {seconds:.1} s ({per_second:.0}/s)",
            self.verb
        )
    }

    fn show(&mut self) {
        let now = Instant::now();
        let due = self.shown.map_or(self.started + SILENT, |shown| shown + INTERVAL);
        if now < due {
            return;
        }
        self.shown = Some(now);
        super::output::note(&format!("\r\x1b[K{}", self.summary()));
        // Whoever cannot see it misses nothing.
        let _ = io::stderr().flush();
    }
}
