//! Write Millstream plugins in Rust.
//!
//! A plugin decides, record by record, what happens to a batch: keep, drop, change, refuse or divert. It is an ordinary library
//! crate with one [`plugin!`] line:
//!
//! ```
//! use millstream_sdk::{Record, Result, plugin};
//!
//! #[derive(Default, serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     needle: String,
//! }
//!
//! fn keep(record: &Record<'_>, config: &Config) -> Result<bool> {
//!     Ok(record.value_str()?.is_some_and(|value| value.contains(&config.needle)))
//! }
//!
//! plugin! { config: Config, filter: keep }
//! # fn main() {}
//! ```
//!
//! Compiled for `wasm32-unknown-unknown` the crate is a plugin that a broker takes; compiled natively it is a library whose logic
//! unit tests and golden vectors ([`testing`]) run without any sandbox. A plugin has no state but its configuration: an instance
//! may be replaced after any batch, and any instance may see any batch.
//!
//! A handler that returns an error fails that one record, and the binding's policy decides what becomes of it. A panic fails the
//! batch; the broker then looks for the culprit with fresh instances, which is slow: prefer errors.

mod batch;
mod change;
mod config;
mod error;
pub mod handlers;
pub mod host;
mod plugin;

#[cfg(target_arch = "wasm32")]
pub mod guest;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use batch::{Batch, Context, Hook, Record, Records};
pub use change::{Change, Verdict};
pub use config::NoConfig;
pub use error::{Error, Result};
pub use millstream_abi::{HeaderRef, RawHeader, RawHeaders, VerdictWriter};
pub use plugin::{Info, Plugin};
