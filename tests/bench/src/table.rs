//! Rows of figures, and how they are printed.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{machine::Machine, stats::Samples};

/// What a figure counts, and how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Millions of bytes of record values per second.
    MegabytesPerSecond,
    /// Records or acknowledgements per second.
    PerSecond,
    /// CPU seconds per 10^9 bytes of record values.
    CpuSecondsPerGigabyte,
    /// Milliseconds.
    Milliseconds,
    /// 2^20 bytes.
    Mebibytes,
    /// Hundredths of one core.
    PercentOfCore,
}

impl Unit {
    const fn name(self) -> &'static str {
        match self {
            Self::MegabytesPerSecond => "MB/s",
            Self::PerSecond => "/s",
            Self::CpuSecondsPerGigabyte => "s/GB",
            Self::Milliseconds => "ms",
            Self::Mebibytes => "MiB",
            Self::PercentOfCore => "%",
        }
    }

    fn write(self, figure: f64) -> String {
        match self {
            Self::PerSecond if figure >= 10_000.0 => format!("{:.0} k/s", figure / 1e3),
            Self::PerSecond | Self::MegabytesPerSecond | Self::Mebibytes => format!("{figure:.0} {}", self.name()),
            Self::CpuSecondsPerGigabyte | Self::Milliseconds | Self::PercentOfCore => format!("{figure:.2} {}", self.name()),
        }
    }
}

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// The ratio to the baseline is not below this.
    RatioAtLeast(f64),
    /// The figure is not above this multiple of the baseline and this much more, in its unit.
    AtMostBaseline {
        /// Multiple of the baseline.
        times: f64,
        /// What may come on top.
        plus: f64,
    },
    /// The figure is not above this, in its unit.
    AtMost(f64),
    /// For orientation: figures from another day, or none.
    Note(&'static str),
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// The goal, such as `P1`.
    pub goal: &'static str,
    what: String,
    unit: Unit,
    measured: f64,
    baseline: Option<(&'static str, f64)>,
    target: Target,
}

impl Row {
    /// A figure of the node without anything beside it.
    pub fn new(goal: &'static str, what: impl Into<String>, unit: Unit, measured: &Samples) -> Self {
        Self {
            goal,
            what: what.into(),
            unit,
            measured: measured.median(),
            baseline: None,
            target: Target::Note(""),
        }
    }

    /// Sets what it is compared with.
    pub fn against(mut self, name: &'static str, baseline: &Samples) -> Self {
        self.baseline = Some((name, baseline.median()));
        self
    }

    /// Sets what it should be.
    pub fn target(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.baseline.map(|(_, baseline)| self.measured / baseline)
    }

    fn met(&self) -> Option<bool> {
        match self.target {
            Target::RatioAtLeast(least) => Some(self.ratio()? >= least),
            Target::AtMostBaseline { times, plus } => Some(self.measured <= times * self.baseline?.1 + plus),
            Target::AtMost(most) => Some(self.measured <= most),
            Target::Note(_) => None,
        }
    }

    fn target_text(&self) -> String {
        match self.target {
            Target::RatioAtLeast(least) => format!("≥ {least} ×"),
            Target::AtMostBaseline { times, plus } => format!("≤ {times} × + {plus} {}", self.unit.name()),
            Target::AtMost(most) => format!("≤ {most} {}", self.unit.name()),
            Target::Note(note) => note.to_owned(),
        }
    }

    fn cells(&self) -> [String; COLUMNS] {
        let (name, baseline) = self
            .baseline
            .map_or_else(Default::default, |(name, figure)| (name.to_owned(), self.unit.write(figure)));
        let met = match self.met() {
            Some(true) => "yes",
            Some(false) => "no",
            None => "",
        };
        [
            self.goal.to_owned(),
            self.what.clone(),
            self.unit.write(self.measured),
            baseline,
            name,
            self.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            self.target_text(),
            met.to_owned(),
        ]
    }

    fn to_json(&self) -> Value {
        json!({
            "goal": self.goal,
            "what": self.what,
            "unit": self.unit.name(),
            "millstream": self.measured,
            "baseline": self.baseline.map(|(_, figure)| figure),
            "baseline_is": self.baseline.map(|(name, _)| name),
            "ratio": self.ratio(),
            "target": self.target_text(),
            "met": self.met(),
        })
    }
}

const COLUMNS: usize = 8;
const HEADINGS: [&str; COLUMNS] = ["goal", "what", "millstream", "baseline", "baseline is", "ratio", "target", "met"];
/// Columns of figures, which stand on the right.
const RIGHT: [bool; COLUMNS] = [false, false, true, true, false, true, false, false];

/// The rows as aligned text.
pub fn text(rows: &[Row]) -> String {
    let lines: Vec<[String; COLUMNS]> = std::iter::once(HEADINGS.map(str::to_owned))
        .chain(rows.iter().map(Row::cells))
        .collect();
    let width = |column: usize| lines.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let mut text = String::new();
    for cells in &lines {
        let mut line = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let width = widths[column];
            line.push_str(&if RIGHT[column] {
                format!("{cell:>width$}  ")
            } else {
                format!("{cell:<width$}  ")
            });
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Writes the machine and the rows to a file.
pub fn write_json(path: &Path, machine: &Machine, rows: &[Row]) -> Result<()> {
    let rows: Vec<Value> = rows.iter().map(Row::to_json).collect();
    let report = json!({"machine": machine.to_json(), "rows": rows});
    fs::write(path, format!("{report:#}\n")).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(figure: f64) -> Samples {
        let mut samples = Samples::default();
        samples.push(figure);
        samples
    }

    fn row(target: Target) -> Row {
        Row::new("P6", "ack", Unit::Milliseconds, &samples(0.5))
            .against("fdatasync", &samples(0.2))
            .target(target)
    }

    #[test]
    fn targets_are_met_at_their_limit_and_not_beyond() {
        assert_eq!(row(Target::AtMostBaseline { times: 1.5, plus: 0.2 }).met(), Some(true));
        assert_eq!(row(Target::AtMostBaseline { times: 1.4, plus: 0.2 }).met(), Some(false));
        assert_eq!(row(Target::RatioAtLeast(2.5)).met(), Some(true));
        assert_eq!(row(Target::RatioAtLeast(2.6)).met(), Some(false));
        assert_eq!(row(Target::AtMost(0.5)).met(), Some(true));
        assert_eq!(row(Target::Note("")).met(), None);
    }

    #[test]
    fn columns_are_aligned_by_characters() {
        let text = text(&[
            row(Target::AtMost(1.0)),
            Row::new("P15", "idle — CPU", Unit::PercentOfCore, &samples(1.0)),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        let end = |line: &str, cell: &str| line[..line.find(cell).unwrap() + cell.len()].chars().count();
        assert_eq!(end(lines[0], "millstream"), end(lines[1], "0.50 ms"));
        assert_eq!(end(lines[0], "millstream"), end(lines[2], "1.00 %"));
    }
}
