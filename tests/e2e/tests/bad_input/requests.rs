//! Requests that cannot be granted: names, configs, plugins, views.

use anyhow::{Result, ensure};
use millstream_e2e::{
    broker::{Broker, Options},
    clients, http, places, wire,
};

use super::check_names;

/// A core module with nothing in it.
const EMPTY_MODULE: &[u8] = b"\0asm\x01\0\0\0";
/// A core module that imports `wasi_snapshot_preview1.fd_write`, as a guest of a plain WASI tool chain does.
const WASI_MODULE: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x02\x23\x01\x16wasi_snapshot_preview1\x08fd_write\0\0";

#[test]
fn invalid_topic_names_are_refused() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    let long = "x".repeat(250);
    for name in ["..", ".", "a/b", "a b", "%2e", "ünicode", "", &long] {
        let error = broker.verb_refused(&["topic", "create", name])?;
        check_names(&error, &["name"])?;
    }
    broker.verb(&["topic", "create", &"x".repeat(249)])?;
    broker.verb(&["topic", "create", "a.b"])?;
    let error = broker.verb_refused(&["topic", "create", "a_b"])?;
    check_names(&error, &["a.b"])
}

#[test]
fn invalid_topic_configs_and_sizes_are_refused_and_nothing_is_made() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    for (config, words) in [
        ("no.such.config=1", &["no.such.config"][..]),
        ("retention.ms=soon", &["retention.ms", "soon"]),
        ("segment.bytes=-5", &["segment.bytes", "-5"]),
        ("cleanup.policy=burn", &["cleanup.policy", "burn"]),
        ("compression.type=rar", &["compression.type", "rar"]),
    ] {
        check_names(&broker.verb_refused(&["topic", "create", "refused", "--config", config])?, words)?;
    }
    for partitions in ["0", "-4", "1000000000"] {
        broker.verb_refused(&["topic", "create", "refused", "--partitions", partitions])?;
    }
    ensure!(!broker.verb(&["topic", "ls"])?.to_string().contains("refused"));
    broker.verb(&["topic", "create", "twice"])?;
    check_names(&broker.verb_refused(&["topic", "create", "twice"])?, &["twice", "exists"])?;
    wire::check_alive(&broker)
}

#[test]
fn unknown_things_are_named() -> Result<()> {
    let broker = Broker::start(Options::new().set("auto.create.topics.enable", "false"))?;
    let line = broker.file("line", b"a line\n")?;
    for verb in [
        &["topic", "describe", "ghost"][..],
        &["topic", "alter", "ghost", "--config", "retention.ms=1000"],
        &["topic", "delete", "ghost"],
        &["consume", "ghost", "--from", "earliest", "--max", "1"],
        &["produce", "ghost", &line],
        &["group", "describe", "ghost"],
        &["group", "delete", "ghost"],
        &["plugin", "bind", "ghost", "--topic", "ghost"],
        &["plugin", "rm", "ghost@1.0.0"],
        &["plugin", "unbind", "ghost", "ghost"],
        &["view", "create", "v", "--source", "ghost", "--plugin", "ghost"],
        &["view", "rm", "ghost"],
        &["tier", "status", "--topic", "ghost"],
    ] {
        check_names(&broker.verb_refused(verb)?, &["ghost"])?;
    }
    let missing = broker.verb_refused(&["plugin", "push", "/no/such/plugin.wasm"])?;
    check_names(&missing, &["/no/such/plugin.wasm"])
}

#[test]
fn wrong_plugin_files_are_refused_with_the_reason() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    let text = broker.file("text.wasm", b"this is no wasm")?;
    check_names(&broker.verb_refused(&["plugin", "push", &text])?, &["not a plugin"])?;
    let empty = broker.file("empty.wasm", b"")?;
    check_names(&broker.verb_refused(&["plugin", "push", &empty])?, &["not a plugin"])?;
    let module = broker.file("module.wasm", EMPTY_MODULE)?;
    check_names(&broker.verb_refused(&["plugin", "push", &module])?, &["not a plugin"])?;
    let wasi = broker.file("wasi.wasm", WASI_MODULE)?;
    check_names(&broker.verb_refused(&["plugin", "push", &wasi])?, &["wasi_snapshot_preview1"])?;
    ensure!(!broker.verb(&["plugin", "ls"])?.to_string().contains("wasi"));
    wire::check_alive(&broker)
}

