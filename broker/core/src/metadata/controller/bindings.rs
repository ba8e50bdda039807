//! Binding plugins: to a topic's produce hook, or into a view's chain.

use std::ops::RangeInclusive;

use millstream_protocol::error_code::ErrorCode;

use super::{Context, Decision, Draft, Outcome, Refusal};
use crate::{
    metadata::{
        image::{BindingImage, ClusterImage},
        names,
        records::{MetadataRecord, PluginBound, PluginUnbound},
    },
    transform::{BreakerMode, FailurePolicy, Hook, Limits},
};

/// Most bindings of one topic or view.
pub const BINDINGS_PER_TARGET_MAX: usize = 16;
/// Longest plugin configuration, in bytes.
const CONFIG_BYTES_MAX: usize = 64 << 10;

const DEADLINE_MS: RangeInclusive<u32> = 1..=10_000;
const MEMORY_BYTES: RangeInclusive<u64> = (1 << 20)..=(512 << 20);
const CRASHES_PER_MINUTE: RangeInclusive<u32> = 1..=1_000;

/// A binding to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBinding {
    /// Name, unique on its topic or view; a binding of that name is replaced.
    pub name: String,
    /// Where it runs.
    pub hook: Hook,
    /// Place in the chain, smallest first.
    pub order: i32,
    /// The plugin.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// Its configuration, a JSON object as text; blank is `{}`.
    pub config: String,
    /// What to do with a record on which it fails; `None` rejects on produce and stalls on views.
    pub policy: Option<FailurePolicy>,
    /// What to do once it crashed too often.
    pub breaker: BreakerMode,
    /// Its limits; `None` takes those of the hook.
    pub limits: Option<Limits>,
    /// Where diverted records go.
    pub dead_letter_topic: Option<String>,
    /// Whether it protects something: it can then never be passed by.
    pub security: bool,
}

/// Binds a plugin to a topic (produce hook) or a view (view hook), or replaces the binding of that name.
pub fn bind(context: &Context<'_>, target: &str, binding: &NewBinding) -> Decision<Outcome<BindingImage>> {
    let mut draft = Draft::new(context);
    let reply = bind_one(&mut draft, target, binding);
    draft.finish(false, reply)
}

/// Takes a binding away. A view keeps its last one: without it, it would show everything.
pub fn unbind(context: &Context<'_>, target: &str, name: &str) -> Decision<Outcome<()>> {
    let mut draft = Draft::new(context);
    let reply = unbind_one(&mut draft, target, name);
    draft.finish(false, reply)
}

fn bind_one(draft: &mut Draft, target: &str, new: &NewBinding) -> Outcome<BindingImage> {
    let image = &draft.image;
    let (id, hook, present, internal) = match (image.topic(target), image.view(target)) {
        (Some(topic), _) => (topic.id, Hook::Produce, &topic.bindings, topic.internal),
        (None, Some(view)) => (view.id, Hook::View, &view.bindings, false),
        (None, None) => return Err(unknown_target(target)),
    };
    if internal {
        return Err(invalid(format!("Topic '{target}' is internal: nothing is bound to it.")));
    }
    if new.hook != hook {
        let message = match hook {
            Hook::Produce => {
                format!("'{target}' is a topic, on which plugins run when records are produced: create a view to filter what is read.")
            }
            Hook::View => format!("'{target}' is a view, to which nothing is produced."),
        };
        return Err(invalid(message));
    }
    let others = present.iter().filter(|binding| binding.name != new.name).count();
    if others >= BINDINGS_PER_TARGET_MAX {
        return Err(Refusal::new(
            ErrorCode::PolicyViolation,
            format!("'{target}' has {BINDINGS_PER_TARGET_MAX} bindings, which is the most."),
        ));
    }
    if !new.security && present.iter().any(|binding| binding.name == new.name && binding.security) {
        // A new version may take its place, something weaker may not: that takes two deliberate steps.
        let message = format!(
            "Binding '{}' of '{target}' is a security binding: bind with security=true, or unbind it first.",
            new.name
        );
        return Err(Refusal::new(ErrorCode::PolicyViolation, message));
    }
    let root = image.view_path(target).map_or(target, |(topic, _)| &topic.name);
    let binding = checked(image, root, new)?;
    draft.push(MetadataRecord::PluginBound(PluginBound {
        id,
        binding: binding.clone(),
    }))?;
    Ok(binding)
}

fn unbind_one(draft: &mut Draft, target: &str, name: &str) -> Outcome<()> {
    let (id, bindings, is_view) = match (draft.image.topic(target), draft.image.view(target)) {
        (Some(topic), _) => (topic.id, &topic.bindings, false),
        (None, Some(view)) => (view.id, &view.bindings, true),
        (None, None) => return Err(unknown_target(target)),
    };
    if !bindings.iter().any(|binding| binding.name == name) {
        return Err(Refusal::new(
            ErrorCode::ResourceNotFound,
            format!("'{target}' has no binding '{name}'."),
        ));
    }
    if is_view && bindings.len() == 1 {
        let message =
            format!("'{name}' is the last binding of view '{target}', which would then show everything: delete the view instead.");
        return Err(Refusal::new(ErrorCode::PolicyViolation, message));
    }
    draft.push(MetadataRecord::PluginUnbound(PluginUnbound { id, name: name.to_owned() }))
}

