//! The file system as a log sees it: a port with a real and a fault-injecting implementation.

mod memory;
mod real;

use std::{
    fmt::Debug,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use memory::MemoryDisk;
pub use real::RealDisk;

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileMode {
    /// It must exist; only reads.
    Read,
    /// It must exist; reads and writes.
    Write,
    /// It is created, or emptied if it exists.
    Create,
}

/// Files and directories. All calls block.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file.
    fn open(&self, path: &Path, mode: FileMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates a directory and its parents.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Names in a directory, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Renames a file, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes created, renamed and removed names of a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes the exclusive lock of a file, creating it; the lock lasts as long as the handle. `WouldBlock` if it is taken.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// An open file. Positions are explicit, so one handle serves many readers.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads up to `buffer.len()` bytes at `position`; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes all parts, one after the other, at `position`.
    fn write_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Current length.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file holds no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Makes data and length durable (fdatasync).
    fn sync_data(&self) -> io::Result<()>;
    /// The operating system's file, for sendfile; `None` if there is none.
    fn native(&self) -> Option<&Arc<File>>;
}

/// Fills `buffer` from `position`; `UnexpectedEof` if the file ends before.
pub(crate) fn read_exact_at(file: &dyn DiskFile, mut buffer: &mut [u8], mut position: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let read = file.read_at(buffer, position)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        position += read as u64;
        buffer = &mut buffer[read..];
    }
    Ok(())
}

/// Reads a whole small file, `None` if it does not exist.
pub(crate) fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path, FileMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    read_exact_at(&*file, &mut bytes, 0)?;
    Ok(Some(bytes))
}

/// Replaces a file atomically and durably: write beside it, sync, rename, sync the directory.
pub fn replace_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_file_unsynced(disk, path, bytes)?;
    match path.parent() {
        Some(dir) => disk.sync_dir(dir),
        None => Ok(()),
    }
}

/// Like [`replace_file`], but the caller syncs the directory.
pub(crate) fn replace_file_unsynced(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside: PathBuf = path.to_path_buf();
    beside.as_mut_os_string().push(".tmp");
    let file = disk.open(&beside, FileMode::Create)?;
    file.write_at(&[bytes], 0)?;
    file.sync_data()?;
    disk.rename(&beside, path)
}
