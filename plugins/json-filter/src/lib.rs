//! Keeps the records whose JSON value satisfies a condition, and drops the others.
//!
//! The condition is compiled once into a tree of tests and a tree of the fields they ask for. A record is then read in one pass
//! that materialises those fields alone. The README explains the configuration.

mod condition;
mod fields;

use millstream_sdk::{Error, Record, Result, plugin};
use serde::Deserialize;

use condition::{Condition, Test};
use fields::FieldTree;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    r#where: Condition<String>,
    #[serde(default)]
    on_invalid: OnInvalid,
}

/// What becomes of a record whose value is not JSON (null is not).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OnInvalid {
    #[default]
    Drop,
    Keep,
    Error,
}

/// The compiled configuration.
#[derive(Deserialize)]
#[serde(from = "Config")]
struct JsonFilter {
    fields: FieldTree,
    /// Tests name their field by its slot in `fields`.
    condition: Condition<usize>,
    on_invalid: OnInvalid,
}

impl From<Config> for JsonFilter {
    fn from(config: Config) -> Self {
        let mut fields = FieldTree::default();
        let condition = config.r#where.map(&mut |test| Test {
            field: fields.slot(&test.field),
            predicate: test.predicate,
        });
        Self {
            fields,
            condition,
            on_invalid: config.on_invalid,
        }
    }
}

fn keep(record: &Record<'_>, filter: &JsonFilter) -> Result<bool> {
    match (filter.fields.read(record.value.unwrap_or_default()), filter.on_invalid) {
        (Ok(values), _) => Ok(filter.condition.holds(&values)),
        (Err(_), OnInvalid::Drop) => Ok(false),
        (Err(_), OnInvalid::Keep) => Ok(true),
        (Err(error), OnInvalid::Error) => Err(Error::new(format_args!("value is not JSON: {error}"))),
    }
}

plugin! { config: JsonFilter, config_schema: include_str!("../config.schema.json"), filter: keep }

#[cfg(test)]
mod tests;
