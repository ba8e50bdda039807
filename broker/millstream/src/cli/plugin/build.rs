//! `millstream plugin build`: cargo compiles the core module, `wit-component` makes the component of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};
use wit_component::ComponentEncoder;

use crate::cli::output::{self, Output};

const TARGET: &str = "wasm32-unknown-unknown";
/// Adds to what the project's own .cargo/config.toml says, while an environment variable RUSTFLAGS would replace it.
const SIMD: &str = "target.wasm32-unknown-unknown.rustflags=[\"-Ctarget-feature=+simd128\"]";

/// Compile a plugin and make the component that brokers take.
#[derive(Debug, Args)]
pub struct Build {
    /// The plugin's directory
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// How results look
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// A plugin project, as cargo knows it.
#[derive(Debug, PartialEq, Eq)]
struct Project {
    name: String,
    /// Name of the library, as in the file name of its module.
    library: String,
    target_directory: PathBuf,
}

impl Build {
    /// Runs the verb.
    pub fn run(&self) -> Result<()> {
        let (path, size) = component(&self.dir)?;
        let sentence = format!("{}: {:.1} KiB", path.display(), size as f64 / 1024.0);
        self.output
            .done(&sentence, &json!({"path": path.display().to_string(), "size_bytes": size}))
    }
}

/// Builds the project in a directory; returns the component's path and size in bytes.
pub fn component(dir: &Path) -> Result<(PathBuf, usize)> {
    let project = Project::find(dir)?;
    ensure_target()?;
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--release", "--target", TARGET, "--config", SIMD])
        .current_dir(dir);
    // The report of this verb is on standard output; cargo's belongs to the messages.
    let status = cargo
        .stdout(Stdio::from(std::io::stderr()))
        .status()
        .context("run cargo; is Rust installed?")?;
    if !status.success() {
        bail!("cargo could not build {}", dir.display());
    }
    let module = project
        .target_directory
        .join(TARGET)
        .join("release")
        .join(format!("{}.wasm", project.library));
    let bytes = fs::read(&module).with_context(|| format!("read {}", module.display()))?;
    let component = encode(&bytes).with_context(|| format!("{} makes no component; is it written with the SDK?", module.display()))?;
    let path = project.target_directory.join(format!("{}.wasm", project.name));
    fs::write(&path, &component).with_context(|| format!("write {}", path.display()))?;
    Ok((path, component.len()))
}

fn encode(module: &[u8]) -> Result<Vec<u8>> {
    ComponentEncoder::default().validate(true).module(module)?.encode()
}

impl Project {
    fn find(dir: &Path) -> Result<Self> {
        let manifest = dir.join("Cargo.toml");
        let manifest = manifest
            .canonicalize()
            .with_context(|| format!("{} is no plugin project: find {}", dir.display(), manifest.display()))?;
        let mut cargo = Command::new("cargo");
        cargo
            .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
            .arg(&manifest);
        let answer = cargo.stderr(Stdio::inherit()).output().context("run cargo; is Rust installed?")?;
        if !answer.status.success() {
            bail!("cargo cannot read {}", manifest.display());
        }
        let metadata = serde_json::from_slice(&answer.stdout).context("read cargo's metadata")?;
        Self::of(&metadata, &manifest).with_context(|| format!("{} has no library of crate-type cdylib", manifest.display()))
    }

    fn of(metadata: &Value, manifest: &Path) -> Option<Self> {
        let mut packages = metadata["packages"].as_array()?.iter();
        let package = packages.find(|package| package["manifest_path"].as_str().map(Path::new) == Some(manifest))?;
        let is_module = |target: &&Value| {
            target["crate_types"]
                .as_array()
                .is_some_and(|types| types.iter().any(|kind| kind == "cdylib"))
        };
        let library = package["targets"].as_array()?.iter().find(is_module)?["name"].as_str()?;
        Some(Self {
            name: package["name"].as_str()?.to_owned(),
            library: library.replace('-', "_"),
            target_directory: metadata["target_directory"].as_str()?.into(),
        })
    }
}

/// Adds the target if rustup says that it is missing. Without rustup cargo itself will say what it lacks.
fn ensure_target() -> Result<()> {
    let Ok(installed) = Command::new("rustup").args(["target", "list", "--installed"]).output() else {
        return Ok(());
    };
    if String::from_utf8_lossy(&installed.stdout).lines().any(|target| target == TARGET) {
        return Ok(());
    }
    output::note(&format!("adding the target {TARGET}: rustup target add {TARGET}\n"));
    let mut rustup = Command::new("rustup");
    let status = rustup
        .args(["target", "add", TARGET])
        .stdout(Stdio::from(std::io::stderr()))
        .status()
        .context("run rustup")?;
    if !status.success() {
        bail!("rustup could not add the target {TARGET}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_is_the_package_of_the_manifest_with_its_cdylib() {
        let metadata = json!({
            "target_directory": "/t",
            "packages": [
                {"name": "other", "manifest_path": "/other/Cargo.toml", "targets": []},
                {"name": "only-late", "manifest_path": "/p/Cargo.toml", "targets": [
                    {"name": "main", "crate_types": ["bin"]},
                    {"name": "only-late", "crate_types": ["cdylib", "rlib"]},
                ]},
            ],
        });
        let project = Project {
            name: "only-late".to_owned(),
            library: "only_late".to_owned(),
            target_directory: "/t".into(),
        };
        assert_eq!(Project::of(&metadata, Path::new("/p/Cargo.toml")), Some(project));
        assert_eq!(Project::of(&metadata, Path::new("/other/Cargo.toml")), None);
    }

    #[test]
    fn what_is_no_module_makes_no_component() {
        assert!(encode(b"hello").is_err());
        assert!(encode(b"\0asm\x01\0\0").is_err());
    }
}
