//! A compiled plugin and its live instances: the only code that calls into a guest.

use std::sync::Arc;

use millstream_abi::{HeaderRef, RecordReader, VerdictWriter};
use millstream_core::transform::{BatchContext, Hook};
use wasmtime::{
    AsContextMut, Store, Trap,
    component::{Component, ComponentExportIndex, Func, Instance as WasmInstance, InstancePre, Linker},
};

use crate::{
    engine::epochs,
    imports::State,
    limits, text,
    wit::{self, HeaderIn, PluginInfo, RecordIn, RecordVerdict},
};

/// Bytes that a call may hand back whatever its input: room for a message or a verdict on a tiny batch.
pub(crate) const REPLY_BYTES_FLOOR: usize = 64 << 10;

/// Bytes of a plugin's description, which carries a JSON Schema.
const DESCRIPTION_BYTES_MAX: usize = 256 << 10;

/// How often bigger than its input an output may be.
pub(crate) const AMPLIFICATION_MAX: usize = 4;

/// Which of the two processing interfaces a component exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interface {
    Batch,
    Records,
}

impl Interface {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Records => "records",
        }
    }
}

/// Why a call did not give a usable answer. After any of them the instance is thrown away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The guest said so: `Err(message)`.
    Refused(String),
    /// The guest broke.
    Crashed { kind: CrashKind, message: String },
}

/// How a guest broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CrashKind {
    Trap,
    Timeout,
    Memory,
    BadReply,
}

impl CrashKind {
    fn name(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::Memory => "out of memory",
            Self::BadReply => "bad reply",
        }
    }
}

impl Failure {
    /// A reply that breaks the contract.
    pub(crate) fn bad_reply(message: impl std::fmt::Display) -> Self {
        Self::Crashed {
            kind: CrashKind::BadReply,
            message: text::line(&message.to_string()),
        }
    }

    /// The failure as one line.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Refused(message) => message.clone(),
            Self::Crashed { kind, message } => text::line(&format!("{}: {message}", kind.name())),
        }
    }
}

/// A component, compiled and checked: it imports nothing but the host's interface, exports the contract and fits the limits.
pub(crate) struct Compiled {
    pub(crate) component: Component,
    pub(crate) interface: Interface,
    pre: InstancePre<State>,
    describe: ComponentExportIndex,
    init: ComponentExportIndex,
    process: ComponentExportIndex,
}

impl Compiled {
    /// Checks a component. The error is for the person who pushed it.
    pub(crate) fn new(linker: &Linker<State>, component: Component) -> Result<Self, String> {
        let component_type = component.component_type();
        for (name, _) in component_type.imports(linker.engine()) {
            let interface = name.split('@').next().unwrap_or(name);
            if !wit::IMPORTS_ALLOWED.contains(&interface) {
                return Err(format!("it imports {}; plugins can import {} only", text::line(name), wit::HOST));
            }
        }
        check_resources(&component)?;
        let export = |interface: &str, function: &str| {
            let index = component.get_export_index(None, interface)?;
            component.get_export_index(Some(&index), function)
        };
        let batch = export(wit::BATCH, "process").map(|index| (Interface::Batch, index));
        let records = || export(wit::RECORDS, "process").map(|index| (Interface::Records, index));
        let (interface, process) = batch
            .or_else(records)
            .ok_or_else(|| format!("it exports neither {} nor {}", wit::BATCH, wit::RECORDS))?;
        let missing = |function: &str| format!("it does not export {function} of {}", wit::GUEST);
        let describe = export(wit::GUEST, "describe").ok_or_else(|| missing("describe"))?;
        let init = export(wit::GUEST, "init").ok_or_else(|| missing("init"))?;
        let pre = linker
            .instantiate_pre(&component)
            .map_err(|error| text::line(&format!("{error:#}")))?;
        Ok(Self {
            component,
            interface,
            pre,
            describe,
            init,
            process,
        })
    }
}

/// The engine's allocator has refused memories and tables that start too large; what is left is how many there are.
fn check_resources(component: &Component) -> Result<(), String> {
    let Some(needs) = component.resources_required() else {
        return Err("it instantiates modules that it imports".to_owned());
    };
    if needs.num_memories > limits::MEMORIES_MAX || needs.num_tables > limits::TABLES_MAX {
        return Err(format!("it has {} memories and {} tables", needs.num_memories, needs.num_tables));
    }
    Ok(())
}

