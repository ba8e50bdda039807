//! Churning groups, transactions, compaction and crashes at once, written down by the clients and judged by `millstream-history`.
//!
//! `make test` does it for seconds, `make soak` for ten minutes.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fs::{self, File},
    io::BufReader,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use millstream_e2e::{
    broker::{Broker, Options},
    clients::{self, Background, Ran},
    places,
};
use millstream_history::{
    check::violations,
    history::{Answer, Call, Event, History},
};

const SCRIPT: &str = "soak.py";
/// Environment variable for how long it goes on.
const SECONDS: &str = "MILLSTREAM_SOAK_SECONDS";
const SECONDS_DEFAULT: u64 = 25;
/// Crashes per run.
const CRASHES: u32 = 6;
/// Groups whose members come and go.
const GROUPS: usize = 3;
/// Violations that a failure shows.
const SHOWN: usize = 20;

/// What a run must contain at least, or it proves nothing.
const SUBSTANCE: &[(&str, usize)] = &[
    ("records acknowledged", 1000),
    ("reads", 100),
    ("transactions committed", 20),
    ("transactions aborted", 3),
    ("transactions given up while committing", 1),
    ("committed offsets found", 10),
    ("bounds told", 50),
    ("bounds told in the second half", 25),
    ("offsets by time told", 10),
    ("offsets by time told in the second half", 5),
    ("ends of epochs told", 10),
    ("epochs whose end was told", 2),
    ("assignments", 10),
    ("deletions", 2),
];

/// Counts what a run of this length contains. Most of it must go on after a crash as it did before.
fn substance(history: &History, seconds: u64) -> BTreeMap<&'static str, usize> {
    let start = history.events.first().map_or(0, |(time, _)| *time);
    let middle = start + i64::try_from(seconds * 500).unwrap_or(i64::MAX);
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut calls: BTreeMap<u64, &Call> = BTreeMap::new();
    let mut epochs = BTreeSet::new();
    let mut count = |what| *seen.entry(what).or_default() += 1;
    for (time, event) in &history.events {
        let is_late = *time > middle;
        match event {
            Event::Invoke(id, call) => {
                calls.insert(*id, call);
            }
            Event::Ok(id, answer) => match (calls.get(id), answer) {
                (Some(Call::EndTransaction { commit: true, .. }), _) => count("transactions committed"),
                (Some(Call::EndTransaction { .. }), _) => count("transactions aborted"),
                (Some(Call::DeleteRecords { before, .. }), _) if *before > 0 => count("deletions"),
                (Some(Call::Bounds { last: false, .. }), _) => {
                    count("bounds told");
                    if is_late {
                        count("bounds told in the second half");
                    }
                }
                (Some(Call::OffsetAt { .. }), Answer::Offset(0..)) => {
                    count("offsets by time told");
                    if is_late {
                        count("offsets by time told in the second half");
                    }
                }
                (Some(Call::EpochEnd { epoch, .. }), _) => {
                    count("ends of epochs told");
                    if epochs.insert(*epoch) {
                        count("epochs whose end was told");
                    }
                }
                (_, Answer::Sent(_)) => count("records acknowledged"),
                (_, Answer::Records(records)) if !records.is_empty() => count("reads"),
                (_, Answer::Committed(1..)) => count("committed offsets found"),
                _ => {}
            },
            Event::Unknown(id) if matches!(calls.get(id), Some(Call::EndTransaction { commit: true, .. })) => {
                count("transactions given up while committing");
            }
            Event::Holds { partitions, .. } if !partitions.is_empty() => count("assignments"),
            Event::AtRest { .. } => count("groups at rest"),
            _ => {}
        }
    }
    seen
}

