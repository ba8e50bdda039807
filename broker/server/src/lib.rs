//! The tokio shell around the cores: it listens, decodes, authorizes, asks a core, appends, waits for durability and answers.
//!
//! ```text
//! net/        sockets, frames, pipelining; knows no API
//! dispatch    API key -> handler
//! handlers/   one file per API (or a few that are one subject): decode is done, call, build the response
//! broker      everything a handler may use
//! partition   one replica: log, high watermark, who waits for it
//! metadata, groups, plugins   services: a core, its log, and the rule that answers wait for durability
//! views, fetch_sessions, answer_memory   what only fetches need
//! housekeeping                everything that happens by itself
//! log_levels                  levels of loggers, which administrators change
//! admin/      the HTTP side door
//! ```
//! What does not belong here: decisions that a core can make, file formats, anything that names wasmtime or an object store.

pub mod admin;
mod answer_memory;
pub mod broker;
mod cleaner;
pub mod clock;
pub mod config;
mod context;
mod coordination;
mod dispatch;
mod errors;
mod features;
mod fetch_sessions;
pub mod groups;
mod handlers;
mod housekeeping;
pub mod log_levels;
pub mod metadata;
pub mod metrics;
mod net;
pub mod partition;
mod partitions;
pub mod plugins;
mod produce_chain;
mod quotas;
pub mod share;
mod telemetry;
pub mod transactions;
mod validation;
mod views;

pub use broker::{Broker, BrokerParts, StartError};
pub use clock::{Clock, SystemClock};
pub use config::{BrokerConfig, ConfigError};
pub use dispatch::{API_VERSIONS, served_versions};
pub use net::{ListenError, Listener};
