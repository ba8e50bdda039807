//! Configurations by Kafka's names, sorted by the part of the node that they are for.

use std::time::Duration;

use anyhow::{Result, bail};
use millstream_core::metadata::configs::Overrides;

/// How often a partition looks for segments to upload.
const TIER_WORK_INTERVAL: &str = "remote.log.manager.task.interval.ms";

/// Configurations of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Those of the broker, which checks them.
    pub broker: Overrides,
    /// `remote.log.manager.task.interval.ms`, at least 1 ms; the tier's default if not set.
    pub tier_work_interval: Option<Duration>,
}

impl Settings {
    /// Sorts name-value pairs; a later one wins over an earlier one of the same name.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let mut broker: Overrides = pairs.into_iter().collect();
        let tier_work_interval = match broker.remove(TIER_WORK_INTERVAL) {
            None => None,
            Some(text) => match text.trim().parse() {
                Ok(ms @ 1..) => Some(Duration::from_millis(ms)),
                _ => bail!("Invalid value {text} for configuration {TIER_WORK_INTERVAL}: it is a number of milliseconds, at least 1"),
            },
        };
        Ok(Self {
            broker,
            tier_work_interval,
        })
    }

    /// Sets a configuration of the broker unless it is set.
    pub fn default_to(&mut self, name: &str, value: &str) {
        self.broker.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn settings_reach_the_part_they_are_for() {
        let mut settings = Settings::new([pair("a", "1"), pair("a", "2"), pair(TIER_WORK_INTERVAL, "200")]).unwrap();
        settings.default_to("a", "3");
        settings.default_to("b", "4");
        assert_eq!(settings.broker, Overrides::from([pair("a", "2"), pair("b", "4")]));
        assert_eq!(settings.tier_work_interval, Some(Duration::from_millis(200)));
    }

    #[test]
    fn intervals_that_are_none_are_named() {
        for bad in ["0", "-1", "often"] {
            let error = Settings::new([pair(TIER_WORK_INTERVAL, bad)]).unwrap_err().to_string();
            assert!(error.contains(TIER_WORK_INTERVAL) && error.contains(bad), "{error}");
        }
    }
}
