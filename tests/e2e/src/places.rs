//! Where the things are that tests run: the binary, the plugins, the clients.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The workspace.
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_owned()
}

/// The cargo target directory of this very test: the test binary lies in `target/PROFILE/deps`.
fn target() -> PathBuf {
    let binary = env::current_exe().unwrap_or_default();
    binary.ancestors().nth(3).map_or_else(|| workspace().join("target"), PathBuf::from)
}

fn from_environment(variable: &str, default: PathBuf) -> PathBuf {
    env::var_os(variable).map_or(default, PathBuf::from)
}

/// The binary under test.
pub fn binary() -> PathBuf {
    from_environment("MILLSTREAM_BIN", target().join("debug/millstream"))
}

/// The Python that has the stock clients.
pub fn python() -> PathBuf {
    from_environment("MILLSTREAM_PYTHON", target().join("venv/bin/python"))
}

/// The client scripts.
pub fn client_scripts() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// A ready-made plugin, as `make plugins` built it.
pub fn plugin(name: &str) -> PathBuf {
    from_environment("MILLSTREAM_PLUGINS", target().join("plugins")).join(format!("{name}.wasm"))
}

/// What a script of `tests/setup` leaves below the target directory.
pub fn set_up(name: &str) -> PathBuf {
    from_environment("MILLSTREAM_SETUP", target()).join(name)
}

/// Where tests leave what the summary of the run tells.
pub fn test_report() -> PathBuf {
    from_environment("MILLSTREAM_TEST_REPORT", target().join("test-report"))
}
