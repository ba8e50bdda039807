//! A log directory: its lock, its clean-stop marker, its health, and the thread that syncs its logs in groups.
//!
//! One group sync is in flight per directory. Whoever asked while it ran is covered by the next one; a few helpers sync
//! different files at the same time, which journaling file systems merge into few commits.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, ScopedJoinHandle},
};

use crate::{
    Log, LogConfig, LogError, OpenMode,
    disk::{Disk, replace_file},
};

/// Start of the name of a log that is being deleted; no log that is in use starts with a dot.
const DELETED_PREFIX: &str = ".deleted-";
/// Logs synced at the same time within one group, or closed at the same time.
const PARALLEL_SYNCS: usize = 8;
/// From so many logs on they are closed at the same time. Fewer are closed in their order, which a simulation relies on.
const MANY_LOGS: usize = 64;

/// Whether a log directory may be used; shared by its logs.
#[derive(Debug)]
pub(crate) struct Health {
    path: PathBuf,
    failed: AtomicBool,
}

impl Health {
    /// Whether the directory may be used; also for reads, as what they would return may not be on disk.
    pub fn check(&self) -> Result<(), LogError> {
        if self.failed.load(Ordering::Acquire) {
            Err(LogError::Offline { path: self.path.clone() })
        } else {
            Ok(())
        }
    }

    pub fn fail(&self, error: &LogError) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            tracing::error!(log_dir = %self.path.display(), %error, "log directory goes offline; nothing more is acknowledged from it");
        }
    }
}

/// How to open a log directory.
pub struct LogDirOptions {
    /// The directory.
    pub path: PathBuf,
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// Wall clock in milliseconds.
    pub clock: Arc<dyn Fn() -> i64 + Send + Sync>,
}

/// A directory of logs, in exclusive use.
pub struct LogDir {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    health: Arc<Health>,
    mode: OpenMode,
    queue: Arc<Queue>,
    syncer: Mutex<Option<JoinHandle<()>>>,
    _lock: Box<dyn Send + Sync>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
    wake: Condvar,
}

#[derive(Default)]
struct QueueState {
    logs: Vec<Arc<Log>>,
    closed: bool,
}

