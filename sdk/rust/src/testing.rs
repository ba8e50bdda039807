//! Tests of plugins without a sandbox: golden vectors and a native runner.
//!
//! A golden file is JSON: a configuration, and records with the verdicts they must get. It runs natively in the plugin's own tests
//! ([`golden`]) and against the compiled component in `millstream plugin test`, which reads it with [`Golden`].
//!
//! ```json
//! {
//!   "config": {"needle": "x"},
//!   "cases": [
//!     {"name": "has it", "key": "k", "value": "xyz", "headers": {"h": "1"}, "timestamp_ms": 0, "expect": {"keep": true}},
//!     {"name": "tombstone", "key": "k", "value": null, "expect": {"drop": true}}
//!   ]
//! }
//! ```
//! Bytes are text, `null`, `{"hex": "00ff"}` or `{"json": …}` (written compactly; compared as JSON). `expect` is one of
//! `{"keep": true}`, `{"drop": true}`, `{"replace": {"key": …, "value": …, "headers": {…}}}` with exactly the parts that change,
//! and `{"reject": "part of the reason"}`, `{"divert": "…"}`, `{"error": "…"}`.

mod bytes;
mod golden;

pub use bytes::Bytes;
pub use golden::{Case, Expect, Golden, Mismatch, Replaced};

use crate::{Context, Plugin, plugin};

/// Runs a batch through a plugin: a verdict list, or the error of the configuration or of the batch.
pub fn run<P: Plugin>(config: &str, context: &Context, section: &[u8]) -> Result<Vec<u8>, String> {
    plugin::instance::<P>(config)?(context, section)
}

/// Runs a golden file and panics with all the differences.
pub fn golden<P: Plugin>(text: &str) {
    let golden = Golden::parse(text).unwrap_or_else(|error| panic!("golden file: {error}"));
    let section = golden.section().unwrap_or_else(|error| panic!("golden file: {error}"));
    let reply = run::<P>(&golden.config.to_string(), &golden.context(), &section).unwrap_or_else(|error| panic!("{error}"));
    let mismatches = golden.check(&reply).unwrap_or_else(|error| panic!("verdict list: {error}"));
    let lines: Vec<String> = mismatches.iter().map(Mismatch::to_string).collect();
    assert!(
        lines.is_empty(),
        "{} of {} cases differ\n{}",
        lines.len(),
        golden.cases.len(),
        lines.join("\n")
    );
}

#[cfg(test)]
mod tests;
