//! P6: what durability costs, acks=all with fsync: the acknowledgement of a lone producer, and those of 64 that each wait for theirs.

use anyhow::Result;

use super::{Context, check_ends};
use crate::{
    baselines::{group_commits_per_second, sync_latencies},
    load::{Pace, ack_latencies, acks_per_second, plain_values},
    stats::{PercentileSamples, Samples},
    table::{Row, Target, Unit},
};

const PER_SECOND: u32 = 100;
const PRODUCERS: usize = 64;
const VALUE_BYTES: usize = 1024;

/// Acknowledgement time at a low rate, and acknowledgements per second of many producers.
pub fn run(context: &Context) -> Result<Vec<Row>> {
    let pace = Pace {
        per_second: PER_SECOND,
        time: context.sizes.pace,
    };
    let value = plain_values(VALUE_BYTES).concat();
    let node = context.node("acks")?;
    let [mut sync, mut ack]: [PercentileSamples; 2] = Default::default();
    let [mut group, mut acks]: [Samples; 2] = Default::default();
    for repetition in context.repetitions() {
        sync.push(&sync_latencies(context.home(), &value, pace)?);
        let topic = format!("paced-{repetition}");
        node.create_topic(&topic, 1, &[])?;
        ack.push(&ack_latencies(&node.kafka, &topic, &value, pace)?);
        group.push(group_commits_per_second(context.home(), &value, PRODUCERS, context.sizes.pace)?);
        let topic = format!("many-{repetition}");
        node.create_topic(&topic, 1, &[])?;
        let (rate, count) = acks_per_second(&node.kafka, &topic, &value, PRODUCERS, context.sizes.pace)?;
        acks.push(rate);
        check_ends(&node, &topic, 1, count)?;
    }
    let ack = Row::new("P6", "ack p50 at 100/s", Unit::Milliseconds, &ack.p50_ms);
    let acks = Row::new("P6", "acks of 64 producers", Unit::PerSecond, &acks);
    Ok(vec![
        ack.against("append + fdatasync", &sync.p50_ms)
            .target(Target::AtMostBaseline { times: 1.5, plus: 0.2 }),
        acks.against("group commit", &group).target(Target::RatioAtLeast(0.5)),
    ])
}
