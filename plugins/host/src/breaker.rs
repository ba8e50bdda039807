//! Stops calling a plugin that keeps crashing.
//!
//! | state | hears | goes to |
//! |---|---|---|
//! | healthy | crash, at most N in the last minute | healthy |
//! | healthy | crash N+1 | tripped |
//! | tripped | batch, before the retry time | tripped (refused) |
//! | tripped | batch, after it | probing: this batch may try |
//! | probing | another batch | probing (refused) |
//! | probing | the probe went well | healthy |
//! | probing | the probe crashed | tripped, until a new retry time |
//! | probing | the probe was abandoned | tripped, next batch may try |
//!
//! What refusal means (stall or pass) is the binding's choice, not the breaker's.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Crashes older than this are forgotten.
const WINDOW: Duration = Duration::from_secs(60);

/// One breaker, for one plugin version at one place.
pub(crate) struct Breaker {
    retry_after: Duration,
    state: Mutex<State>,
}

enum State {
    Healthy { crashes: VecDeque<Instant> },
    Tripped { retry_at: Instant },
    Probing,
}

/// Leave to call the plugin for one batch. Dropped without a word, a probe counts as abandoned.
pub(crate) struct Permit {
    breaker: Arc<Breaker>,
    is_probe: bool,
}

impl Breaker {
    /// A healthy one; `retry_after` is how long it stays tripped.
    pub(crate) fn new(retry_after: Duration) -> Self {
        Self {
            retry_after,
            state: Mutex::new(State::Healthy { crashes: VecDeque::new() }),
        }
    }

    /// Asks for leave.
    pub(crate) fn admit(self: &Arc<Self>, now: Instant) -> Option<Permit> {
        let mut state = self.lock();
        let is_probe = match *state {
            State::Healthy { .. } => false,
            State::Tripped { retry_at } if now >= retry_at => true,
            State::Tripped { .. } | State::Probing => return None,
        };
        if is_probe {
            *state = State::Probing;
        }
        drop(state);
        Some(Permit {
            breaker: self.clone(),
            is_probe,
        })
    }

    /// True while batches are refused or only probed.
    pub(crate) fn is_tripped(&self) -> bool {
        !matches!(*self.lock(), State::Healthy { .. })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The batch went through.
    pub(crate) fn succeeded(mut self) {
        if self.is_probe {
            self.is_probe = false;
            *self.breaker.lock() = State::Healthy { crashes: VecDeque::new() };
        }
    }

    /// The plugin crashed; true if the breaker is tripped now and the batch must stop.
    pub(crate) fn crashed(&mut self, now: Instant, crashes_per_minute: u32) -> bool {
        let mut state = self.breaker.lock();
        let trips = match &mut *state {
            State::Healthy { crashes } => {
                while crashes.front().is_some_and(|at| now.saturating_duration_since(*at) >= WINDOW) {
                    crashes.pop_front();
                }
                crashes.push_back(now);
                crashes.len() > usize::try_from(crashes_per_minute).unwrap_or(usize::MAX)
            }
            State::Tripped { .. } => return true,
            State::Probing => self.is_probe,
        };
        if trips {
            *state = State::Tripped {
                retry_at: now + self.breaker.retry_after,
            };
            self.is_probe = false;
        }
        trips
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_probe {
            *self.breaker.lock() = State::Tripped { retry_at: Instant::now() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Duration = Duration::from_secs(10);

    fn tripped(now: Instant) -> Arc<Breaker> {
        let breaker = Arc::new(Breaker::new(RETRY));
        let mut permit = breaker.admit(now).unwrap();
        assert!(!permit.crashed(now, 2) && !permit.crashed(now, 2));
        assert!(permit.crashed(now, 2), "the third of two a minute");
        breaker
    }

    #[test]
    fn crashes_within_the_limit_do_not_trip() {
        let (breaker, now) = (Arc::new(Breaker::new(RETRY)), Instant::now());
        for minute in 0..5 {
            let at = now + WINDOW * minute;
            let mut permit = breaker.admit(at).unwrap();
            assert!(!permit.crashed(at, 2) && !permit.crashed(at, 2));
        }
        assert!(!breaker.is_tripped());
    }

    #[test]
    fn tripped_breaker_refuses_until_its_retry_then_lets_one_batch_probe() {
        let now = Instant::now();
        let breaker = tripped(now);
        assert!(breaker.admit(now + RETRY - Duration::from_millis(1)).is_none());
        let probe = breaker.admit(now + RETRY).unwrap();
        assert!(breaker.admit(now + RETRY).is_none() && breaker.is_tripped());
        probe.succeeded();
        assert!(breaker.admit(now + RETRY).is_some() && !breaker.is_tripped());
    }

    #[test]
    fn crashed_probe_trips_again_and_an_abandoned_one_makes_room() {
        let now = Instant::now();
        let breaker = tripped(now);
        let mut probe = breaker.admit(now + RETRY).unwrap();
        assert!(probe.crashed(now + RETRY, 2));
        drop(probe);
        assert!(breaker.admit(now + RETRY + RETRY / 2).is_none());
        drop(breaker.admit(now + RETRY * 2).unwrap());
        assert!(breaker.is_tripped());
        assert!(breaker.admit(Instant::now() + RETRY * 2).is_some());
    }
}
