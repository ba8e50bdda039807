//! The command line and the admin port: what operators and scripts see.

use anyhow::{Context, Result, ensure};
use millstream_e2e::{
    broker::{Broker, Options},
    http,
};

#[test]
fn topics_are_made_listed_altered_and_deleted() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    broker.verb(&["topic", "create", "orders", "--partitions", "3", "--config", "retention.ms=60000"])?;
    ensure!(broker.verb(&["topic", "ls"])?.to_string().contains("\"orders\""));
    let described = broker.verb(&["topic", "describe", "orders"])?.to_string();
    ensure!(described.contains("60000"), "the config is described: {described}");
    broker.verb(&["topic", "alter", "orders", "--partitions", "5", "--config", "retention.ms=70000"])?;
    let described = broker.verb(&["topic", "describe", "orders"])?.to_string();
    ensure!(described.contains("70000") && !described.contains("60000"), "{described}");
    broker.verb(&["topic", "alter", "orders", "--delete-config", "retention.ms"])?;
    ensure!(!broker.verb(&["topic", "describe", "orders"])?.to_string().contains("70000"));
    broker.verb(&["topic", "delete", "orders"])?;
    ensure!(!broker.verb(&["topic", "ls"])?.to_string().contains("\"orders\""));
    Ok(())
}

#[test]
fn tables_are_for_people() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    broker.verb(&["topic", "create", "orders", "--partitions", "3"])?;
    let table = broker.verb_raw(&["topic", "ls"], b"")?;
    ensure!(
        table.status.success() && table.stdout.contains("orders") && !table.stdout.trim_start().starts_with(['[', '{']),
        "{table:?}"
    );
    Ok(())
}

#[test]
fn lines_go_in_from_a_file_or_standard_input_and_come_out() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    broker.verb(&["topic", "create", "lines"])?;
    let path = broker.file("lines.txt", b"one\ntwo\n")?;
    let produced = broker.verb_raw(&["produce", "lines", &path, "--compression", "zstd"], b"")?;
    ensure!(produced.status.success(), "{produced:?}");
    let produced = broker.verb_raw(&["produce", "lines"], b"three\n")?;
    ensure!(produced.status.success(), "{produced:?}");
    let read = broker.verb_raw(&["consume", "lines", "--from", "earliest", "--max", "3"], b"")?;
    ensure!(read.status.success(), "{read:?}");
    let places: Vec<_> = ["one", "two", "three"].iter().map(|value| read.stdout.find(value)).collect();
    ensure!(places.iter().all(Option::is_some) && places.is_sorted(), "{read:?}");
    let rest = broker.verb_raw(&["consume", "lines", "--from", "2", "--max", "1"], b"")?;
    ensure!(rest.stdout.contains("three") && !rest.stdout.contains("two"), "{rest:?}");
    Ok(())
}

#[test]
fn json_lines_are_keyed_by_a_field() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    broker.verb(&["topic", "create", "json"])?;
    let produced = broker.verb_raw(
        &["produce", "json", "--format", "json", "--key-field", "id"],
        b"{\"id\":\"k1\",\"v\":1}\n",
    )?;
    ensure!(produced.status.success(), "{produced:?}");
    let read = broker.verb_raw(&["consume", "json", "--from", "earliest", "--max", "1", "--output", "json"], b"")?;
    ensure!(
        read.status.success() && read.stdout.matches("k1").count() >= 2,
        "key and value hold it: {read:?}"
    );
    let broken = broker.verb_raw(&["produce", "json", "--format", "json"], b"{\"id\":1}\nnot json\n")?;
    ensure!(
        !broken.status.success() && broken.stderr.contains("line 2"),
        "the error names the line: {broken:?}"
    );
    Ok(())
}

#[test]
fn groups_are_listed_described_and_deleted() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    broker.verb(&["topic", "create", "read"])?;
    broker.verb_raw(&["produce", "read"], b"a\nb\n")?;
    let read = broker.verb_raw(&["consume", "read", "--from", "earliest", "--group", "readers", "--max", "2"], b"")?;
    ensure!(read.status.success(), "{read:?}");
    ensure!(broker.verb(&["group", "ls"])?.to_string().contains("\"readers\""));
    ensure!(broker.verb(&["group", "describe", "readers"])?.to_string().contains("\"read\""));
    broker.verb(&["group", "delete", "readers"])?;
    ensure!(!broker.verb(&["group", "ls"])?.to_string().contains("\"readers\""));
    Ok(())
}

#[test]
fn admin_port_tells_health_and_metrics() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    broker.verb(&["topic", "create", "measured"])?;
    broker.verb_raw(&["produce", "measured"], b"a\nb\n")?;
    for path in ["/healthz", "/readyz"] {
        ensure!(http::get(&broker, path)?.status == 200, "{path}");
    }
    let metrics = http::get(&broker, "/metrics")?;
    ensure!(
        metrics.status == 200 && metrics.head.contains("application/openmetrics-text"),
        "{}",
        metrics.head
    );
    ensure!(
        metrics.body.trim_end().ends_with("# EOF") && metrics.body.contains("millstream_"),
        "{}",
        metrics.body
    );
    Ok(())
}

#[test]
fn every_path_of_the_openapi_document_that_takes_no_parameter_answers() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    let document = http::get(&broker, "/openapi.json")?.json()?;
    ensure!(
        document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")),
        "{}",
        document["openapi"]
    );
    let paths = document["paths"].as_object().context("the document has paths")?;
    ensure!(paths.keys().any(|path| path.starts_with("/v1/")), "{:?}", paths.keys());
    for (path, operations) in paths {
        if operations.get("get").is_some() && !path.contains('{') {
            let answer = http::get(&broker, path)?;
            ensure!(answer.status == 200, "GET {path}: {} {}", answer.status, answer.body);
        }
    }
    ensure!(http::get(&broker, "/v1/no-such-thing")?.status == 404);
    Ok(())
}

#[test]
fn sigterm_ends_the_broker_with_success_and_nothing_is_lost() -> Result<()> {
    let mut broker = Broker::start(Options::new())?;
    broker.verb(&["topic", "create", "kept", "--partitions", "2", "--config", "retention.ms=123456"])?;
    broker.verb_raw(&["produce", "kept"], b"one\ntwo\n")?;
    let status = broker.stop()?;
    ensure!(status.code() == Some(0), "SIGTERM ended it with {status}");
    broker.restart()?;
    ensure!(
        broker.verb(&["topic", "describe", "kept"])?.to_string().contains("123456"),
        "metadata survives"
    );
    let read = broker.verb_raw(&["consume", "kept", "--from", "earliest", "--max", "2"], b"")?;
    ensure!(read.stdout.contains("one") && read.stdout.contains("two"), "{read:?}");
    Ok(())
}
