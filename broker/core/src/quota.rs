//! Client quotas: which one applies to a client, and how long it is throttled (KIP-13, KIP-124, KIP-546, KIP-599, KIP-612).
//!
//! A rate is measured over samples of a second. A client above its quota is told to wait until its average over the window is back at the
//! quota, at most one window. Changes of topics are counted in a bucket instead, as a single one of them can be large.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// Bytes a second that a client may produce.
pub const PRODUCER_BYTE_RATE: &str = "producer_byte_rate";
/// Bytes a second that a client may fetch.
pub const CONSUMER_BYTE_RATE: &str = "consumer_byte_rate";
/// Share of a worker's time that a client's requests may take, in percent.
pub const REQUEST_PERCENTAGE: &str = "request_percentage";
/// Topics and partitions a second that a client may create or delete.
pub const CONTROLLER_MUTATION_RATE: &str = "controller_mutation_rate";
/// Connections a second from an address.
pub const CONNECTION_CREATION_RATE: &str = "connection_creation_rate";

/// Type of the entity that is a principal.
pub const USER: &str = "user";
/// Type of the entity that is a client id.
pub const CLIENT_ID: &str = "client-id";
/// Type of the entity that is an address.
pub const IP: &str = "ip";

/// Whom a quota is for: names by entity type; no name stands for all without a quota of their own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct QuotaEntity(pub BTreeMap<String, Option<String>>);

impl QuotaEntity {
    /// An entity of the given parts.
    pub fn of(parts: &[(&str, Option<&str>)]) -> Self {
        let parts = parts.iter().map(|(kind, name)| ((*kind).to_owned(), name.map(str::to_owned)));
        Self(parts.collect())
    }

    /// Whether the types go together, as Kafka has it.
    pub fn is_valid(&self) -> bool {
        let kinds: Vec<&str> = self.0.keys().map(String::as_str).collect();
        matches!(kinds[..], [USER] | [CLIENT_ID] | [IP] | [CLIENT_ID, USER])
    }

    /// The quotas that it can have.
    pub fn keys(&self) -> &'static [&'static str] {
        if self.0.contains_key(IP) {
            &[CONNECTION_CREATION_RATE]
        } else {
            &[PRODUCER_BYTE_RATE, CONSUMER_BYTE_RATE, REQUEST_PERCENTAGE, CONTROLLER_MUTATION_RATE]
        }
    }
}

/// Values by quota, as text: what a client sent, exactly.
pub type QuotaValues = BTreeMap<String, String>;

/// The quota that applies to a client, and the entity that it is counted for: the most special one that has it.
pub fn applicable(quotas: &BTreeMap<QuotaEntity, QuotaValues>, key: &str, user: &str, client_id: &str) -> Option<(QuotaEntity, f64)> {
    let (user, client_id) = (Some(user), Some(client_id));
    let candidates = [
        QuotaEntity::of(&[(USER, user), (CLIENT_ID, client_id)]),
        QuotaEntity::of(&[(USER, user), (CLIENT_ID, None)]),
        QuotaEntity::of(&[(USER, user)]),
        QuotaEntity::of(&[(USER, None), (CLIENT_ID, client_id)]),
        QuotaEntity::of(&[(USER, None), (CLIENT_ID, None)]),
        QuotaEntity::of(&[(USER, None)]),
        QuotaEntity::of(&[(CLIENT_ID, client_id)]),
        QuotaEntity::of(&[(CLIENT_ID, None)]),
    ];
    for entity in candidates {
        let value = quotas
            .get(&entity)
            .and_then(|values| values.get(key))
            .and_then(|value| value.parse().ok());
        if let Some(value) = value {
            // A default counts each client on its own.
            let of_client = entity
                .0
                .keys()
                .map(|kind| (kind.as_str(), if kind == USER { user } else { client_id }));
            return Some((QuotaEntity::of(&of_client.collect::<Vec<_>>()), value));
        }
    }
    None
}

/// The quota of connections that applies to an address: its own, or that of all without one.
pub fn connections_of(quotas: &BTreeMap<QuotaEntity, QuotaValues>, ip: &str) -> Option<f64> {
    let of = |name| {
        let values = quotas.get(&QuotaEntity::of(&[(IP, name)]))?;
        values.get(CONNECTION_CREATION_RATE)?.parse().ok()
    };
    of(Some(ip)).or_else(|| of(None))
}

