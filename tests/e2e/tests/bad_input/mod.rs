//! Bad input of every kind: the error names what is wrong and what to do, nothing is left behind, and the broker stays alive.

mod limits;
mod memory;
mod names;
mod requests;
mod start;
mod wire;

use anyhow::{Result, ensure};

/// An error text must name what it is about.
fn check_names(error: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(
            error.to_lowercase().contains(&word.to_lowercase()),
            "the error does not name {word:?}: {error}"
        );
    }
    Ok(())
}
