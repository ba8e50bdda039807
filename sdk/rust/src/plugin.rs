//! The `plugin!` declaration and what it declares.

use millstream_abi::VerdictWriter;
use serde::de::DeserializeOwned;

use crate::{Batch, Context, Hook, Result, config};

/// What a plugin says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// `[a-z0-9-]{1,64}`
    pub name: &'static str,
    /// Semantic version.
    pub version: &'static str,
    /// Where the plugin may run.
    pub hooks: &'static [Hook],
    /// JSON Schema of the configuration; empty if there is none.
    pub config_schema: &'static str,
}

impl Info {
    /// A plugin named like its package, without a leading `millstream-`, for the produce and view hooks.
    pub fn new(package: &'static str, version: &'static str) -> Self {
        let name = package.strip_prefix("millstream-").unwrap_or(package);
        Self {
            name,
            version,
            hooks: &[Hook::Produce, Hook::View],
            config_schema: "",
        }
    }

    /// With another name.
    #[must_use]
    pub fn name(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// With other hooks.
    #[must_use]
    pub fn hooks(self, hooks: &'static [Hook]) -> Self {
        Self { hooks, ..self }
    }

    /// With a schema of the configuration.
    #[must_use]
    pub fn config_schema(self, config_schema: &'static str) -> Self {
        Self { config_schema, ..self }
    }
}

/// A plugin. [`plugin!`](crate::plugin!) implements this for a type called `Plugin` in the author's crate.
pub trait Plugin: 'static {
    /// The configuration, read once for each instance. Use `#[serde(try_from = "…")]` to compile it into something faster.
    type Config: DeserializeOwned + 'static;

    /// What the plugin says of itself.
    fn info() -> Info;

    /// Writes one verdict for each record of the batch.
    fn process(batch: Batch<'_>, config: &Self::Config, verdicts: &mut VerdictWriter) -> Result<()>;
}

/// A plugin with its configuration, type erased: takes a batch's context and record section, gives a verdict list.
pub(crate) type Instance = Box<dyn Fn(&Context, &[u8]) -> Result<Vec<u8>, String>>;

/// Makes an instance; the error says what is wrong with the configuration.
pub(crate) fn instance<P: Plugin>(config: &str) -> Result<Instance, String> {
    let config = config::parse::<P::Config>(config)?;
    Ok(Box::new(move |context, section| {
        process::<P>(&config, context, section).map_err(|error| error.to_string())
    }))
}

fn process<P: Plugin>(config: &P::Config, context: &Context, section: &[u8]) -> Result<Vec<u8>> {
    let mut verdicts = VerdictWriter::new(u32::try_from(context.record_count)?);
    P::process(Batch::new(context, section), config, &mut verdicts)?;
    Ok(verdicts.finish()?)
}

/// Declares the crate's plugin.
///
/// ```text
/// plugin! {
///     name: "mask",                                   // default: the package's name without `millstream-`
///     hooks: [Produce, View],                         // the default
///     config: Config,                                 // serde's Deserialize; default: no configuration
///     config_schema: include_str!("config.json"),     // JSON Schema; default: none
///     filter: keep,                                   // exactly one handler
/// }
/// ```
/// | handler | signature |
/// |---|---|
/// | `filter` | `fn(&Record<'_>, &Config) -> Result<bool>`: false drops the record |
/// | `map` | `fn(&Record<'_>, &Config) -> Result<Change>` |
/// | `filter_map` | `fn(&Record<'_>, &Config) -> Result<Verdict>` |
/// | `on_batch` | `fn(Batch<'_>, &Config, &mut VerdictWriter) -> Result<()>`: an error fails the batch |
///
/// The order of the lines is fixed. The crate gets a type `Plugin` for its tests and, in wasm, the component's exports.
#[macro_export]
macro_rules! plugin {
    (@define [$($name:expr)?] [$($hook:ident)*] [$($config:ty)?] [$($schema:expr)?] $kind:ident $handler:expr) => {
        /// The plugin that this crate is.
        #[allow(dead_code, reason = "natively, only tests name it")]
        #[derive(Debug)]
        pub(crate) struct Plugin;

        impl $crate::Plugin for Plugin {
            type Config = $crate::plugin_config!($($config)?);

            fn info() -> $crate::Info {
                let info = $crate::Info::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
                $(let info = info.name($name);)?
                let hooks: &[$crate::Hook] = &[$($crate::Hook::$hook),*];
                let info = if hooks.is_empty() { info } else { info.hooks(hooks) };
                $(let info = info.config_schema($schema);)?
                info
            }

            fn process(
                batch: $crate::Batch<'_>,
                config: &Self::Config,
                verdicts: &mut $crate::VerdictWriter,
            ) -> $crate::Result<()> {
                $crate::handlers::$kind(batch, config, verdicts, $handler)
            }
        }

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Guest = $crate::guest::Exported<Plugin>;
            $crate::guest::bindings::export!(Guest with_types_in $crate::guest::bindings);
        };
    };
    ($(name: $name:expr,)? $(hooks: [$($hook:ident),+ $(,)?],)? $(config: $config:ty,)? $(config_schema: $schema:expr,)? filter: $handler:expr $(,)?) => {
        $crate::plugin!(@define [$($name)?] [$($($hook)+)?] [$($config)?] [$($schema)?] filter $handler);
    };
    ($(name: $name:expr,)? $(hooks: [$($hook:ident),+ $(,)?],)? $(config: $config:ty,)? $(config_schema: $schema:expr,)? map: $handler:expr $(,)?) => {
        $crate::plugin!(@define [$($name)?] [$($($hook)+)?] [$($config)?] [$($schema)?] map $handler);
    };
    ($(name: $name:expr,)? $(hooks: [$($hook:ident),+ $(,)?],)? $(config: $config:ty,)? $(config_schema: $schema:expr,)? filter_map: $handler:expr $(,)?) => {
        $crate::plugin!(@define [$($name)?] [$($($hook)+)?] [$($config)?] [$($schema)?] filter_map $handler);
    };
    ($(name: $name:expr,)? $(hooks: [$($hook:ident),+ $(,)?],)? $(config: $config:ty,)? $(config_schema: $schema:expr,)? on_batch: $handler:expr $(,)?) => {
        $crate::plugin!(@define [$($name)?] [$($($hook)+)?] [$($config)?] [$($schema)?] on_batch $handler);
    };
}

/// The type of a plugin's configuration: the one given, or [`NoConfig`](crate::NoConfig).
#[doc(hidden)]
#[macro_export]
macro_rules! plugin_config {
    () => {
        $crate::NoConfig
    };
    ($config:ty) => {
        $config
    };
}
