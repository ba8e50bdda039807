//! librdkafka through confluent-kafka; the scenarios are in `clients/confluent.py`.

use anyhow::Result;
use millstream_e2e::{
    broker::{Broker, Options},
    clients,
};

const SCRIPT: &str = "confluent.py";

/// Runs a scenario on a fresh broker.
fn check(scenario: &str) -> Result<()> {
    let broker = Broker::start(Options::new())?;
    clients::scenario(&broker, SCRIPT, scenario, &[])?;
    Ok(())
}

#[test]
fn librdkafka_reads_back_every_codec_and_record_shape() -> Result<()> {
    check("every_codec_and_record_shape")
}

#[test]
fn librdkafka_produces_at_every_acks_level() -> Result<()> {
    check("every_acks_level")
}

#[test]
fn librdkafka_idempotent_producer_keeps_order() -> Result<()> {
    check("idempotent_producer")
}

#[test]
fn librdkafka_creates_a_topic_by_producing_to_it() -> Result<()> {
    check("automatic_topic_creation")
}

#[test]
fn librdkafka_groups_rebalance_with_every_assignor() -> Result<()> {
    check("groups_rebalance")
}

/// librdkafka's own tests count them too.
#[test]
fn librdkafka_members_see_as_many_rebalances_as_with_kafka() -> Result<()> {
    let options = Options::new().set("group.consumer.heartbeat.interval.ms", "500");
    let broker = Broker::start(options.set("group.consumer.min.heartbeat.interval.ms", "500"))?;
    for kind in ["range", "cooperative-sticky", "consumer"] {
        clients::scenario(&broker, SCRIPT, "rebalances_are_counted", &[kind])?;
    }
    Ok(())
}

#[test]
fn librdkafka_group_resumes_at_its_commit() -> Result<()> {
    check("commit_and_resume")
}

#[test]
fn librdkafka_static_member_returns_without_a_rebalance() -> Result<()> {
    check("static_membership")
}

#[test]
fn librdkafka_finds_offsets_by_time() -> Result<()> {
    check("offsets_for_times")
}

#[test]
fn librdkafka_administers_topics_and_configs() -> Result<()> {
    check("administration")
}

#[test]
fn librdkafka_deletes_records() -> Result<()> {
    check("delete_records")
}

#[test]
fn librdkafka_administers_groups() -> Result<()> {
    check("group_administration")
}

#[test]
fn librdkafka_is_told_of_oversized_records_and_unknown_topics() -> Result<()> {
    check("oversized_and_unknown")
}

#[test]
fn a_groups_commit_survives_a_restart_and_a_crash() -> Result<()> {
    let mut broker = Broker::start(Options::new())?;
    clients::scenario(&broker, SCRIPT, "commit_survives", &["before"])?;
    broker.stop()?;
    broker.restart()?;
    clients::scenario(&broker, SCRIPT, "commit_survives", &["after"])?;
    broker.kill()?;
    broker.restart()?;
    clients::scenario(&broker, SCRIPT, "commit_survives", &["after"])?;
    Ok(())
}
