//! What guests can call: the four functions of the WIT interface `host`, and nothing else.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::value::RawValue;
use wasmtime::{
    Engine, StoreContextMut,
    component::{Linker, WasmStr},
};

use crate::{
    limits::Limiter,
    telemetry::Telemetry,
    wit::{HOST, Level},
};

/// The top-level fields of a binding's configuration.
pub(crate) type ConfigFields = BTreeMap<String, Box<RawValue>>;

/// Longest name a guest may pass for a metric or a configuration field, in bytes; longer ones name nothing.
const NAME_BYTES_MAX: usize = 256;

/// What a store holds beside the guest.
pub(crate) struct State {
    /// Counts the guest's memory.
    pub(crate) limiter: Limiter,
    /// Where its log lines and metrics go.
    pub(crate) telemetry: Arc<Telemetry>,
    /// For `config-get`.
    pub(crate) config: Arc<ConfigFields>,
    /// The topic of the batch at hand, for log lines.
    pub(crate) topic: Arc<str>,
}

/// A linker that knows our interface only. Strings are looked at in the guest's memory, so a long one costs the guest's time and
/// none of our memory.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    let mut host = linker.instance(HOST)?;
    host.func_wrap("log", |store: StoreContextMut<'_, State>, (level, message): (Level, WasmStr)| {
        let message = message.to_str(&store)?;
        let state = store.data();
        state.telemetry.log(&state.topic, level, &message);
        Ok(())
    })?;
    host.func_wrap("counter-add", |store: StoreContextMut<'_, State>, (name, delta): (WasmStr, u64)| {
        store.data().telemetry.counter_add(&name.to_str(&store)?, delta);
        Ok(())
    })?;
    host.func_wrap(
        "histogram-record",
        |store: StoreContextMut<'_, State>, (name, value): (WasmStr, f64)| {
            store.data().telemetry.histogram_record(&name.to_str(&store)?, value);
            Ok(())
        },
    )?;
    host.func_wrap("config-get", |store: StoreContextMut<'_, State>, (name,): (WasmStr,)| {
        let name = name.to_str(&store)?;
        let field = if name.len() <= NAME_BYTES_MAX {
            store.data().config.get(name.as_ref())
        } else {
            None
        };
        Ok((field.map(|json| json.get().to_owned()),))
    })?;
    Ok(linker)
}