impl LogDir {
    /// Takes the directory, creating it, and starts its syncer.
    pub fn open(options: LogDirOptions) -> Result<Arc<Self>, LogError> {
        let LogDirOptions { path, disk, clock } = options;
        disk.create_dir_all(&path).map_err(LogError::io("create directory", &path))?;
        let lock = disk.lock(&path.join(".lock")).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => LogError::Locked { path: path.clone() },
            _ => LogError::io("lock", path.join(".lock"))(error),
        })?;
        let marker = path.join(".clean");
        let mode = match disk.remove_file(&marker) {
            Ok(()) => OpenMode::Clean,
            Err(error) if error.kind() == io::ErrorKind::NotFound => OpenMode::Unclean,
            Err(error) => return Err(LogError::io("remove clean marker", marker)(error)),
        };
        disk.sync_dir(&path).map_err(LogError::io("sync directory", &path))?;
        for name in disk.list(&path).map_err(LogError::io("list directory", &path))? {
            if name.starts_with(DELETED_PREFIX) {
                disk.remove_dir_all(&path.join(&name))
                    .map_err(LogError::io("delete", path.join(&name)))?;
            }
        }
        let health = Arc::new(Health {
            path: path.clone(),
            failed: AtomicBool::new(false),
        });
        let queue = Arc::new(Queue::default());
        let syncer = {
            let (queue, clock) = (Arc::clone(&queue), Arc::clone(&clock));
            std::thread::Builder::new()
                .name("log-sync".into())
                .spawn(move || sync_groups(&queue, &*clock))
                .map_err(LogError::io("start syncer of", &path))?
        };
        Ok(Arc::new(Self {
            path,
            disk,
            clock,
            health,
            mode,
            queue,
            syncer: Mutex::new(Some(syncer)),
            _lock: lock,
        }))
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How the last user left it.
    pub fn mode(&self) -> OpenMode {
        self.mode
    }

    /// Whether a sync failed.
    pub fn is_offline(&self) -> bool {
        self.health.check().is_err()
    }

    /// Opens or creates the log in the subdirectory `name`.
    pub fn open_log(&self, name: &str, config: LogConfig) -> Result<Arc<Log>, LogError> {
        let log = Log::open(
            Arc::clone(&self.disk),
            Arc::clone(&self.health),
            self.path.join(name),
            config,
            self.mode,
            (self.clock)(),
        )?;
        Ok(Arc::new(log))
    }

    /// Makes the names of newly created logs durable.
    pub fn sync_names(&self) -> Result<(), LogError> {
        self.disk.sync_dir(&self.path).map_err(LogError::io("sync directory", &self.path))
    }

    /// Names of the logs in the directory.
    pub fn log_names(&self) -> Result<Vec<String>, LogError> {
        let mut names = self.disk.list(&self.path).map_err(LogError::io("list directory", &self.path))?;
        names.retain(|name| !name.starts_with('.'));
        Ok(names)
    }

    /// Deletes a log. Readers that hold its files may finish; appends and syncs are refused from now on.
    pub fn delete_log(&self, log: &Log) -> Result<(), LogError> {
        log.mark_deleted();
        let name = log.dir().file_name().unwrap_or_default().to_string_lossy();
        let doomed = self.path.join(format!("{DELETED_PREFIX}{name}"));
        // A crash in the middle of a deletion must not leave half a log under its name.
        self.disk
            .rename(log.dir(), &doomed)
            .map_err(LogError::io("rename for deletion", log.dir()))?;
        self.sync_names()?;
        self.disk.remove_dir_all(&doomed).map_err(LogError::io("delete", doomed))
    }

    /// Asks for a sync of a log; its observer hears of the result. Returns at once.
    pub fn request_sync(&self, log: &Arc<Log>) {
        if log.sync_requested.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut state = self.queue.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.logs.push(Arc::clone(log));
        drop(state);
        self.queue.wake.notify_one();
    }

    /// Stops the syncer, closes the logs, many of them side by side, and leaves the clean-stop marker. No append may follow.
    pub fn close(&self, logs: &[Arc<Log>]) -> Result<(), LogError> {
        self.stop_syncer();
        let close = |part: &[Arc<Log>]| part.iter().try_for_each(|log| log.close((self.clock)()));
        if logs.len() < MANY_LOGS {
            close(logs)?;
        } else {
            in_parts(logs, close).into_iter().collect::<Result<(), LogError>>()?;
        }
        let marker = self.path.join(".clean");
        replace_file(&*self.disk, &marker, b"").map_err(LogError::io("write clean marker", marker))
    }

    fn stop_syncer(&self) {
        self.queue.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.queue.wake.notify_one();
        let syncer = self.syncer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(syncer) = syncer
            && syncer.join().is_err()
        {
            tracing::error!("the log syncer panicked");
        }
    }
}

impl Drop for LogDir {
    fn drop(&mut self) {
        self.stop_syncer();
    }
}

fn sync_groups(queue: &Queue, clock: &(dyn Fn() -> i64 + Send + Sync)) {
    loop {
        let group = {
            let mut state = queue.state.lock().unwrap_or_else(PoisonError::into_inner);
            while state.logs.is_empty() && !state.closed {
                state = queue.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.logs.is_empty() {
                return;
            }
            std::mem::take(&mut state.logs)
        };
        in_parts(&group, |part| {
            for log in part {
                // Cleared first, so that appends during this sync ask for the next one.
                log.sync_requested.store(false, Ordering::Release);
                // The failure was logged, and the observer told, where it happened.
                let _ = log.sync(clock());
            }
        });
    }
}

/// Works on parts of the logs at the same time. Without another thread the work is done on this one.
fn in_parts<R: Send>(logs: &[Arc<Log>], work: impl Fn(&[Arc<Log>]) -> R + Sync) -> Vec<R> {
    if logs.len() == 1 {
        return vec![work(logs)];
    }
    let (work, share) = (&work, logs.len().div_ceil(PARALLEL_SYNCS).max(1));
    std::thread::scope(|scope| {
        let start = |part| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, move || work(part));
            thread.map_err(|_| work(part))
        };
        let parts: Vec<_> = logs.chunks(share).map(start).collect();
        let finish = |part: Result<ScopedJoinHandle<'_, R>, R>| match part {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(done) => done,
        };
        parts.into_iter().map(finish).collect()
    })
}
