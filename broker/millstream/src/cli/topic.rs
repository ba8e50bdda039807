//! `millstream topic`: topics and their configurations.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    args::{KafkaArgs, assignment},
    output::{self, Column, Output},
};

/// Create, list, describe, alter and delete topics.
#[derive(Debug, Args)]
pub struct Topic {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a topic
    #[command(after_help = "Example: millstream topic create flights --partitions 6 --config retention.ms=86400000")]
    Create(Create),
    /// List topics and views
    #[command(after_help = "Example: millstream topic ls --output json")]
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Show a topic's partitions and its own configuration
    #[command(after_help = "Example: millstream topic describe flights")]
    Describe(Named),
    /// Change a topic's configuration or raise its number of partitions
    #[command(after_help = "Example: millstream topic alter flights --config retention.ms=3600000 --delete-config cleanup.policy")]
    Alter(Alter),
    /// Delete a topic and everything in it
    #[command(after_help = "Example: millstream topic delete flights")]
    Delete(Named),
}

#[derive(Debug, Args)]
struct Create {
    /// Name of the topic
    name: String,
    /// Number of partitions [default: the broker's num.partitions]
    #[arg(long, allow_negative_numbers = true)]
    partitions: Option<i32>,
    /// A configuration, by Kafka's name; may be repeated
    #[arg(long = "config", value_name = "NAME=VALUE", value_parser = assignment)]
    configs: Vec<(String, String)>,
    #[command(flatten)]
    kafka: KafkaArgs,
}

#[derive(Debug, Args)]
struct Ls {
    /// Also those that brokers keep for themselves
    #[arg(long)]
    internal: bool,
    #[command(flatten)]
    kafka: KafkaArgs,
}

#[derive(Debug, Args)]
struct Named {
    /// Name of the topic
    name: String,
    #[command(flatten)]
    kafka: KafkaArgs,
}

#[derive(Debug, Args)]
struct Alter {
    /// Name of the topic
    name: String,
    /// New number of partitions; they can only become more
    #[arg(long, allow_negative_numbers = true)]
    partitions: Option<i32>,
    /// A configuration to set; may be repeated
    #[arg(long = "config", value_name = "NAME=VALUE", value_parser = assignment)]
    configs: Vec<(String, String)>,
    /// A configuration to set back to its default; may be repeated
    #[arg(long = "delete-config", value_name = "NAME")]
    delete_configs: Vec<String>,
    #[command(flatten)]
    kafka: KafkaArgs,
}

const LIST: &[Column] = &[
    ("NAME", "name"),
    ("PARTITIONS", "partitions"),
    ("REPLICAS", "replicas"),
    ("INTERNAL", "internal"),
];
const PARTITIONS: &[Column] = &[
    ("PARTITION", "partition"),
    ("LEADER", "leader"),
    ("EPOCH", "leader_epoch"),
    ("REPLICAS", "replicas"),
    ("ISR", "isr"),
    ("START", "start"),
    ("END", "end"),
];

impl Topic {
    /// Runs the verb.
    pub async fn run(self) -> Result<()> {
        match self.verb {
            Verb::Create(create) => create.run().await,
            Verb::Ls(ls) => ls.run().await,
            Verb::Describe(named) => named.describe().await,
            Verb::Alter(alter) => alter.run().await,
            Verb::Delete(named) => named.delete().await,
        }
    }
}

impl Create {
    async fn run(&self) -> Result<()> {
        // -1 stands for the broker's default in the protocol; who asks for -1 partitions made a mistake.
        let partitions = match self.partitions {
            Some(partitions @ ..=0) => bail!("create topic {}: {partitions} is no number of partitions", self.name),
            Some(partitions) => partitions,
            None => -1,
        };
        let count = self
            .kafka
            .connect()
            .await?
            .create_topic(&self.name, partitions, &self.configs)
            .await?;
        let sentence = format!("created topic {} with {count} partitions", self.name);
        self.kafka.output.done(&sentence, &json!({"name": self.name, "partitions": count}))
    }
}

impl Ls {
    async fn run(&self) -> Result<()> {
        let mut topics = self.kafka.connect().await?.topics().await?;
        topics.retain(|topic| self.internal || !topic.is_internal);
        let row = |topic: &crate::client::TopicPartitions| {
            json!({
                "name": topic.name,
                "id": topic.id.to_string(),
                "partitions": topic.numbers.len(),
                "replicas": topic.replicas,
                "internal": topic.is_internal,
            })
        };
        let rows = Value::Array(topics.iter().map(row).collect());
        self.kafka.output.list(&rows, LIST)
    }
}

impl Named {
    async fn describe(&self) -> Result<()> {
        let mut kafka = self.kafka.connect().await?;
        let topic = kafka.topic(&self.name).await?;
        let configs = kafka.topic_configs(&self.name).await?;
        let starts = kafka.offsets(&self.name, &topic.numbers, crate::client::EARLIEST).await?;
        let ends = kafka.offsets(&self.name, &topic.numbers, crate::client::LATEST).await?;
        let mut partitions = topic.partitions;
        for (row, number) in partitions.iter_mut().zip(&topic.numbers) {
            row["start"] = json!(starts.get(number));
            row["end"] = json!(ends.get(number));
        }
        if self.kafka.output == Output::Json {
            let id = topic.id.to_string();
            let report = json!({"name": topic.name, "id": id, "internal": topic.is_internal, "configs": configs, "partitions": partitions});
            return output::line(&report.to_string());
        }
        let mut text = format!("{}  id {}\n", topic.name, topic.id);
        for (name, value) in configs.as_object().into_iter().flatten() {
            text.push_str(&format!("  {name}={}\n", value.as_str().unwrap_or("")));
        }
        text.push_str(&output::table(&partitions, PARTITIONS));
        output::text(&text)
    }

    async fn delete(&self) -> Result<()> {
        self.kafka.connect().await?.delete_topic(&self.name).await?;
        self.kafka
            .output
            .done(&format!("deleted topic {}", self.name), &json!({"name": self.name}))
    }
}

impl Alter {
    async fn run(&self) -> Result<()> {
        let alters_configs = !self.configs.is_empty() || !self.delete_configs.is_empty();
        if self.partitions.is_none() && !alters_configs {
            bail!(
                "alter topic {}: say what to change: --partitions, --config or --delete-config",
                self.name
            );
        }
        let mut kafka = self.kafka.connect().await?;
        if alters_configs {
            kafka.alter_configs(&self.name, &self.configs, &self.delete_configs).await?;
        }
        if let Some(partitions) = self.partitions {
            kafka.grow_topic(&self.name, partitions).await?;
        }
        self.kafka
            .output
            .done(&format!("altered topic {}", self.name), &json!({"name": self.name}))
    }
}