/// One call's input.
#[derive(Clone, Copy)]
pub(crate) struct CallInput<'a> {
    pub(crate) hook: Hook,
    pub(crate) topic: &'a Arc<str>,
    pub(crate) view: Option<&'a str>,
    pub(crate) context: &'a BatchContext,
    pub(crate) section: &'a [u8],
    pub(crate) record_count: u32,
    pub(crate) deadline_ms: u32,
}

/// A guest with memory of its own. Every call can be its last: see [`Failure`].
pub(crate) struct Instance {
    store: Store<State>,
    instance: WasmInstance,
    process: Func,
    interface: Interface,
    batches: u32,
}

impl Instance {
    /// Instantiates; start functions run within the deadline.
    pub(crate) fn new(compiled: &Compiled, state: State, deadline_ms: u32) -> Result<Self, Failure> {
        let mut store = Store::new(compiled.component.engine(), state);
        store.limiter(|state| &mut state.limiter);
        store.set_epoch_deadline(epochs(deadline_ms));
        store.set_hostcall_fuel(REPLY_BYTES_FLOOR);
        let made = compiled.pre.instantiate(&mut store);
        let instance = made.map_err(|error| failure(&store, &error))?;
        let process = instance
            .get_func(&mut store, compiled.process)
            .ok_or_else(|| Failure::bad_reply("no function process"))?;
        Ok(Self {
            store,
            instance,
            process,
            interface: compiled.interface,
            batches: 0,
        })
    }

    /// Batches processed.
    pub(crate) fn batches(&self) -> u32 {
        self.batches
    }

    /// True once its memory is so full that it should be replaced.
    pub(crate) fn above_high_water(&self) -> bool {
        self.store.data().limiter.above_high_water()
    }

    /// `guest.describe`
    pub(crate) fn describe(&mut self, compiled: &Compiled, deadline_ms: u32) -> Result<PluginInfo, Failure> {
        self.arm(deadline_ms, DESCRIPTION_BYTES_MAX);
        let (store, instance) = (&mut self.store, self.instance);
        let result = (|| {
            let describe = instance.get_typed_func::<(), (PluginInfo,)>(&mut *store, compiled.describe)?;
            describe.call(store.as_context_mut(), ())
        })();
        result.map(|(info,)| info).map_err(|error| failure(&self.store, &error))
    }

    /// `guest.init`
    pub(crate) fn init(&mut self, compiled: &Compiled, config: &str, deadline_ms: u32) -> Result<(), Failure> {
        self.arm(deadline_ms, REPLY_BYTES_FLOOR);
        let (store, instance) = (&mut self.store, self.instance);
        let result = (|| {
            let init = instance.get_typed_func::<(&str,), (Result<(), String>,)>(&mut *store, compiled.init)?;
            init.call(store.as_context_mut(), (config,))
        })();
        match result {
            Ok((Ok(()),)) => Ok(()),
            Ok((Err(reason),)) => Err(Failure::Refused(text::line(&reason))),
            Err(error) => Err(failure(&self.store, &error)),
        }
    }

    /// `batch.process` or `records.process`; the answer is a verdict list in `millstream-abi`'s layout, not yet checked.
    pub(crate) fn process(&mut self, input: &CallInput<'_>) -> Result<Vec<u8>, Failure> {
        self.batches += 1;
        self.store.data_mut().topic = input.topic.clone();
        match self.interface {
            Interface::Batch => self.process_batch(input),
            Interface::Records => self.process_records(input),
        }
    }

    fn process_batch(&mut self, input: &CallInput<'_>) -> Result<Vec<u8>, Failure> {
        self.arm(
            input.deadline_ms,
            input
                .section
                .len()
                .saturating_mul(AMPLIFICATION_MAX)
                .saturating_add(REPLY_BYTES_FLOOR),
        );
        let result = self
            .process
            .typed::<(wit::Context<'_>, &[u8]), (Result<Vec<u8>, String>,)>(&self.store)
            .and_then(|process| process.call(&mut self.store, (wit_context(input), input.section)));
        match result {
            Ok((Ok(reply),)) => Ok(reply),
            Ok((Err(reason),)) => Err(Failure::Refused(text::line(&reason))),
            Err(error) => Err(failure(&self.store, &error)),
        }
    }

    fn process_records(&mut self, input: &CallInput<'_>) -> Result<Vec<u8>, Failure> {
        let records = typed_records(input).map_err(|error| Failure::Refused(text::line(&error.to_string())))?;
        // Fuel counts our structs, not the guest's bytes: allow for the struct around every small record and header.
        let structs = input.section.len().saturating_mul(2 * size_of::<RecordVerdict>());
        self.arm(input.deadline_ms, structs.saturating_add(REPLY_BYTES_FLOOR));
        let result = self
            .process
            .typed::<(wit::Context<'_>, &[RecordIn<'_>]), (Result<Vec<RecordVerdict>, String>,)>(&self.store)
            .and_then(|process| process.call(&mut self.store, (wit_context(input), &records)));
        match result {
            Ok((Ok(verdicts),)) => encode_verdicts(&verdicts, input.record_count),
            Ok((Err(reason),)) => Err(Failure::Refused(text::line(&reason))),
            Err(error) => Err(failure(&self.store, &error)),
        }
    }

