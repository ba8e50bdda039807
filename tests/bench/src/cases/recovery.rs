//! P14: the start after a crash with one large segment that was still written to, against reading the segment's file. Once with the
//! file in the page cache, as after a kill, and once without, as after a power cut.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};

use super::{Context, check_ends, tier::files};
use crate::{
    baselines::{evict, read_files},
    load::{Batch, plain_values, produce},
    node::Node,
    stats::Samples,
    table::{Row, Target, Unit},
};

const TOPIC: &str = "unclean";
/// Kafka's default, and the size that is filled but not exceeded.
const SEGMENT_BYTES: &str = "segment.bytes=1073741824";

/// Bytes of the segment per second of the whole start.
pub fn run(context: &Context) -> Result<Vec<Row>> {
    let batch = Batch::full(&plain_values(1024))?;
    let mut node = context.node("recovery")?;
    node.create_topic(TOPIC, 1, &[SEGMENT_BYTES])?;
    let count = batch.count_in(context.sizes.recovery_bytes);
    let records = produce(&node.kafka, TOPIC, 1, &batch, count)?.records;
    let [mut warm, mut warm_read, mut cold, mut cold_read]: [Samples; 4] = Default::default();
    for _ in context.repetitions() {
        node.kill()?;
        let segment = [largest_log(&node)?];
        read_files(&segment)?;
        let (bytes, time) = read_files(&segment)?;
        warm_read.push(rate(bytes, time));
        warm.push(rate(bytes, recover(&mut node, records)?));
        node.kill()?;
        evict(&segment)?;
        let (bytes, time) = read_files(&segment)?;
        cold_read.push(rate(bytes, time));
        evict(&segment)?;
        cold.push(rate(bytes, recover(&mut node, records)?));
    }
    let row = |what, recovered, read| {
        let row = Row::new("P14", what, Unit::MegabytesPerSecond, recovered);
        row.against("read of the file", read).target(Target::RatioAtLeast(0.7))
    };
    Ok(vec![
        row("start on an unclean segment, in the page cache", &warm, &warm_read),
        row("start on an unclean segment, not in it", &cold, &cold_read),
    ])
}

/// Starts the killed node and checks that every acknowledged record is there; returns how long the start took.
fn recover(node: &mut Node, records: u64) -> Result<Duration> {
    node.start_again()?;
    check_ends(node, TOPIC, 1, records)?;
    Ok(node.start_time)
}

fn largest_log(node: &Node) -> Result<PathBuf> {
    let mut largest = None;
    for path in files(&node.data(), "log")? {
        let bytes = fs::metadata(&path)
            .with_context(|| format!("ask for the size of {}", path.display()))?
            .len();
        largest = largest.max(Some((bytes, path)));
    }
    largest.map(|(_, path)| path).context("the node has no segment")
}

fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}
