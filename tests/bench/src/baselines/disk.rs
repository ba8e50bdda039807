//! The disk without a node: appends and syncs of bare files, and reads of files as they are.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::Path,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use rustix::fs::{Advice, fadvise};

use crate::{
    load::{Batch, Moved, Pace, wait_until},
    stats::Latencies,
};

/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;
/// Bytes between two syncs of the raw append: a node bounds its dirty bytes in the same way.
const SYNC_EVERY_BYTES: usize = 32 << 20;
const FILE_NAME: &str = "baseline";

/// Appends `count` batches to a file with a sync every 32 MiB and one at the end.
pub fn append_synced(directory: &Path, batch: &Batch, count: u64) -> Result<Moved> {
    let path = directory.join(FILE_NAME);
    let mut file = File::create(&path).context("create a file")?;
    let started = Instant::now();
    let mut dirty = 0;
    for _ in 0..count {
        file.write_all(&batch.bytes).context("append to a file")?;
        dirty += batch.bytes.len();
        if dirty >= SYNC_EVERY_BYTES {
            file.sync_data().context("sync a file")?;
            dirty = 0;
        }
    }
    file.sync_data().context("sync a file")?;
    let time = started.elapsed();
    fs::remove_file(&path).context("delete a file")?;
    Ok(Moved {
        records: count * batch.records,
        value_bytes: count * batch.value_bytes,
        time,
    })
}

/// Times of an append of `bytes` and its sync, one at a time, at a steady pace or as fast as the disk can. Each counts from its own
/// begin: a disk that falls behind the pace is no queue, for a node would cover all that wait with one sync.
pub fn sync_latencies(directory: &Path, bytes: &[u8], pace: Pace) -> Result<Latencies> {
    let path = directory.join(FILE_NAME);
    let mut file = File::create(&path).context("create a file")?;
    let mut latencies = Latencies::default();
    let started = Instant::now();
    for event in 0..pace.events() {
        wait_until(pace.due(started, event));
        let begun = Instant::now();
        if begun.duration_since(started) > pace.time {
            break;
        }
        file.write_all(bytes).context("append to a file")?;
        file.sync_data().context("sync a file")?;
        latencies.push(begun.elapsed());
    }
    fs::remove_file(&path).context("delete a file")?;
    Ok(latencies)
}

/// What the writers and the syncer of a group commit share.
#[derive(Debug, Default)]
struct Group {
    state: Mutex<GroupState>,
    appended: Condvar,
    synced: Condvar,
}

#[derive(Debug, Default)]
struct GroupState {
    appended: u64,
    synced: u64,
    writers: usize,
    failed: bool,
}

impl Group {
    fn lock(&self) -> MutexGuard<'_, GroupState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Appends per second of threads that each append `bytes` to one file and wait until a single syncer has covered them.
pub fn group_commits_per_second(directory: &Path, bytes: &[u8], writers: usize, time: Duration) -> Result<f64> {
    let path = directory.join(FILE_NAME);
    let file = File::create(&path).context("create a file")?;
    let group = Group::default();
    group.lock().writers = writers;
    let started = Instant::now();
    let commits = thread::scope(|scope| {
        let running: Vec<_> = (0..writers)
            .map(|_| scope.spawn(|| commit_until(&group, &file, bytes, started + time)))
            .collect();
        let synced = sync_until_done(&group, &file);
        let mut commits = 0;
        for writer in running {
            commits += writer.join().map_err(|_| anyhow!("a writer panicked"))??;
        }
        synced.map(|()| commits)
    });
    let rate = commits? as f64 / started.elapsed().as_secs_f64();
    fs::remove_file(&path).context("delete a file")?;
    Ok(rate)
}

fn commit_until(group: &Group, mut file: &File, bytes: &[u8], end: Instant) -> Result<u64> {
    let mut commits = 0;
    let mut outcome = Ok(());
    while outcome.is_ok() && Instant::now() < end {
        let mut state = group.lock();
        outcome = file.write_all(bytes).context("append to a file");
        state.appended += 1;
        let own = state.appended;
        group.appended.notify_one();
        while state.synced < own && !state.failed {
            state = group.synced.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.failed {
            break;
        }
        commits += 1;
    }
    group.lock().writers -= 1;
    group.appended.notify_one();
    outcome.map(|()| commits)
}

/// Syncs as long as there are writers; everything that was appended before a sync began is covered by it.
fn sync_until_done(group: &Group, file: &File) -> Result<()> {
    loop {
        let mut state = group.lock();
        while state.appended == state.synced && state.writers > 0 {
            state = group.appended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.appended == state.synced {
            return Ok(());
        }
        let covered = state.appended;
        drop(state);
        let outcome = file.sync_data().context("sync a file");
        let mut state = group.lock();
        state.synced = covered;
        state.failed = outcome.is_err();
        group.synced.notify_all();
        outcome?;
    }
}

/// Reads files from front to back; returns their size and how long it took.
pub fn read_files(paths: &[impl AsRef<Path>]) -> Result<(u64, Duration)> {
    let mut block = vec![0; READ_BYTES];
    let mut bytes = 0;
    let started = Instant::now();
    for path in paths {
        let path = path.as_ref();
        let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        loop {
            let read = file.read(&mut block).with_context(|| format!("read {}", path.display()))?;
            if read == 0 {
                break;
            }
            bytes += read as u64;
        }
    }
    Ok((bytes, started.elapsed()))
}

/// Drops files from the page cache, so that the next reader has to go to the disk.
pub fn evict(paths: &[impl AsRef<Path>]) -> Result<()> {
    for path in paths {
        let path = path.as_ref();
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        // Only clean pages can be dropped.
        file.sync_data().with_context(|| format!("sync {}", path.display()))?;
        fadvise(&file, 0, None, Advice::DontNeed).with_context(|| format!("evict {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_commit_ends_with_everything_synced() {
        let directory = tempfile::tempdir().unwrap();
        let rate = group_commits_per_second(directory.path(), b"x", 8, Duration::from_millis(50)).unwrap();
        assert!(rate > 0.0);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn files_are_read_whole_after_eviction_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        fs::write(&path, vec![1; READ_BYTES + 1]).unwrap();
        evict(&[&path]).unwrap();
        assert_eq!(read_files(&[&path]).unwrap().0, READ_BYTES as u64 + 1);
    }
}
