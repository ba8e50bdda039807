//! P5: from send to arrival at a waiting consumer, 1 KiB records at 1,000 per second, linger 0; on a topic with fsync and on one that
//! acknowledges from the page cache.

use anyhow::Result;

use super::Context;
use crate::{
    baselines::{echo_latencies, sync_latencies},
    load::{Pace, end_to_end, plain_values},
    stats::PercentileSamples,
    table::{Row, Target, Unit},
};

const PER_SECOND: u32 = 1000;
const VALUE_BYTES: usize = 1024;

/// Median and 99th percentile of both topics.
pub fn run(context: &Context) -> Result<Vec<Row>> {
    let pace = Pace {
        per_second: PER_SECOND,
        time: context.sizes.pace,
    };
    let value = plain_values(VALUE_BYTES).concat();
    let node = context.node("latency")?;
    let [mut echo, mut sync, mut fsync, mut cached]: [PercentileSamples; 4] = Default::default();
    for repetition in context.repetitions() {
        echo.push(&echo_latencies(VALUE_BYTES, pace)?);
        sync.push(&sync_latencies(context.home(), &value, pace)?);
        let topic = format!("fsync-{repetition}");
        node.create_topic(&topic, 1, &["millstream.durability=fsync"])?;
        fsync.push(&end_to_end(&node.kafka, &topic, &value, pace)?);
        let topic = format!("page-cache-{repetition}");
        node.create_topic(&topic, 1, &["millstream.durability=page-cache"])?;
        cached.push(&end_to_end(&node.kafka, &topic, &value, pace)?);
    }
    let row = |what, samples| Row::new("P5", what, Unit::Milliseconds, samples);
    let (p50, p99) = (Target::Note("kfake 0.18, Kafka 0.31"), Target::Note("kfake 0.50, Kafka 5.6"));
    Ok(vec![
        row("end-to-end p50, page-cache", &cached.p50_ms)
            .against("echo", &echo.p50_ms)
            .target(p50),
        row("end-to-end p99, page-cache", &cached.p99_ms)
            .against("echo", &echo.p99_ms)
            .target(p99),
        row("end-to-end p50, fsync", &fsync.p50_ms).against("append + fdatasync", &sync.p50_ms),
        row("end-to-end p99, fsync", &fsync.p99_ms).against("append + fdatasync", &sync.p99_ms),
    ])
}