/// Records that were sent to the compacted topic, and those that are there in the end.
fn compacted(history: &History) -> (usize, usize) {
    let topic = history.events.iter().find_map(|(_, event)| match event {
        Event::Compacted { topic, .. } => Some(*topic),
        _ => None,
    });
    let mut calls = BTreeMap::new();
    let (mut sent, mut kept) = (0, 0);
    for (_, event) in &history.events {
        match event {
            Event::Invoke(id, Call::Send { partition, values, .. }) if Some(partition.topic) == topic => {
                calls.insert(*id, values.len());
            }
            Event::Invoke(id, Call::Read { partition, last: true, .. }) if Some(partition.topic) == topic => {
                calls.insert(*id, 0);
            }
            Event::Ok(id, Answer::Sent(_)) => sent += calls.get(id).copied().unwrap_or(0),
            Event::Ok(id, Answer::Records(records)) if calls.contains_key(id) => kept += records.len(),
            _ => {}
        }
    }
    (sent, kept)
}

fn check_substance(history: &History, seconds: u64, has_ended_well: bool) -> Result<()> {
    let seen = substance(history, seconds);
    println!("{seen:?}");
    let at_rest = ("groups at rest", if has_ended_well { GROUPS } else { 0 });
    for (what, least) in SUBSTANCE.iter().chain([&at_rest]) {
        let count = seen.get(what).copied().unwrap_or(0);
        ensure!(count >= *least, "only {count} {what} in the history");
    }
    let (sent, kept) = compacted(history);
    ensure!(kept < sent, "nothing was compacted away: {kept} of {sent} records are there");
    Ok(())
}

#[test]
fn clients_that_do_everything_at_once_are_told_no_lies() -> Result<()> {
    let seconds = env::var(SECONDS)
        .map_or(Ok(SECONDS_DEFAULT), |seconds| seconds.parse())
        .context(SECONDS)?;
    let options = Options::new()
        .set("log.cleaner.backoff.ms", "500")
        .set("group.min.session.timeout.ms", "1000")
        .set("group.consumer.min.session.timeout.ms", "1000")
        .set("group.consumer.session.timeout.ms", "3000")
        .set("group.consumer.min.heartbeat.interval.ms", "300")
        .set("group.consumer.heartbeat.interval.ms", "300");
    let mut broker = Broker::start(options)?;
    // It stays there for whoever wants to know more: `millstream-history FILE`.
    fs::create_dir_all(places::test_report()).context("make the test report's directory")?;
    let path = places::test_report().join("soak-history.jsonl");
    if path.exists() {
        fs::remove_file(&path).context("remove the history of an earlier run")?;
    }
    if clients::scenario(&broker, "load.py", "fill", &["warm-up", "1", "10"])? == Ran::Skipped {
        return Ok(());
    }
    let load = Background::start(&broker, SCRIPT, "run", &[&path.to_string_lossy()])?;
    let started = Instant::now();
    for crash in 1..=CRASHES {
        let at = Duration::from_secs(seconds) * crash / (CRASHES + 1);
        thread::sleep(at.saturating_sub(started.elapsed()));
        broker.kill()?;
        broker.restart()?;
    }
    thread::sleep(Duration::from_secs(seconds).saturating_sub(started.elapsed()));
    let has_ended_well = load.finish_or_kill().context("the clients end well")?;
    if !has_ended_well {
        // librdkafka can wait for ever inside a call. What it had begun has no outcome then, as after any client's crash.
        println!("the clients hung in their library, and were killed");
    }
    clients::scenario(&broker, SCRIPT, "finish", &[&path.to_string_lossy()])?;
    ensure!(broker.is_running()?, "the broker died by itself");
    let history = History::read(BufReader::new(File::open(&path).context("open the history")?))?;
    check_substance(&history, seconds, has_ended_well)?;
    let found = violations(&history);
    let shown: Vec<String> = found.iter().take(SHOWN).map(ToString::to_string).collect();
    ensure!(
        found.is_empty(),
        "{} violations, of which the first:\n{}",
        found.len(),
        shown.join("\n")
    );
    Ok(())
}
