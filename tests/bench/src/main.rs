//! `make bench`: how fast one node is, each figure beside a baseline of the same run.
//!
//! Absolute figures of a shared machine drift by factors within a day, so none is worth much alone. Every case therefore measures the
//! node and a baseline in turns, takes the median of the repetitions, and prints the ratio of the two medians beside the target:
//!
//! ```text
//! goal  what                   millstream  baseline  baseline is   ratio  target   met
//! P6    acks of 64 producers       24 k/s    37 k/s  group commit   0.65  ≥ 0.5 ×  yes
//! ```
//! MB and GB are powers of ten and count record values only. `met` is empty where the target is orientation from another day.
//! No time is ever asserted: a benchmark fails, and the exit status with it, only if the work itself goes wrong (a wrong number of
//! records, an error code, a node that does not come up).
//!
//! ```text
//! options     the command line, and the sizes of a whole and of a quick run
//! machine     what the figures were taken on; warming the disk; CPU and memory of a process
//! node        a node of our own, spawned from the real binary
//! client      one blocking connection that speaks the Kafka protocol
//! load/       the load generator: batches encoded once, throughput, latencies
//! baselines/  what the node is compared with: null sink, null source, echo, bare files
//! cases/      one file per subject: what is measured against what, and the targets
//! stats       medians and percentiles
//! table       rows, and how they are printed
//! ```
//! Client and node share the machine. The client is therefore as cheap as a client can be: it encodes its batches once, sends the same
//! bytes again and again, and reads no more of a response than it must. A client that compresses, copies or allocates per record will
//! see less; the null sink and the null source say what this one could do at most. Nothing that keeps records reaches the null sink.
//!
//! Latencies above the 99th percentile, and all of them on a machine with other work, measure the machine. So does throughput once a
//! cloud disk's burst credit is used up: run it again if the raw append differs much from the run before.

mod baselines;
mod cases;
mod client;
mod load;
mod machine;
mod node;
mod options;
mod stats;
mod table;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use options::Options;

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failures) => {
            eprintln!("error: {failures} benchmarks failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the chosen cases and prints their rows; returns how many cases failed.
fn run(options: Options) -> Result<usize> {
    let context = cases::Context::new(options)?;
    let machine = machine::Machine::read();
    println!("{machine}");
    machine::warm_disk(context.home(), context.sizes.warm_bytes)?;
    let mut rows = Vec::new();
    let mut failures = 0;
    for case in cases::ALL.iter().filter(|case| context.options.wants(case.goals)) {
        eprintln!("{} {} …", case.goals.join(" "), case.name);
        match (case.run)(&context) {
            Ok(mut measured) => rows.append(&mut measured),
            Err(error) => {
                failures += 1;
                eprintln!("error: {}: {error:#} (--keep keeps the nodes' logs)", case.name);
            }
        }
    }
    rows.retain(|row| context.options.wants(&[row.goal]));
    print!("{}", table::text(&rows));
    if let Some(path) = &context.options.json {
        table::write_json(path, &machine, &rows)?;
    }
    Ok(failures)
}
