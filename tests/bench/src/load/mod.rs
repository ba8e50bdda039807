//! The load generator: batches that are encoded once, throughput and latencies.

mod batch;
mod consume;
mod latency;
mod produce;

pub use batch::{Batch, json_values, plain_values};
pub use consume::{Until, Waiting, consume, high_watermark};
pub use latency::{Pace, ack_latencies, acks_per_second, end_to_end, wait_until};
pub use produce::produce;

use std::time::Duration;

/// What a throughput measurement moved.
#[derive(Debug, Clone, Copy)]
pub struct Moved {
    /// Records.
    pub records: u64,
    /// Bytes of record values.
    pub value_bytes: u64,
    /// How long it took.
    pub time: Duration,
}

impl Moved {
    /// Millions of value bytes per second.
    pub fn megabytes_per_second(&self) -> f64 {
        self.value_bytes as f64 / 1e6 / self.time.as_secs_f64()
    }

    /// Records per second.
    pub fn records_per_second(&self) -> f64 {
        self.records as f64 / self.time.as_secs_f64()
    }

    /// CPU seconds per 10^9 value bytes, of a process that used so many.
    pub fn per_gigabyte(&self, cpu_seconds: f64) -> f64 {
        cpu_seconds / (self.value_bytes as f64 / 1e9)
    }
}
