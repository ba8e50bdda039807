//! Counters of one plugin version at one place.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use millstream_core::transform::{Hook, PluginStats};

use crate::breaker::Breaker;

/// Where a plugin works: what its counters and its breaker are kept by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SiteKey {
    pub(crate) plugin: String,
    pub(crate) version: String,
    pub(crate) hook: Hook,
    /// The topic, or the view's name.
    pub(crate) topic: String,
}

/// A plugin version at one place.
pub(crate) struct Site {
    pub(crate) counters: Counters,
    pub(crate) breaker: Arc<Breaker>,
}

/// What it did there since the start.
#[derive(Default)]
pub(crate) struct Counters {
    batches: AtomicU64,
    records_in: AtomicU64,
    records_out: AtomicU64,
    replaced: AtomicU64,
    dropped: AtomicU64,
    rejected: AtomicU64,
    diverted: AtomicU64,
    errors: AtomicU64,
    crashes: AtomicU64,
    recycles: AtomicU64,
    nanoseconds: AtomicU64,
}

/// What happened to the records of one batch at one link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) replaced: u64,
    pub(crate) dropped: u64,
    pub(crate) rejected: u64,
    pub(crate) diverted: u64,
    pub(crate) errors: u64,
}

impl Counters {
    pub(crate) fn batch_in(&self, records: u32) {
        add(&self.batches, 1);
        add(&self.records_in, u64::from(records));
    }

    pub(crate) fn batch_out(&self, records: u32, tally: Tally) {
        add(&self.records_out, u64::from(records));
        add(&self.replaced, tally.replaced);
        add(&self.dropped, tally.dropped);
        add(&self.rejected, tally.rejected);
        add(&self.diverted, tally.diverted);
        add(&self.errors, tally.errors);
    }

    pub(crate) fn error(&self) {
        add(&self.errors, 1);
    }

    pub(crate) fn crashed(&self) {
        add(&self.crashes, 1);
    }

    pub(crate) fn recycled(&self) {
        add(&self.recycles, 1);
    }

    pub(crate) fn spent(&self, time: Duration) {
        add(&self.nanoseconds, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl Site {
    pub(crate) fn new(retry_after: Duration) -> Self {
        Self {
            counters: Counters::default(),
            breaker: Arc::new(Breaker::new(retry_after)),
        }
    }

    /// As the broker reports it.
    pub(crate) fn stats(&self, key: &SiteKey) -> PluginStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        PluginStats {
            plugin: key.plugin.clone(),
            version: key.version.clone(),
            hook: hook_name(key.hook).to_owned(),
            topic: key.topic.clone(),
            batches: read(&counters.batches),
            records_in: read(&counters.records_in),
            records_out: read(&counters.records_out),
            replaced: read(&counters.replaced),
            dropped: read(&counters.dropped),
            rejected: read(&counters.rejected),
            diverted: read(&counters.diverted),
            errors: read(&counters.errors),
            crashes: read(&counters.crashes),
            recycles: read(&counters.recycles),
            seconds: Duration::from_nanos(read(&counters.nanoseconds)).as_secs_f64(),
            breaker_tripped: self.breaker.is_tripped(),
        }
    }
}

/// The hook's word in stats and metrics.
pub(crate) fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Produce => "produce",
        Hook::View => "view",
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}
