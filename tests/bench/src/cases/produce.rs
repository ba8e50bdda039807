//! P1, P2, P4: produce throughput, acks=all with fsync, batches of 256 KiB, five requests in flight on one connection.

use anyhow::Result;

use super::{Context, check_ends};
use crate::{
    baselines::{append_synced, null_sink},
    load::{Batch, plain_values, produce},
    node::Node,
    stats::Samples,
    table::{Row, Target, Unit},
};

/// Partitions of the topics that are measured.
const PARTITIONS: [i32; 2] = [1, 12];
/// In-memory and page-cache peers on another day, with another client.
const PEERS_1_KIB: Target = Target::Note("kfake 481–549, Nisshi 590–671");

/// As above. The goal is 0.85 of what librdkafka can send at most, and librdkafka encodes every record anew; a client that does not
/// sends many times as much, so that the ratio to our null sink gives no verdict.
const PEERS_100_B: Target = Target::Note("librdkafka's ceiling 1,500–1,850 k/s");

/// 1 KiB records to 1 and 12 partitions, and what they cost.
pub fn large_records(context: &Context) -> Result<Vec<Row>> {
    let batch = Batch::full(&plain_values(1024))?;
    let count = batch.count_in(context.sizes.stream_bytes);
    let node = context.node("produce-1k")?;
    let [mut sink, mut raw, mut cpu]: [Samples; 3] = Default::default();
    let mut produced = PARTITIONS.map(|_| Samples::default());
    for repetition in context.repetitions() {
        sink.push(null_sink(&batch, count)?.megabytes_per_second());
        raw.push(append_synced(context.home(), &batch, count)?.megabytes_per_second());
        for (partitions, samples) in PARTITIONS.into_iter().zip(&mut produced) {
            let run = run_once(&node, &format!("p{partitions}-{repetition}"), partitions, &batch, count)?;
            samples.push(run.megabytes_per_second);
            if partitions == 1 {
                cpu.push(run.cpu_seconds_per_gigabyte);
            }
        }
    }
    let mut rows = Vec::new();
    for (partitions, samples) in PARTITIONS.into_iter().zip(&produced) {
        let plural = if partitions == 1 { "" } else { "s" };
        let row = Row::new(
            "P1",
            format!("produce 1 KiB, {partitions} partition{plural}"),
            Unit::MegabytesPerSecond,
            samples,
        );
        rows.push(row.clone().against("null sink", &sink).target(PEERS_1_KIB));
        rows.push(row.against("append, fdatasync every 32 MiB", &raw));
    }
    let row = Row::new("P4", "CPU of the node, produce 1 KiB", Unit::CpuSecondsPerGigabyte, &cpu);
    rows.push(row.target(Target::AtMost(1.0)));
    Ok(rows)
}

/// 100-byte records to one partition.
pub fn small_records(context: &Context) -> Result<Vec<Row>> {
    let batch = Batch::full(&plain_values(100))?;
    let count = batch.count_in(context.sizes.stream_bytes);
    let node = context.node("produce-100")?;
    let [mut sink, mut raw, mut produced]: [Samples; 3] = Default::default();
    for repetition in context.repetitions() {
        sink.push(null_sink(&batch, count)?.records_per_second());
        raw.push(append_synced(context.home(), &batch, count)?.records_per_second());
        produced.push(run_once(&node, &format!("small-{repetition}"), 1, &batch, count)?.records_per_second);
    }
    let row = Row::new("P2", "produce 100 B", Unit::PerSecond, &produced);
    Ok(vec![
        row.clone().against("null sink", &sink).target(PEERS_100_B),
        row.against("append, fdatasync every 32 MiB", &raw),
    ])
}

struct Run {
    megabytes_per_second: f64,
    records_per_second: f64,
    cpu_seconds_per_gigabyte: f64,
}

/// Produces to a new topic, and deletes it once its end was checked.
fn run_once(node: &Node, topic: &str, partitions: i32, batch: &Batch, count: u64) -> Result<Run> {
    node.create_topic(topic, partitions, &[])?;
    let cpu_before = node.cpu_seconds()?;
    let moved = produce(&node.kafka, topic, partitions, batch, count)?;
    let cpu = node.cpu_seconds()? - cpu_before;
    check_ends(node, topic, partitions, moved.records)?;
    node.verb(&["topic", "delete", topic])?;
    Ok(Run {
        megabytes_per_second: moved.megabytes_per_second(),
        records_per_second: moved.records_per_second(),
        cpu_seconds_per_gigabyte: moved.per_gigabyte(cpu),
    })
}
