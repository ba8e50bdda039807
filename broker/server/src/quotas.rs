//! Client quotas at work: what each client did lately, and how long it has to wait.
//!
//! A client above its quota gets its answer at once, with the time in it, and its connection is not read until that time is over
//! (KIP-219): well-behaved clients wait by themselves, others are made to.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use millstream_core::{
    metadata::ClusterImage,
    quota::{CONTROLLER_MUTATION_RATE, QuotaEntity, RateMeter, TokenBucket, applicable, connections_of},
};
use tokio::time::Instant;

use crate::{config::BrokerConfig, context::RequestContext};

/// Meters, idle ones included, beyond which somebody looks for the idle.
const METERS_KEPT: usize = 1_024;

/// What clients are measured with.
pub(crate) struct Quotas {
    samples: usize,
    sample_ms: i64,
    /// Rates are measured with a clock that never jumps.
    started: Instant,
    meters: Mutex<BTreeMap<(&'static str, QuotaEntity), RateMeter>>,
    /// Seconds of permits for changes of topics that a client can save up.
    mutation_window_seconds: f64,
    buckets: Mutex<BTreeMap<QuotaEntity, TokenBucket>>,
    connections: Mutex<BTreeMap<IpAddr, RateMeter>>,
}

impl Quotas {
    pub fn new(config: &BrokerConfig) -> Self {
        Self {
            samples: config.size("quota.window.num"),
            sample_ms: config.number("quota.window.size.seconds").saturating_mul(1_000),
            started: Instant::now(),
            meters: Mutex::default(),
            mutation_window_seconds: (config.number("controller.quota.window.num") * config.number("controller.quota.window.size.seconds"))
                as f64,
            buckets: Mutex::default(),
            connections: Mutex::default(),
        }
    }

    /// Counts what a client did and says how long it has to wait, in milliseconds.
    pub fn record(&self, image: &ClusterImage, key: &'static str, context: &RequestContext, amount: f64) -> i64 {
        let now_ms = self.now_ms();
        self.with_meter(image, key, context, now_ms, |meter, quota| {
            meter.record(now_ms, amount);
            meter.throttle_ms(now_ms, quota)
        })
        .unwrap_or(0)
    }

    /// The largest amount that a client may take at once without waiting longer than a window.
    pub fn at_once(&self, image: &ClusterImage, key: &'static str, context: &RequestContext) -> Option<f64> {
        self.with_meter(image, key, context, self.now_ms(), |meter, quota| {
            quota * meter.window_ms() as f64 / 1_000.0
        })
    }

    /// Counts changes of topics (KIP-599). With `is_strict` one that comes while nothing is left is refused: `Err` is how long to wait, in
    /// milliseconds. Otherwise it is made, and `Ok` is how long to wait afterwards. Negative permits give back what was not done.
    pub fn mutate(&self, image: &ClusterImage, context: &RequestContext, is_strict: bool, permits: f64) -> Result<i64, i64> {
        if image.client_quotas.is_empty() {
            return Ok(0);
        }
        let Some((entity, quota)) = applicable(&image.client_quotas, CONTROLLER_MUTATION_RATE, user(context), &context.client_id) else {
            return Ok(0);
        };
        let (now_ms, burst) = (self.now_ms(), quota * self.mutation_window_seconds);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= METERS_KEPT && buckets.len().is_power_of_two() {
            buckets.retain(|_, bucket| !bucket.is_full(now_ms));
        }
        let bucket = buckets.entry(entity).or_insert_with(|| TokenBucket::new(now_ms, quota, burst));
        bucket.refill(now_ms, quota, burst);
        let wait_ms = bucket.wait_ms();
        if is_strict && permits > 0.0 && wait_ms > 0 {
            return Err(wait_ms);
        }
        bucket.take(permits);
        Ok(if is_strict { 0 } else { bucket.wait_ms() })
    }

