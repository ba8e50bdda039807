//! The house keeps its shape: dependency arrows as ARCHITECTURE.md draws them, cores without side doors, files of a readable size.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use millstream_e2e::places;
use serde_json::Value;

/// Which crates of the workspace each crate may depend on directly. A new arrow is a change of the architecture.
const ARROWS: &[(&str, &[&str])] = &[
    ("millstream-protocol", &[]),
    ("millstream-abi", &[]),
    ("millstream-log", &["millstream-protocol"]),
    ("millstream-core", &["millstream-protocol"]),
    ("millstream-tiered", &["millstream-log", "millstream-protocol"]),
    ("millstream-server", &["millstream-core", "millstream-log", "millstream-protocol"]),
    ("millstream-host", &["millstream-abi", "millstream-core", "millstream-protocol"]),
    ("millstream-sdk", &["millstream-abi"]),
    ("millstream-redact", &["millstream-sdk"]),
    ("millstream-json-filter", &["millstream-sdk"]),
    ("millstream-validate", &["millstream-sdk"]),
    (
        "millstream",
        &[
            "millstream-abi",
            "millstream-core",
            "millstream-host",
            "millstream-log",
            "millstream-protocol",
            "millstream-sdk",
            "millstream-server",
            "millstream-tiered",
        ],
    ),
    ("millstream-e2e", &["millstream-history"]),
    ("millstream-bench", &["millstream-protocol"]),
    ("millstream-fuzz", &[]),
    ("millstream-history", &[]),
    (
        "millstream-sim",
        &["millstream-core", "millstream-history", "millstream-log", "millstream-protocol"],
    ),
];

/// What must not be reached from a crate, however long the way.
const UNREACHABLE: &[(&str, &[&str])] = &[
    ("millstream-protocol", &["tokio", "axum", "object_store", "wasmtime"]),
    ("millstream-log", &["tokio", "axum", "object_store", "wasmtime", "rand"]),
    ("millstream-core", &["tokio", "axum", "object_store", "wasmtime", "rand"]),
    ("millstream-server", &["wasmtime", "object_store", "tantivy", "arrow", "parquet"]),
    ("millstream-tiered", &["wasmtime", "axum"]),
    ("millstream-host", &["object_store", "axum"]),
    ("millstream-sdk", &["tokio", "wasmtime"]),
];

/// What the cores must not mention: time, files, sockets and threads are handed to them, and their order is everyone's order.
const SIDE_DOORS: &[&str] = &[
    "fs::",
    "thread::",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "Instant::now",
    "SystemTime::now",
    "tokio::",
    "rand::",
    "HashMap",
    "HashSet",
    "new_v4",
];

/// Where the arrows are looked at.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// Lines of one source file, tests and generated code aside.
const LINES_MAX: usize = 800;

/// The normal (not development or build) dependencies of every package, by name.
fn dependencies() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = places::workspace().join("Cargo.toml");
    let output = Command::new(cargo)
        // Only this platform's packages are sure to be downloaded; the arrows are the same on all.
        .args([
            "metadata",
            "--format-version",
            "1",
            "--offline",
            "--filter-platform",
            PLATFORM,
            "--manifest-path",
        ])
        .arg(manifest)
        .output()
        .context("run cargo metadata")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata is JSON")?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let names: BTreeMap<String, String> = list(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let mut graph = BTreeMap::<String, BTreeSet<String>>::new();
    for node in list(&metadata["resolve"]["nodes"]) {
        let from = names.get(&text(&node["id"])).cloned().unwrap_or_default();
        let to = graph.entry(from).or_default();
        for dependency in list(&node["deps"]) {
            if list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()) {
                to.extend(names.get(&text(&dependency["pkg"])).cloned());
            }
        }
    }
    Ok(graph)
}

fn reachable(graph: &BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from.to_owned()];
    while let Some(package) = open.pop() {
        for next in graph.get(&package).into_iter().flatten() {
            if seen.insert(next.clone()) {
                open.push(next.clone());
            }
        }
    }
    seen
}

