//! P12: a sequential read of records that are only in the bucket, by a node that just started and with the objects out of the page
//! cache; against reads of the objects' files as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::Context;
use crate::{
    baselines::{evict, read_files},
    load::{Batch, Moved, Until, consume, plain_values, produce},
    node::Node,
    stats::Samples,
    table::{Row, Target, Unit},
};

const TOPIC: &str = "tiered";
const VALUE_BYTES: usize = 1024;
/// Time for uploads and trims.
const TIER_DEADLINE: Duration = Duration::from_secs(180);
const POLL_PAUSE: Duration = Duration::from_millis(100);

/// Throughput of the cold read.
pub fn run(context: &Context) -> Result<Vec<Row>> {
    let batch = Batch::full(&plain_values(VALUE_BYTES))?;
    let bucket = context.home().join("tier").join("bucket");
    fs::create_dir_all(&bucket).context("create the bucket")?;
    let mut node = context.node_with("tier", tiering_arguments(&bucket))?;
    let segment_bytes = format!("segment.bytes={}", context.sizes.tier_segment_bytes);
    let configs = ["remote.storage.enable=true", "local.retention.bytes=1", &segment_bytes];
    node.create_topic(TOPIC, 1, &configs)?;
    produce(&node.kafka, TOPIC, 1, &batch, batch.count_in(context.sizes.tier_bytes))?;
    let remote_end = wait_until_trimmed(&node)?;
    let objects = files(&bucket, "mseg")?;
    ensure!(!objects.is_empty(), "no segment objects in {}", bucket.display());
    let (mut raw, mut cold) = (Samples::default(), Samples::default());
    for _ in context.repetitions() {
        evict(&objects)?;
        let (_, time) = read_files(&objects)?;
        let records = u64::try_from(remote_end).context("the bucket's end is an offset")?;
        let value_bytes = records * VALUE_BYTES as u64;
        raw.push(
            Moved {
                records,
                value_bytes,
                time,
            }
            .megabytes_per_second(),
        );
        node.restart()?;
        evict(&objects)?;
        let read = consume(&node.kafka, TOPIC, Until::Offset(remote_end), VALUE_BYTES as u64)?;
        ensure!(
            read.records == records,
            "{} records came from the bucket, {records} are in it",
            read.records
        );
        cold.push(read.megabytes_per_second());
    }
    let row = Row::new("P12", "cold read through the tier", Unit::MegabytesPerSecond, &cold);
    Ok(vec![row.against("read of the objects", &raw).target(Target::RatioAtLeast(0.7))])
}

/// A bucket in a directory; segments are uploaded and trimmed as soon as they can be.
fn tiering_arguments(bucket: &Path) -> Vec<String> {
    vec![
        format!("--bucket=file://{}", bucket.display()),
        "--set=log.retention.check.interval.ms=200".to_owned(),
        "--set=remote.log.manager.task.interval.ms=200".to_owned(),
    ]
}

/// Waits until every sealed segment is in the bucket and no longer on the local disk; returns where the bucket ends (exclusive).
fn wait_until_trimmed(node: &Node) -> Result<i64> {
    let deadline = Instant::now() + TIER_DEADLINE;
    loop {
        let status = node.get(&format!("/v1/tier?topic={TOPIC}"))?;
        if let Some(end) = trimmed_end(&status) {
            return Ok(end);
        }
        if Instant::now() >= deadline {
            bail!("the topic was not tiered within {} s: {status}", TIER_DEADLINE.as_secs());
        }
        thread::sleep(POLL_PAUSE);
    }
}

/// Where the bucket ends, if the topic's one partition has nothing to upload or trim.
fn trimmed_end(status: &Value) -> Option<i64> {
    let partition = status.get(0)?;
    let end = partition["remote_end"].as_i64()?;
    let pending = partition["pending_bytes"].as_u64()?;
    let local_start = partition["local_start"].as_i64()?;
    (pending == 0 && local_start == end).then_some(end)
}

/// The files below a directory that have this extension, in the order of their paths.
pub(super) fn files(directory: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let listed = fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))?;
        for entry in listed {
            let path = entry.with_context(|| format!("list {}", directory.display()))?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|own| own == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn topic_is_trimmed_once_nothing_is_pending_and_local_starts_where_the_bucket_ends() {
        let status = |pending: u64, local_start: i64| json!([{"remote_end": 100, "pending_bytes": pending, "local_start": local_start}]);
        assert_eq!(trimmed_end(&status(0, 100)), Some(100));
        assert_eq!(trimmed_end(&status(0, 50)), None);
        assert_eq!(trimmed_end(&status(1, 100)), None);
        assert_eq!(trimmed_end(&json!([])), None);
        assert_eq!(
            trimmed_end(&json!([{"remote_end": null, "pending_bytes": 0, "local_start": 0}])),
            None
        );
    }
}
