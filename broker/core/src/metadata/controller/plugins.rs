//! The plugin registry: what was pushed, immutable by name and version.

use millstream_protocol::error_code::ErrorCode;

use super::{Context, Decision, Draft, Outcome, Refusal};
use crate::{
    metadata::{
        image::PluginImage,
        names,
        records::{MetadataRecord, PluginRemoved},
    },
    transform::Hook,
};

/// Largest component, in bytes.
const COMPONENT_BYTES_MAX: u64 = 32 << 20;
/// Longest configuration schema, in bytes.
const SCHEMA_BYTES_MAX: usize = 64 << 10;
/// Most plugin versions in the registry.
const PLUGINS_MAX: usize = 1_000;

/// A plugin to register, after the host has inspected its component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPlugin {
    /// Name.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// SHA-256 of its component, lower-case hexadecimal.
    pub sha256: String,
    /// Size of its component in bytes.
    pub size_bytes: u64,
    /// Hooks it can be bound to.
    pub hooks: Vec<Hook>,
    /// JSON Schema of its configuration, empty if it takes none.
    pub config_schema: String,
}

/// Registers a plugin. The same bytes may be pushed again; other bytes under a known name and version are refused.
pub fn register_plugin(context: &Context<'_>, plugin: &NewPlugin) -> Decision<Outcome<()>> {
    let mut draft = Draft::new(context);
    let reply = register(context, &mut draft, plugin);
    draft.finish(false, reply)
}

/// Takes a plugin version out of the registry, unless something is bound to it.
pub fn remove_plugin(context: &Context<'_>, name: &str, version: &str) -> Decision<Outcome<()>> {
    let mut draft = Draft::new(context);
    let reply = remove(&mut draft, name, version);
    draft.finish(false, reply)
}

fn register(context: &Context<'_>, draft: &mut Draft, plugin: &NewPlugin) -> Outcome<()> {
    check(plugin).map_err(|message| Refusal::new(ErrorCode::InvalidRequest, message))?;
    if let Some(known) = draft.image.plugin(&plugin.name, &plugin.version) {
        if known.sha256 == plugin.sha256 {
            return Ok(());
        }
        let message = format!(
            "Plugin {}@{} was pushed before with other content (sha256 {}): versions are immutable, push a new one.",
            plugin.name, plugin.version, known.sha256
        );
        return Err(Refusal::new(ErrorCode::DuplicateResource, message));
    }
    if draft.image.plugins.len() >= PLUGINS_MAX {
        return Err(Refusal::new(
            ErrorCode::PolicyViolation,
            format!("The registry holds {PLUGINS_MAX} plugin versions: remove some first."),
        ));
    }
    let mut hooks = plugin.hooks.clone();
    hooks.sort_unstable();
    hooks.dedup();
    let record = PluginImage {
        name: plugin.name.clone(),
        version: plugin.version.clone(),
        sha256: plugin.sha256.clone(),
        size_bytes: plugin.size_bytes,
        hooks,
        config_schema: plugin.config_schema.clone(),
        pushed_ms: context.now_ms,
    };
    draft.push(MetadataRecord::PluginRegistered(record))
}

fn check(plugin: &NewPlugin) -> Result<(), String> {
    names::check_plugin(&plugin.name)?;
    names::check_version(&plugin.version)?;
    let hash_ok = plugin.sha256.len() == 64 && plugin.sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !hash_ok {
        return Err("sha256 must be 64 lower-case hexadecimal digits.".to_owned());
    }
    if plugin.size_bytes == 0 || plugin.size_bytes > COMPONENT_BYTES_MAX {
        return Err(format!(
            "A component has 1 to {COMPONENT_BYTES_MAX} bytes, not {}.",
            plugin.size_bytes
        ));
    }
    if plugin.hooks.is_empty() {
        return Err("The plugin can be bound to no hook.".to_owned());
    }
    if plugin.config_schema.len() > SCHEMA_BYTES_MAX {
        return Err(format!("The configuration schema is longer than {SCHEMA_BYTES_MAX} bytes."));
    }
    if !plugin.config_schema.is_empty() {
        serde_json::from_str::<serde_json::Value>(&plugin.config_schema)
            .map_err(|error| format!("The configuration schema is not JSON: {error}."))?;
    }
    Ok(())
}

