//! Making a log durable: fdatasync of what was written, sealing of what was rolled, and the recovery point.

use std::sync::{Arc, PoisonError, atomic::Ordering};

use bytes::Bytes;

use crate::{
    Log, LogError,
    disk::replace_file_unsynced,
    segment::{Segment, file_name},
};

/// The recovery point is written at most this often, unless segments were sealed or epochs changed.
const CHECKPOINT_INTERVAL_MS: i64 = 5_000;

/// Who is told how far a log is durable.
pub trait LogObserver: Send + Sync {
    /// Everything below `log_end_offset` is on disk.
    fn durable(&self, log_end_offset: i64);
    /// The log directory is offline for good.
    fn failed(&self);
}

impl Log {
    /// Makes everything appended so far durable and tells the observer. A failure takes the log directory offline.
    pub fn sync(&self, now_ms: i64) -> Result<i64, LogError> {
        let syncing = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self
            .check()
            .and_then(|()| self.try_sync(now_ms).inspect_err(|error| self.health.fail(error)));
        drop(syncing);
        if let Some(observer) = self.observer.get() {
            match &result {
                Ok(durable_end) => observer.durable(*durable_end),
                // Also when another log's failure, or a deletion, came first: nobody must wait for this one any more.
                Err(_) => observer.failed(),
            }
        }
        result
    }

    fn try_sync(&self, now_ms: i64) -> Result<i64, LogError> {
        let (end, active, rolled, epochs_changed) = {
            let mut appender = self.appender();
            let active = self.segments().last().cloned();
            self.dirty_bytes.store(0, Ordering::Release);
            (
                self.log_end_offset(),
                active,
                std::mem::take(&mut appender.rolled),
                appender.epochs_changed,
            )
        };
        for segment in rolled.iter().map(|(segment, _)| segment).chain(&active) {
            segment.file.sync_data().map_err(LogError::io("sync segment", &segment.path))?;
        }
        if !rolled.is_empty() {
            // The names of new segments: without them the records in there would not be found.
            self.disk.sync_dir(&self.dir).map_err(LogError::io("sync directory", &self.dir))?;
        }
        let sealed = if rolled.is_empty() { Ok(()) } else { self.seal_all(&rolled) };
        self.durable_end.fetch_max(end, Ordering::AcqRel);
        self.appender().producers.forget_ended(end);
        let due = {
            let state = self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
            epochs_changed || !rolled.is_empty() || now_ms - state.written_ms >= CHECKPOINT_INTERVAL_MS
        };
        let stored = if due && sealed.is_ok() {
            self.store_checkpoint(end)
        } else {
            Ok(())
        };
        if due && stored.is_ok() {
            self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner).written_ms = now_ms;
        }
        match sealed.and(stored) {
            // The records are on disk; what is derived from them can wait until there is space.
            Err(error) if error.is_disk_full() => {
                tracing::warn!(log = %self.dir.display(), %error, "disk is full; sealing and checkpoints wait");
                let mut appender = self.appender();
                appender.epochs_changed |= epochs_changed;
                let not_sealed = rolled.into_iter().filter(|(segment, _)| !segment.is_sealed());
                appender.rolled.splice(0..0, not_sealed);
                Ok(end)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(end),
        }
    }

    /// Writes snapshots and indexes of rolled segments, whose bytes and successors' names are synced.
    fn seal_all(&self, rolled: &[(Arc<Segment>, Bytes)]) -> Result<(), LogError> {
        for (segment, snapshot) in rolled {
            let path = self.dir.join(file_name(segment.next_offset(), "snapshot"));
            replace_file_unsynced(&*self.disk, &path, snapshot).map_err(LogError::io("write snapshot", path))?;
            segment.seal(&*self.disk)?;
        }
        self.disk.sync_dir(&self.dir).map_err(LogError::io("sync directory", &self.dir))
    }

    /// Makes the log ready for a clean start: synced, indexed, with a producer snapshot at its end.
    pub fn close(&self, now_ms: i64) -> Result<(), LogError> {
        if self.is_as_closed.load(Ordering::Acquire) {
            return self.check();
        }
        let end = self.sync(now_ms)?;
        let snapshot = self.appender().producers.encode(end);
        let path = self.dir.join(file_name(end, "snapshot"));
        replace_file_unsynced(&*self.disk, &path, &snapshot).map_err(LogError::io("write snapshot", path))?;
        if let Some(active) = self.segments().last() {
            active.write_index(&*self.disk)?;
        }
        self.store_checkpoint(end)
    }
}
