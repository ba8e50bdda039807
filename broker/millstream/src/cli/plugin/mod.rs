//! `millstream plugin`: from an empty directory to a binding on a topic.

mod bind;
mod build;
mod new;
mod push;
mod test;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use super::{
    args::{AdminArgs, plugin_version},
    output::Column,
};

/// Write, build, test, push and bind plugins.
#[derive(Debug, Args)]
pub struct Plugin {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a plugin of your own in a new directory
    #[command(after_help = "Example: millstream plugin new only-late --lang rust")]
    New(new::New),
    /// Compile a plugin and make the component that brokers take
    #[command(after_help = "Example: millstream plugin build only-late")]
    Build(build::Build),
    /// Run a plugin's golden files over its component, with a broker's limits
    #[command(after_help = "Example: millstream plugin test only-late")]
    Test(test::Test),
    /// Send a plugin to the cluster
    #[command(after_help = "Example: millstream plugin push only-late/target/only-late.wasm")]
    Push(push::Push),
    /// List the cluster's plugins
    #[command(after_help = "Example: millstream plugin ls --output json")]
    #[command(visible_alias = "list")]
    Ls(AdminArgs),
    /// Run a plugin over everything that is produced to a topic
    #[command(
        after_help = "Example: millstream plugin bind redact@0.1.0 --topic flights --config '{\"fields\":[{\"pointer\":\"/tailnum\",\"action\":\"hash\"}],\"salt\":\"s\"}'"
    )]
    Bind(Box<bind::Bind>),
    /// End a binding
    #[command(after_help = "Example: millstream plugin unbind flights redact")]
    Unbind(bind::Unbind),
    /// Remove a plugin that nothing is bound to
    #[command(after_help = "Example: millstream plugin rm redact@0.1.0")]
    Rm(Rm),
}

#[derive(Debug, Args)]
struct Rm {
    /// The plugin and its version
    #[arg(value_name = "NAME@VERSION")]
    plugin: String,
    #[command(flatten)]
    admin: AdminArgs,
}

const COLUMNS: &[Column] = &[
    ("NAME", "name"),
    ("VERSION", "version"),
    ("HOOKS", "hooks"),
    ("BYTES", "size_bytes"),
    ("BOUND TO", "bound_to"),
    ("SHA256", "sha256"),
];

impl Plugin {
    /// Runs the verb.
    pub async fn run(self) -> Result<()> {
        match self.verb {
            Verb::New(new) => new.run(),
            Verb::Build(build) => build.run(),
            Verb::Test(test) => test.run().await,
            Verb::Push(push) => push.run().await,
            Verb::Ls(admin) => {
                let plugins = admin.client()?.get(&["v1", "plugins"], &[]).await?;
                admin.output.list(&plugins, COLUMNS)
            }
            Verb::Bind(bind) => bind.run().await,
            Verb::Unbind(unbind) => unbind.run().await,
            Verb::Rm(rm) => rm.run().await,
        }
    }
}

impl Rm {
    async fn run(&self) -> Result<()> {
        let (name, Some(version)) = plugin_version(&self.plugin) else {
            bail!("say which version of {} to remove: {}@VERSION", self.plugin, self.plugin);
        };
        let answer = self.admin.client()?.delete(&["v1", "plugins", name, version]).await?;
        self.admin.output.done(&format!("removed {}", self.plugin), &answer)
    }
}
