//! `millstream plugin push`.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;

use super::build;
use crate::cli::args::AdminArgs;

/// Send a plugin to the cluster.
#[derive(Debug, Args)]
pub struct Push {
    /// A WebAssembly file, component or core module, or the directory of a project, which is built first
    #[arg(default_value = ".")]
    path: PathBuf,
    #[command(flatten)]
    admin: AdminArgs,
}

impl Push {
    /// Runs the verb.
    pub async fn run(&self) -> Result<()> {
        let path = if self.path.is_dir() {
            build::component(&self.path)?.0
        } else {
            self.path.clone()
        };
        let wasm = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let answer = self.admin.client()?.post_wasm(&["v1", "plugins"], Bytes::from(wasm)).await;
        let answer = answer.with_context(|| format!("push {}", path.display()))?;
        let text = |field: &str| answer[field].as_str().unwrap_or("?").to_owned();
        self.admin
            .output
            .done(&format!("pushed {}@{}", text("name"), text("version")), &answer)
    }
}
