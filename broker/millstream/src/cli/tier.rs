//! `millstream tier`: what is in the bucket.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use super::{args::AdminArgs, output::Column};

/// Look at tiered storage.
#[derive(Debug, Args)]
pub struct Tier {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show what of each partition is in the bucket, on disk, and still to be uploaded
    #[command(after_help = "Example: millstream tier status --topic flights")]
    Status(Status),
}

#[derive(Debug, Args)]
struct Status {
    /// Only this topic
    #[arg(long)]
    topic: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

const COLUMNS: &[Column] = &[
    ("TOPIC", "topic"),
    ("PARTITION", "partition"),
    ("REMOTE START", "remote_start"),
    ("REMOTE END", "remote_end"),
    ("LOCAL START", "local_start"),
    ("SEGMENTS", "remote_segments"),
    ("REMOTE BYTES", "remote_bytes"),
    ("PENDING BYTES", "pending_bytes"),
    ("LAST ERROR", "last_error"),
];

impl Tier {
    /// Runs the verb.
    pub async fn run(self) -> Result<()> {
        let Verb::Status(Status { topic, admin }) = self.verb;
        let query: Vec<(&str, &str)> = topic.iter().map(|topic| ("topic", topic.as_str())).collect();
        let status = admin.client()?.get(&["v1", "tier"], &query).await?;
        if let Some(topic) = topic
            && status.as_array().is_some_and(Vec::is_empty)
        {
            bail!("no partition of topic {topic} is tiered; remote.storage.enable=true on the topic turns it on");
        }
        admin.output.list(&status, COLUMNS)
    }
}
