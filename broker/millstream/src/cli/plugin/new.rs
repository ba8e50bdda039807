//! `millstream plugin new`: a plugin that works, to be changed into the one that is wanted.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::output::Output;

/// The files of a new plugin; `{{name}}` and `{{sdk_path}}` are filled in.
const RUST: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../../../../../sdk/rust/templates/Cargo.toml")),
    (
        ".cargo/config.toml",
        include_str!("../../../../../sdk/rust/templates/cargo-config.toml"),
    ),
    (".gitignore", "/target\n"),
    ("README.md", include_str!("../../../../../sdk/rust/templates/README.md")),
    ("src/lib.rs", include_str!("../../../../../sdk/rust/templates/src/lib.rs")),
    (
        "golden/basic.json",
        include_str!("../../../../../sdk/rust/templates/golden/basic.json"),
    ),
];

/// The SDK of the checkout that this binary was built from.
const SDK_OF_THIS_BUILD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sdk/rust");

/// Longest name that a broker takes.
const NAME_BYTES_MAX: usize = 64;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Language {
    Rust,
}

/// Start a plugin of your own in a new directory.
#[derive(Debug, Args)]
pub struct New {
    /// Name of the plugin and of its directory: lower-case letters, digits and hyphens
    #[arg(value_parser = plugin_name)]
    name: String,
    /// Language to write it in
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    lang: Language,
    /// Directory of the SDK [default: that of the checkout this binary was built from]
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
    /// How results look
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl New {
    /// Runs the verb.
    pub fn run(&self) -> Result<()> {
        let templates = match self.lang {
            Language::Rust => RUST,
        };
        let sdk = sdk(self.sdk.as_deref())?;
        let directory = Path::new(&self.name);
        fs::create_dir(directory).with_context(|| format!("create directory {}", self.name))?;
        for (path, template) in templates {
            let path = directory.join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).with_context(|| format!("create directory {}", parent.display()))?;
            }
            fs::write(&path, fill(template, &self.name, &sdk)).with_context(|| format!("write {}", path.display()))?;
        }
        let name = &self.name;
        let next = format!("cd {name} && millstream plugin build && millstream plugin test && millstream plugin push");
        let sentence = format!("created {name}/: the plugin is src/lib.rs\nnext: {next}");
        self.output.done(&sentence, &json!({"name": name, "path": name}))
    }
}

fn fill(template: &str, name: &str, sdk: &str) -> String {
    template.replace("{{name}}", name).replace("{{sdk_path}}", sdk)
}

/// The SDK's directory as an absolute path that can stand in a TOML string.
fn sdk(given: Option<&Path>) -> Result<String> {
    let path = given.unwrap_or(Path::new(SDK_OF_THIS_BUILD));
    if !path.join("Cargo.toml").is_file() {
        bail!(
            "{} does not hold the SDK; say with --sdk where the folder sdk/rust of millstream's sources is",
            path.display()
        );
    }
    let path = path.canonicalize().with_context(|| format!("find {}", path.display()))?;
    match path.to_str() {
        Some(text) if !text.contains(['"', '\\', '\n']) => Ok(text.to_owned()),
        _ => bail!(
            "{} cannot be written into Cargo.toml; choose another directory with --sdk",
            path.display()
        ),
    }
}

/// A name that brokers and Cargo take.
fn plugin_name(name: &str) -> Result<String, String> {
    let is_fine = name.len() <= NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if is_fine {
        Ok(name.to_owned())
    } else {
        Err(format!(
            "a letter, then lower-case letters, digits and hyphens, {NAME_BYTES_MAX} at most"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_brokers_take() {
        assert!(plugin_name("only-late2").is_ok());
        for bad in ["", "2late", "Late", "a_b", "../x", &"x".repeat(65)] {
            assert!(plugin_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn templates_are_filled_completely() {
        for (path, template) in RUST {
            let filled = fill(template, "only-late", "/sdk");
            assert!(!filled.contains("{{"), "{path}: {filled}");
        }
    }

    #[test]
    fn sdk_is_found_or_asked_for() {
        assert!(sdk(None).is_ok());
        assert!(sdk(Some(Path::new("/no/such/sdk"))).unwrap_err().to_string().contains("--sdk"));
    }
}
