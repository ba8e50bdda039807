//! What an operator can set, and why a host may not start.

use std::{path::PathBuf, time::Duration};

/// Settings of a [`PluginHost`](crate::PluginHost).
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// Where compiled code is kept between starts; `None` compiles afresh. The directory must belong to the broker alone: code in it
    /// is run. Default `None`.
    pub cache_dir: Option<PathBuf>,
    /// Threads that run plugins. Default 2.
    pub workers: usize,
    /// Batches that may wait for a worker; one more stalls. Default 1,024.
    pub queue_batches_max: usize,
    /// Threads that compile and inspect. Default 1.
    pub compile_threads: usize,
    /// Linear memory that all plugins of the node together may reserve: each (plugin, configuration) takes its memory limit once per
    /// worker, and its share of `instances_max` at least. Default 2 GiB.
    pub memory_budget_bytes: u64,
    /// Live instances, each with 6 GiB of address space (not memory). Default 256.
    pub instances_max: u32,
    /// Largest component that is accepted. Default 32 MiB.
    pub component_bytes_max: usize,
    /// Largest record, in v2 encoding, that a plugin may make; `message.max.bytes`. Default 1 MiB.
    pub record_bytes_max: usize,
    /// Batches after which an instance is replaced: guests leak. Default 10,000.
    pub instance_batches_max: u32,
    /// How long a tripped breaker waits before it lets one batch try. Default 10 s.
    pub breaker_retry: Duration,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            cache_dir: None,
            workers: 2,
            queue_batches_max: 1024,
            compile_threads: 1,
            memory_budget_bytes: 2 << 30,
            instances_max: 256,
            component_bytes_max: 32 << 20,
            record_bytes_max: 1 << 20,
            instance_batches_max: 10_000,
            breaker_retry: Duration::from_secs(10),
        }
    }
}

/// Why a host could not start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// wasmtime refused the configuration on this machine; address space may be limited.
    #[error("start the wasm engine: {reason}")]
    Engine {
        /// What it said.
        reason: String,
    },
    /// The cache directory cannot be used, or others may write to it.
    #[error("use {path} as cache of compiled plugins: {reason}")]
    CacheDir {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A thread could not be started.
    #[error("start thread {name}")]
    Thread {
        /// Its name.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
}
