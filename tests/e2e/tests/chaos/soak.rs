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
/// Violations that a failure shows.
const SHOWN: usize = 20;

/// What a run must contain, or it proves nothing.
fn check_substance(history: &History) -> Result<()> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut ends: BTreeMap<u64, bool> = BTreeMap::new();
    let mut deletions = BTreeSet::new();
    let compacted = history.events.iter().find_map(|(_, event)| match event {
        Event::Compacted { topic, .. } => Some(*topic),
        _ => None,
    });
    // Calls about the compacted topic: records sent, and those of the last reads.
    let mut of_compacted = BTreeMap::new();
    let (mut sent, mut kept) = (0, 0);
    for (_, event) in &history.events {
        match event {
            Event::Invoke(id, Call::Send { partition, values, .. }) if Some(partition.topic) == compacted => {
                of_compacted.insert(*id, values.len());
            }
            Event::Invoke(id, Call::Read { partition, last: true, .. }) if Some(partition.topic) == compacted => {
                of_compacted.insert(*id, 0);
            }
            Event::Invoke(id, Call::DeleteRecords { before, .. }) if *before > 0 => {
                deletions.insert(*id);
            }
            Event::Ok(id, Answer::Sent(_)) => sent += of_compacted.get(id).copied().unwrap_or(0),
            Event::Ok(id, Answer::Records(records)) if of_compacted.contains_key(id) => kept += records.len(),
            _ => {}
        }
        let what = match event {
            Event::Invoke(id, Call::EndTransaction { commit, .. }) => {
                ends.insert(*id, *commit);
                continue;
            }
            Event::Ok(id, Answer::Done) if ends.contains_key(id) => {
                if ends[id] {
                    "transactions committed"
                } else {
                    "transactions aborted"
                }
            }
            Event::Ok(id, Answer::Done) if deletions.contains(id) => "deletions",
            Event::Ok(_, Answer::Sent(_)) => "records acknowledged",
            Event::Ok(_, Answer::Records(records)) if !records.is_empty() => "reads",
            Event::Ok(_, Answer::Committed(offset)) if *offset > 0 => "committed offsets found",
            Event::Ok(_, Answer::Bounds { .. }) => "bounds told",
            Event::Ok(_, Answer::Offset(offset)) if *offset > 0 => "offsets by time and epoch told",
            Event::Holds { partitions, .. } if !partitions.is_empty() => "assignments",
            _ => continue,
        };
        *seen.entry(what).or_default() += 1;
    }
    println!("{seen:?}");
    for (what, least) in [
        ("records acknowledged", 1000),
        ("reads", 100),
        ("transactions committed", 20),
        ("transactions aborted", 3),
        ("committed offsets found", 10),
        ("bounds told", 25),
        ("offsets by time and epoch told", 10),
        ("assignments", 10),
        ("deletions", 1),
    ] {
        let count = seen.get(what).copied().unwrap_or(0);
        ensure!(count >= least, "only {count} {what} in the history");
    }
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
    if !load.finish_or_kill().context("the clients end well")? {
        // librdkafka can wait for ever inside a call. What it had begun has no outcome then, as after any client's crash.
        println!("the clients hung in their library, and were killed");
    }
    clients::scenario(&broker, SCRIPT, "finish", &[&path.to_string_lossy()])?;
    ensure!(broker.is_running()?, "the broker died by itself");
    let history = History::read(BufReader::new(File::open(&path).context("open the history")?))?;
    check_substance(&history)?;
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