fn remove(draft: &mut Draft, name: &str, version: &str) -> Outcome<()> {
    if draft.image.plugin(name, version).is_none() {
        return Err(Refusal::new(
            ErrorCode::ResourceNotFound,
            format!("Plugin {name}@{version} is not in the registry."),
        ));
    }
    let bound = draft
        .image
        .bindings()
        .find(|(_, binding)| binding.plugin == name && binding.version == version);
    if let Some((target, binding)) = bound {
        let message = format!(
            "Plugin {name}@{version} is bound to '{target}' as '{}': unbind it first.",
            binding.name
        );
        return Err(Refusal::new(ErrorCode::PolicyViolation, message));
    }
    draft.push(MetadataRecord::PluginRemoved(PluginRemoved {
        name: name.to_owned(),
        version: version.to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Cluster, binding, plugin};
    use super::super::{bind, unbind};
    use super::*;

    #[test]
    fn versions_are_immutable() {
        let mut cluster = Cluster::with_topics(&[]);
        let first = plugin("p", &[Hook::Produce]);
        assert_eq!(cluster.run(|context| register_plugin(context, &first)), Ok(()));
        assert!(
            register_plugin(&cluster.context(), &first).records.is_empty(),
            "the same bytes again change nothing"
        );
        let other = NewPlugin {
            sha256: "b".repeat(64),
            ..first.clone()
        };
        assert_eq!(
            cluster.run(|context| register_plugin(context, &other)).unwrap_err().code,
            ErrorCode::DuplicateResource
        );
        let newer = NewPlugin {
            version: "1.0.1".to_owned(),
            ..other
        };
        assert_eq!(cluster.run(|context| register_plugin(context, &newer)), Ok(()));
    }

    #[test]
    fn a_bound_plugin_stays() {
        let mut cluster = Cluster::with_topics(&["t"]);
        cluster
            .run(|context| register_plugin(context, &plugin("p", &[Hook::Produce])))
            .unwrap();
        cluster
            .run(|context| bind(context, "t", &binding("b", "p", Hook::Produce)))
            .unwrap();
        let refused = cluster.run(|context| remove_plugin(context, "p", "1.0.0")).unwrap_err();
        assert!(refused.message.contains("bound to 't'"), "{}", refused.message);
        cluster.run(|context| unbind(context, "t", "b")).unwrap();
        assert_eq!(cluster.run(|context| remove_plugin(context, "p", "1.0.0")), Ok(()));
        assert_eq!(
            cluster.run(|context| remove_plugin(context, "p", "1.0.0")).unwrap_err().code,
            ErrorCode::ResourceNotFound
        );
    }

    #[test]
    fn odd_descriptions_are_refused() {
        let mut cluster = Cluster::with_topics(&[]);
        let good = plugin("p", &[Hook::View]);
        for bad in [
            NewPlugin {
                name: "../p".to_owned(),
                ..good.clone()
            },
            NewPlugin {
                version: "latest".to_owned(),
                ..good.clone()
            },
            NewPlugin {
                sha256: "A".repeat(64),
                ..good.clone()
            },
            NewPlugin {
                size_bytes: 0,
                ..good.clone()
            },
            NewPlugin {
                size_bytes: COMPONENT_BYTES_MAX + 1,
                ..good.clone()
            },
            NewPlugin {
                hooks: Vec::new(),
                ..good.clone()
            },
            NewPlugin {
                config_schema: "{".to_owned(),
                ..good.clone()
            },
            NewPlugin {
                config_schema: " ".repeat(SCHEMA_BYTES_MAX + 1),
                ..good.clone()
            },
        ] {
            assert_eq!(
                cluster.run(|context| register_plugin(context, &bad)).unwrap_err().code,
                ErrorCode::InvalidRequest,
                "{bad:?}"
            );
        }
        assert!(
            cluster
                .run(|context| register_plugin(
                    context,
                    &NewPlugin {
                        size_bytes: COMPONENT_BYTES_MAX,
                        ..good.clone()
                    }
                ))
                .is_ok()
        );
    }
}