    /// Counts a connection from an address (KIP-612). One above the address's quota is not to be served: `Err` is how long it is to be
    /// kept waiting before it is closed, in milliseconds, so that clients do not come back at once.
    pub fn connect(&self, image: &ClusterImage, ip: IpAddr) -> Result<(), i64> {
        if image.client_quotas.is_empty() {
            return Ok(());
        }
        let ip = ip.to_canonical();
        let Some(quota) = connections_of(&image.client_quotas, &ip.to_string()) else {
            return Ok(());
        };
        let now_ms = self.now_ms();
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if connections.len() >= METERS_KEPT && connections.len().is_power_of_two() {
            connections.retain(|_, meter| !meter.is_idle(now_ms));
        }
        let meter = connections
            .entry(ip)
            .or_insert_with(|| RateMeter::new(self.samples, self.sample_ms));
        meter.record(now_ms, 1.0);
        match meter.throttle_ms(now_ms, quota) {
            0 => Ok(()),
            throttle_ms => {
                // It does not count: a client that only tries must get in at some time.
                meter.record(now_ms, -1.0);
                Err(throttle_ms)
            }
        }
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn with_meter<R>(
        &self,
        image: &ClusterImage,
        key: &'static str,
        context: &RequestContext,
        now_ms: i64,
        act: impl FnOnce(&mut RateMeter, f64) -> R,
    ) -> Option<R> {
        // Without quotas, which is the rule, this is all.
        if image.client_quotas.is_empty() {
            return None;
        }
        let (entity, quota) = applicable(&image.client_quotas, key, user(context), &context.client_id)?;
        let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        if meters.len() >= METERS_KEPT && meters.len().is_power_of_two() {
            meters.retain(|_, meter| !meter.is_idle(now_ms));
        }
        let meter = meters
            .entry((key, entity))
            .or_insert_with(|| RateMeter::new(self.samples, self.sample_ms));
        Some(act(meter, quota))
    }
}

fn user(context: &RequestContext) -> &'static str {
    context.principal.strip_prefix("User:").unwrap_or(context.principal)
}

/// Until when a connection is not read.
#[derive(Debug)]
pub(crate) struct Mute {
    opened: Instant,
    until_ms: AtomicI64,
}

impl Default for Mute {
    fn default() -> Self {
        Self {
            opened: Instant::now(),
            until_ms: AtomicI64::new(0),
        }
    }
}

impl Mute {
    /// Stops reading for this long from now on.
    pub fn throttle(&self, throttle_ms: i64) {
        if throttle_ms > 0 {
            let until_ms = i64::try_from(self.opened.elapsed().as_millis())
                .unwrap_or(i64::MAX)
                .saturating_add(throttle_ms);
            self.until_ms.fetch_max(until_ms, Ordering::AcqRel);
        }
    }

    /// How long reading still waits, in milliseconds.
    pub fn remaining_ms(&self) -> i32 {
        let remaining = self.ends().map(|ends| ends.saturating_duration_since(Instant::now()).as_millis());
        i32::try_from(remaining.unwrap_or(0)).unwrap_or(i32::MAX)
    }

    /// When reading goes on, if it does not now.
    pub fn ends(&self) -> Option<Instant> {
        let until_ms = u64::try_from(self.until_ms.load(Ordering::Acquire)).unwrap_or(0);
        let ends = self.opened + Duration::from_millis(until_ms);
        (until_ms > 0 && ends > Instant::now()).then_some(ends)
    }
}

/// A future that knows how long it was worked on: the time of its turns, not of its waits.
pub(crate) struct Timed<F> {
    inner: F,
    worked: Duration,
}

impl<F> Timed<F> {
    pub fn new(inner: F) -> Self {
        Self {
            inner,
            worked: Duration::ZERO,
        }
    }
}

impl<F: Future + Unpin> Future for Timed<F> {
    type Output = (F::Output, Duration);

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        let started = Instant::now();
        let polled = std::pin::Pin::new(&mut self.inner).poll(cx);
        self.worked += started.elapsed();
        polled.map(|output| (output, self.worked))
    }
}

/// The share of one worker that some work was, in percent of a second.
pub(crate) fn percent(worked: Duration) -> f64 {
    worked.as_secs_f64() * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_muted_connection_is_read_again_in_time() {
        let mute = Mute::default();
        assert_eq!(mute.ends(), None);
        mute.throttle(0);
        assert_eq!(mute.ends(), None);
        mute.throttle(3);
        let ends = mute.ends().unwrap();
        tokio::time::sleep_until(ends + Duration::from_millis(1)).await;
        assert_eq!(mute.ends(), None);
    }
}
