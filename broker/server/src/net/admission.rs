//! Who may connect: `max.connections`, `max.connections.per.ip`, its overrides, and `max.connection.creation.rate`.

use std::{
    collections::BTreeMap,
    future::Future,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::config::BrokerConfig;

/// A stranger can do the same wrong thing many times a second; the log says it this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(1);

/// Name of the configuration of other limits for some addresses.
const OVERRIDES: &str = "max.connections.per.ip.overrides";

/// Reads `address:limit,…`; an error says which part is none.
fn overrides(text: &str) -> Result<BTreeMap<IpAddr, usize>, String> {
    let read = |pair: &str| {
        // An address can hold colons itself.
        let (ip, max) = pair.rsplit_once(':')?;
        let ip: IpAddr = ip.trim_matches(['[', ']']).parse().ok()?;
        Some((ip.to_canonical(), max.trim().parse().ok()?))
    };
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let entry = |pair: &str| read(pair).ok_or_else(|| format!("{OVERRIDES}: {pair:?} is not an IP address, a colon and a number"));
    pairs.map(entry).collect()
}

/// Checks what `Admission::new` relies on.
pub(crate) fn check(config: &BrokerConfig) -> Result<(), String> {
    overrides(&config.text(OVERRIDES)).map(drop)
}

/// The seats of a listener.
pub(super) struct Admission {
    max: usize,
    max_per_ip: usize,
    max_of: BTreeMap<IpAddr, usize>,
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
    pub fn new(config: &BrokerConfig) -> Self {
        Self {
            max: config.size("max.connections"),
            max_per_ip: config.size("max.connections.per.ip"),
            // They were checked at the start.
            max_of: overrides(&config.text(OVERRIDES)).unwrap_or_default(),
            taken: Arc::default(),
        }
    }

    /// A seat, or the name of the configuration that has no more of them.
    pub fn admit(&self, ip: IpAddr) -> Result<Seat, &'static str> {
        let ip = ip.to_canonical();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.max {
            return Err("max.connections");
        }
        let max = self.max_of.get(&ip).copied().unwrap_or(self.max_per_ip);
        if taken.by_ip.get(&ip).copied().unwrap_or(0) >= max {
            return Err("max.connections.per.ip");
        }
        taken.all += 1;
        *taken.by_ip.entry(ip).or_default() += 1;
        Ok(Seat {
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

/// Lets no more than so many through in a second; the others wait where they are.
pub(super) struct Pace {
    per_second: f64,
    next: Instant,
}

impl Pace {
    pub fn new(per_second: i64) -> Self {
        Self {
            per_second: per_second.max(1) as f64,
            next: Instant::now(),
        }
    }

    /// Waits for the turn, and then for what comes. Up to a second's worth may come at once.
    pub async fn turn<T>(&mut self, coming: impl Future<Output = T>) -> T {
        tokio::time::sleep_until(self.next).await;
        let came = coming.await;
        self.count(Instant::now());
        came
    }

    fn count(&mut self, now: Instant) {
        let earliest = now.checked_sub(Duration::from_secs(1)).unwrap_or(self.next);
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
            max,
            max_per_ip,
            max_of: overrides.iter().map(|(ip, max)| (ip.parse().unwrap(), *max)).collect(),
            taken: Arc::default(),
        }
    }

    #[test]
    fn overrides_are_read_and_what_is_none_is_named() {
        let read = overrides("10.0.0.9:2, [::1]:3,::ffff:10.0.0.1:4").unwrap();
        let of = |ip: &str| read.get(&ip.parse().unwrap()).copied();
        assert_eq!((of("10.0.0.9"), of("::1"), of("10.0.0.1")), (Some(2), Some(3), Some(4)));
        assert_eq!(overrides(""), Ok(BTreeMap::new()));
        for wrong in ["host:2", "10.0.0.9", "10.0.0.9:-1", "10.0.0.9:many"] {
            assert!(overrides(wrong).unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn seats_are_counted_by_address_and_free_again() {
        let admission = admission(3, 1, &[("10.0.0.9", 2)]);
        let admit = |ip: &str| admission.admit(ip.parse().unwrap());
        let first = admit("10.0.0.1").ok().unwrap();
        assert_eq!(admit("10.0.0.1").err(), Some("max.connections.per.ip"));
        assert_eq!(admit("::ffff:10.0.0.1").err(), Some("max.connections.per.ip"));
        let others = [admit("10.0.0.9"), admit("10.0.0.9")];
        assert!(others.iter().all(Result::is_ok));
        assert_eq!(admit("10.0.0.2").err(), Some("max.connections"));
        drop(first);
        assert!(admit("10.0.0.1").is_ok());
    }

    #[test]
    fn pace_is_kept_after_a_second_of_haste() {
        let mut pace = Pace::new(10);
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
