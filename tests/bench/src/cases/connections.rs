//! P8: what a thousand consumers that wait for records cost the others, and the node.

use std::{thread, time::Duration};

use anyhow::Result;

use super::{Context, startup::idle_percent};
use crate::{
    load::{Pace, Waiting, ack_latencies, plain_values},
    stats::{PercentileSamples, Samples},
    table::{Row, Target, Unit},
};

const TOPIC: &str = "acks";
/// The topic in which nothing ever comes.
const SILENT: &str = "silent";
const PER_SECOND: u32 = 500;
const VALUE_BYTES: usize = 1024;
/// Time for all of them to be waiting.
const SETTLE: Duration = Duration::from_secs(1);

/// Acknowledgement latency with and without them, resident memory and CPU.
pub fn run(context: &Context) -> Result<Vec<Row>> {
    let pace = Pace {
        per_second: PER_SECOND,
        time: context.sizes.pace,
    };
    let value = plain_values(VALUE_BYTES).concat();
    let [mut alone, mut among]: [PercentileSamples; 2] = Default::default();
    let [mut resident, mut idle]: [Samples; 2] = Default::default();
    let node = context.node("connections")?;
    node.create_topic(TOPIC, 1, &["millstream.durability=page-cache"])?;
    node.create_topic(SILENT, 1, &[])?;
    for _ in context.repetitions() {
        alone.push(&ack_latencies(&node.kafka, TOPIC, &value, pace)?);
        let waiting = (0..context.sizes.connections)
            .map(|_| Waiting::open(&node.kafka, SILENT))
            .collect::<Result<Vec<_>>>()?;
        thread::sleep(SETTLE);
        among.push(&ack_latencies(&node.kafka, TOPIC, &value, pace)?);
        idle.push(idle_percent(&node, context.sizes.idle)?);
        resident.push(node.resident_bytes()? as f64 / f64::from(1 << 20));
        waiting.into_iter().try_for_each(Waiting::check)?;
    }
    let count = context.sizes.connections;
    let not_slower = Target::AtMostBaseline { times: 1.2, plus: 0.0 };
    Ok(vec![
        Row::new(
            "P8",
            format!("acknowledgement p50, {count} waiting consumers"),
            Unit::Milliseconds,
            &among.p50_ms,
        )
        .against("no others", &alone.p50_ms)
        .target(not_slower),
        Row::new(
            "P8",
            format!("resident memory, {count} waiting consumers"),
            Unit::Mebibytes,
            &resident,
        )
        .target(Target::AtMost(150.0)),
        Row::new("P8", format!("idle CPU, {count} waiting consumers"), Unit::PercentOfCore, &idle).target(Target::AtMost(2.0)),
    ])
}