/// Permits that a client has left: they come at the rate of the quota, up to a window's worth. Who has any may begin something large, and
/// then has less than none for a while.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    tokens: f64,
    at_ms: i64,
    /// As of the last refill: clients have different quotas.
    quota: f64,
    burst: f64,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(now_ms: i64, quota: f64, burst: f64) -> Self {
        Self {
            tokens: burst,
            at_ms: now_ms,
            quota,
            burst,
        }
    }

    /// Lets come what has come since the last time.
    pub fn refill(&mut self, now_ms: i64, quota: f64, burst: f64) {
        let elapsed_ms = now_ms.saturating_sub(self.at_ms).max(0);
        self.tokens = (self.tokens + quota * elapsed_ms as f64 / 1_000.0).min(burst);
        self.at_ms = now_ms;
        (self.quota, self.burst) = (quota, burst);
    }

    /// Takes permits; gives them back if the number is negative.
    pub fn take(&mut self, permits: f64) {
        self.tokens -= permits;
    }

    /// How long it takes until there is something left, in milliseconds; 0 if there is.
    pub fn wait_ms(&self) -> i64 {
        if self.tokens >= 0.0 {
            0
        } else if self.quota > 0.0 {
            (-self.tokens / self.quota * 1_000.0).min(i32::MAX.into()).ceil() as i64
        } else {
            i32::MAX.into()
        }
    }

    /// Whether it is as good as a new one.
    pub fn is_full(&self, now_ms: i64) -> bool {
        let mut later = self.clone();
        later.refill(now_ms, self.quota, self.burst);
        later.tokens >= self.burst
    }
}

/// What one client did in the last seconds.
#[derive(Debug, Clone)]
pub struct RateMeter {
    samples: VecDeque<(i64, f64)>,
    samples_max: usize,
    sample_ms: i64,
}

impl RateMeter {
    /// A meter of `quota.window.num` samples of `quota.window.size.seconds` each.
    pub fn new(samples: usize, sample_ms: i64) -> Self {
        Self {
            samples: VecDeque::new(),
            samples_max: samples.max(2),
            sample_ms: sample_ms.max(1),
        }
    }

    /// Counts something.
    pub fn record(&mut self, now_ms: i64, amount: f64) {
        let start_ms = now_ms - now_ms.rem_euclid(self.sample_ms);
        match self.samples.back_mut() {
            Some((last_ms, total)) if *last_ms >= start_ms => *total += amount,
            _ => self.samples.push_back((start_ms, amount)),
        }
        self.forget(now_ms);
    }

    fn forget(&mut self, now_ms: i64) {
        let window_ms = self.sample_ms.saturating_mul(i64::try_from(self.samples_max).unwrap_or(i64::MAX));
        while self
            .samples
            .front()
            .is_some_and(|(start_ms, _)| now_ms.saturating_sub(*start_ms) >= window_ms)
        {
            self.samples.pop_front();
        }
    }

    /// The full length of the window but the sample that is being filled, in milliseconds.
    pub fn window_ms(&self) -> i64 {
        self.sample_ms.saturating_mul(i64::try_from(self.samples_max - 1).unwrap_or(1))
    }

    /// Amount a second over the window.
    pub fn rate(&mut self, now_ms: i64) -> f64 {
        self.forget(now_ms);
        let total: f64 = self.samples.iter().map(|(_, amount)| amount).sum();
        let since_ms = self.samples.front().map_or(now_ms, |(start_ms, _)| *start_ms);
        let elapsed_ms = (now_ms - since_ms).max(self.window_ms());
        total * 1_000.0 / elapsed_ms as f64
    }

    /// How long a client must wait to be back at `quota` a second, in milliseconds.
    pub fn throttle_ms(&mut self, now_ms: i64, quota: f64) -> i64 {
        let rate = self.rate(now_ms);
        if rate <= quota {
            return 0;
        }
        let window_ms = self.window_ms() as f64;
        let wait_ms = if quota > 0.0 {
            (rate - quota) / quota * window_ms
        } else {
            window_ms
        };
        wait_ms.min(window_ms) as i64
    }

