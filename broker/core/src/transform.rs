//! The port to user code: what the broker asks of the plugin host, and the words both use.
//!
//! A chain is an ordered list of bindings. The host runs it over the record section of one batch (Kafka's v2 encoding,
//! decompressed) and answers with what to do with the batch; policies for failing plugins are applied by the host, so the
//! broker only ever sees an outcome.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A future that a port returns.
pub type PortFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where a chain is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// On the leader, before the append.
    Produce,
    /// Where a fetch of a view is served.
    View,
}

/// What happens to a record on which a plugin fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailurePolicy {
    /// The batch is refused with INVALID_RECORD (produce only).
    Reject,
    /// The record is left out.
    Drop,
    /// The record goes through unchanged. Refused for security bindings.
    Pass,
    /// The record goes to the dead-letter topic and is left out.
    Divert,
    /// Nothing goes through until an operator acts; clients see a retriable error.
    Stall,
}

/// What happens to a whole batch once a plugin crashed too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerMode {
    /// Batches fail retriably.
    #[default]
    Closed,
    /// Batches pass through unfiltered, loudly. Refused for security bindings.
    Open,
}

/// Limits of one binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Limits {
    /// Wall time one batch may take in one plugin, in milliseconds (1–10,000).
    pub deadline_ms: u32,
    /// Linear memory one instance may hold, in bytes (1 MiB–512 MiB).
    pub memory_bytes: u64,
    /// Crashes a minute that trip the breaker (1–1,000).
    pub crashes_per_minute: u32,
}

impl Limits {
    /// The defaults of a hook: 50 ms on produce, 200 ms on views, 32 MiB, 10 crashes a minute.
    pub fn for_hook(hook: Hook) -> Self {
        let deadline_ms = match hook {
            Hook::Produce => 50,
            Hook::View => 200,
        };
        Self {
            deadline_ms,
            memory_bytes: 32 << 20,
            crashes_per_minute: 10,
        }
    }
}

/// A pushed plugin: immutable, named `name@version` and by the hash of its component.
#[derive(Clone)]
pub struct Artefact {
    /// Name, `[a-z0-9-]{1,64}`.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// Lower-case hexadecimal SHA-256 of `component`.
    pub sha256: String,
    /// The WebAssembly component.
    pub component: Bytes,
}

impl fmt::Debug for Artefact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}@{} ({} bytes, sha256 {})",
            self.name,
            self.version,
            self.component.len(),
            self.sha256
        )
    }
}

/// One plugin of a chain.
#[derive(Debug, Clone)]
pub struct Binding {
    /// The code.
    pub artefact: Arc<Artefact>,
    /// Its configuration, JSON text.
    pub config: String,
    /// What to do with a record on which it fails.
    pub policy: FailurePolicy,
    /// What to do once it crashed too often.
    pub breaker: BreakerMode,
    /// Its limits.
    pub limits: Limits,
    /// Where diverted records go; `divert` without it rejects on produce and stalls on a view.
    pub dead_letter_topic: Option<String>,
}

/// What runs over the batches of one topic or view.
#[derive(Debug, Clone)]
pub struct Chain {
    /// Where it is attached.
    pub hook: Hook,
    /// The topic the records are stored in.
    pub topic: String,
    /// The view's name on the view hook.
    pub view: Option<String>,
    /// Changes whenever anything in the chain does; part of every cache key.
    pub version: u64,
    /// In order; each sees what the one before left.
    pub bindings: Vec<Binding>,
}

/// What a plugin may know of the batch it processes.
#[derive(Debug, Clone, Default)]
pub struct BatchContext {
    /// Partition the batch is in or goes to.
    pub partition: i32,
    /// First offset; on produce -1, as none is assigned yet.
    pub base_offset: i64,
    /// Timestamp that the records' deltas count from, milliseconds.
    pub base_timestamp: i64,
    /// Leader epoch of the batch, -1 on produce.
    pub leader_epoch: i32,
    /// Number of records in the section.
    pub record_count: i32,
    /// Who produced (produce hook).
    pub principal: Option<String>,
    /// The client id of the request (produce hook).
    pub client_id: Option<String>,
}

/// A record that a plugin refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Index of the record in the batch that was handed in.
    pub index: i32,
    /// `plugin@version: reason`, at most 1 KiB.
    pub reason: String,
}

