//! Compiles components on threads of their own, each only once however many ask, and remembers the result.
//!
//! Compiled code lives as long as a pool uses it, and the last few stay anyway. A failure is remembered for a while, so that a
//! binding that cannot work does not keep a processor busy.

use std::{
    collections::{HashMap, VecDeque},
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use millstream_core::transform::Artefact;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use wasmtime::component::{Component, Linker};

use crate::{
    HostError, HostOptions,
    cwasm::CodeCache,
    imports::State,
    instance::Compiled,
    text,
    worker::{Once, Workers},
};

/// Compilations and inspections that may wait.
const QUEUE_MAX: usize = 256;

/// Compiled components that are kept without a user.
const RECENT_MAX: usize = 16;

/// How long a failure is remembered.
const FAILURE_REMEMBERED: Duration = Duration::from_secs(30);

/// The result of a compilation.
pub(crate) type CompileResult = Result<Arc<Compiled>, String>;

/// The compiler and its memory.
pub(crate) struct Compiler {
    shared: Arc<Shared>,
    workers: Workers,
}

struct Shared {
    linker: Linker<State>,
    cache: Option<CodeCache>,
    component_bytes_max: usize,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    by_sha256: HashMap<String, Slot>,
    recent: VecDeque<Arc<Compiled>>,
}

enum Slot {
    Compiling(Vec<oneshot::Sender<CompileResult>>),
    Ready(Weak<Compiled>),
    Failed { reason: String, forgotten_at: Instant },
}

/// What is known of a component without waiting.
pub(crate) enum Known {
    Ready(Arc<Compiled>),
    Failed(String),
    /// It is being compiled, or it must be.
    Unknown,
}

impl Compiler {
    /// Starts the threads and opens the cache.
    pub(crate) fn start(linker: Linker<State>, options: &HostOptions) -> Result<Self, HostError> {
        let cache = options
            .cache_dir
            .as_deref()
            .map(|dir| CodeCache::open(dir, linker.engine()))
            .transpose()?;
        let component_bytes_max = options.component_bytes_max;
        let shared = Shared {
            linker,
            cache,
            component_bytes_max,
            slots: Mutex::default(),
        };
        let workers = Workers::start("plugin-compile", options.compile_threads, QUEUE_MAX)?;
        Ok(Self {
            shared: Arc::new(shared),
            workers,
        })
    }

    /// Knows what imports are allowed.
    pub(crate) fn linker(&self) -> &Linker<State> {
        &self.shared.linker
    }

    /// Runs work that takes long, such as an inspection, on the compile threads; `None` if too much waits already.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<oneshot::Receiver<T>> {
        let (reply, result) = oneshot::channel();
        let task = Once(move || {
            if !reply.is_closed() {
                // The caller may have gone while the work was done.
                reply.send(work()).ok();
            }
        });
        self.workers.submit(Box::new(task)).ok()?;
        Some(result)
    }

    /// Looks without waiting.
    pub(crate) fn look(&self, sha256: &str) -> Known {
        self.shared.lock().look(sha256, Instant::now())
    }

    /// Starts a compilation unless one is known or under way; the receiver hears of its end.
    pub(crate) fn request(&self, artefact: &Arc<Artefact>) -> oneshot::Receiver<CompileResult> {
        let (reply, result) = oneshot::channel();
        let mut slots = self.shared.lock();
        let ready = match slots.look(&artefact.sha256, Instant::now()) {
            Known::Ready(compiled) => Some(Ok(compiled)),
            Known::Failed(reason) => Some(Err(reason)),
            Known::Unknown => None,
        };
        if let Some(ready) = ready {
            // The receiver is in our hands still.
            reply.send(ready).ok();
            return result;
        }
        if let Some(Slot::Compiling(waiting)) = slots.by_sha256.get_mut(&artefact.sha256) {
            waiting.retain(|reply| !reply.is_closed());
            waiting.push(reply);
            return result;
        }
        slots.by_sha256.insert(artefact.sha256.clone(), Slot::Compiling(vec![reply]));
        drop(slots);
        let (shared, artefact) = (self.shared.clone(), artefact.clone());
        let sha256 = artefact.sha256.clone();
        let task = Once(move || {
            let compiled = shared.compile(&artefact);
            shared.finish(&artefact.sha256, compiled);
        });
        if self.workers.submit(Box::new(task)).is_err() {
            self.shared.finish(&sha256, Err("too many plugins wait to be compiled".to_owned()));
        }
        result
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compile(&self, artefact: &Artefact) -> CompileResult {
        check_size(&artefact.component, self.component_bytes_max)?;
        // The metadata names the hash: if the bytes are others, the cache would run another plugin's code.
        let sha256 = sha256_hex(&artefact.component);
        if sha256 != artefact.sha256 {
            return Err(format!("its component has sha256 {sha256}"));
        }
        let engine = self.linker.engine();
        if let Some(component) = self.cache.as_ref().and_then(|cache| cache.load(engine, &sha256)) {
            return Compiled::new(&self.linker, component).map(Arc::new);
        }
        let started = Instant::now();
        let component = compile_component(&self.linker, &artefact.component)?;
        if let Some(Err(error)) = self.cache.as_ref().map(|cache| cache.store(&sha256, &component)) {
            tracing::warn!(plugin = artefact.name, %error, "compiled plugin not cached");
        }
        let compiled = Compiled::new(&self.linker, component)?;
        tracing::info!(
            plugin = artefact.name,
            version = artefact.version,
            seconds = started.elapsed().as_secs_f64(),
            "plugin compiled"
        );
        Ok(Arc::new(compiled))
    }

    fn finish(&self, sha256: &str, result: CompileResult) {
        let mut slots = self.lock();
        let slot = match &result {
            Ok(compiled) => {
                slots.remember(compiled.clone());
                Slot::Ready(Arc::downgrade(compiled))
            }
            Err(reason) => Slot::Failed {
                reason: reason.clone(),
                forgotten_at: Instant::now() + FAILURE_REMEMBERED,
            },
        };
        let before = slots.by_sha256.insert(sha256.to_owned(), slot);
        drop(slots);
        if let Some(Slot::Compiling(waiting)) = before {
            for reply in waiting {
                // Whoever went away does not want to know.
                reply.send(result.clone()).ok();
            }
        }
    }
}

impl Slots {
    fn look(&self, sha256: &str, now: Instant) -> Known {
        match self.by_sha256.get(sha256) {
            Some(Slot::Ready(compiled)) => compiled.upgrade().map_or(Known::Unknown, Known::Ready),
            Some(Slot::Failed { reason, forgotten_at }) if now < *forgotten_at => Known::Failed(reason.clone()),
            Some(Slot::Failed { .. } | Slot::Compiling(_)) | None => Known::Unknown,
        }
    }

    fn remember(&mut self, compiled: Arc<Compiled>) {
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(compiled);
        self.by_sha256
            .retain(|_, slot| !matches!(slot, Slot::Ready(compiled) if compiled.strong_count() == 0));
    }
}

/// Compiles bytes that must be a binary component: wasmtime would take text, too.
pub(crate) fn compile_component(linker: &Linker<State>, bytes: &[u8]) -> Result<Component, String> {
    if !bytes.starts_with(COMPONENT_MAGIC) {
        return Err("it is no WebAssembly component".to_owned());
    }
    Component::from_binary(linker.engine(), bytes).map_err(|error| text::line(&format!("{error:#}")))
}

/// The first bytes of a binary component.
pub(crate) const COMPONENT_MAGIC: &[u8; 8] = b"\0asm\x0d\0\x01\0";

/// Refuses what is too large to look at.
pub(crate) fn check_size(bytes: &[u8], bytes_max: usize) -> Result<(), String> {
    if bytes.len() > bytes_max {
        return Err(format!("it has {} bytes, the maximum is {bytes_max}", bytes.len()));
    }
    Ok(())
}

/// Lower-case hexadecimal SHA-256.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().fold(String::with_capacity(64), |mut hex, byte| {
        write!(hex, "{byte:02x}").ok();
        hex
    })
}
