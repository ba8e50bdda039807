//! P15: how long a start takes, with nothing and with a topic of 10,000 partitions; and what such a node costs while nobody talks to it.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::Context;
use crate::{
    load::high_watermark,
    node::Node,
    stats::Samples,
    table::{Row, Target, Unit},
};

const TOPIC: &str = "wide";
/// Time for the work that follows a start.
const SETTLE: Duration = Duration::from_secs(2);
/// Memory that a node may take before its first partition, and per partition.
const RESIDENT_MIB_MAX: f64 = 150.0;
const RESIDENT_KIB_PER_PARTITION_MAX: f64 = 8.0;

/// Start-up times, resident memory and idle CPU.
pub fn run(context: &Context) -> Result<Vec<Row>> {
    let [mut empty, mut wide, mut resident, mut idle]: [Samples; 4] = Default::default();
    let partitions = context.sizes.partitions;
    let mut node = context.node("wide")?;
    node.create_topic(TOPIC, partitions, &[])?;
    for repetition in context.repetitions() {
        empty.push(ms(context.node(&format!("empty-{repetition}"))?.start_time));
        node.restart()?;
        wide.push(ms(node.start_time));
        let end = high_watermark(&node.kafka, TOPIC, partitions - 1)?;
        ensure!(end == 0, "the last partition ends at {end}, nothing was produced");
        thread::sleep(SETTLE);
        idle.push(idle_percent(&node, context.sizes.idle)?);
        resident.push(node.resident_bytes()? as f64 / f64::from(1 << 20));
    }
    let resident_max = (RESIDENT_MIB_MAX + f64::from(partitions) * RESIDENT_KIB_PER_PARTITION_MAX / 1024.0).round();
    let row = |what: String, unit, samples| Row::new("P15", what, unit, samples);
    Ok(vec![
        row("start-up, empty".to_owned(), Unit::Milliseconds, &empty).target(Target::AtMost(100.0)),
        row(format!("start-up, {partitions} partitions"), Unit::Milliseconds, &wide).target(Target::AtMost(2000.0)),
        row(format!("resident memory, {partitions} partitions"), Unit::Mebibytes, &resident).target(Target::AtMost(resident_max)),
        row(format!("idle CPU, {partitions} partitions"), Unit::PercentOfCore, &idle).target(Target::AtMost(2.0)),
    ])
}

/// CPU of one core that the node uses while nobody talks to it.
pub(super) fn idle_percent(node: &Node, time: Duration) -> Result<f64> {
    let (started, before) = (Instant::now(), node.cpu_seconds()?);
    thread::sleep(time);
    Ok((node.cpu_seconds()? - before) / started.elapsed().as_secs_f64() * 100.0)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
