//! The `millstream` binary: a node of a cluster, and the command line that talks to one.
//!
//! ```text
//! main      allocator, logging, exit status
//! cli/      one file per verb: arguments in, a report out
//! node/     the composition root of a node: which adapters the broker runs with, in which order they start and stop
//! client/   what the verbs talk to a node with: a small Kafka client and the admin API
//! ```
//! Standard output carries results only (`--output json` for scripts); everything else goes to standard error.
//! Exit status: 0 done, 1 it failed, 2 wrong usage.

mod cli;
mod client;
mod node;

use std::{io, process::ExitCode};

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let log_levels = match cli.logging.init() {
        Ok(log_levels) => log_levels,
        Err(error) => return fail(&error),
    };
    match cli.command.run(log_levels) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    cli::note(&format!("error: {}\n", chain(error)));
    ExitCode::FAILURE
}

/// The error and its causes on one line. Some errors print their cause themselves; it is not said twice.
fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// `millstream consume … | head` ends the reader early, which is no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn causes_are_told_once() {
        let error = Err::<(), _>(anyhow!("no such file"))
            .context("read x: no such file")
            .context("start");
        assert_eq!(chain(&error.unwrap_err()), "start: read x: no such file");
    }

    #[test]
    fn closed_pipe_is_found_below_context() {
        let error = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("write");
        assert!(is_closed_pipe(&error));
        assert!(!is_closed_pipe(&anyhow!("broken pipe")));
    }
}
