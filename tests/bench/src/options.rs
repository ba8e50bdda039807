//! The command line, and the sizes of a whole and of a quick run.

use std::{path::PathBuf, time::Duration};

use clap::Parser;

const MIB: u64 = 1 << 20;

/// Speed of one node against baselines of the same run
#[derive(Debug, Parser)]
#[command(name = "millstream-bench", after_help = "Example: make bench ARGS=\"--quick --only P1,P5\"")]
pub struct Options {
    /// Small sizes and one repetition: checks that everything works, measures little
    #[arg(long)]
    pub quick: bool,
    /// Goals to measure, such as P1,P5 [default: all]
    #[arg(long, value_name = "GOALS", value_delimiter = ',', ignore_case = true, value_parser = GOALS)]
    pub only: Vec<String>,
    /// The binary to measure
    #[arg(long, value_name = "PATH", default_value = "target/release/millstream")]
    pub millstream: PathBuf,
    /// Directory of the ready-made plugins
    #[arg(long, value_name = "DIR", default_value = "target/plugins")]
    pub plugins: PathBuf,
    /// Directory on the disk to measure; the run makes its own directory in it
    #[arg(long, value_name = "DIR", default_value = "target")]
    pub directory: PathBuf,
    /// Also write the machine and the rows to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Keep the nodes' directories and logs
    #[arg(long)]
    pub keep: bool,
}

/// What `--only` takes.
const GOALS: [&str; 11] = ["P1", "P2", "P3", "P4", "P5", "P6", "P8", "P10", "P12", "P14", "P15"];

impl Options {
    /// Whether one of these goals is to be measured.
    pub fn wants(&self, goals: &[&str]) -> bool {
        self.only.is_empty()
            || goals
                .iter()
                .any(|goal| self.only.iter().any(|only| only.eq_ignore_ascii_case(goal)))
    }

    /// The sizes of this run.
    pub fn sizes(&self) -> Sizes {
        if self.quick { Sizes::QUICK } else { Sizes::WHOLE }
    }
}

/// How much is done per repetition.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Alternating repetitions of which the median is taken.
    pub repetitions: usize,
    /// Bytes written and deleted before the first measurement.
    pub warm_bytes: u64,
    /// Bytes of batches that a throughput measurement moves.
    pub stream_bytes: u64,
    /// How long latencies and acknowledgements are measured.
    pub pace: Duration,
    /// Bytes of batches in the tiered topic.
    pub tier_bytes: u64,
    /// `segment.bytes` of the tiered topic.
    pub tier_segment_bytes: u64,
    /// Size of the segment that is recovered.
    pub recovery_bytes: u64,
    /// Partitions of the large topic.
    pub partitions: i32,
    /// Consumers that wait.
    pub connections: usize,
    /// How long idle CPU is watched.
    pub idle: Duration,
}

impl Sizes {
    const WHOLE: Self = Self {
        repetitions: 3,
        warm_bytes: 4096 * MIB,
        stream_bytes: 1024 * MIB,
        pace: Duration::from_secs(10),
        tier_bytes: 512 * MIB,
        tier_segment_bytes: 64 * MIB,
        recovery_bytes: 1024 * MIB,
        partitions: 10_000,
        connections: 1_000,
        idle: Duration::from_secs(10),
    };
    const QUICK: Self = Self {
        repetitions: 1,
        warm_bytes: 128 * MIB,
        stream_bytes: 32 * MIB,
        pace: Duration::from_secs(1),
        tier_bytes: 16 * MIB,
        tier_segment_bytes: 4 * MIB,
        recovery_bytes: 64 * MIB,
        partitions: 200,
        connections: 50,
        idle: Duration::from_secs(1),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_chosen_by_name_in_any_case() {
        let options = Options::try_parse_from(["bench", "--only", "p1,P14"]).unwrap();
        assert!(options.wants(&["P1", "P4"]) && options.wants(&["P14"]) && !options.wants(&["P15"]));
        assert!(Options::try_parse_from(["bench"]).unwrap().wants(&["P15"]));
        assert!(Options::try_parse_from(["bench", "--only", "P99"]).is_err());
    }
}
