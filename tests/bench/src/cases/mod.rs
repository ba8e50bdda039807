//! The benchmarks: one file per subject, each with what it compares and the targets.

mod acks;
mod connections;
mod consume;
mod latency;
mod plugins;
mod produce;
mod recovery;
mod startup;
mod tier;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::{
    load,
    node::Node,
    options::{Options, Sizes},
    table::Row,
};

/// A benchmark.
pub struct Case {
    /// Goals that its rows speak about.
    pub goals: &'static [&'static str],
    /// What it does.
    pub name: &'static str,
    /// Does it.
    pub run: fn(&Context) -> Result<Vec<Row>>,
}

/// All of them, in the order of the table.
pub const ALL: &[Case] = &[
    case(&["P1", "P4"], "produce 1 KiB", produce::large_records),
    case(&["P2"], "produce 100 B", produce::small_records),
    case(&["P3", "P4"], "consume", consume::run),
    case(&["P5"], "end-to-end latency", latency::run),
    case(&["P6"], "acknowledgements", acks::run),
    case(&["P8"], "connections", connections::run),
    case(&["P10"], "plugin on produce", plugins::run),
    case(&["P12"], "cold read of the tier", tier::run),
    case(&["P14"], "recovery", recovery::run),
    case(&["P15"], "start-up", startup::run),
];

const fn case(goals: &'static [&'static str], name: &'static str, run: fn(&Context) -> Result<Vec<Row>>) -> Case {
    Case { goals, name, run }
}

/// What every benchmark is given.
#[derive(Debug)]
pub struct Context {
    /// The command line.
    pub options: Options,
    /// The sizes it asks for.
    pub sizes: Sizes,
    binary: PathBuf,
    home: PathBuf,
    /// Deletes the run's directory at the end, unless it is kept.
    _guard: Option<TempDir>,
}

impl Context {
    /// Makes the run's directory.
    pub fn new(options: Options) -> Result<Self> {
        let binary = options.millstream.canonicalize();
        let binary = binary.with_context(|| {
            format!(
                "find {}; `cargo build --release -p millstream` makes it",
                options.millstream.display()
            )
        })?;
        fs::create_dir_all(&options.directory).context("create the directory of the run")?;
        let directory = options.directory.canonicalize().context("find the directory of the run")?;
        let guard = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(directory)
            .context("create the directory of the run")?;
        let home = guard.path().to_owned();
        let guard = if options.keep {
            eprintln!("the run is kept in {}", guard.keep().display());
            None
        } else {
            Some(guard)
        };
        Ok(Self {
            sizes: options.sizes(),
            options,
            binary,
            home,
            _guard: guard,
        })
    }

    /// The run's directory, on the disk that is measured.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Starts a node of this name without a bucket.
    fn node(&self, name: &str) -> Result<Node> {
        self.node_with(name, vec!["--bucket".to_owned(), "none".to_owned()])
    }

    /// Starts a node of this name with these arguments.
    fn node_with(&self, name: &str, arguments: Vec<String>) -> Result<Node> {
        Node::start(&self.binary, self.home.join(name), arguments, self.options.keep)
    }

    /// The repetitions, by number. Before each, what was written so far goes to the disk, so that nobody pays for his predecessor.
    fn repetitions(&self) -> impl Iterator<Item = usize> + use<> {
        (1..=self.sizes.repetitions).inspect(|_| rustix::fs::sync())
    }
}

/// Fails unless the partitions of a topic end at `records` together.
fn check_ends(node: &Node, topic: &str, partitions: i32, records: u64) -> Result<()> {
    let mut ends = 0;
    for partition in 0..partitions {
        ends += load::high_watermark(&node.kafka, topic, partition)?;
    }
    ensure!(
        u64::try_from(ends) == Ok(records),
        "{topic} has {ends} records, {records} were acknowledged"
    );
    Ok(())
}
