//! P10: the json-filter plugin on the way in, against the same topic without it; 1 KiB JSON objects, throughput counted at the producer.

use anyhow::{Result, ensure};

use super::Context;
use crate::{
    load::{Batch, Moved, Pace, Until, consume, end_to_end, json_values, produce},
    node::Node,
    stats::{PercentileSamples, Samples},
    table::{Row, Target, Unit},
};

const PER_SECOND: u32 = 1000;
/// Both values of `keep` pass.
const KEEP_ALL: &str = r#"{"where":{"field":"/keep","op":"ge","value":0}}"#;
/// Every other record passes.
const KEEP_HALF: &str = r#"{"where":{"field":"/keep","op":"gt","value":0}}"#;

/// Throughput without a plugin, with one that keeps everything, with one that keeps half; and the latency that it adds.
pub fn run(context: &Context) -> Result<Vec<Row>> {
    let values = json_values();
    let value = values[0].clone();
    let batch = Batch::full(&values)?;
    let count = batch.count_in(context.sizes.stream_bytes);
    let pace = Pace {
        per_second: PER_SECOND,
        time: context.sizes.pace,
    };
    let node = context.node("plugins")?;
    let plugin = context.options.plugins.join("json-filter.wasm");
    ensure!(plugin.exists(), "{} is missing; `make plugins` builds it", plugin.display());
    node.verb(&["plugin", "push", &plugin.to_string_lossy()])?;
    let [mut none, mut all, mut half]: [Samples; 3] = Default::default();
    let [mut plain_latency, mut plugin_latency]: [PercentileSamples; 2] = Default::default();
    for repetition in context.repetitions() {
        let topic = |kind| format!("{kind}-{repetition}");
        none.push(throughput(&node, &topic("none"), None, &batch, count, 1)?.megabytes_per_second());
        all.push(throughput(&node, &topic("all"), Some(KEEP_ALL), &batch, count, 1)?.megabytes_per_second());
        half.push(throughput(&node, &topic("half"), Some(KEEP_HALF), &batch, count, 2)?.megabytes_per_second());
        create(&node, &topic("paced-none"), None)?;
        plain_latency.push(&end_to_end(&node.kafka, &topic("paced-none"), &value, pace)?);
        create(&node, &topic("paced-all"), Some(KEEP_ALL))?;
        plugin_latency.push(&end_to_end(&node.kafka, &topic("paced-all"), &value, pace)?);
    }
    let keep_all = Row::new(
        "P10",
        "produce 1 KiB through json-filter, keeps all",
        Unit::MegabytesPerSecond,
        &all,
    );
    let keep_half = Row::new(
        "P10",
        "produce 1 KiB through json-filter, keeps half",
        Unit::MegabytesPerSecond,
        &half,
    );
    let latency = Row::new(
        "P10",
        "end-to-end p99 through json-filter",
        Unit::Milliseconds,
        &plugin_latency.p99_ms,
    );
    Ok(vec![
        keep_all.against("no plugin", &none).target(Target::RatioAtLeast(0.9)),
        keep_half.against("no plugin", &none).target(Target::RatioAtLeast(0.8)),
        latency
            .against("no plugin", &plain_latency.p99_ms)
            .target(Target::AtMostBaseline { times: 1.0, plus: 1.0 }),
    ])
}

/// A topic with the plugin bound to it, or without.
fn create(node: &Node, topic: &str, config: Option<&str>) -> Result<()> {
    node.create_topic(topic, 1, &[])?;
    match config {
        Some(config) => node.verb(&["plugin", "bind", "json-filter", "--topic", topic, "--config", config]),
        None => Ok(()),
    }
}

/// Produces to a new topic, of whose records one in `kept_of` must be there afterwards.
fn throughput(node: &Node, topic: &str, config: Option<&str>, batch: &Batch, count: u64, kept_of: u64) -> Result<Moved> {
    create(node, topic, config)?;
    let moved = produce(&node.kafka, topic, 1, batch, count)?;
    let kept = consume(&node.kafka, topic, Until::HighWatermark, 0)?.records;
    let expected = moved.records / kept_of;
    ensure!(kept == expected, "{kept} records of {topic} were kept, {expected} should have been");
    node.verb(&["topic", "delete", topic])?;
    Ok(moved)
}
