//! The command line: the verbs, and what they have in common.

mod args;
mod consume;
mod dev;
mod group;
mod output;
mod plugin;
mod produce;
mod progress;
mod serve;
mod tier;
mod topic;
mod view;

pub use output::note;

use std::{future::Future, io, sync::Arc};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use millstream_server::log_levels::{Level, Levels, LogLevels, ROOT};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

/// A Kafka-compatible streaming broker with WASM plugins and tiered storage.
#[derive(Debug, Parser)]
#[command(name = "millstream", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// Where logs go.
    #[command(flatten)]
    pub logging: Logging,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Human,
    Json,
}

/// Logging, on standard error.
#[derive(Debug, Args)]
pub struct Logging {
    /// Lines for people, or one JSON object per line
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Human, help_heading = "Logging")]
    log_format: LogFormat,
    /// error, warn, info, debug, trace, or directives such as `info,millstream_log=debug`
    #[arg(
        long,
        global = true,
        env = "MILLSTREAM_LOG",
        value_name = "LEVEL",
        default_value = "info",
        help_heading = "Logging"
    )]
    log_level: String,
}

impl Logging {
    /// Starts logging; once per process. The levels can be changed later.
    pub fn init(&self) -> Result<Arc<LogLevels>> {
        let filter: Targets = self.log_level.parse().with_context(|| format!("--log-level {}", self.log_level))?;
        let levels = levels_of(&filter);
        let (filter, handle) = reload::Layer::new(filter_of(&levels));
        // A log line that cannot be written (a full disk, a reader that went away) is lost; reporting that would panic.
        let lines = fmt::layer().with_writer(io::stderr).with_ansi(false).log_internal_errors(false);
        let registry = tracing_subscriber::registry().with(filter);
        match self.log_format {
            LogFormat::Human => registry.with(lines.with_target(false)).init(),
            LogFormat::Json => registry.with(lines.json()).init(),
        }
        let apply = move |levels: &Levels| {
            if let Err(error) = handle.reload(filter_of(levels)) {
                tracing::warn!(%error, "log levels are not changed");
            }
        };
        Ok(Arc::new(LogLevels::new(levels, apply)))
    }
}

/// Kafka's levels, and what they let through.
const LEVELS: [(Level, LevelFilter); 6] = [
    (Level::Fatal, LevelFilter::OFF),
    (Level::Error, LevelFilter::ERROR),
    (Level::Warn, LevelFilter::WARN),
    (Level::Info, LevelFilter::INFO),
    (Level::Debug, LevelFilter::DEBUG),
    (Level::Trace, LevelFilter::TRACE),
];

/// The levels that directives set.
fn levels_of(filter: &Targets) -> Levels {
    let level = |wanted: LevelFilter| {
        let found = LEVELS.into_iter().find(|(_, filter)| *filter == wanted);
        found.map_or(Level::Error, |(level, _)| level)
    };
    let root = filter.default_level().map_or(Level::Error, level);
    let named = filter.iter().map(|(name, filter)| (name.to_owned(), level(filter)));
    named.chain([(ROOT.to_owned(), root)]).collect()
}

fn filter_of(levels: &Levels) -> Targets {
    let filter = |wanted: Level| {
        let found = LEVELS.into_iter().find(|(level, _)| *level == wanted);
        found.map_or(LevelFilter::ERROR, |(_, filter)| filter)
    };
    let root = levels.get(ROOT).map_or(LevelFilter::ERROR, |level| filter(*level));
    let named = levels.iter().filter(|(name, _)| *name != ROOT);
    Targets::new()
        .with_default(root)
        .with_targets(named.map(|(name, level)| (name.clone(), filter(*level))))
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one node on embedded defaults, for development
    Dev(dev::Dev),
    /// Run a node as a configuration file says
    Serve(serve::Serve),
    /// Create, list, describe, alter and delete topics
    Topic(topic::Topic),
    /// Write lines of a file or of standard input to a topic
    Produce(produce::Produce),
    /// Print a topic's or a view's records
    Consume(consume::Consume),
    /// List, describe and delete consumer, share and streams groups
    Group(group::Group),
    /// Write, build, test, push and bind plugins
    Plugin(plugin::Plugin),
    /// Create, list and remove views
    View(view::View),
    /// Look at tiered storage
    Tier(tier::Tier),
}

impl Command {
    /// Runs the verb to its end.
    pub fn run(self, log_levels: Arc<LogLevels>) -> Result<()> {
        match self {
            Self::Dev(verb) => verb.run(log_levels),
            Self::Serve(verb) => verb.run(log_levels),
            Self::Topic(verb) => block_on(verb.run()),
            Self::Produce(verb) => block_on(verb.run()),
            Self::Consume(verb) => block_on(verb.run()),
            Self::Group(verb) => block_on(verb.run()),
            Self::Plugin(verb) => block_on(verb.run()),
            Self::View(verb) => block_on(verb.run()),
            Self::Tier(verb) => block_on(verb.run()),
        }
    }
}

/// Verbs other than the node's need one thread.
fn block_on(verb: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the runtime")?.block_on(verb)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn directives_and_levels_say_the_same() {
        let filter: Targets = "warn,millstream_log=debug,millstream_server::net=off".parse().unwrap();
        let levels = levels_of(&filter);
        let expected = [
            (ROOT, Level::Warn),
            ("millstream_log", Level::Debug),
            ("millstream_server::net", Level::Fatal),
        ];
        assert_eq!(levels, expected.map(|(name, level)| (name.to_owned(), level)).into());
        assert_eq!(filter_of(&levels), filter);
    }

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_shows_an_example() {
        fn check(command: &clap::Command, path: &str) {
            for verb in command.get_subcommands() {
                let path = format!("{path} {}", verb.get_name());
                if verb.has_subcommands() {
                    check(verb, &path);
                    continue;
                }
                let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains(&format!("Example: {path}")), "{path}: {help:?}");
            }
        }
        check(&Cli::command(), "millstream");
    }

    #[test]
    fn negative_numbers_reach_the_broker_to_be_refused() {
        assert!(Cli::try_parse_from(["millstream", "topic", "create", "t", "--partitions", "-4"]).is_ok());
    }
}
