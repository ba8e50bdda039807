//! Time as a coordinator needs it: milliseconds since the epoch that never jump, and the timer that belongs to them.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Clock;

/// The longest sleep. Waking early is harmless, and sums of far deadlines cannot overflow.
const SLEEP_MAX: Duration = Duration::from_secs(3_600);

/// The wall clock at start, carried on by a monotonic clock: sessions are measured with it, and a step of the wall clock ends none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CoordinatorTime {
    started_ms: i64,
    started: Instant,
}

impl CoordinatorTime {
    /// Reads the wall clock, once.
    pub fn start(clock: &dyn Clock) -> Self {
        Self {
            started_ms: clock.wall_ms(),
            started: Instant::now(),
        }
    }

    /// Milliseconds since the epoch.
    pub fn now_ms(&self) -> i64 {
        let elapsed_ms = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.started_ms.saturating_add(elapsed_ms)
    }

    /// Sleeps until `deadline_ms` or for an hour, whichever is shorter; forever without a deadline. Cancel safe.
    pub async fn sleep_until(&self, deadline_ms: Option<i64>) {
        let Some(deadline_ms) = deadline_ms else {
            return std::future::pending().await;
        };
        let delay_ms = u64::try_from(deadline_ms.saturating_sub(self.now_ms())).unwrap_or(0);
        // From the start, not from now: the clock then shows no less than the deadline.
        let wake = if Duration::from_millis(delay_ms) < SLEEP_MAX {
            self.started + Duration::from_millis(u64::try_from(deadline_ms.saturating_sub(self.started_ms)).unwrap_or(0))
        } else {
            Instant::now() + SLEEP_MAX
        };
        tokio::time::sleep_until(wake).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(i64);

    impl Clock for Fixed {
        fn wall_ms(&self) -> i64 {
            self.0
        }
    }

    #[tokio::test]
    async fn deadline_has_passed_when_the_sleep_ends() {
        let time = CoordinatorTime::start(&Fixed(1_000));
        time.sleep_until(Some(1_003)).await;
        assert!(time.now_ms() >= 1_003);
        // One that passed long ago does not sleep.
        time.sleep_until(Some(-5)).await;
    }
}
