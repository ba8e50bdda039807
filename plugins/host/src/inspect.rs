//! Looks at a file that somebody wants to push: is it a plugin, and what does it say of itself?
//!
//! Runs on a compile thread. The guest's code runs here for the first time, so with a deadline and little memory.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use millstream_core::transform::{Hook, Inspected};
use serde::de::IgnoredAny;
use wasmtime::{Module, component::Linker};
use wit_component::ComponentEncoder;

use crate::{
    compile::{COMPONENT_MAGIC, check_size, compile_component},
    engine::Ticker,
    imports::State,
    instance::{Compiled, Instance},
    limits::{Limiter, MEMORY_BYTES_MAX},
    telemetry::Telemetry,
    text,
    wit::{self, PluginInfo},
};

/// The first bytes of a binary core module.
const MODULE_MAGIC: &[u8; 8] = b"\0asm\x01\0\0\0";

/// How long start functions and `describe` may take. JavaScript engines start slowly.
const DEADLINE_MS: u32 = 2_000;

/// Longest name of a plugin, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Longest version of a plugin, in bytes.
const VERSION_BYTES_MAX: usize = 64;

/// Checks a component or core module and asks it to describe itself.
pub(crate) fn inspect(linker: &Linker<State>, ticker: &Ticker, wasm: Bytes, bytes_max: usize) -> Result<Inspected, String> {
    check_size(&wasm, bytes_max)?;
    let component = if wasm.starts_with(COMPONENT_MAGIC) {
        wasm
    } else if wasm.starts_with(MODULE_MAGIC) {
        componentize(linker, &wasm)?
    } else {
        return Err("it is no WebAssembly: neither a component nor a core module".to_owned());
    };
    check_size(&component, bytes_max)?;
    let compiled = Compiled::new(linker, compile_component(linker, &component)?)?;
    let info = describe(&compiled, ticker)?;
    check_info(&info)?;
    Ok(Inspected {
        component,
        name: info.name,
        version: info.version,
        hooks: known_hooks(&info.hooks),
        config_schema: info.config_schema,
        interface: compiled.interface.name().to_owned(),
    })
}

/// Makes a component of a core module that carries its component type.
fn componentize(linker: &Linker<State>, module: &[u8]) -> Result<Bytes, String> {
    // The encoder expects a valid module; a hostile one must not get that far.
    Module::validate(linker.engine(), module).map_err(|error| text::line(&format!("{error:#}")))?;
    let encoded = ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|mut encoder| encoder.encode());
    encoded
        .map(Bytes::from)
        .map_err(|error| text::line(&format!("the core module makes no component: {error:#}")))
}

fn describe(compiled: &Compiled, ticker: &Ticker) -> Result<PluginInfo, String> {
    let state = State {
        limiter: Limiter::new(MEMORY_BYTES_MAX),
        telemetry: Arc::new(Telemetry::new("?", "?")),
        config: Arc::new(BTreeMap::new()),
        topic: "".into(),
    };
    let _time_passes = ticker.enter();
    let described = Instance::new(compiled, state, DEADLINE_MS).and_then(|mut instance| instance.describe(compiled, DEADLINE_MS));
    described.map_err(|failure| format!("asked to describe itself: {}", failure.reason()))
}

fn check_info(info: &PluginInfo) -> Result<(), String> {
    let name_is_fine = (1..=NAME_BYTES_MAX).contains(&info.name.len())
        && info
            .name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !name_is_fine {
        return Err(format!(
            "its name {:?} is not [a-z0-9-]{{1,{NAME_BYTES_MAX}}}",
            text::line(&info.name)
        ));
    }
    if !is_semver(&info.version) {
        return Err(format!("its version {:?} is no semantic version", text::line(&info.version)));
    }
    if known_hooks(&info.hooks).is_empty() {
        return Err("it names no hook that this broker has (produce, view)".to_owned());
    }
    if !info.config_schema.is_empty()
        && let Err(error) = serde_json::from_str::<IgnoredAny>(&info.config_schema)
    {
        return Err(format!("its configuration schema is not JSON: {error}"));
    }
    Ok(())
}

/// The hooks of the contract that this host runs.
pub(crate) fn known_hooks(hooks: &[wit::Hook]) -> Vec<Hook> {
    let mut known: Vec<Hook> = hooks
        .iter()
        .filter_map(|hook| match hook {
            wit::Hook::Produce => Some(Hook::Produce),
            wit::Hook::View => Some(Hook::View),
            wit::Hook::Transform => None,
        })
        .collect();
    known.sort_unstable();
    known.dedup();
    known
}

/// `major.minor.patch`, with an optional pre-release after `-` and build after `+`.
fn is_semver(version: &str) -> bool {
    let (rest, build) = version.split_once('+').map_or((version, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let numbers: Vec<&str> = core.split('.').collect();
    let is_number = |part: &&str| part.parse::<u64>().is_ok() && part.bytes().all(|byte| byte.is_ascii_digit());
    let has_leading_zero = |part: &&str| part.len() > 1 && part.starts_with('0');
    let is_suffix = |suffix: &str| {
        suffix
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
    };
    version.len() <= VERSION_BYTES_MAX
        && numbers.len() == 3
        && numbers.iter().all(is_number)
        && !numbers.iter().any(has_leading_zero)
        && pre.is_none_or(is_suffix)
        && build.is_none_or(is_suffix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semantic_versions_are_told_from_others() {
        for version in ["1.2.3", "0.0.0", "1.0.0-rc.1", "1.0.0+build-5", "1.0.0-a-b.2+c"] {
            assert!(is_semver(version), "{version}");
        }
        for version in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "01.2.3",
            "1.2.x",
            "1.2.3-",
            "1.2.3+",
            "+1.2.3",
            "1.2.3-a b",
            "1.2.3\n",
        ] {
            assert!(!is_semver(version), "{version}");
        }
    }
}
