//! What the broker offers to a plugin. Natively, in tests, nothing listens: the calls do nothing.

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// For the plugin's author.
    Debug,
    /// Worth knowing.
    Info,
    /// Wrong, but the plugin goes on.
    Warn,
    /// Wrong.
    Error,
}

/// Writes a line to the plugin's log. The broker cuts lines at 1 KiB and limits their rate; keep record contents out of them.
pub fn log(level: Level, message: &str) {
    imports::log(level, message);
}

/// Adds to a counter that the broker exports as `millstream_plugin_custom_total{name=…}`.
pub fn counter_add(name: &str, delta: u64) {
    imports::counter_add(name, delta);
}

/// Records a value in a histogram that the broker exports.
pub fn histogram_record(name: &str, value: f64) {
    imports::histogram_record(name, value);
}

/// A top-level field of the binding's configuration, as JSON text. The typed configuration is nearly always the better way.
pub fn config_get(name: &str) -> Option<String> {
    imports::config_get(name)
}

#[cfg(target_arch = "wasm32")]
mod imports {
    use super::Level;
    use crate::guest::bindings::millstream::plugin::host;
    pub(super) use host::{config_get, counter_add, histogram_record};

    pub(super) fn log(level: Level, message: &str) {
        let level = match level {
            Level::Debug => host::Level::Debug,
            Level::Info => host::Level::Info,
            Level::Warn => host::Level::Warn,
            Level::Error => host::Level::Error,
        };
        host::log(level, message);
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod imports {
    use super::Level;

    pub(super) fn log(_level: Level, _message: &str) {}
    pub(super) fn counter_add(_name: &str, _delta: u64) {}
    pub(super) fn histogram_record(_name: &str, _value: f64) {}
    pub(super) fn config_get(_name: &str) -> Option<String> {
        None
    }
}
