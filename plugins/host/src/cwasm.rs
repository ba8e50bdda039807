//! Compiled components on disk, so that a restart does not compile again.
//!
//! ```text
//! file = magic: "MSCWASM1", key: 32 bytes, sha256 of the code: 32 bytes, code
//! key  = sha256(component sha256, engine hash)     the engine hash covers wasmtime's version, its configuration and the CPU features
//! ```
//! Loading compiled code runs it: whoever writes a file here is the broker, as far as the CPU cares. So the directory must belong to
//! the broker alone (nobody else may write to it), and a file counts only if header, key and hash agree; anything else is compiled
//! anew and overwritten.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use wasmtime::{Engine, component::Component};

use crate::HostError;

const MAGIC: &[u8; 8] = b"MSCWASM1";

/// Largest file that is read back.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// A cache directory.
pub(crate) struct CodeCache {
    dir: PathBuf,
    engine_hash: u64,
}

impl CodeCache {
    /// Uses `dir`, making it if it is not there.
    pub(crate) fn open(dir: &Path, engine: &Engine) -> Result<Self, HostError> {
        let refuse = |reason: String| HostError::CacheDir {
            path: dir.to_owned(),
            reason,
        };
        make_private_dir(dir).map_err(|error| refuse(error.to_string()))?;
        if !is_ours_alone(&fs::symlink_metadata(dir).map_err(|error| refuse(error.to_string()))?) {
            return Err(refuse("others may write to it, or it is a link".to_owned()));
        }
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self {
            dir: dir.to_owned(),
            engine_hash: hasher.finish(),
        })
    }

    /// The compiled form of a component, if this broker with this engine stored it.
    pub(crate) fn load(&self, engine: &Engine, sha256: &str) -> Option<Component> {
        let path = self.path(sha256);
        let metadata = fs::symlink_metadata(&path).ok()?;
        if !metadata.is_file() || !is_ours_alone(&metadata) || metadata.len() > FILE_BYTES_MAX {
            return None;
        }
        let file = fs::read(&path).ok()?;
        let code = checked_code(&file, &self.key(sha256))?;
        deserialize(engine, code)
            .inspect_err(|error| tracing::warn!(path = %path.display(), error = %format!("{error:#}"), "cached plugin code refused"))
            .ok()
    }

    /// Stores a component's compiled form: written aside, then renamed, so that a crash leaves no half file under the name.
    pub(crate) fn store(&self, sha256: &str, component: &Component) -> io::Result<()> {
        let code = component.serialize().map_err(|error| io::Error::other(format!("{error:#}")))?;
        let path = self.path(sha256);
        let aside = path.with_extension(format!("{}.tmp", std::process::id()));
        let mut file = create_private(&aside)?;
        file.write_all(MAGIC)?;
        file.write_all(&self.key(sha256))?;
        file.write_all(&Sha256::digest(&code))?;
        file.write_all(&code)?;
        file.sync_all()?;
        fs::rename(&aside, &path)
    }

    fn path(&self, sha256: &str) -> PathBuf {
        self.dir.join(format!("{sha256}-{:016x}.cwasm", self.engine_hash))
    }

    fn key(&self, sha256: &str) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(sha256.as_bytes());
        hasher.update(self.engine_hash.to_le_bytes());
        hasher.finalize().into()
    }
}

fn checked_code<'a>(file: &'a [u8], key: &[u8; 32]) -> Option<&'a [u8]> {
    let rest = file.strip_prefix(MAGIC)?.strip_prefix(key)?;
    let (sha256, code) = rest.split_at_checked(32)?;
    (Sha256::digest(code).as_slice() == sha256).then_some(code)
}

/// The one place where the workspace trusts machine code from outside its own binary.
#[allow(unsafe_code)]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes must be what `Component::serialize` made. They carry the hash and the key that `store` wrote beside them, in a
    // directory and a file that nobody but the broker's user can write to; wasmtime checks its version and configuration once more.
    unsafe { Component::deserialize(engine, code) }
}

#[cfg(unix)]
fn make_private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(unix)]
fn create_private(path: &Path) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

#[cfg(not(unix))]
fn create_private(path: &Path) -> io::Result<fs::File> {
    fs::File::create(path)
}

#[cfg(not(unix))]
fn make_private_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)
}

/// True if only the owner may write, and it is no link.
#[cfg(unix)]
fn is_ours_alone(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    !metadata.is_symlink() && metadata.permissions().mode() & 0o022 == 0
}

#[cfg(not(unix))]
fn is_ours_alone(metadata: &fs::Metadata) -> bool {
    !metadata.is_symlink()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_COMPONENT: &str = "(component)";

    #[test]
    fn stored_code_is_loaded_and_a_flipped_bit_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = CodeCache::open(&dir.path().join("cwasm"), &engine).unwrap();
        assert!(cache.load(&engine, "abc").is_none());
        cache.store("abc", &Component::new(&engine, EMPTY_COMPONENT).unwrap()).unwrap();
        assert!(cache.load(&engine, "abc").is_some());

        let path = cache.path("abc");
        fs::copy(&path, cache.path("def")).unwrap();
        assert!(cache.load(&engine, "def").is_none(), "code under another component's name");
        let mut file = fs::read(&path).unwrap();
        *file.last_mut().unwrap() ^= 1;
        fs::write(&path, file).unwrap();
        assert!(cache.load(&engine, "abc").is_none(), "code with a wrong hash");
    }

    #[cfg(unix)]
    #[test]
    fn directory_that_others_may_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(
            CodeCache::open(dir.path(), &Engine::default()),
            Err(HostError::CacheDir { .. })
        ));
    }
}
