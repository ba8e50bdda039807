//! `millstream plugin bind` and `unbind`.

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::cli::args::{AdminArgs, Breaker, Policy, plugin_config, plugin_version};

/// Where a plugin can be bound to a topic. Views bind theirs when they are created.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Hook {
    /// Before records are stored
    Produce,
}

impl Hook {
    fn as_str(self) -> &'static str {
        match self {
            Self::Produce => "produce",
        }
    }
}

/// Run a plugin over everything that is produced to a topic.
#[derive(Debug, Args)]
pub struct Bind {
    /// The plugin; its newest version unless one is given
    #[arg(value_name = "NAME[@VERSION]")]
    plugin: String,
    /// The topic
    #[arg(long)]
    topic: String,
    /// Where the plugin runs
    #[arg(long, value_enum, default_value_t = Hook::Produce)]
    hook: Hook,
    /// Name of the binding [default: the plugin's]
    #[arg(long, value_name = "BINDING")]
    name: Option<String>,
    /// Bindings run in ascending order
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    order: i32,
    /// The plugin's configuration
    #[arg(long, value_name = "JSON|@FILE")]
    config: Option<String>,
    /// What happens to a record on which the plugin fails [default: reject]
    #[arg(long, value_enum)]
    policy: Option<Policy>,
    /// What happens once the plugin crashed too often [default: closed]
    #[arg(long, value_enum)]
    breaker: Option<Breaker>,
    /// Where diverted records go
    #[arg(long, value_name = "TOPIC")]
    dead_letter_topic: Option<String>,
    /// Refuse every setting that would let records through unfiltered
    #[arg(long)]
    security: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// End a binding.
#[derive(Debug, Args)]
pub struct Unbind {
    /// The topic
    topic: String,
    /// Name of the binding
    binding: String,
    #[command(flatten)]
    admin: AdminArgs,
}

impl Bind {
    /// Runs the verb.
    pub async fn run(&self) -> Result<()> {
        let answer = self
            .admin
            .client()?
            .post(&["v1", "topics", &self.topic, "bindings"], &self.body()?)
            .await?;
        let name = answer["name"].as_str().unwrap_or(&self.plugin);
        let version = answer["version"].as_str().map(|version| format!("@{version}")).unwrap_or_default();
        let (plugin, _) = plugin_version(&self.plugin);
        self.admin
            .output
            .done(&format!("bound {plugin}{version} to {} as {name}", self.topic), &answer)
    }

    fn body(&self) -> Result<Value> {
        let (plugin, version) = plugin_version(&self.plugin);
        let mut body = json!({
            "plugin": plugin,
            "hook": self.hook.as_str(),
            "order": self.order,
            "config": plugin_config(self.config.as_deref())?,
        });
        let texts = [
            ("name", self.name.as_deref()),
            ("version", version),
            ("policy", self.policy.map(Policy::as_str)),
            ("breaker", self.breaker.map(Breaker::as_str)),
            ("dead_letter_topic", self.dead_letter_topic.as_deref()),
        ];
        for (field, text) in texts {
            if let Some(text) = text {
                body[field] = json!(text);
            }
        }
        if self.security {
            body["security"] = json!(true);
        }
        Ok(body)
    }
}

impl Unbind {
    /// Runs the verb.
    pub async fn run(&self) -> Result<()> {
        let answer = self
            .admin
            .client()?
            .delete(&["v1", "topics", &self.topic, "bindings", &self.binding])
            .await?;
        self.admin
            .output
            .done(&format!("ended binding {} of {}", self.binding, self.topic), &answer)
    }
}
