//! The types of `sdk/wit/plugin.wit` as Rust sees them.
//!
//! What goes in is borrowed, so that nothing is copied but into the guest's memory; what comes out is owned, because the guest's
//! post-return may reuse its memory before we look. wasmtime checks these types against the component's when a function is looked up.

use wasmtime::component::{ComponentType, Lift, Lower};

/// Package and version of the contract.
pub(crate) const GUEST: &str = "millstream:plugin/guest@1.0.0";
/// The fast interface.
pub(crate) const BATCH: &str = "millstream:plugin/batch@1.0.0";
/// The easy interface.
pub(crate) const RECORDS: &str = "millstream:plugin/records@1.0.0";
/// The imports that the host offers.
pub(crate) const HOST: &str = "millstream:plugin/host@1.0.0";

/// Interfaces that may be imported, without their version.
pub(crate) const IMPORTS_ALLOWED: [&str; 2] = ["millstream:plugin/host", "millstream:plugin/types"];

/// `types.hook`
#[allow(dead_code, reason = "some are made by wasmtime only, from a guest's number")]
#[derive(ComponentType, Lift, Lower, Debug, Clone, Copy, PartialEq, Eq)]
#[component(enum)]
#[repr(u8)]
pub(crate) enum Hook {
    #[component(name = "produce")]
    Produce,
    #[component(name = "view")]
    View,
    /// Known to the contract; this version of the host runs none.
    #[component(name = "transform")]
    Transform,
}

/// `types.context`
#[derive(ComponentType, Lower, Debug, Clone)]
#[component(record)]
pub(crate) struct Context<'a> {
    pub(crate) hook: Hook,
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    #[component(name = "base-offset")]
    pub(crate) base_offset: i64,
    #[component(name = "base-timestamp")]
    pub(crate) base_timestamp: i64,
    #[component(name = "leader-epoch")]
    pub(crate) leader_epoch: i32,
    #[component(name = "record-count")]
    pub(crate) record_count: i32,
    pub(crate) principal: Option<&'a str>,
    #[component(name = "client-id")]
    pub(crate) client_id: Option<&'a str>,
    pub(crate) view: Option<&'a str>,
}

/// `types.plugin-info`
#[derive(ComponentType, Lift, Debug, Clone)]
#[component(record)]
pub(crate) struct PluginInfo {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) hooks: Vec<Hook>,
    #[component(name = "config-schema")]
    pub(crate) config_schema: String,
}

/// `types.header`, going in. The key is owned, as it may have to be made valid UTF-8.
#[derive(ComponentType, Lower, Debug, Clone)]
#[component(record)]
pub(crate) struct HeaderIn<'a> {
    pub(crate) key: String,
    pub(crate) value: Option<&'a [u8]>,
}

/// `types.record`
#[derive(ComponentType, Lower, Debug, Clone)]
#[component(record)]
pub(crate) struct RecordIn<'a> {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Vec<HeaderIn<'a>>,
}

/// `types.header`, coming out.
#[derive(ComponentType, Lift, Debug, Clone)]
#[component(record)]
pub(crate) struct HeaderOut {
    pub(crate) key: String,
    pub(crate) value: Option<Vec<u8>>,
}

/// `records.replacement`
#[derive(ComponentType, Lift, Debug, Clone)]
#[component(record)]
pub(crate) struct Replacement {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<HeaderOut>,
}

/// `records.verdict`
#[derive(ComponentType, Lift, Debug, Clone)]
#[component(variant)]
pub(crate) enum RecordVerdict {
    #[component(name = "keep")]
    Keep,
    #[component(name = "drop")]
    Drop,
    #[component(name = "replace")]
    Replace(Replacement),
    #[component(name = "reject")]
    Reject(String),
    #[component(name = "divert")]
    Divert(String),
}

/// `host.level`
#[allow(dead_code, reason = "made by wasmtime only, from a guest's number")]
#[derive(ComponentType, Lift, Debug, Clone, Copy, PartialEq, Eq)]
#[component(enum)]
#[repr(u8)]
pub(crate) enum Level {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}
