//! P3, P4: consume throughput of what was just produced, one partition, one fetch of up to 1 MiB at a time.

use anyhow::{Result, ensure};

use super::Context;
use crate::{
    baselines::null_source,
    load::{Batch, Until, consume, plain_values, produce},
    node::Node,
    stats::Samples,
    table::{Row, Target, Unit},
};

/// 1 KiB and 100-byte records, and what the larger ones cost.
pub fn run(context: &Context) -> Result<Vec<Row>> {
    let node = context.node("consume")?;
    let large = measure(context, &node, "large", 1024)?;
    let small = measure(context, &node, "small", 100)?;
    let throughput = |what, run: &Run, peers| {
        let row = Row::new("P3", what, Unit::MegabytesPerSecond, &run.consumed);
        row.against("null source", &run.source).target(Target::Note(peers))
    };
    let cpu = Row::new("P4", "CPU of the node, consume 1 KiB", Unit::CpuSecondsPerGigabyte, &large.cpu);
    Ok(vec![
        throughput("consume 1 KiB", &large, "kfake 568–701, Nisshi 688–1,074"),
        throughput("consume 100 B", &small, ""),
        cpu.target(Target::AtMost(0.3)),
    ])
}

#[derive(Default)]
struct Run {
    consumed: Samples,
    source: Samples,
    cpu: Samples,
}

fn measure(context: &Context, node: &Node, topic: &str, value_bytes: usize) -> Result<Run> {
    let batch = Batch::full(&plain_values(value_bytes))?;
    let count = batch.count_in(context.sizes.stream_bytes);
    node.create_topic(topic, 1, &[])?;
    let produced = produce(&node.kafka, topic, 1, &batch, count)?;
    let mut run = Run::default();
    for _ in context.repetitions() {
        run.source
            .push(null_source(&batch, count, value_bytes as u64)?.megabytes_per_second());
        let cpu_before = node.cpu_seconds()?;
        let consumed = consume(&node.kafka, topic, Until::HighWatermark, value_bytes as u64)?;
        run.cpu.push(consumed.per_gigabyte(node.cpu_seconds()? - cpu_before));
        run.consumed.push(consumed.megabytes_per_second());
        let (read, written) = (consumed.records, produced.records);
        ensure!(read == written, "{read} records of {topic} were read, {written} were acknowledged");
    }
    Ok(run)
}
