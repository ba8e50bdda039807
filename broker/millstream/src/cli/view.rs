//! `millstream view`: topics that are another topic seen through a plugin.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    args::{AdminArgs, Breaker, Policy, plugin_config, plugin_version},
    output::{Column, Output},
};

/// Create, list and remove views.
#[derive(Debug, Args)]
pub struct View {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a read-only topic that shows another one through a plugin
    #[command(
        after_help = "Example: millstream view create late --source flights --plugin json-filter --config '{\"where\":{\"field\":\"/arr_delay\",\"op\":\"gt\",\"value\":60}}'"
    )]
    Create(Box<Create>),
    /// List views
    #[command(after_help = "Example: millstream view ls --output json")]
    #[command(visible_alias = "list")]
    Ls(AdminArgs),
    /// Remove a view; its source stays
    #[command(after_help = "Example: millstream view rm late")]
    Rm(Rm),
}

#[derive(Debug, Args)]
struct Create {
    /// Name of the view
    name: String,
    /// Topic or view that it shows
    #[arg(long, value_name = "TOPIC")]
    source: String,
    /// Plugin that the records go through; the newest version unless one is given
    #[arg(long, value_name = "NAME[@VERSION]")]
    plugin: String,
    /// The plugin's configuration
    #[arg(long, value_name = "JSON|@FILE")]
    config: Option<String>,
    /// What happens to a record on which the plugin fails [default: stall]
    #[arg(long, value_enum)]
    policy: Option<Policy>,
    /// What happens once the plugin crashed too often [default: closed]
    #[arg(long, value_enum)]
    breaker: Option<Breaker>,
    /// Refuse every setting that would let records through unfiltered
    #[arg(long)]
    security: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct Rm {
    /// Name of the view
    name: String,
    #[command(flatten)]
    admin: AdminArgs,
}

const COLUMNS: &[Column] = &[
    ("NAME", "name"),
    ("SOURCE", "source"),
    ("PLUGINS", "plugins"),
    ("POLICIES", "policies"),
    ("ID", "id"),
];

impl View {
    /// Runs the verb.
    pub async fn run(self) -> Result<()> {
        match self.verb {
            Verb::Create(create) => create.run().await,
            Verb::Ls(admin) => {
                let mut views = admin.client()?.get(&["v1", "views"], &[]).await?;
                if admin.output == Output::Table {
                    views.as_array_mut().into_iter().flatten().for_each(summarise);
                }
                admin.output.list(&views, COLUMNS)
            }
            Verb::Rm(Rm { name, admin }) => {
                let answer = admin.client()?.delete(&["v1", "views", &name]).await?;
                admin.output.done(&format!("removed view {name}"), &answer)
            }
        }
    }
}

/// Adds to a view what a line about it says of its bindings.
fn summarise(view: &mut Value) {
    let bindings = view["bindings"].as_array().cloned().unwrap_or_default();
    let text = |binding: &Value, field: &str| binding[field].as_str().unwrap_or("?").to_owned();
    let plugins = bindings
        .iter()
        .map(|binding| format!("{}@{}", text(binding, "plugin"), text(binding, "version")));
    view["plugins"] = plugins.collect();
    view["policies"] = bindings.iter().map(|binding| text(binding, "policy")).collect();
}

impl Create {
    async fn run(&self) -> Result<()> {
        let answer = self.admin.client()?.post(&["v1", "views"], &self.body()?).await?;
        let sentence = format!("created view {} of {} through {}", self.name, self.source, self.plugin);
        self.admin.output.done(&sentence, &answer)
    }

    fn body(&self) -> Result<Value> {
        let (plugin, version) = plugin_version(&self.plugin);
        let mut body = json!({
            "name": self.name,
            "source": self.source,
            "plugin": plugin,
            "config": plugin_config(self.config.as_deref())?,
        });
        if let Some(version) = version {
            body["version"] = json!(version);
        }
        if let Some(policy) = self.policy {
            body["policy"] = json!(policy.as_str());
        }
        if let Some(breaker) = self.breaker {
            body["breaker"] = json!(breaker.as_str());
        }
        if self.security {
            body["security"] = json!(true);
        }
        Ok(body)
    }
}
