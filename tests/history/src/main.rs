//! Judges a history that clients wrote: `millstream-history FILE` prints what is wrong with it, and ends with 1 if anything is.

use std::{env, fs::File, io::BufReader, process::ExitCode};

use anyhow::{Context, Result};
use millstream_history::{check::violations, history::History};

fn main() -> Result<ExitCode> {
    let path = env::args_os().nth(1).context("usage: millstream-history FILE")?;
    let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let history = History::read(BufReader::new(file))?;
    let found = violations(&history);
    for violation in &found {
        println!("{violation}");
    }
    println!("{} events, {} violations", history.events.len(), found.len());
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
