//! `millstream serve`: a node as a configuration file says. `millstream.toml` beside this crate's `src` is an example that names
//! every section.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use millstream_server::log_levels::LogLevels;
use serde::Deserialize;
use toml::Value;

use super::{dev::announce, output};
use crate::node::{NodeOptions, Words};

const WORDS: Words = Words {
    data_dir: "[node] data_dir",
    kafka: "[listeners] kafka",
    admin: "[listeners] admin",
    bucket: "[bucket] url",
};

/// Run a node as a configuration file says.
#[derive(Debug, Args)]
#[command(after_help = "Example: millstream serve --config /etc/millstream/millstream.toml")]
pub struct Serve {
    /// The configuration, in TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only check the configuration
    #[arg(long)]
    check: bool,
    /// Let listeners without authentication be open to everybody
    #[arg(long)]
    allow_insecure: bool,
}

/// The configuration file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    node: NodeSection,
    #[serde(default)]
    listeners: Listeners,
    bucket: Option<Bucket>,
    /// Kafka's names, quoted or as TOML's dotted keys.
    #[serde(default)]
    broker: toml::Table,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeSection {
    id: i32,
    data_dir: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Listeners {
    kafka: SocketAddr,
    admin: SocketAddr,
    /// `host:port`
    advertised: Option<String>,
}

impl Default for Listeners {
    fn default() -> Self {
        Self {
            kafka: SocketAddr::from(([127, 0, 0, 1], 9092)),
            admin: SocketAddr::from(([127, 0, 0, 1], 9644)),
            advertised: None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bucket {
    url: String,
}

impl Serve {
    /// Runs the node until a signal ends it.
    pub fn run(self, log_levels: Arc<LogLevels>) -> Result<()> {
        let text = fs::read_to_string(&self.config).with_context(|| format!("read {}", self.config.display()))?;
        let in_file = || self.config.display().to_string();
        let base = self.config.parent().unwrap_or(Path::new(""));
        let options = options(&text, base, self.allow_insecure).with_context(in_file)?;
        options.check().with_context(in_file)?;
        if self.check {
            return output::line(&format!("{} is fine", self.config.display()));
        }
        let (data, bucket) = (options.data_dir.display().to_string(), options.bucket.clone());
        options.run(log_levels, |ready| announce(ready, &data, bucket.as_deref()))
    }
}

/// A relative data directory is one beside the configuration file.
fn options(text: &str, base: &Path, allow_insecure: bool) -> Result<NodeOptions> {
    let file: File = toml::from_str(text)?;
    let mut pairs = Vec::new();
    flatten("", file.broker, &mut pairs)?;
    Ok(NodeOptions {
        node_id: file.node.id,
        data_dir: std::path::absolute(base.join(file.node.data_dir)).context("find [node] data_dir")?,
        kafka: file.listeners.kafka,
        admin: file.listeners.admin,
        advertised: file.listeners.advertised.as_deref().map(host_and_port).transpose()?,
        bucket: file.bucket.map(|bucket| bucket.url),
        settings: pairs.into_iter().collect(),
        allow_insecure,
        words: WORDS,
    })
}

fn host_and_port(text: &str) -> Result<(String, u16)> {
    let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match parts {
        Some((host, port)) if !host.is_empty() => Ok((host.to_owned(), port)),
        _ => bail!("[listeners] advertised is not host:port: {text}"),
    }
}

/// `num.partitions = 4` is a table `num` with `partitions` in it for TOML; here it is one name again.
fn flatten(prefix: &str, table: toml::Table, pairs: &mut Vec<(String, String)>) -> Result<()> {
    for (key, value) in table {
        let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        let text = match value {
            Value::Table(table) => {
                flatten(&name, table, pairs)?;
                continue;
            }
            Value::String(text) => text,
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Boolean(flag) => flag.to_string(),
            Value::Array(_) | Value::Datetime(_) => bail!("[broker] {name} must be a text, a number or a boolean"),
        };
        pairs.push((name, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../millstream.toml");

    #[test]
    fn the_example_is_valid() {
        let options = options(EXAMPLE, Path::new("/etc"), false).unwrap();
        options.check().unwrap();
        assert_eq!(options.node_id, 1);
        assert!(options.data_dir.is_absolute());
    }

    #[test]
    fn broker_names_may_be_dotted_or_quoted() {
        let text = "[node]\nid = 1\ndata_dir = 'd'\n[broker]\nnum.partitions = 4\n\"log.segment.bytes\" = '1048576'\nauto.create.topics.enable = false\n";
        let options = options(text, Path::new("/etc"), false).unwrap();
        let pairs: Vec<_> = options
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            pairs,
            [
                ("auto.create.topics.enable", "false"),
                ("log.segment.bytes", "1048576"),
                ("num.partitions", "4")
            ]
        );
        assert_eq!(options.data_dir, Path::new("/etc/d"));
    }

    #[test]
    fn what_is_unknown_or_wrong_is_named() {
        let node = "[node]\nid = 1\ndata_dir = '/d'\n";
        for (rest, word) in [
            ("[nodes]\n", "nodes"),
            ("[listeners]\nkafak = '127.0.0.1:1'\n", "kafak"),
            ("[listeners]\nadvertised = 'nowhere'\n", "nowhere"),
            ("[broker]\nnum.partitons = 4\n", "num.partitons"),
            ("[broker]\nnum.partitions = 'many'\n", "many"),
            ("[broker]\nnum.partitions = [1]\n", "num.partitions"),
            ("[broker]\nnode.id = 7\n", "node.id is 1"),
            ("[listeners]\nkafka = '192.0.2.1:9092'\n", "--allow-insecure"),
            ("[listeners]\nkafka = '0.0.0.0:9092'\n", "advertised"),
        ] {
            let refused = options(&format!("{node}{rest}"), Path::new("/"), false).and_then(|options| options.check());
            let error = format!("{:#}", refused.unwrap_err());
            assert!(error.contains(word), "{rest}: {error}");
        }
    }

    #[test]
    fn advertised_addresses_may_be_of_version_6() {
        assert_eq!(host_and_port("[::1]:9092").unwrap(), ("[::1]".to_owned(), 9092));
        assert_eq!(
            host_and_port("broker-1.example:9092").unwrap(),
            ("broker-1.example".to_owned(), 9092)
        );
        assert!(host_and_port(":9092").is_err());
    }
}
