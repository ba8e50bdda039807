//! Arguments that several verbs share.

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::output::Output;
use crate::client::{Admin, Kafka};

/// How to reach a node's Kafka port.
#[derive(Debug, Args)]
pub struct KafkaArgs {
    /// Address of a node's Kafka port
    #[arg(long, env = "MILLSTREAM_BOOTSTRAP", value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// Not used by this verb; accepted so that scripts can pass the same options to all
    #[arg(long, env = "MILLSTREAM_ADMIN", hide = true)]
    admin: Option<String>,
    /// How results look
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

impl KafkaArgs {
    /// Connects.
    pub async fn connect(&self) -> Result<Kafka> {
        Kafka::connect(&self.bootstrap).await
    }
}

/// How to reach a node's admin port.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// URL of a node's admin port
    #[arg(long, env = "MILLSTREAM_ADMIN", value_name = "URL", default_value = "http://127.0.0.1:9644")]
    admin: String,
    /// Not used by this verb; accepted so that scripts can pass the same options to all
    #[arg(long, env = "MILLSTREAM_BOOTSTRAP", hide = true)]
    bootstrap: Option<String>,
    /// How results look
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

impl AdminArgs {
    /// A client; it connects when it is used.
    pub fn client(&self) -> Result<Admin> {
        Admin::new(&self.admin)
    }
}

/// What happens to a record on which a plugin fails.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Policy {
    Reject,
    Drop,
    Pass,
    Divert,
    Stall,
}

impl Policy {
    /// As the admin API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reject => "reject",
            Self::Drop => "drop",
            Self::Pass => "pass",
            Self::Divert => "divert",
            Self::Stall => "stall",
        }
    }
}

/// What happens to batches once a plugin crashed too often.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Breaker {
    /// Batches pass through unfiltered
    Open,
    /// Batches fail retriably
    Closed,
}

impl Breaker {
    /// As the admin API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// Splits `name=value`.
pub fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Splits `name[@version]`.
pub fn plugin_version(text: &str) -> (&str, Option<&str>) {
    match text.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (text, None),
    }
}

/// A plugin's configuration: JSON, or `@FILE` with JSON in it. None is an empty object.
pub fn plugin_config(text: Option<&str>) -> Result<Value> {
    let (origin, json) = match text {
        None => return Ok(Value::Object(serde_json::Map::new())),
        Some(text) => match text.strip_prefix('@') {
            Some(path) => {
                let json = std::fs::read_to_string(path).with_context(|| format!("read the plugin's config {path}"))?;
                (format!("the plugin's config {path}"), json)
            }
            None => ("--config".to_owned(), text.to_owned()),
        },
    };
    match serde_json::from_str(&json).with_context(|| format!("{origin} is not JSON"))? {
        config @ Value::Object(_) => Ok(config),
        other => bail!("{origin} is not a JSON object: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_split_at_the_first_equals_sign() {
        assert_eq!(assignment("a.b = x=y").unwrap(), ("a.b".to_owned(), " x=y".to_owned()));
        assert_eq!(assignment("a=").unwrap(), ("a".to_owned(), String::new()));
        assert!(assignment("=x").is_err());
        assert!(assignment("x").is_err());
    }

    #[test]
    fn plugin_versions_are_optional() {
        assert_eq!(plugin_version("redact"), ("redact", None));
        assert_eq!(plugin_version("redact@1.2.0"), ("redact", Some("1.2.0")));
    }

    #[test]
    fn plugin_config_comes_as_text_or_from_a_file() {
        assert_eq!(plugin_config(None).unwrap(), serde_json::json!({}));
        assert_eq!(plugin_config(Some(r#"{"a":1}"#)).unwrap(), serde_json::json!({"a": 1}));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, r#"{"b":[2]}"#).unwrap();
        assert_eq!(
            plugin_config(Some(&format!("@{}", path.display()))).unwrap(),
            serde_json::json!({"b": [2]})
        );
        for bad in ["", "[1]", "nonsense", "@/no/such/file"] {
            assert!(plugin_config(Some(bad)).unwrap_err().to_string().contains("config"), "{bad}");
        }
    }
}
