//! Results on standard output: aligned tables for people, JSON for programs.

use std::io::{self, Write};

use anyhow::Result;
use clap::ValueEnum;
use serde_json::Value;

/// How results look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Aligned columns
    Table,
    /// One JSON document
    Json,
}

/// A column: its title, and the field of a row that it shows.
pub type Column = (&'static str, &'static str);

impl Output {
    /// Prints a list of objects.
    pub fn list(self, rows: &Value, columns: &[Column]) -> Result<()> {
        match self {
            Self::Json => line(&rows.to_string()),
            Self::Table => text(&table(rows.as_array().map_or(&[], Vec::as_slice), columns)),
        }
    }

    /// Prints what came of an action: a sentence, or what the node answered.
    pub fn done(self, sentence: &str, answer: &Value) -> Result<()> {
        match self {
            Self::Json => line(&answer.to_string()),
            Self::Table => line(sentence),
        }
    }
}

/// Prints a line.
pub fn line(line: &str) -> Result<()> {
    text(&format!("{line}\n"))
}

/// Prints text as it stands.
pub fn text(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Lays rows out in columns two spaces apart; numbers are aligned at the right, and no line ends in spaces.
pub fn table(rows: &[Value], columns: &[Column]) -> String {
    let mut lines: Vec<Vec<(String, bool)>> = vec![columns.iter().map(|(title, _)| ((*title).to_owned(), false)).collect()];
    for row in rows {
        lines.push(columns.iter().map(|(_, field)| cell(&row[*field])).collect());
    }
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|(text, _)| text.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    // A title stands over its numbers.
    let is_numeric = |column: usize| {
        lines
            .iter()
            .skip(1)
            .filter_map(|line| line.get(column))
            .any(|(_, is_number)| *is_number)
    };
    let numeric: Vec<bool> = (0..columns.len()).map(is_numeric).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(widths.iter().zip(&numeric));
        let padded: Vec<String> = cells
            .map(|((text, _), (width, numeric))| {
                if *numeric {
                    format!("{text:>width$}")
                } else {
                    format!("{text:<width$}")
                }
            })
            .collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A value as it stands in a table, and whether it is a number.
fn cell(value: &Value) -> (String, bool) {
    match value {
        Value::Null => ("-".to_owned(), false),
        Value::String(text) if text.is_empty() => ("-".to_owned(), false),
        Value::String(text) => (text.clone(), false),
        Value::Number(number) => (number.to_string(), true),
        Value::Bool(flag) => (if *flag { "yes" } else { "no" }.to_owned(), false),
        Value::Array(items) if items.is_empty() => ("-".to_owned(), false),
        Value::Array(items) => (items.iter().map(|item| cell(item).0).collect::<Vec<_>>().join(","), false),
        Value::Object(_) => (value.to_string(), false),
    }
}

/// Text for people on standard error. It is lost, and nothing else happens, if nobody can read it.
pub fn note(text: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            json!({"name": "orders", "partitions": 6, "hooks": ["produce", "view"], "internal": false}),
            json!({"name": "ö", "partitions": 120, "hooks": [], "internal": true}),
        ];
        let columns = [
            ("NAME", "name"),
            ("PARTITIONS", "partitions"),
            ("HOOKS", "hooks"),
            ("INTERNAL", "internal"),
            ("NOTE", "note"),
        ];
        let expected = "\
NAME    PARTITIONS  HOOKS         INTERNAL  NOTE
orders           6  produce,view  no        -
ö              120  -             yes       -
";
        assert_eq!(table(&rows, &columns), expected);
    }

    #[test]
    fn an_empty_list_is_its_titles() {
        assert_eq!(table(&[], &[("NAME", "name"), ("SIZE", "size")]), "NAME  SIZE\n");
    }
}
