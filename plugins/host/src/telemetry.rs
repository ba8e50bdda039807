//! What a plugin says of itself while it runs: log lines and its own metrics. Both are bounded, and both count what they left out.
//!
//! Log lines go to tracing's target `plugin` with the fields `plugin`, `version` and `topic`.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use serde::Serialize;

use crate::{text, wit::Level};

/// Lines a plugin may write at once.
const LINES_BURST: f64 = 200.0;

/// Lines a second that a plugin may write for long.
const LINES_PER_SECOND: f64 = 20.0;

/// Custom metrics of one plugin version; more names are ignored.
const METRICS_MAX: usize = 64;

/// Longest name of a custom metric, in bytes.
const METRIC_NAME_BYTES_MAX: usize = 64;

/// Upper bounds of a custom histogram's buckets; the last bucket has none.
const BUCKETS: [f64; 12] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e6];

/// A metric that a plugin keeps about its own work.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CustomMetric {
    /// Plugin name.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// The metric, `[a-z_][a-z0-9_]*`.
    pub name: String,
    /// What it stands at.
    pub value: CustomValue,
}

/// The value of a [`CustomMetric`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum CustomValue {
    /// A sum of `counter-add`.
    Counter(u64),
    /// What `histogram-record` saw.
    Histogram {
        /// Number of values.
        count: u64,
        /// Their sum.
        sum: f64,
        /// Upper bound and number of values at most that big, cumulative.
        buckets: Vec<(f64, u64)>,
    },
}

/// One plugin version's log and metrics.
pub(crate) struct Telemetry {
    plugin: String,
    version: String,
    bucket: Mutex<Bucket>,
    lines_dropped: AtomicU64,
    metrics: Mutex<BTreeMap<String, CustomValue>>,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
    /// Lines left out since the last one that was written.
    dropped: u64,
}

impl Telemetry {
    /// For `plugin@version`.
    pub(crate) fn new(plugin: &str, version: &str) -> Self {
        Self {
            plugin: plugin.to_owned(),
            version: version.to_owned(),
            bucket: Mutex::new(Bucket {
                tokens: LINES_BURST,
                filled: Instant::now(),
                dropped: 0,
            }),
            lines_dropped: AtomicU64::new(0),
            metrics: Mutex::new(BTreeMap::new()),
        }
    }

    /// Writes a guest's line, or counts it as dropped.
    pub(crate) fn log(&self, topic: &str, level: Level, message: &str) {
        let Some(dropped) = self.take_token(Instant::now()) else {
            self.lines_dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let (plugin, version) = (self.plugin.as_str(), self.version.as_str());
        if dropped > 0 {
            tracing::warn!(target: "plugin", plugin, version, topic, dropped, "log lines dropped");
        }
        let message = text::line(message);
        match level {
            Level::Debug => tracing::debug!(target: "plugin", plugin, version, topic, "{message}"),
            Level::Info => tracing::info!(target: "plugin", plugin, version, topic, "{message}"),
            Level::Warn => tracing::warn!(target: "plugin", plugin, version, topic, "{message}"),
            Level::Error => tracing::error!(target: "plugin", plugin, version, topic, "{message}"),
        }
    }

    /// Lines left out since the start.
    pub(crate) fn lines_dropped(&self) -> u64 {
        self.lines_dropped.load(Ordering::Relaxed)
    }

    /// Takes a token; the number of lines dropped before it, or `None` if there is none.
    fn take_token(&self, now: Instant) -> Option<u64> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_duration_since(bucket.filled).as_secs_f64();
        bucket.tokens = (bucket.tokens + elapsed * LINES_PER_SECOND).min(LINES_BURST);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            bucket.dropped += 1;
            return None;
        }
        bucket.tokens -= 1.0;
        Some(std::mem::take(&mut bucket.dropped))
    }

    /// `counter-add`. A name that is no metric name, that is taken by a histogram, or that is one too many is ignored.
    pub(crate) fn counter_add(&self, name: &str, delta: u64) {
        self.update(name, CustomValue::Counter(0), |value| {
            if let CustomValue::Counter(sum) = value {
                *sum = sum.saturating_add(delta);
            }
        });
    }

    /// `histogram-record`. Ignores what `counter_add` ignores, and values that are not finite.
    pub(crate) fn histogram_record(&self, name: &str, observed: f64) {
        if !observed.is_finite() {
            return;
        }
        let empty = CustomValue::Histogram {
            count: 0,
            sum: 0.0,
            buckets: BUCKETS.iter().map(|bound| (*bound, 0)).collect(),
        };
        self.update(name, empty, |value| {
            if let CustomValue::Histogram { count, sum, buckets } = value {
                *count += 1;
                *sum += observed;
                buckets
                    .iter_mut()
                    .filter(|(bound, _)| observed <= *bound)
                    .for_each(|(_, count)| *count += 1);
            }
        });
    }

    fn update(&self, name: &str, empty: CustomValue, change: impl FnOnce(&mut CustomValue)) {
        if !is_metric_name(name) {
            return;
        }
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = metrics.get_mut(name) {
            change(value);
        } else if metrics.len() < METRICS_MAX {
            change(metrics.entry(name.to_owned()).or_insert(empty));
        }
    }

    /// All metrics that the plugin keeps.
    pub(crate) fn metrics(&self) -> Vec<CustomMetric> {
        let metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        let metric = |(name, value): (&String, &CustomValue)| CustomMetric {
            plugin: self.plugin.clone(),
            version: self.version.clone(),
            name: name.clone(),
            value: value.clone(),
        };
        metrics.iter().map(metric).collect()
    }
}

fn is_metric_name(name: &str) -> bool {
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    starts_well && name.len() <= METRIC_NAME_BYTES_MAX && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn lines_beyond_the_burst_are_dropped_and_counted_with_the_next() {
        let telemetry = Telemetry::new("p", "1.0.0");
        let now = Instant::now();
        let written = (0..300).filter(|_| telemetry.take_token(now).is_some()).count();
        assert_eq!(written, 200);
        assert_eq!(telemetry.take_token(now + Duration::from_secs(1)), Some(100));
    }

    #[test]
    fn metric_names_are_bounded_in_number_and_shape() {
        let telemetry = Telemetry::new("p", "1.0.0");
        for i in 0..2 * METRICS_MAX {
            telemetry.counter_add(&format!("seen_{i}"), 2);
        }
        telemetry.counter_add("Not a name", 1);
        telemetry.histogram_record("seen_0", 1.0);
        assert_eq!(telemetry.metrics().len(), METRICS_MAX);
        assert!(telemetry.metrics().iter().all(|metric| metric.value == CustomValue::Counter(2)));
    }
}