    /// Sets the clock, and what the next call may hand to the host.
    fn arm(&mut self, deadline_ms: u32, reply_bytes_max: usize) {
        self.store.set_epoch_deadline(epochs(deadline_ms));
        self.store.set_hostcall_fuel(reply_bytes_max);
    }
}

fn failure(store: &Store<State>, error: &wasmtime::Error) -> Failure {
    let (kind, message) = match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => (CrashKind::Timeout, "the deadline passed".to_owned()),
        trap => {
            let kind = match (store.data().limiter.was_denied(), trap) {
                (true, _) => CrashKind::Memory,
                (false, Some(_)) => CrashKind::Trap,
                (false, None) => CrashKind::BadReply,
            };
            (kind, trap.map_or_else(|| format!("{error:#}"), Trap::to_string))
        }
    };
    Failure::Crashed {
        kind,
        message: text::line(&message),
    }
}

fn wit_context<'a>(input: &CallInput<'a>) -> wit::Context<'a> {
    let hook = match input.hook {
        Hook::Produce => wit::Hook::Produce,
        Hook::View => wit::Hook::View,
    };
    wit::Context {
        hook,
        topic: input.topic,
        partition: input.context.partition,
        base_offset: input.context.base_offset,
        base_timestamp: input.context.base_timestamp,
        leader_epoch: input.context.leader_epoch,
        record_count: i32::try_from(input.record_count).unwrap_or(i32::MAX),
        principal: input.context.principal.as_deref(),
        client_id: input.context.client_id.as_deref(),
        view: input.view,
    }
}

/// The records as the easy interface sees them. On produce no offset is assigned yet: records count from 0 then.
fn typed_records<'a>(input: &CallInput<'a>) -> Result<Vec<RecordIn<'a>>, millstream_abi::AbiError> {
    let base_offset = input.context.base_offset.max(0);
    let count = i32::try_from(input.record_count).unwrap_or(i32::MAX);
    let record = |record: millstream_abi::RawRecord<'a>| RecordIn {
        offset: base_offset.saturating_add(i64::from(record.offset_delta)),
        timestamp: input.context.base_timestamp.saturating_add(record.timestamp_delta),
        key: record.key,
        value: record.value,
        // The contract has text here while Kafka takes any bytes; what is not UTF-8 shows as replacement characters.
        headers: record
            .headers
            .map(|header| HeaderIn {
                key: String::from_utf8_lossy(header.key).into_owned(),
                value: header.value,
            })
            .collect(),
    };
    RecordReader::new(input.section, count).map(|raw| raw.map(record)).collect()
}

fn encode_verdicts(verdicts: &[RecordVerdict], record_count: u32) -> Result<Vec<u8>, Failure> {
    if u32::try_from(verdicts.len()) != Ok(record_count) {
        return Err(Failure::bad_reply(format!(
            "{} verdicts for {record_count} records",
            verdicts.len()
        )));
    }
    let mut writer = VerdictWriter::new(record_count);
    for verdict in verdicts {
        match verdict {
            RecordVerdict::Keep => writer.keep(),
            RecordVerdict::Drop => writer.drop_record(),
            RecordVerdict::Replace(new) => {
                let headers: Vec<_> = new
                    .headers
                    .iter()
                    .map(|header| HeaderRef {
                        key: &header.key,
                        value: header.value.as_deref(),
                    })
                    .collect();
                writer.replace(Some(new.key.as_deref()), Some(new.value.as_deref()), Some(&headers));
            }
            RecordVerdict::Reject(reason) => writer.reject(reason),
            RecordVerdict::Divert(reason) => writer.divert(reason),
        }
    }
    writer.finish().map_err(Failure::bad_reply)
}