    /// Whether nothing is left to count.
    pub fn is_idle(&mut self, now_ms: i64) -> bool {
        self.forget(now_ms);
        self.samples.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_special_quota_applies_and_defaults_count_each_client_alone() {
        let set = |value: &str| QuotaValues::from([(PRODUCER_BYTE_RATE.to_owned(), value.to_owned())]);
        let mut quotas = BTreeMap::from([(QuotaEntity::of(&[(CLIENT_ID, None)]), set("1"))]);
        let found = |quotas: &BTreeMap<_, _>| applicable(quotas, PRODUCER_BYTE_RATE, "u", "c");
        assert_eq!(found(&quotas), Some((QuotaEntity::of(&[(CLIENT_ID, Some("c"))]), 1.0)));
        quotas.insert(QuotaEntity::of(&[(CLIENT_ID, Some("c"))]), set("2"));
        quotas.insert(QuotaEntity::of(&[(CLIENT_ID, Some("other"))]), set("9"));
        assert_eq!(found(&quotas).unwrap().1, 2.0);
        quotas.insert(QuotaEntity::of(&[(USER, None)]), set("3"));
        assert_eq!(found(&quotas), Some((QuotaEntity::of(&[(USER, Some("u"))]), 3.0)));
        quotas.insert(QuotaEntity::of(&[(USER, Some("u")), (CLIENT_ID, None)]), set("4"));
        assert_eq!(found(&quotas).unwrap().1, 4.0);
        assert_eq!(applicable(&quotas, CONSUMER_BYTE_RATE, "u", "c"), None);
    }

    #[test]
    fn a_client_above_its_quota_waits_until_its_average_is_back() {
        let mut meter = RateMeter::new(11, 1_000);
        meter.record(0, 10_000.0);
        assert_eq!(meter.throttle_ms(0, 1_000.0), 0, "10 kB in a window of 10 s");
        meter.record(500, 5_000.0);
        assert_eq!(meter.throttle_ms(500, 1_000.0), 5_000);
        assert_eq!(meter.throttle_ms(11_000, 1_000.0), 0, "the window has passed");
        assert!(meter.is_idle(11_000));
        meter.record(20_000, 1e12);
        assert_eq!(meter.throttle_ms(20_000, 1.0), 10_000, "never longer than the window");
    }

    #[test]
    fn a_bucket_lets_something_large_begin_and_then_wait() {
        let (quota, burst) = (2.0, 20.0);
        let mut bucket = TokenBucket::new(0, quota, burst);
        bucket.take(50.0);
        assert_eq!(bucket.wait_ms(), 15_000);
        bucket.refill(14_000, quota, burst);
        assert_eq!(bucket.wait_ms(), 1_000);
        bucket.refill(15_000, quota, burst);
        assert_eq!(bucket.wait_ms(), 0);
        bucket.take(3.0);
        bucket.take(-3.0);
        assert!(!bucket.is_full(20_000) && bucket.is_full(25_000));
        bucket.refill(1_000_000, 0.0, burst);
        bucket.take(21.0);
        assert_eq!(bucket.wait_ms(), i64::from(i32::MAX));
    }

    #[test]
    fn an_address_has_its_own_quota_or_that_of_all() {
        let set = |value: &str| QuotaValues::from([(CONNECTION_CREATION_RATE.to_owned(), value.to_owned())]);
        let mut quotas = BTreeMap::from([(QuotaEntity::of(&[(IP, Some("10.0.0.1"))]), set("5"))]);
        assert_eq!(
            (connections_of(&quotas, "10.0.0.1"), connections_of(&quotas, "10.0.0.2")),
            (Some(5.0), None)
        );
        quotas.insert(QuotaEntity::of(&[(IP, None)]), set("7"));
        assert_eq!(
            (connections_of(&quotas, "10.0.0.1"), connections_of(&quotas, "10.0.0.2")),
            (Some(5.0), Some(7.0))
        );
    }

    #[test]
    fn entities_are_users_clients_both_or_addresses() {
        assert!(QuotaEntity::of(&[(USER, None), (CLIENT_ID, Some("c"))]).is_valid());
        assert!(QuotaEntity::of(&[(IP, None)]).is_valid());
        for bad in [&[][..], &[(IP, None), (USER, None)], &[("group", None)]] {
            assert!(!QuotaEntity::of(bad).is_valid());
        }
    }
}
