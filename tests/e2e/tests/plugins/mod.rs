//! Plugins from push to view: what operators do, and what stock clients then see.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use millstream_e2e::{
    broker::{Broker, Options},
    clients::{self, Ran},
    http, places, process,
};
use serde_json::Value;

const SCRIPT: &str = "plugins.py";
/// Takes objects whose `n` is an integer.
const INTEGER_N: &str = r#"{"schema":{"type":"object","required":["n"],"properties":{"n":{"type":"integer"}}}}"#;
/// Diverts records whose `dep_time` is no integer.
const INTEGER_DEP_TIME: &str =
    r#"{"schema":{"type":"object","properties":{"dep_time":{"type":"integer"}},"required":["dep_time"]},"on_invalid":"divert"}"#;
const HASH_TAILNUM: &str = r#"{"fields":[{"pointer":"/tailnum","action":"hash"}],"salt":"e2e"}"#;

/// Pushes a ready-made plugin.
fn push(broker: &Broker, plugin: &str) -> Result<()> {
    let path = places::plugin(plugin);
    ensure!(path.exists(), "{} is missing; run: make plugins", path.display());
    broker.verb(&["plugin", "push", &path.to_string_lossy()])?;
    Ok(())
}

/// The topic `flights` with validate, then redact, and dead letters beside it.
fn bind_flights(broker: &Broker) -> Result<()> {
    push(broker, "validate")?;
    push(broker, "redact")?;
    broker.verb(&["topic", "create", "flights"])?;
    broker.verb(&["topic", "create", "flights.dead-letter"])?;
    let dead_letters = ["--dead-letter-topic", "flights.dead-letter"];
    let validate = [
        "plugin",
        "bind",
        "validate",
        "--topic",
        "flights",
        "--order",
        "10",
        "--config",
        INTEGER_DEP_TIME,
    ];
    broker.verb(&[&validate[..], &dead_letters].concat())?;
    broker.verb(&[
        "plugin",
        "bind",
        "redact",
        "--topic",
        "flights",
        "--order",
        "20",
        "--config",
        HASH_TAILNUM,
        "--security",
    ])?;
    Ok(())
}

/// Views over `source` that show the records whose field of the view's name is 1.
fn create_views(broker: &Broker, source: &str) -> Result<()> {
    push(broker, "json-filter")?;
    broker.verb(&["topic", "create", source])?;
    for view in ["nothing", "sparse", "all", "head"] {
        let config = format!(r#"{{"where":{{"field":"/{view}","op":"gt","value":0}}}}"#);
        broker.verb(&[
            "view",
            "create",
            view,
            "--source",
            source,
            "--plugin",
            "json-filter",
            "--config",
            &config,
        ])?;
    }
    Ok(())
}

#[test]
fn invalid_records_are_refused_by_name_and_valid_ones_pass() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    push(&broker, "validate")?;
    broker.verb(&["topic", "create", "checked"])?;
    broker.verb(&["plugin", "bind", "validate", "--topic", "checked", "--config", INTEGER_N])?;
    clients::scenario(&broker, SCRIPT, "invalid_records_are_refused", &["checked"])?;
    Ok(())
}

#[test]
fn records_are_validated_redacted_and_diverted_on_their_way_in() -> Result<()> {
    let mut broker = Broker::start(Options::new())?;
    bind_flights(&broker)?;
    if clients::scenario(&broker, SCRIPT, "redacted_and_diverted", &["flights", "flights.dead-letter"])? == Ran::Skipped {
        return Ok(());
    }
    let metrics = http::get(&broker, "/metrics")?.body;
    ensure!(
        metrics
            .lines()
            .any(|line| line.contains("plugin=\"redact\"") && line.contains("flights")),
        "{metrics}"
    );
    broker.kill()?;
    broker.restart()?;
    let refused = broker.verb_raw(&["produce", "flights"], b"{\"dep_time\":1,\"tailnum\":\"N4242\"}\n")?;
    ensure!(refused.status.success(), "{refused:?}");
    let last = broker.verb_raw(&["consume", "flights", "--from", "30", "--max", "1"], b"")?;
    ensure!(
        last.status.success() && !last.stdout.contains("N4242"),
        "bindings survive a crash: {last:?}"
    );
    Ok(())
}

#[test]
fn producers_cannot_forge_our_headers() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    broker.verb(&["topic", "create", "plain"])?;
    clients::scenario(&broker, SCRIPT, "reserved_headers_are_refused", &["plain"])?;
    Ok(())
}

#[test]
fn views_are_read_by_librdkafka_whatever_they_hide() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    create_views(&broker, "numbers")?;
    clients::scenario(&broker, SCRIPT, "views", &["numbers"])?;
    Ok(())
}

#[test]
fn views_are_read_by_kafka_python_whatever_they_hide() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    create_views(&broker, "numbers")?;
    clients::scenario(&broker, SCRIPT, "views_by_kafka_python", &["numbers"])?;
    Ok(())
}

