//! The tier: sealed segments go to the bucket, local copies are trimmed, and no reader notices.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millstream_e2e::{
    broker::{Broker, Options, S3_SECRET},
    clients::{self, Ran, kcat},
    link::Link,
    process,
    s3::S3Server,
};
use serde_json::Value;

const SCRIPT: &str = "load.py";
const TOPIC: &str = "tiered";
/// Records of one round: about 6 MiB that do not compress, so that each of two partitions seals two segments of 1 MiB or more.
const RECORDS: &str = "6000";
const RECORD_BYTES: &str = "1000";
/// Time for uploads and trims.
const TIER_DEADLINE: Duration = Duration::from_secs(60);

fn create_topic(broker: &Broker) -> Result<()> {
    let tiering = [
        "--config",
        "remote.storage.enable=true",
        "--config",
        "segment.bytes=1048576",
        "--config",
        "local.retention.bytes=1",
    ];
    broker.verb(&[&["topic", "create", TOPIC, "--partitions", "2"][..], &tiering].concat())?;
    Ok(())
}

/// `tier status` of the topic, one value per partition.
fn status(broker: &Broker) -> Result<Vec<Value>> {
    let status = broker.verb(&["tier", "status", "--topic", TOPIC])?;
    status.as_array().cloned().with_context(|| format!("not a list: {status}"))
}

fn number(partition: &Value, field: &str) -> Result<i64> {
    partition[field]
        .as_i64()
        .with_context(|| format!("no number {field} in {partition}"))
}

/// Waits until every sealed segment is in the bucket and no longer on disk.
fn wait_until_trimmed(broker: &Broker) -> Result<()> {
    process::until("trimmed local log", TIER_DEADLINE, || {
        let partitions = status(broker)?;
        let mut done = partitions.len() == 2;
        for partition in &partitions {
            // Nothing was committed to the bucket yet.
            let remote_end = partition["remote_end"].as_i64().unwrap_or(0);
            let local_start = number(partition, "local_start")?;
            ensure!(local_start <= remote_end, "records are neither here nor there: {partition}");
            done &= number(partition, "remote_segments")? > 0 && number(partition, "pending_bytes")? == 0 && local_start == remote_end;
        }
        Ok(done.then_some(()))
    })
}

/// The whole topic through librdkafka, and its size through the old one in kcat.
fn check_reads_all(broker: &Broker) -> Result<()> {
    clients::scenario(broker, SCRIPT, "read_numbered", &[TOPIC, RECORDS])?;
    if let Some(keys) = kcat(broker, &["-C", "-t", TOPIC, "-o", "beginning", "-e", "-q", "-f", "%k\\n"], b"")? {
        ensure!(
            keys.lines().count().to_string() == RECORDS,
            "kcat read {} records",
            keys.lines().count()
        );
    }
    Ok(())
}

fn round_trip(broker: &mut Broker) -> Result<()> {
    create_topic(broker)?;
    if clients::scenario(broker, SCRIPT, "fill", &[TOPIC, RECORDS, RECORD_BYTES])? == Ran::Skipped {
        return Ok(());
    }
    wait_until_trimmed(broker)?;
    check_reads_all(broker)?;
    broker.kill()?;
    broker.restart()?;
    check_reads_all(broker).context("after a crash")?;
    wait_until_trimmed(broker).context("after a crash")
}

#[test]
fn topic_is_read_from_a_local_directory_bucket_after_its_local_copy_is_gone() -> Result<()> {
    round_trip(&mut Broker::start(Options::tiered())?)
}

#[test]
fn topic_is_read_from_s3_after_its_local_copy_is_gone() -> Result<()> {
    let Some(server) = S3Server::start("mill")? else { return Ok(()) };
    let mut broker = Broker::start(
        Options::tiered()
            .env("MILLSTREAM_LOG", "debug")
            .s3("s3://mill/prefix", &server.endpoint),
    )?;
    round_trip(&mut broker)?;
    ensure!(!broker.log()?.contains(S3_SECRET), "the secret is in the log");
    Ok(())
}

#[test]
fn bucket_that_goes_away_holds_up_uploads_and_nothing_else() -> Result<()> {
    let Some(server) = S3Server::start("mill")? else { return Ok(()) };
    let link = Link::to(server.endpoint.trim_start_matches("http://"))?;
    let broker = Broker::start(Options::tiered().s3("s3://mill", &link.url()))?;
    // Cut first: the first thing that the tier does for a new topic then already needs the bucket.
    link.cut();
    create_topic(&broker)?;
    if clients::scenario(&broker, SCRIPT, "fill", &[TOPIC, RECORDS, RECORD_BYTES])? == Ran::Skipped {
        return Ok(());
    }
    let error = process::until("reported upload error", TIER_DEADLINE, || {
        Ok(status(&broker)?
            .iter()
            .find_map(|partition| partition["last_error"].as_str().map(str::to_owned)))
    })?;
    ensure!(!error.is_empty() && !error.contains(S3_SECRET), "{error}");
    check_reads_all(&broker).context("local data is served while the bucket is away")?;
    link.heal();
    wait_until_trimmed(&broker).context("uploads go on once the bucket is back")?;
    check_reads_all(&broker)
}

#[test]
fn broker_starts_and_serves_while_its_bucket_is_unreachable() -> Result<()> {
    let link = Link::to("127.0.0.1:9")?;
    link.cut();
    let broker = Broker::start(Options::tiered().s3("s3://mill", &link.url()))?;
    create_topic(&broker)?;
    if clients::scenario(&broker, SCRIPT, "fill", &[TOPIC, RECORDS, RECORD_BYTES])? == Ran::Yes {
        check_reads_all(&broker)?;
    }
    Ok(())
}

#[test]
fn records_deleted_below_an_offset_in_the_bucket_stay_deleted() -> Result<()> {
    let mut broker = Broker::start(Options::tiered())?;
    create_topic(&broker)?;
    if clients::scenario(&broker, SCRIPT, "fill", &[TOPIC, RECORDS, RECORD_BYTES])? == Ran::Skipped {
        return Ok(());
    }
    wait_until_trimmed(&broker)?;
    clients::scenario(&broker, SCRIPT, "delete_below", &[TOPIC, "0", "100"])?;
    broker.kill()?;
    broker.restart()?;
    clients::scenario(&broker, SCRIPT, "begins_at", &[TOPIC, "0", "100"])?;
    Ok(())
}

#[test]
fn times_are_found_in_the_bucket_to_the_record() -> Result<()> {
    let broker = Broker::start(Options::tiered())?;
    create_topic(&broker)?;
    if clients::scenario(&broker, SCRIPT, "fill", &[TOPIC, RECORDS, RECORD_BYTES])? == Ran::Skipped {
        return Ok(());
    }
    wait_until_trimmed(&broker)?;
    clients::scenario(&broker, SCRIPT, "find_by_time", &[TOPIC, "0"])?;
    Ok(())
}
