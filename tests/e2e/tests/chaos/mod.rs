//! Crashes and stops under load: what was acknowledged is there afterwards, exactly once.

mod soak;

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use millstream_e2e::{
    broker::{Broker, Options},
    clients::{self, Background, Ran},
    process,
};

const SCRIPT: &str = "load.py";
/// Records that must be acknowledged between two crashes.
const RECORDS_BETWEEN: usize = 2000;

/// Waits until this many more records are acknowledged than `before`; returns how many there are.
fn wait_for_acks(broker: &mut Broker, before: usize) -> Result<usize> {
    let acked = broker.scratch("acked");
    process::until("acknowledged load", Duration::from_secs(60), || {
        ensure!(broker.is_running()?, "the broker died by itself");
        let lines = fs::read_to_string(&acked).map_or(0, |text| text.lines().count());
        Ok((lines >= before + RECORDS_BETWEEN).then_some(lines))
    })
}

/// Ends the broker `times` times under load with `end`, then checks every record that was acknowledged.
fn survives(options: Options, times: usize, end: impl Fn(&mut Broker) -> Result<()>) -> Result<()> {
    let mut broker = Broker::start(options)?;
    broker.verb(&[
        "topic",
        "create",
        "loaded",
        "--partitions",
        "3",
        "--config",
        "segment.bytes=1048576",
    ])?;
    let acked = broker.scratch("acked").to_string_lossy().into_owned();
    // A short scenario first: if the client is not installed, the test is a skip and not a failure.
    if clients::scenario(&broker, SCRIPT, "fill", &["warm-up", "1", "10"])? == Ran::Skipped {
        return Ok(());
    }
    let load = Background::start(&broker, SCRIPT, "produce_until_told", &["loaded", &acked])?;
    let mut acked_count = 0;
    for _ in 0..times {
        acked_count = wait_for_acks(&mut broker, acked_count)?;
        end(&mut broker)?;
        broker.restart()?;
    }
    wait_for_acks(&mut broker, acked_count)?;
    load.finish().context("the load goes on after every restart")?;
    clients::scenario(&broker, SCRIPT, "verify_acked", &["loaded", &acked])?;
    Ok(())
}

#[test]
fn kill_under_load_loses_and_repeats_no_acknowledged_record() -> Result<()> {
    survives(Options::new(), 3, Broker::kill)
}

#[test]
fn graceful_stop_under_load_loses_and_repeats_no_acknowledged_record() -> Result<()> {
    survives(Options::new(), 2, |broker| {
        let status = broker.stop()?;
        ensure!(status.success(), "SIGTERM under load ended with {status}");
        Ok(())
    })
}

#[test]
fn full_disk_refuses_records_and_keeps_what_it_acknowledged() -> Result<()> {
    let mut broker = Broker::start(Options::new().file_kib_max(8 << 10))?;
    broker.verb(&["topic", "create", "filled"])?;
    let acked = broker.scratch("acked").to_string_lossy().into_owned();
    if clients::scenario(&broker, SCRIPT, "fill_until_refused", &["filled", &acked])? == Ran::Skipped {
        return Ok(());
    }
    ensure!(broker.is_running()?, "a full disk ends the broker");
    broker
        .verb(&["topic", "ls"])
        .context("a full disk does not stop the broker from answering")?;
    broker.kill()?;
    broker
        .restart_with(Options::new())
        .context("the broker starts again once there is room")?;
    clients::scenario(&broker, SCRIPT, "verify_acked", &["filled", &acked])?;
    Ok(())
}
