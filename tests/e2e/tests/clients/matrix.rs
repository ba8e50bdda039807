//! The matrix of clients and features: programs of `clients/` in the clients' own languages, each check a line of JSON. All lines go into the
//! test report, of which README's table is made.
//!
//! A check that fails fails the test, unless it is one of [`GAPS`]: what is not served, with the reason. One of those that passes is an
//! error as well, so that the list stays true.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use millstream_e2e::{
    broker::{Broker, Options},
    clients::{Ran, skipped},
    places,
    process::{self, Finished},
};
use serde_json::{Value, json};

/// Time that one program may take; its own deadlines are shorter and say more.
const PROGRAM_DEADLINE: Duration = Duration::from_secs(400);

/// Part of a check's text, and why it does not hold here.
const GAPS: &[(&str, &str)] = &[
    (
        "addRaftVoter and removeRaftVoter",
        "the metadata quorum is one node; voters come with replication",
    ),
    ("SCRAM credentials are", "there is no SASL yet"),
    ("alter_user_scram_credentials", "there is no SASL yet"),
];

/// A broker as the programs expect it: short timeouts, as the oracle of `apache_kafka.py` has them, and where a transaction follows another
/// at once, the patience that a loaded machine needs.
fn broker() -> Result<Broker> {
    let settings = [
        ("group.min.session.timeout.ms", "1000"),
        ("group.consumer.min.session.timeout.ms", "1000"),
        ("group.consumer.min.heartbeat.interval.ms", "500"),
        ("group.consumer.heartbeat.interval.ms", "500"),
        ("group.share.min.session.timeout.ms", "1000"),
        ("group.share.min.heartbeat.interval.ms", "500"),
        ("group.share.heartbeat.interval.ms", "500"),
        ("group.streams.min.session.timeout.ms", "1000"),
        ("group.streams.min.heartbeat.interval.ms", "500"),
        ("group.streams.heartbeat.interval.ms", "500"),
        ("group.streams.initial.rebalance.delay.ms", "0"),
        ("log.cleaner.backoff.ms", "500"),
        ("add.partitions.to.txn.retry.backoff.max.ms", "20000"),
    ];
    Broker::start(
        settings
            .iter()
            .fold(Options::new(), |options, (name, value)| options.set(name, value)),
    )
}

/// The lines of a program's checks, if it got to its end. Otherwise nobody knows which checks are left out.
fn checks(finished: &Finished) -> Result<Vec<Value>> {
    let lines = finished.stdout.lines().map(serde_json::from_str);
    let lines: Vec<Value> = lines.collect::<Result<_, _>>().context("read the checks")?;
    let expected = i32::from(lines.iter().any(|line| line["result"] == "fail"));
    ensure!(
        finished.status.code() == Some(expected) && !lines.is_empty(),
        "the program ended with {} after {} checks: {}",
        finished.status,
        lines.len(),
        finished.stderr
    );
    Ok(lines)
}

/// Runs a program against a broker of its own and judges its lines.
fn run(mut command: Command) -> Result<Ran> {
    let broker = broker()?;
    command.args(["--bootstrap", &broker.kafka]);
    let lines = checks(&process::run(&mut command, b"", PROGRAM_DEADLINE)?)?;
    let is_missing = lines.iter().all(|line| line["result"] == "skip");
    let missing = lines.first().filter(|_| is_missing).map(|line| line["detail"].to_string());
    let mut report = String::new();
    let mut wrong = Vec::new();
    for line in lines {
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let (check, result) = (text("check"), text("result"));
        let gap = GAPS.iter().find(|(part, _)| check.contains(part));
        let told = match (result.as_str(), gap) {
            ("fail", Some((_, reason))) => {
                json!({"client": line["client"], "feature": line["feature"], "check": check, "result": "gap", "detail": reason})
            }
            ("pass", Some(_)) => {
                wrong.push(format!("{check}: passes, but is listed as a gap"));
                line
            }
            ("fail", None) => {
                wrong.push(format!("{} {}: {check}: {}", text("client"), text("feature"), text("detail")));
                line
            }
            _ => line,
        };
        report.push_str(&format!("{told}\n"));
    }
    fs::create_dir_all(places::test_report()).context("make the test report's directory")?;
    let path = places::test_report().join("clients.jsonl");
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .context("open the report of clients")?;
    file.write_all(report.as_bytes()).context("note the checks")?;
    ensure!(wrong.is_empty(), "{} checks are wrong:\n{}", wrong.len(), wrong.join("\n"));
    missing.map_or(Ok(Ran::Yes), |reason| skipped(&reason))
}

fn python(script: &str) -> Result<Ran> {
    if !places::python().exists() {
        return skipped("target/venv has no Python; tests/setup/setup.sh python says why");
    }
    let mut command = Command::new(places::python());
    command.arg("-B").arg(places::client_scripts().join(script));
    run(command)
}

/// A directory below `target` that a set-up script fills.
fn set_up(name: &str, script: &str) -> Result<Option<PathBuf>> {
    let path = places::set_up(name);
    if path.exists() {
        return Ok(Some(path));
    }
    skipped(&format!("target/{name} is missing; tests/setup/{script} says why"))?;
    Ok(None)
}

fn java(main: &str) -> Result<Option<Command>> {
    let (Some(libs), Some(classes)) = (set_up("kafka/libs", "kafka.sh")?, set_up("kafka/classes", "kafka.sh")?) else {
        return Ok(None);
    };
    let mut command = Command::new("java");
    command.args(["-Xmx300m", "-XX:+UseSerialGC", "-cp"]);
    command.arg(format!("{}:{}/*", classes.display(), libs.display())).arg(main);
    Ok(Some(command))
}