#[test]
fn views_and_diverted_batches_are_read_by_kafkajs() -> Result<()> {
    let (modules, node) = (places::set_up("js/node_modules"), places::set_up("js/node"));
    if !modules.exists() {
        clients::skipped("target/js is missing; tests/setup/js.sh says why")?;
        return Ok(());
    }
    let broker = Broker::start(Options::new())?;
    create_views(&broker, "numbers")?;
    let shows = |view: &str, n: u32| match view {
        "sparse" => n == 500 || n == 501,
        "all" => true,
        "head" => n < 10,
        _ => false,
    };
    let views = ["nothing", "sparse", "all", "head"];
    let line = |n: u32| {
        let flags = views.map(|view| format!("\"{view}\":{}", u32::from(n == 1000 || shows(view, n))));
        format!("{{\"n\":{n},{}}}\n", flags.join(","))
    };
    let lines: String = (0..=1000).map(line).collect();
    ensure!(broker.verb_raw(&["produce", "numbers"], lines.as_bytes())?.status.success());
    // And a topic of whose first batch nothing is left.
    bind_flights(&broker)?;
    for (first, dep_time) in [(0, "null"), (2, "1")] {
        let records: String = (first..first + 2)
            .map(|n| format!("{{\"id\":{n},\"dep_time\":{dep_time},\"tailnum\":\"N{n}\"}}\n"))
            .collect();
        ensure!(broker.verb_raw(&["produce", "flights"], records.as_bytes())?.status.success());
    }
    let of_views = views.map(|view| (view, (0..=1000).filter(|n| *n == 1000 || shows(view, *n)).collect::<Vec<u32>>()));
    for (topic, offsets) in of_views.into_iter().chain([("flights", vec![2, 3])]) {
        let mut command = Command::new(&node);
        command.env("NODE_PATH", &modules).arg(places::client_scripts().join("js/views.js"));
        command.args([&broker.kafka, topic, &serde_json::to_string(&offsets)?]);
        let finished = process::run(&mut command, b"", Duration::from_secs(60))?;
        ensure!(finished.status.success(), "{topic}: {}", finished.stderr);
    }
    Ok(())
}

#[test]
fn a_producer_goes_on_after_its_last_record_was_diverted() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    bind_flights(&broker)?;
    clients::scenario(&broker, SCRIPT, "sequences_count_what_was_diverted", &["flights"])?;
    Ok(())
}

#[test]
fn resent_batches_are_not_diverted_again() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    bind_flights(&broker)?;
    let topics = ["flights", "flights.dead-letter"];
    clients::scenario(&broker, SCRIPT, "resent_batches_are_not_diverted_again", &topics)?;
    Ok(())
}

#[test]
fn a_view_of_many_idle_partitions_shows_the_last_one_too() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    broker.verb(&["topic", "create", "wide", "--partitions", "48"])?;
    push(&broker, "json-filter")?;
    let config = r#"{"where":{"field":"/n","op":"gt","value":0}}"#;
    broker.verb(&[
        "view",
        "create",
        "narrow",
        "--source",
        "wide",
        "--plugin",
        "json-filter",
        "--config",
        config,
    ])?;
    if clients::kcat(&broker, &["-P", "-t", "wide", "-p", "47"], b"{\"n\":1}\n")?.is_none() {
        return Ok(());
    }
    let read = clients::kcat(&broker, &["-C", "-t", "narrow", "-o", "beginning", "-c", "1", "-q"], b"")?;
    ensure!(read.as_deref() == Some("{\"n\":1}\n"), "{read:?}");
    Ok(())
}

#[test]
fn views_take_no_records_and_survive_a_restart_until_they_are_removed() -> Result<()> {
    let mut broker = Broker::start(Options::new())?;
    create_views(&broker, "numbers")?;
    clients::scenario(&broker, SCRIPT, "views_take_no_records", &["sparse"])?;
    broker.stop()?;
    broker.restart()?;
    ensure!(broker.verb(&["view", "ls"])?.to_string().contains("\"sparse\""));
    broker.verb_raw(&["produce", "numbers"], b"{\"sparse\":0}\n{\"sparse\":1}\n")?;
    let read = broker.verb_raw(&["consume", "sparse", "--from", "earliest", "--max", "1"], b"")?;
    ensure!(read.stdout.contains("{\"sparse\":1}"), "{read:?}");
    for view in ["nothing", "sparse", "all", "head"] {
        broker.verb(&["view", "rm", view])?;
    }
    ensure!(!broker.verb(&["view", "ls"])?.to_string().contains("\"sparse\""));
    Ok(())
}

#[test]
fn plugins_are_listed_unbound_and_removed_and_not_while_in_use() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    bind_flights(&broker)?;
    let listed = broker.verb(&["plugin", "ls"])?;
    ensure!(
        listed.to_string().contains("redact") && listed.to_string().contains("validate"),
        "{listed}"
    );
    let version = version_of(&listed, "redact")?;
    let in_use = broker.verb_refused(&["plugin", "rm", &format!("redact@{version}")])?;
    ensure!(in_use.contains("redact") && in_use.contains("flights"), "{in_use}");
    broker.verb(&["plugin", "unbind", "flights", "redact"])?;
    broker.verb(&["plugin", "rm", &format!("redact@{version}")])?;
    broker.verb_raw(&["produce", "flights"], b"{\"dep_time\":1,\"tailnum\":\"N4242\"}\n")?;
    let read = broker.verb_raw(&["consume", "flights", "--from", "earliest", "--max", "1"], b"")?;
    ensure!(read.stdout.contains("N4242"), "unbound means untouched: {read:?}");
    Ok(())
}

/// The version that `plugin ls` lists for a plugin: an array of objects with `name` and `version`.
fn version_of(listed: &Value, plugin: &str) -> Result<String> {
    let entry = listed
        .as_array()
        .and_then(|plugins| plugins.iter().find(|entry| entry["name"] == plugin));
    let version = entry.and_then(|entry| entry["version"].as_str());
    version
        .map(str::to_owned)
        .with_context(|| format!("{plugin} and its version are not in {listed}"))
}