/// A record that goes to a dead-letter topic instead.
#[derive(Debug, Clone)]
pub struct Diverted {
    /// Index of the record in the batch that was handed in.
    pub index: i32,
    /// The record as it was handed in, in v2 encoding, with its length prefix.
    pub original: Bytes,
    /// Where it goes.
    pub dead_letter_topic: String,
    /// The plugin, `name`.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// `verdict`, `error` or `crash`.
    pub kind: &'static str,
    /// Why, at most 1 KiB.
    pub reason: String,
}

/// What a chain made of a batch.
#[derive(Debug, Clone)]
pub enum ChainOutcome {
    /// Keep the batch as it is, compressed bytes and all.
    Unchanged,
    /// The records changed.
    Changed {
        /// The surviving records in v2 encoding; offset and timestamp deltas are those handed in.
        records: Bytes,
        /// How many survived.
        record_count: i32,
        /// Records that were refused; on produce, any of them fails the batch.
        rejected: Vec<Rejected>,
        /// Records that must be in their dead-letter topic before the batch is acknowledged.
        diverted: Vec<Diverted>,
    },
    /// Nothing may go through now; retriable. The reason names the plugin.
    Stalled {
        /// Why, for the log and the admin API.
        reason: String,
    },
}

/// What a component says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Inspected {
    /// The component (made from a core module if one was handed in).
    #[serde(skip)]
    pub component: Bytes,
    /// Name it gives itself.
    pub name: String,
    /// Semantic version it gives itself.
    pub version: String,
    /// Hooks it can be bound to.
    pub hooks: Vec<Hook>,
    /// JSON Schema of its configuration, JSON text; empty if it takes none.
    pub config_schema: String,
    /// `batch` or `records`: the interface it exports.
    pub interface: String,
}

/// Why the host refused something.
#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    /// The file is not a plugin; the message names what is wrong.
    #[error("not a plugin: {0}")]
    Invalid(String),
    /// The plugin refused its configuration.
    #[error("plugin {plugin} refused its configuration: {reason}")]
    BadConfig {
        /// `name@version`.
        plugin: String,
        /// What it said.
        reason: String,
    },
    /// The node's plugin memory budget is used up.
    #[error("plugin {plugin} needs {wanted_bytes} bytes, {free_bytes} of the node's plugin memory are free")]
    NoMemory {
        /// `name@version`.
        plugin: String,
        /// What it asked for.
        wanted_bytes: u64,
        /// What is left.
        free_bytes: u64,
    },
}

/// Counters of one plugin on one topic and hook since the start.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PluginStats {
    /// Plugin name.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// `produce` or `view`.
    pub hook: String,
    /// Topic, or view name on the view hook.
    pub topic: String,
    /// Batches handed in.
    pub batches: u64,
    /// Records handed in.
    pub records_in: u64,
    /// Records that went on, changed or not.
    pub records_out: u64,
    /// Records it replaced.
    pub replaced: u64,
    /// Records it dropped.
    pub dropped: u64,
    /// Records it rejected.
    pub rejected: u64,
    /// Records it diverted.
    pub diverted: u64,
    /// Errors it returned.
    pub errors: u64,
    /// Traps, timeouts, memory and bad replies.
    pub crashes: u64,
    /// Instances replaced.
    pub recycles: u64,
    /// Seconds spent inside.
    pub seconds: f64,
    /// Whether the breaker is tripped.
    pub breaker_tripped: bool,
}

/// The plugin host as the broker sees it.
pub trait Transform: Send + Sync {
    /// Checks a component or core module: world, imports, memory maximum, size; and asks it to describe itself.
    fn inspect(&self, wasm: Bytes) -> PortFuture<'_, Result<Inspected, TransformError>>;
    /// Compiles every plugin of a chain and initialises it once with its configuration.
    fn prepare(&self, chain: Arc<Chain>) -> PortFuture<'_, Result<(), TransformError>>;
    /// Runs a chain over one batch's record section.
    fn run(&self, chain: Arc<Chain>, context: BatchContext, records: Bytes) -> PortFuture<'_, ChainOutcome>;
    /// Counters per plugin, hook and topic.
    fn stats(&self) -> Vec<PluginStats>;
}
