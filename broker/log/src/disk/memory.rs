//! A file system in memory that can lose power and fail on purpose.
//!
//! Writes go to a journal until their file is synced; names go to a journal until their directory is. [`MemoryDisk::crash`]
//! gives the disk that a machine would find after power loss: what was synced, and as many bytes of the unsynced writes, in
//! the order they were made, as the test wants to survive.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use super::{Disk, DiskFile, FileMode};

/// A file system in memory; clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
    syncs_go_on: Arc<Condvar>,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<FileState>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    journal: Vec<Write>,
    locked: Vec<PathBuf>,
    capacity_bytes: Option<u64>,
    syncs_until_failure: Option<u64>,
    syncs_are_held: bool,
}

#[derive(Debug, Default, Clone)]
struct FileState {
    bytes: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Debug, Clone)]
struct Write {
    file: usize,
    position: usize,
    bytes: Vec<u8>,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes written but not synced, over all files.
    pub fn unsynced_bytes(&self) -> usize {
        self.state().journal.iter().map(|write| write.bytes.len()).sum()
    }

    /// The disk after power loss, with the first `surviving_bytes` of the unsynced writes on it.
    pub fn crash(&self, surviving_bytes: usize) -> Self {
        let state = self.state();
        let mut files: Vec<FileState> = state
            .files
            .iter()
            .map(|file| FileState {
                bytes: file.durable.clone(),
                durable: Vec::new(),
            })
            .collect();
        let mut left = surviving_bytes;
        for write in &state.journal {
            let len = write.bytes.len().min(left);
            put(&mut files[write.file].bytes, write.position, &write.bytes[..len]);
            left -= len;
        }
        for file in &mut files {
            file.durable.clone_from(&file.bytes);
        }
        let names = state.durable_names.clone();
        Self {
            state: Arc::new(Mutex::new(State {
                files,
                durable_names: names.clone(),
                names,
                ..State::default()
            })),
            syncs_go_on: Arc::default(),
        }
    }

    /// Writes beyond this many bytes in all files fail with `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity_bytes = bytes;
    }

    /// The sync after `successes` more successful ones fails.
    pub fn fail_sync_after(&self, successes: u64) {
        self.state().syncs_until_failure = Some(successes);
    }

    /// While held, syncs of files wait.
    pub fn hold_syncs(&self, held: bool) {
        self.state().syncs_are_held = held;
        self.syncs_go_on.notify_all();
    }

    /// Flips one bit of a file, durably.
    pub fn flip_bit(&self, path: &Path, position: usize) {
        let mut state = self.state();
        let id = state.names[path];
        state.files[id].bytes[position] ^= 1;
        let bytes = state.files[id].bytes.clone();
        state.files[id].durable = bytes;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put(bytes: &mut Vec<u8>, position: usize, part: &[u8]) {
    if bytes.len() < position + part.len() {
        bytes.resize(position + part.len(), 0);
    }
    bytes[position..position + part.len()].copy_from_slice(part);
}

impl State {
    fn sync_allowed(&mut self) -> io::Result<()> {
        match &mut self.syncs_until_failure {
            Some(0) => Err(io::Error::other("injected sync failure")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, mode: FileMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let id = match (state.names.get(path).copied(), mode) {
            (Some(id), FileMode::Read | FileMode::Write) => id,
            (None, FileMode::Read | FileMode::Write) => return Err(io::ErrorKind::NotFound.into()),
            (_, FileMode::Create) => {
                state.files.push(FileState::default());
                let id = state.files.len() - 1;
                state.names.insert(path.to_path_buf(), id);
                id
            }
        };
        Ok(Arc::new(MemoryFile { disk: self.clone(), id }))
    }

    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let mut names: Vec<String> = state
            .names
            .keys()
            .filter_map(|name| name.strip_prefix(path).ok())
            .filter_map(|name| name.components().next())
            .map(|name| name.as_os_str().to_string_lossy().into_owned())
            .collect();
        names.dedup();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        // Also every name below it, if it is a directory.
        let moved: Vec<PathBuf> = state.names.keys().filter(|name| name.starts_with(from)).cloned().collect();
        if moved.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        for name in moved {
            let below = name.strip_prefix(from).map_err(io::Error::other)?;
            let target = if below.as_os_str().is_empty() {
                to.to_path_buf()
            } else {
                to.join(below)
            };
            if let Some(id) = state.names.remove(&name) {
                state.names.insert(target, id);
            }
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.state()
            .names
            .remove(path)
            .map(|_| ())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.state().names.retain(|name, _| !name.starts_with(path));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.sync_allowed()?;
        let state = &mut *state;
        state
            .durable_names
            .retain(|name, _| !name.starts_with(path) || state.names.contains_key(name));
        state.durable_names.extend(
            state
                .names
                .iter()
                .filter(|(name, _)| name.starts_with(path))
                .map(|(name, id)| (name.clone(), *id)),
        );
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.state();
        if state.locked.iter().any(|locked| locked == path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locked.push(path.to_path_buf());
        Ok(Box::new(MemoryLock {
            disk: self.clone(),
            path: path.to_path_buf(),
        }))
    }
}

struct MemoryLock {
    disk: MemoryDisk,
    path: PathBuf,
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.disk.state().locked.retain(|locked| *locked != self.path);
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    id: usize,
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let bytes = &state.files[self.id].bytes;
        let start = usize::try_from(position).map_or(bytes.len(), |start| start.min(bytes.len()));
        let len = buffer.len().min(bytes.len() - start);
        buffer[..len].copy_from_slice(&bytes[start..start + len]);
        Ok(len)
    }

    fn write_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let position = usize::try_from(position).map_err(io::Error::other)?;
        let bytes = parts.concat();
        let used: usize = state.files.iter().map(|file| file.bytes.len()).sum();
        let grown = (position + bytes.len()).saturating_sub(state.files[self.id].bytes.len());
        if state.capacity_bytes.is_some_and(|capacity| (used + grown) as u64 > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        put(&mut state.files[self.id].bytes, position, &bytes);
        state.journal.push(Write {
            file: self.id,
            position,
            bytes,
        });
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let len = usize::try_from(len).map_err(io::Error::other)?;
        state.files[self.id].bytes.resize(len, 0);
        state.journal.retain_mut(|write| {
            if write.file == self.id {
                write.bytes.truncate(len.saturating_sub(write.position));
            }
            !write.bytes.is_empty()
        });
        let durable_len = state.files[self.id].durable.len().min(len);
        state.files[self.id].durable.truncate(durable_len);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.id].bytes.len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        let go_on = &self.disk.syncs_go_on;
        let state = go_on.wait_while(self.disk.state(), |state| state.syncs_are_held);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.sync_allowed()?;
        let bytes = state.files[self.id].bytes.clone();
        state.files[self.id].durable = bytes;
        state.journal.retain(|write| write.file != self.id);
        Ok(())
    }

    fn native(&self) -> Option<&Arc<File>> {
        None
    }
}
