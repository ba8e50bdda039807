//! Rejects or diverts records whose value breaks a JSON Schema.
//!
//! The schema is compiled once, offline: a `$ref` to another document is refused with the configuration, never fetched. Regular
//! expressions in the schema run on a linear-time engine. Reasons name the place and the rule, never the record's contents.

#[cfg(target_arch = "wasm32")]
mod entropy;

use jsonschema::{PatternOptions, Validator};
use millstream_sdk::{Record, Result, Verdict, plugin};
use serde::Deserialize;
use serde_json::Value;

/// Longest reason, in bytes: the broker cuts there too.
const MESSAGE_BYTES_MAX: usize = 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    schema: Value,
    #[serde(default)]
    on_invalid: OnInvalid,
    #[serde(default = "message_bytes_default")]
    message_limit: usize,
    #[serde(default = "allow_null_default")]
    allow_null: bool,
}

/// What becomes of a record that breaks the schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OnInvalid {
    #[default]
    Reject,
    Divert,
}

fn message_bytes_default() -> usize {
    256
}

fn allow_null_default() -> bool {
    true
}

/// The compiled configuration.
#[derive(Deserialize)]
#[serde(try_from = "Config")]
struct SchemaCheck {
    validator: Validator,
    on_invalid: OnInvalid,
    message_bytes_max: usize,
    allows_null: bool,
}

impl TryFrom<Config> for SchemaCheck {
    type Error = String;

    fn try_from(config: Config) -> Result<Self, String> {
        let message_bytes_max = config.message_limit;
        if !(1..=MESSAGE_BYTES_MAX).contains(&message_bytes_max) {
            return Err(format!(
                "message_limit: {message_bytes_max} is not between 1 and {MESSAGE_BYTES_MAX}"
            ));
        }
        let options = jsonschema::options().offline().with_pattern_options(PatternOptions::regex());
        let validator = options.build(&config.schema).map_err(|error| format!("schema: {error}"))?;
        Ok(Self {
            validator,
            on_invalid: config.on_invalid,
            message_bytes_max,
            allows_null: config.allow_null,
        })
    }
}

impl SchemaCheck {
    /// Why a value is not acceptable, if it is not.
    fn complaint(&self, value: Option<&[u8]>) -> Option<String> {
        let Some(value) = value else {
            return (!self.allows_null).then(|| "value is null".to_owned());
        };
        let document: Value = match serde_json::from_slice(value) {
            Ok(document) => document,
            Err(error) => return Some(format!("value is not JSON: {error}")),
        };
        let error = self.validator.validate(&document).err()?;
        let path = error.instance_path().as_str();
        let place = if path.is_empty() { "the document" } else { path };
        Some(format!("{place}: {}", error.masked()))
    }
}

fn check(record: &Record<'_>, check: &SchemaCheck) -> Result<Verdict> {
    let Some(mut reason) = check.complaint(record.value) else {
        return Ok(Verdict::Keep);
    };
    reason.truncate(reason.floor_char_boundary(check.message_bytes_max));
    Ok(match check.on_invalid {
        OnInvalid::Reject => Verdict::Reject(reason),
        OnInvalid::Divert => Verdict::Divert(reason),
    })
}

plugin! { config: SchemaCheck, config_schema: include_str!("../config.schema.json"), filter_map: check }

#[cfg(test)]
mod tests;
