//! Who may connect: `max.connections`, `max.connections.per.ip`, its overrides, and `max.connection.creation.rate`, which can all be altered.

use std::{
    collections::BTreeMap,
    future::Future,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use millstream_core::metadata::configs::{Overrides, Scope, address_limits, effective_value};

use crate::broker::Broker;

/// A stranger can do the same wrong thing many times a second; the log says it this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);

/// Name of the configuration of other limits for some addresses.
const OVERRIDES: &str = "max.connections.per.ip.overrides";

/// What is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Limits {
    max: usize,
    max_per_ip: usize,
    max_of: BTreeMap<IpAddr, usize>,
    per_second: usize,
}

/// The seats of a listener.
pub(super) struct Admission {
    limits: Limits,
    /// The image that the limits are from.
    image_epoch: Option<u64>,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_ip: BTreeMap<IpAddr, usize>,
}

/// A connection's place; it is free again when this is dropped.
pub(super) struct Seat {
    ip: IpAddr,
    taken: Arc<Mutex<Taken>>,
}

impl Admission {
    /// Seats as they are configured now.
    pub fn new(broker: &Broker) -> Self {
        let mut admission = Self {
            limits: Limits {
                max: usize::MAX,
                max_per_ip: usize::MAX,
                max_of: BTreeMap::new(),
                per_second: usize::MAX,
            },
            image_epoch: None,
            taken: Arc::default(),
        };
        admission.refresh(broker);
        admission
    }

    /// Takes over what was altered.
    pub fn refresh(&mut self, broker: &Broker) {
        let image = broker.metadata.image();
        if self.image_epoch == Some(image.epoch) {
            return;
        }
        self.image_epoch = Some(image.epoch);
        let layers = image.broker_layers(Some(broker.config.node_id), &broker.config.values);
        let text = |name: &str| effective_value(Scope::Broker, name, &Overrides::new(), &layers).unwrap_or_default();
        let number = |name: &str| text(name).trim().parse().unwrap_or(usize::MAX);
        let max_of = address_limits(&text(OVERRIDES)).unwrap_or_else(|error| {
            tracing::warn!(%error, "the value is ignored");
            self.limits.max_of.clone()
        });
        self.limits = Limits {
            max: number("max.connections"),
            max_per_ip: number("max.connections.per.ip"),
            max_of,
            per_second: number("max.connection.creation.rate"),
        };
    }

    /// Connections that may come in a second.
    pub fn per_second(&self) -> usize {
        self.limits.per_second
    }

    /// Whether another connection may come at all. Above `max.connections` they wait in the listener's queue, as in Kafka.
    pub fn has_room(&self) -> bool {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).all < self.limits.max
    }

    /// A seat; `None` if the address has all that it may.
    pub fn admit(&self, ip: IpAddr) -> Option<Seat> {
        let ip = ip.to_canonical();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let max = self.limits.max_of.get(&ip).copied().unwrap_or(self.limits.max_per_ip);
        if taken.by_ip.get(&ip).copied().unwrap_or(0) >= max {
            return None;
        }
        taken.all += 1;
        *taken.by_ip.entry(ip).or_default() += 1;
        Some(Seat {
            ip,
            taken: Arc::clone(&self.taken),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(of_ip) = taken.by_ip.get_mut(&self.ip) {
            *of_ip -= 1;
            if *of_ip == 0 {
                taken.by_ip.remove(&self.ip);
            }
        }
    }
}

/// Lets no more than so many through in a second, on the average of a window; the others wait where they are.
pub(super) struct Pace {
    per_second: f64,
    window: Duration,
    next: Instant,
}

impl Pace {
    pub fn new(per_second: usize, window: Duration) -> Self {
        Self {
            per_second: per_second.max(1) as f64,
            window,
            next: Instant::now().checked_sub(window).unwrap_or_else(Instant::now),
        }
    }

    /// Another pace from now on.
    pub fn set(&mut self, per_second: usize) {
        self.per_second = per_second.max(1) as f64;
    }

    /// Waits for the turn, and then for what comes. As many as a window has may come at once.
    pub async fn turn<T>(&mut self, coming: impl Future<Output = T>) -> T {
        tokio::time::sleep_until(self.next).await;
        let came = coming.await;
        self.count(Instant::now());
        came
    }

    fn count(&mut self, now: Instant) {
        let earliest = now.checked_sub(self.window).unwrap_or(self.next);
        self.next = self.next.max(earliest) + Duration::from_secs_f64(1.0 / self.per_second);
    }
}

/// Complaints about clients, of which the log gets some.
#[derive(Default)]
pub(super) struct Complaints(Mutex<Option<(Instant, u64)>>);

impl Complaints {
    /// Says it, with the number of those that were not said since the last time, or counts it.
    pub fn about(&self, say: impl FnOnce(u64)) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *last {
            Some((at, suppressed)) if at.elapsed() < COMPLAINT_INTERVAL => *suppressed += 1,
            said => {
                let suppressed = said.map_or(0, |(_, suppressed)| suppressed);
                *said = Some((Instant::now(), 0));
                drop(last);
                say(suppressed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(max: usize, max_per_ip: usize, overrides: &[(&str, usize)]) -> Admission {
        Admission {
            limits: Limits {
                max,
                max_per_ip,
                max_of: overrides.iter().map(|(ip, max)| (ip.parse().unwrap(), *max)).collect(),
                per_second: usize::MAX,
            },
            image_epoch: None,
            taken: Arc::default(),
        }
    }

    #[test]
    fn seats_are_counted_by_address_and_free_again() {
        let admission = admission(3, 1, &[("10.0.0.9", 2)]);
        let admit = |ip: &str| admission.admit(ip.parse().unwrap());
        let first = admit("10.0.0.1").unwrap();
        assert!(admit("10.0.0.1").is_none());
        assert!(admit("::ffff:10.0.0.1").is_none());
        let others = [admit("10.0.0.9"), admit("10.0.0.9")];
        assert!(others.iter().all(Option::is_some) && !admission.has_room());
        drop(first);
        assert!(admission.has_room() && admit("10.0.0.1").is_some());
    }

    #[test]
    fn pace_is_kept_after_a_window_of_haste() {
        let mut pace = Pace::new(10, Duration::from_secs(1));
        let start = pace.next + Duration::from_secs(5);
        for _ in 0..30 {
            pace.count(start.max(pace.next));
        }
        let due = pace.next.duration_since(start).as_millis();
        assert!((1900..=2100).contains(&due), "{due}");
    }

    #[test]
    fn complaints_are_counted_when_they_are_not_said() {
        let complaints = Complaints::default();
        let said = Mutex::new(Vec::new());
        for _ in 0..100 {
            complaints.about(|suppressed| said.lock().unwrap().push(suppressed));
        }
        assert_eq!(*said.lock().unwrap(), [0]);
    }
}