fn javascript(script: &str) -> Result<Ran> {
    let Some(modules) = set_up("js/node_modules", "js.sh")? else {
        return Ok(Ran::Skipped);
    };
    let mut command = Command::new(places::set_up("js/node"));
    command
        .arg(places::client_scripts().join("js").join(script))
        .env("NODE_PATH", modules);
    run(command)
}

#[test]
fn java_clients_do_all_they_do_with_kafka() -> Result<()> {
    match java("Main")? {
        Some(command) => run(command).map(drop),
        None => Ok(()),
    }
}

#[test]
fn kafkas_own_tools_work() -> Result<()> {
    let Some(libs) = set_up("kafka/libs", "kafka.sh")? else {
        return Ok(());
    };
    if !places::python().exists() {
        return skipped("target/venv has no Python; tests/setup/setup.sh python says why").map(drop);
    }
    let mut command = Command::new(places::python());
    command
        .arg("-B")
        .arg(places::client_scripts().join("tools.py"))
        .arg("--jars")
        .arg(libs);
    run(command).map(drop)
}

#[test]
fn confluent_kafka_does_all_it_does_with_kafka() -> Result<()> {
    python("matrix_confluent.py").map(drop)
}

#[test]
fn kafka_python_does_all_it_does_with_kafka() -> Result<()> {
    python("matrix_kafka_python.py").map(drop)
}

#[test]
fn aiokafka_does_all_it_does_with_kafka() -> Result<()> {
    python("matrix_aiokafka.py").map(drop)
}

#[test]
fn kcat_does_all_it_does_with_kafka() -> Result<()> {
    python("matrix_kcat.py").map(drop)
}

#[test]
fn kafkajs_does_all_it_does_with_kafka() -> Result<()> {
    javascript("kafkajs.js").map(drop)
}

#[test]
fn platformatic_does_all_it_does_with_kafka() -> Result<()> {
    javascript("platformatic.js").map(drop)
}

#[test]
fn confluent_js_does_all_it_does_with_kafka() -> Result<()> {
    javascript("confluent.js").map(drop)
}

/// Sends the same requests to Apache Kafka itself and compares the answers; `accepted.json` lists what may differ, and why.
#[test]
fn answers_are_those_of_apache_kafka() -> Result<()> {
    let Some(mut command) = java("differential.Differential")? else {
        return Ok(());
    };
    if !places::python().exists() {
        return skipped("target/venv has no Python; tests/setup/setup.sh python says why").map(drop);
    }
    let home = tempfile::tempdir().context("make a home for the oracle")?;
    let oracle = Oracle::start(home.path())?;
    let settings = [
        ("group.min.session.timeout.ms", "1000"),
        ("group.consumer.min.session.timeout.ms", "1000"),
        ("group.consumer.min.heartbeat.interval.ms", "500"),
        ("group.consumer.heartbeat.interval.ms", "500"),
        ("group.share.min.session.timeout.ms", "1000"),
        ("group.share.min.heartbeat.interval.ms", "500"),
        ("group.share.heartbeat.interval.ms", "500"),
        ("group.streams.min.session.timeout.ms", "1000"),
        ("group.streams.min.heartbeat.interval.ms", "500"),
        ("group.streams.heartbeat.interval.ms", "500"),
        ("group.streams.initial.rebalance.delay.ms", "0"),
        ("group.share.min.record.lock.duration.ms", "1000"),
        ("offsets.topic.num.partitions", "5"),
        ("offsets.topic.replication.factor", "1"),
        ("transaction.state.log.num.partitions", "5"),
        ("transaction.state.log.replication.factor", "1"),
        ("transaction.state.log.min.isr", "1"),
        ("share.coordinator.state.topic.num.partitions", "5"),
        ("share.coordinator.state.topic.replication.factor", "1"),
        ("share.coordinator.state.topic.min.isr", "1"),
    ];
    let broker = Broker::start(
        settings
            .iter()
            .fold(Options::new(), |options, (name, value)| options.set(name, value)),
    )?;
    command.args(["--kafka", &oracle.kafka, "--bootstrap", &broker.kafka, "--scenarios"]);
    command.arg(places::client_scripts().join("differential"));
    let finished = process::run(&mut command, b"", PROGRAM_DEADLINE)?;
    let failed = finished.stdout.lines().filter(|line| line.contains("\"result\":\"fail\"")).count();
    ensure!(
        failed == 0 && finished.status.success(),
        "{failed} answers differ:\n{}",
        finished.stderr
    );
    Ok(())
}

/// Apache Kafka, one node; it ends when it is dropped, as its input then closes.
struct Oracle {
    kafka: String,
    child: std::process::Child,
}

impl Oracle {
    fn start(home: &std::path::Path) -> Result<Self> {
        use std::io::{BufRead, BufReader};
        let mut child = Command::new(places::python())
            .arg("-B")
            .arg(places::client_scripts().join("apache_kafka.py"))
            .arg("--libs")
            .arg(places::set_up("kafka/libs"))
            .arg("--dir")
            .arg(home)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .context("start Apache Kafka")?;
        let stdout = child.stdout.take().context("take the oracle's output")?;
        // It prints its address or ends; its own deadline bounds the wait.
        for line in BufReader::new(stdout).lines() {
            if let Some(kafka) = line.context("read the oracle's output")?.strip_prefix("kafka ") {
                return Ok(Self {
                    kafka: kafka.to_owned(),
                    child,
                });
            }
        }
        bail!("Apache Kafka did not start")
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if process::wait(&mut self.child, Duration::from_secs(20)).is_err() {
            drop(self.child.kill());
        }
        drop(self.child.wait());
    }
}
