//! `millstream dev`: one node, no configuration needed.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context, Result};
use clap::Args;
use millstream_core::metadata::configs::Overrides;
use millstream_server::log_levels::LogLevels;

use super::{args::assignment, output};
use crate::node::{NodeOptions, Ready, Words};

/// What suits a machine that somebody sits in front of: quick starts, no waiting for group members that never come.
const DEFAULTS: &[(&str, &str)] = &[("offsets.topic.num.partitions", "8"), ("group.initial.rebalance.delay.ms", "100")];

const WORDS: Words = Words {
    data_dir: "--data",
    kafka: "--kafka-port",
    admin: "--admin-port",
    bucket: "--bucket",
};

/// Run one node on embedded defaults, for development.
#[derive(Debug, Args)]
#[command(after_help = "Example: millstream dev --data /tmp/mill --set num.partitions=4")]
pub struct Dev {
    /// Where everything is kept
    #[arg(long, value_name = "DIR", default_value = "./millstream-data")]
    data: PathBuf,
    /// Port for Kafka clients; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 9092)]
    kafka_port: u16,
    /// Port of the admin API; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 9644)]
    admin_port: u16,
    /// Where sealed segments of tiered topics go: s3://bucket/prefix, file:///directory or none [default: DIR/bucket]
    #[arg(long, value_name = "URL")]
    bucket: Option<String>,
    /// A broker configuration, by Kafka's name; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = assignment)]
    settings: Vec<(String, String)>,
    /// Let listeners without authentication be open to everybody
    #[arg(long)]
    allow_insecure: bool,
}

impl Dev {
    /// Runs the node until a signal ends it.
    pub fn run(self, log_levels: Arc<LogLevels>) -> Result<()> {
        let data_dir = std::path::absolute(&self.data).with_context(|| format!("find {}", self.data.display()))?;
        let bucket = match self.bucket.as_deref() {
            Some("none") => None,
            Some(url) => Some(url.to_owned()),
            None => Some(format!("file://{}", data_dir.join("bucket").display())),
        };
        // A setting that is given twice, or is one of ours, has its last value.
        let ours = DEFAULTS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings: Overrides = ours.chain(self.settings).collect();
        let node_id = match settings.get("node.id") {
            Some(id) => id.trim().parse().with_context(|| format!("node.id={id}"))?,
            None => 1,
        };
        let options = NodeOptions {
            node_id,
            data_dir: data_dir.clone(),
            kafka: SocketAddr::from((Ipv4Addr::LOCALHOST, self.kafka_port)),
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, self.admin_port)),
            advertised: None,
            bucket: bucket.clone(),
            settings,
            allow_insecure: self.allow_insecure,
            words: WORDS,
        };
        options.run(log_levels, |ready| {
            output::note(&hints(ready));
            announce(ready, &data_dir.display().to_string(), bucket.as_deref())
        })
    }
}

/// The line on standard output that scripts wait for.
pub fn announce(ready: &Ready, data: &str, bucket: Option<&str>) -> Result<()> {
    let Ready { kafka, admin } = ready;
    output::line(&format!(
        "ready kafka={kafka} admin=http://{admin} data={data} bucket={}",
        bucket.unwrap_or("none")
    ))
}

fn hints(ready: &Ready) -> String {
    let Ready { kafka, admin } = ready;
    format!(
        "millstream is ready; Ctrl-C stops it. Try, in another terminal:
  export MILLSTREAM_BOOTSTRAP={kafka} MILLSTREAM_ADMIN=http://{admin}
  millstream topic create hello
  echo world | millstream produce hello
  millstream consume hello
"
    )
}