#[test]
fn bad_plugin_configs_are_refused_when_they_are_bound() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    broker.verb(&["topic", "create", "bound"])?;
    for plugin in ["redact", "json-filter", "validate"] {
        broker.verb(&["plugin", "push", &places::plugin(plugin).to_string_lossy()])?;
    }
    for (plugin, config) in [
        ("redact", "not json"),
        ("redact", r#"{"fields":[{"pointer":"/a","action":"explode"}]}"#),
        ("redact", r#"{"nonsense":1}"#),
        ("json-filter", r#"{"where":{"field":"/a","op":"resembles","value":1}}"#),
        ("json-filter", "{}"),
        ("validate", r#"{"schema":{"type":"no-such-type"}}"#),
    ] {
        let error = broker.verb_refused(&["plugin", "bind", plugin, "--topic", "bound", "--config", config])?;
        check_names(&error, &["config"])?;
    }
    let produced = broker.verb_raw(&["produce", "bound"], b"anything\n")?;
    ensure!(produced.status.success(), "a refused binding binds nothing: {produced:?}");
    Ok(())
}

#[test]
fn bindings_that_would_be_unsafe_are_refused() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    broker.verb(&["topic", "create", "bound"])?;
    broker.verb(&["plugin", "push", &places::plugin("redact").to_string_lossy()])?;
    let config = r#"{"fields":[{"pointer":"/a","action":"hash"}],"salt":"s"}"#;
    let bind = ["plugin", "bind", "redact", "--topic", "bound", "--config", config];
    let error = broker.verb_refused(&[&bind[..], &["--security", "--policy", "pass"]].concat())?;
    check_names(&error, &["pass", "security"])?;
    let error = broker.verb_refused(&[&bind[..], &["--policy", "divert"]].concat())?;
    check_names(&error, &["divert", "dead-letter"])?;
    let error = broker.verb_refused(&[&bind[..], &["--policy", "divert", "--dead-letter-topic", "no/where"]].concat())?;
    check_names(&error, &["no/where"])
}

#[test]
fn producing_to_a_view_is_refused_on_every_way_in() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    broker.verb(&["topic", "create", "source"])?;
    broker.verb(&["plugin", "push", &places::plugin("json-filter").to_string_lossy()])?;
    let config = r#"{"where":{"field":"/a","op":"gt","value":1}}"#;
    let create = [
        "view",
        "create",
        "window",
        "--source",
        "source",
        "--plugin",
        "json-filter",
        "--config",
        config,
    ];
    broker.verb(&create)?;
    check_names(&broker.verb_refused(&create)?, &["window", "exists"])?;
    check_names(
        &broker.verb_refused(&["produce", "window", &broker.file("line", b"x\n")?])?,
        &["window", "view"],
    )?;
    check_names(&broker.verb_refused(&["topic", "delete", "source"])?, &["window"])?;
    Ok(())
}

#[test]
fn admin_port_answers_bad_requests_with_an_error() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    for (method, path, body) in [
        ("GET", "/v1/../../etc/passwd", ""),
        ("POST", "/v1/topics", "{"),
        ("POST", "/v1/topics", "[]"),
        ("POST", "/v1/plugins", "not a plugin"),
        ("DELETE", "/healthz", ""),
    ] {
        let answer = http::request(&broker, method, path, body)?;
        ensure!(
            (400..500).contains(&answer.status),
            "{method} {path}: {} {}",
            answer.status,
            answer.body
        );
    }
    ensure!(http::get(&broker, "/healthz")?.status == 200);
    Ok(())
}

#[test]
fn broker_is_fit_for_clients_after_refusing_much() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    for _ in 0..20 {
        broker.verb_refused(&["topic", "create", "a/b"])?;
    }
    clients::scenario(&broker, "confluent.py", "automatic_topic_creation", &[])?;
    Ok(())
}
