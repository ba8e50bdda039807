//! kafka-python, which shares no code with librdkafka; the scenarios are in `clients/kafka_python.py`.

use anyhow::Result;
use millstream_e2e::{
    broker::{Broker, Options},
    clients,
};

const SCRIPT: &str = "kafka_python.py";

/// Runs a scenario on a fresh broker.
fn check(scenario: &str) -> Result<()> {
    let broker = Broker::start(Options::new())?;
    clients::scenario(&broker, SCRIPT, scenario, &[])?;
    Ok(())
}

#[test]
fn kafka_python_reads_back_every_codec_and_record_shape() -> Result<()> {
    check("every_codec_and_record_shape")
}

#[test]
fn kafka_python_produces_at_every_acks_level() -> Result<()> {
    check("every_acks_level")
}

#[test]
fn kafka_python_idempotent_producer_keeps_order() -> Result<()> {
    check("idempotent_producer")
}

#[test]
fn kafka_python_groups_rebalance() -> Result<()> {
    check("groups_rebalance")
}

#[test]
fn kafka_python_group_resumes_at_its_commit() -> Result<()> {
    check("commit_and_resume")
}

#[test]
fn kafka_python_finds_offsets_by_time() -> Result<()> {
    check("offsets_for_times")
}

#[test]
fn kafka_python_administers_topics_and_configs() -> Result<()> {
    check("administration")
}

#[test]
fn kafka_python_administers_groups() -> Result<()> {
    check("group_administration")
}