/// Checks a binding on a topic, or on a view whose records are stored in that topic, and fills in what was left open.
pub(super) fn checked(image: &ClusterImage, root: &str, new: &NewBinding) -> Outcome<BindingImage> {
    names::check_plugin(&new.name).map_err(invalid)?;
    let plugin = image.plugin(&new.plugin, &new.version);
    let plugin = plugin.ok_or_else(|| {
        Refusal::new(
            ErrorCode::ResourceNotFound,
            format!("Plugin {}@{} is not in the registry: push it first.", new.plugin, new.version),
        )
    })?;
    if !plugin.hooks.contains(&new.hook) {
        return Err(invalid(format!(
            "Plugin {}@{} cannot be bound to this hook.",
            new.plugin, new.version
        )));
    }
    let policy = new.policy.unwrap_or(match new.hook {
        Hook::Produce => FailurePolicy::Reject,
        Hook::View => FailurePolicy::Stall,
    });
    let limits = new.limits.unwrap_or_else(|| Limits::for_hook(new.hook));
    check_policy(new, policy).and_then(|()| check_limits(&limits)).map_err(invalid)?;
    if let Some(name) = &new.dead_letter_topic {
        check_dead_letter_topic(image, root, name)?;
    }
    Ok(BindingImage {
        name: new.name.clone(),
        hook: new.hook,
        order: new.order,
        plugin: new.plugin.clone(),
        version: new.version.clone(),
        sha256: plugin.sha256.clone(),
        config: checked_config(&new.config).map_err(invalid)?,
        policy,
        breaker: new.breaker,
        limits,
        dead_letter_topic: new.dead_letter_topic.clone(),
        security: new.security,
    })
}

fn check_policy(new: &NewBinding, policy: FailurePolicy) -> Result<(), String> {
    if new.security && (policy == FailurePolicy::Pass || new.breaker == BreakerMode::Open) {
        return Err("A binding with security=true can neither pass records on which it fails nor open its breaker.".to_owned());
    }
    if policy == FailurePolicy::Reject && new.hook == Hook::View {
        return Err("Records of a view cannot be rejected, as they are stored: choose stall, drop, pass or divert.".to_owned());
    }
    if policy == FailurePolicy::Divert && new.dead_letter_topic.is_none() {
        return Err("The policy divert needs a dead-letter topic.".to_owned());
    }
    Ok(())
}

fn check_limits(limits: &Limits) -> Result<(), String> {
    if !DEADLINE_MS.contains(&limits.deadline_ms) {
        return Err(format!(
            "deadline_ms must be {} to {}, not {}.",
            DEADLINE_MS.start(),
            DEADLINE_MS.end(),
            limits.deadline_ms
        ));
    }
    if !MEMORY_BYTES.contains(&limits.memory_bytes) {
        return Err(format!(
            "memory_bytes must be {} to {}, not {}.",
            MEMORY_BYTES.start(),
            MEMORY_BYTES.end(),
            limits.memory_bytes
        ));
    }
    if !CRASHES_PER_MINUTE.contains(&limits.crashes_per_minute) {
        let (least, most) = CRASHES_PER_MINUTE.into_inner();
        return Err(format!(
            "crashes_per_minute must be {least} to {most}, not {}.",
            limits.crashes_per_minute
        ));
    }
    Ok(())
}

/// Checks a topic for dead letters of `root`.
pub(super) fn check_dead_letter_topic(image: &ClusterImage, root: &str, name: &str) -> Outcome<()> {
    let topic = image.topic(name);
    let topic = topic.ok_or_else(|| {
        Refusal::new(
            ErrorCode::UnknownTopicOrPartition,
            format!("The dead-letter topic '{name}' does not exist."),
        )
    })?;
    if topic.internal {
        return Err(invalid(format!("'{name}' is internal and takes no dead letters.")));
    }
    if name == root {
        return Err(invalid(format!("'{name}' cannot take its own dead letters.")));
    }
    Ok(())
}

fn checked_config(config: &str) -> Result<String, String> {
    if config.len() > CONFIG_BYTES_MAX {
        return Err(format!("The plugin's configuration is longer than {CONFIG_BYTES_MAX} bytes."));
    }
    if config.trim().is_empty() {
        return Ok("{}".to_owned());
    }
    match serde_json::from_str::<serde_json::Value>(config) {
        Ok(serde_json::Value::Object(_)) => Ok(config.to_owned()),
        Ok(_) => Err("The plugin's configuration must be a JSON object.".to_owned()),
        Err(error) => Err(format!("The plugin's configuration is not JSON: {error}.")),
    }
}

fn unknown_target(target: &str) -> Refusal {
    Refusal::new(ErrorCode::UnknownTopicOrPartition, format!("There is no topic or view '{target}'."))
}

fn invalid(message: String) -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, message)
}

#[cfg(test)]
#[path = "bindings_tests.rs"]
mod tests;
