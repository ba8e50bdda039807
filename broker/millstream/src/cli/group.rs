//! `millstream group`: groups of all kinds, their members and how far behind they are.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    args::KafkaArgs,
    output::{self, Column, Output},
};
use crate::client::{Committed, GroupMember, Kafka, LATEST};

/// List, describe and delete consumer, share and streams groups.
#[derive(Debug, Args)]
pub struct Group {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List groups
    #[command(after_help = "Example: millstream group ls --output json")]
    #[command(visible_alias = "list")]
    Ls(KafkaArgs),
    /// Show a group's members, its offsets and its lag
    #[command(after_help = "Example: millstream group describe readers")]
    Describe(Named),
    /// Delete a group without members, and its offsets
    #[command(after_help = "Example: millstream group delete readers")]
    Delete(Named),
}

#[derive(Debug, Args)]
struct Named {
    /// Name of the group
    name: String,
    #[command(flatten)]
    kafka: KafkaArgs,
}

const LIST: &[Column] = &[("NAME", "name"), ("TYPE", "type"), ("STATE", "state"), ("PROTOCOL", "protocol")];
const MEMBERS: &[Column] = &[
    ("MEMBER", "member"),
    ("INSTANCE", "instance"),
    ("CLIENT", "client"),
    ("HOST", "host"),
    ("ASSIGNMENT", "assignment"),
];
const OFFSETS: &[Column] = &[
    ("TOPIC", "topic"),
    ("PARTITION", "partition"),
    ("COMMITTED", "committed"),
    ("END", "end"),
    ("LAG", "lag"),
];

impl Group {
    /// Runs the verb.
    pub async fn run(self) -> Result<()> {
        match self.verb {
            Verb::Ls(kafka) => list(&kafka).await,
            Verb::Describe(named) => named.describe().await,
            Verb::Delete(named) => {
                let mut kafka = named.kafka.connect().await?;
                kafka.find_coordinator(&named.name).await?;
                kafka.delete_group(&named.name).await?;
                named
                    .kafka
                    .output
                    .done(&format!("deleted group {}", named.name), &json!({"name": named.name}))
            }
        }
    }
}

async fn list(args: &KafkaArgs) -> Result<()> {
    let groups = args.connect().await?.groups().await?;
    let row = |group: &millstream_protocol::messages::list_groups_response::ListedGroup| json!({"name": group.group_id.as_str(), "type": group.group_type.as_str(), "state": group.group_state.as_str(), "protocol": group.protocol_type.as_str()});
    args.output.list(&Value::Array(groups.iter().map(row).collect()), LIST)
}

impl Named {
    async fn describe(&self) -> Result<()> {
        let mut kafka = self.kafka.connect().await?;
        kafka.find_coordinator(&self.name).await?;
        let group = kafka.group(&self.name).await?;
        let committed = match group.kind.as_str() {
            "share" => kafka.share_offsets(&self.name).await?,
            _ => kafka.committed(&self.name).await?,
        };
        let offsets = with_lag(&mut kafka, committed).await;
        let member = |member: &GroupMember| {
            json!({
                "member": member.id,
                "instance": member.instance,
                "client": member.client,
                "host": member.host,
                "assignment": member.assignment,
            })
        };
        let members: Vec<Value> = group.members.iter().map(member).collect();
        let (kind, state) = (&group.kind, &group.state);
        if self.kafka.output == Output::Json {
            let report = json!({
                "name": self.name, "type": kind, "state": state, "assignor": group.assignor, "members": members, "offsets": offsets,
            });
            return output::line(&report.to_string());
        }
        let mut text = format!("{}  {kind}  {state}\n", self.name);
        if !members.is_empty() {
            text.push_str(&output::table(&members, MEMBERS));
        }
        text.push_str(&output::table(&offsets, OFFSETS));
        output::text(&text)
    }
}

/// A row for each committed offset. A topic that is gone has no end and no lag.
async fn with_lag(kafka: &mut Kafka, committed: Committed) -> Vec<Value> {
    let mut rows = Vec::with_capacity(committed.len());
    for ((topic, partition), offset) in committed {
        let ends = kafka.offsets(&topic, &[partition], LATEST).await.ok();
        let end = ends.and_then(|ends| ends.get(&partition).copied());
        let lag = end.map(|end| end.saturating_sub(offset).max(0));
        rows.push(json!({"topic": topic, "partition": partition, "committed": offset, "end": end, "lag": lag}));
    }
    rows
}