/// The Rust files below a directory of the workspace.
fn sources(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
            let path = entry.context("read a directory entry")?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The lines of a source file that are no comment and come before its tests.
fn code(path: &Path) -> Result<Vec<(usize, String)>> {
    let is_test = path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"))
        // Within a crate; the directory of the workspace is called so too.
        || path.strip_prefix(places::workspace())?.components().skip(1).any(|part| part.as_os_str() == "tests");
    if is_test {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let before_tests = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = before_tests
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim_start().starts_with("//"));
    Ok(lines.map(|(number, line)| (number + 1, line.to_owned())).collect())
}

/// Whether a line has these characters as the beginning of a name.
fn names(line: &str, what: &str) -> bool {
    let mut found = line.match_indices(what);
    found.any(|(at, _)| !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_'))
}

#[test]
fn crates_depend_only_on_what_the_architecture_allows() -> Result<()> {
    let graph = dependencies()?;
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    for name in graph.keys().filter(|name| name.starts_with("millstream")) {
        ensure!(
            ours.contains(name.as_str()),
            "{name} is not in ARROWS: say there what it may depend on"
        );
    }
    for (name, allowed) in ARROWS {
        let direct = graph.get(*name).with_context(|| format!("{name} is not in the workspace"))?;
        for other in direct.iter().filter(|other| ours.contains(other.as_str())) {
            ensure!(allowed.contains(&other.as_str()), "{name} must not depend on {other}");
        }
    }
    Ok(())
}

#[test]
fn heavy_dependencies_stay_at_the_edge() -> Result<()> {
    let graph = dependencies()?;
    for (name, forbidden) in UNREACHABLE {
        let reached = reachable(&graph, name);
        ensure!(graph.contains_key(*name), "{name} is not in the workspace");
        for other in *forbidden {
            ensure!(
                !reached.contains(*other),
                "{name} reaches {other}; cargo tree -p {name} -i {other} says how"
            );
        }
    }
    Ok(())
}

#[test]
fn cores_have_no_side_doors() -> Result<()> {
    let mut lines = 0;
    for path in sources(&places::workspace().join("broker/core/src"))? {
        for (number, line) in code(&path)? {
            lines += 1;
            for door in SIDE_DOORS {
                ensure!(!names(&line, door), "{}:{number} uses {door}: {line}", path.display());
            }
        }
    }
    ensure!(lines > 1_000, "the cores have moved");
    Ok(())
}

#[test]
fn source_files_have_a_readable_size() -> Result<()> {
    let mut total = 0;
    for directory in ["broker", "plugins", "sdk", "tiered", "tests"] {
        for path in sources(&places::workspace().join(directory))? {
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let is_generated = text.lines().take(5).any(|line| line.contains("@generated"));
            let lines = code(&path)?.len();
            total += lines;
            ensure!(
                is_generated || lines <= LINES_MAX,
                "{} has {lines} lines of code; cut it by subject",
                path.display()
            );
        }
    }
    ensure!(total > 1_000, "the sources have moved");
    Ok(())
}

/// The names that a table of settings defines and that have an effect.
fn effective_settings(table: &str) -> Vec<&str> {
    let definitions = table.split("define(").skip(1);
    let named = definitions.filter_map(|definition| {
        // A type, then the name. One that is a constant is used, or the compiler would tell.
        let name = definition.split_once(',')?.1.trim_start().strip_prefix('"')?.split('"').next()?;
        (!definition.contains(".without_effect()")).then_some(name)
    });
    named.collect()
}

#[test]
fn settings_have_an_effect_or_say_that_they_have_none() -> Result<()> {
    let (mut tables, mut others) = (String::new(), String::new());
    for directory in ["broker", "plugins", "tiered"] {
        for path in sources(&places::workspace().join(directory))? {
            let is_table = path.to_string_lossy().contains("metadata/configs/");
            let text = if is_table { &mut tables } else { &mut others };
            text.extend(code(&path)?.into_iter().map(|(_, line)| line + "\n"));
        }
    }
    let settings = effective_settings(&tables);
    ensure!(settings.len() > 100, "the tables have moved");
    for name in settings {
        // What stands in for another, or is a field of a topic's configuration, has the effect of that.
        let has_effect = others.contains(&format!("\"{name}\"")) || tables.contains(&format!("(\"{name}\""));
        ensure!(has_effect, "nothing depends on {name}: define it .without_effect()");
    }
    let fields = tables.split("pub struct TopicConfig {").nth(1).context("TopicConfig has moved")?;
    let fields = fields.split('}').next().unwrap_or_default().lines();
    for field in fields.filter_map(|line| line.trim().strip_prefix("pub ")?.split(':').next()) {
        ensure!(others.contains(&format!(".{field}")), "nobody reads the topic config {field}");
    }
    Ok(())
}
