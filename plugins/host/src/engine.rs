//! The wasmtime engine and the clock that interrupts guests.
//!
//! Time is counted in epochs of one millisecond: compiled code compares a counter at every loop head and function entry. The ticker
//! thread that raises the counter sleeps while no guest runs, so that an idle node is not woken a thousand times a second.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use wasmtime::{Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::{HostError, HostOptions, limits};

/// One epoch.
const EPOCH: Duration = Duration::from_millis(1);

/// Epochs without a running guest after which the ticker parks.
const IDLE_EPOCHS_MAX: u32 = 100;

/// Stack of wasm code, in bytes. JavaScript engines need more than half of it.
const WASM_STACK_BYTES: usize = 1 << 20;

/// Stack of threads that run wasm: the wasm stack lies on it, with room for host functions.
pub(crate) const THREAD_STACK_BYTES: usize = 4 << 20;

/// Frames that a trap may record.
const BACKTRACE_FRAMES_MAX: usize = 20;

/// Makes the engine. Linear memories keep their 4 GiB reservation, which makes bounds checks free.
pub(crate) fn engine(options: &HostOptions) -> Result<Engine, HostError> {
    let instances = options.instances_max;
    let mut pooling = PoolingAllocationConfig::new();
    pooling
        .total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(8))
        .total_memories(instances)
        .total_tables(instances.saturating_mul(4))
        .max_core_instances_per_component(limits::CORE_INSTANCES_MAX)
        .max_memories_per_component(limits::MEMORIES_MAX)
        .max_tables_per_component(limits::TABLES_MAX)
        .max_memory_size(usize::try_from(limits::MEMORY_BYTES_MAX).unwrap_or(usize::MAX))
        .table_elements(limits::TABLE_ELEMENTS_MAX)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        .relaxed_simd_deterministic(true)
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES_MAX))
        .memory_init_cow(true)
        // Compiling must not take every core from the broker: it stays on the compile threads.
        .parallel_compilation(false)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pooling));
    Engine::new(&config).map_err(|error| HostError::Engine {
        reason: format!("{error:#}"),
    })
}

/// Raises the engine's epoch while guests run. Ends with its last handle.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: thread::Thread,
}

struct Shared {
    running: AtomicUsize,
    stopped: AtomicBool,
}

/// While it lives, time passes for guests.
pub(crate) struct Running<'a>(&'a Shared);

impl Ticker {
    /// Starts the thread.
    pub(crate) fn start(engine: &Engine) -> Result<Self, HostError> {
        let shared = Arc::new(Shared {
            running: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let (ticking, engine) = (shared.clone(), engine.weak());
        let name = "plugin-epoch".to_owned();
        let thread = thread::Builder::new()
            .name(name.clone())
            .spawn(move || tick(&ticking, &engine))
            .map_err(|source| HostError::Thread { name, source })?
            .thread()
            .clone();
        Ok(Self { shared, thread })
    }

    /// Says that a guest is about to run.
    pub(crate) fn enter(&self) -> Running<'_> {
        if self.shared.running.fetch_add(1, Ordering::SeqCst) == 0 {
            self.thread.unpark();
        }
        Running(&self.shared)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

fn tick(shared: &Shared, engine: &EngineWeak) {
    let mut idle_epochs = 0;
    while !shared.stopped.load(Ordering::SeqCst) {
        idle_epochs = if shared.running.load(Ordering::SeqCst) == 0 {
            idle_epochs + 1
        } else {
            0
        };
        if idle_epochs > IDLE_EPOCHS_MAX {
            // A guest that entered since the look above has left an unpark token: this returns at once.
            thread::park();
            idle_epochs = 0;
            continue;
        }
        thread::sleep(EPOCH);
        let Some(engine) = engine.upgrade() else { return };
        engine.increment_epoch();
    }
}

/// Epochs that cover `ms` milliseconds: one more, as the first may end at once.
pub(crate) fn epochs(ms: u32) -> u64 {
    u64::from(ms) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticker_ends_with_its_handle() {
        let engine = Engine::default();
        let ticker = Ticker::start(&engine).unwrap();
        let shared = Arc::downgrade(&ticker.shared);
        drop(ticker.enter());
        drop(ticker);
        let started = std::time::Instant::now();
        while shared.upgrade().is_some() {
            assert!(started.elapsed() < Duration::from_secs(10), "the ticker still runs");
            thread::yield_now();
        }
    }
}
