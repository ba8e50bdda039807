//! Growing topics, and what a broker's start means for the partitions it leads.

use std::collections::BTreeSet;

use millstream_protocol::error_code::ErrorCode;

use super::{Context, Decision, Draft, Outcome, Refusal, placement};
use crate::metadata::{
    image::PartitionImage,
    records::{MetadataRecord, PartitionChanged, PartitionsAdded},
};

/// A topic that is to have more partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrowTopic {
    /// Name.
    pub name: String,
    /// How many it shall have.
    pub count: i32,
    /// Replicas of each new partition; empty to let the controller choose.
    pub assignments: Vec<Vec<i32>>,
}

/// Adds partitions. Answers how many each topic then has.
pub fn create_partitions(context: &Context<'_>, topics: &[GrowTopic], validate_only: bool) -> Decision<Vec<Outcome<usize>>> {
    let mut draft = Draft::new(context);
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<&str> = topics
        .iter()
        .map(|topic| topic.name.as_str())
        .filter(|name| !seen.insert(*name))
        .collect();
    let mut budget = placement::PARTITIONS_PER_REQUEST_MAX;
    let mut reply = Vec::with_capacity(topics.len());
    for topic in topics {
        let outcome = if twice.contains(topic.name.as_str()) {
            Err(Refusal::new(ErrorCode::InvalidRequest, "Duplicate topic name."))
        } else {
            grow(context, &mut draft, topic, &mut budget)
        };
        reply.push(outcome);
    }
    draft.finish(validate_only, reply)
}

/// Raises the leader epoch of every partition that a starting broker leads, so that nothing its former life still has under way
/// (a fetch, an upload to the bucket) passes for the new one's.
pub fn restart_broker(context: &Context<'_>, broker_id: i32) -> Decision<()> {
    let led = context.image.topics.values().flat_map(|topic| {
        let numbered = (0_u32..)
            .zip(&topic.partitions)
            .filter(|(_, partition)| partition.leader == broker_id);
        numbered.map(|(number, partition)| {
            let partition = PartitionImage {
                leader_epoch: partition.leader_epoch.saturating_add(1),
                ..partition.clone()
            };
            MetadataRecord::PartitionChanged(PartitionChanged {
                topic_id: topic.id,
                number,
                partition,
            })
        })
    });
    Decision {
        records: led.collect(),
        reply: (),
    }
}

fn grow(context: &Context<'_>, draft: &mut Draft, topic: &GrowTopic, budget: &mut usize) -> Outcome<usize> {
    let refuse = |message: String| Refusal::new(ErrorCode::InvalidPartitions, message);
    if draft.image.view(&topic.name).is_some() {
        return Err(Refusal::new(
            ErrorCode::InvalidRequest,
            format!("'{}' is a view: it has the partitions of its source.", topic.name),
        ));
    }
    let found = draft.image.topic(&topic.name);
    let found = found.ok_or_else(|| {
        Refusal::new(
            ErrorCode::UnknownTopicOrPartition,
            "This server does not host this topic-partition.",
        )
    })?;
    if found.internal {
        // Groups and transactions are found by hash modulo this number.
        let message = format!("Topic '{}' is internal: its number of partitions cannot change.", topic.name);
        return Err(Refusal::new(ErrorCode::InvalidRequest, message));
    }
    let current = found.partitions.len();
    let wanted = usize::try_from(topic.count).ok().filter(|count| *count > 0);
    let wanted = wanted.ok_or_else(|| refuse("Number of partitions was set to an invalid non-positive value.".to_owned()))?;
    if wanted == current {
        return Err(refuse(format!("Topic already has {current} partition(s).")));
    }
    let added = wanted.checked_sub(current).ok_or_else(|| {
        refuse(format!(
            "The topic {} currently has {current} partition(s); {wanted} would not be an increase.",
            topic.name
        ))
    })?;
    if added > *budget {
        return Err(Refusal::new(
            ErrorCode::PolicyViolation,
            "Excessively large number of partitions per request.",
        ));
    }
    let copies = found.partitions.first().map_or(1, |partition| partition.replicas.len());
    let partitions = if topic.assignments.is_empty() {
        placement::place(
            context.brokers,
            placement::next_start(&draft.image),
            added,
            i32::try_from(copies).unwrap_or(i32::MAX),
        )?
    } else if topic.assignments.len() != added {
        let message = format!(
            "Attempted to add {added} additional partition(s), but {} assignment(s) were specified.",
            topic.assignments.len()
        );
        return Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
    } else {
        placement::assigned(context.brokers, &topic.assignments, Some(copies))?
    };
    let first = u32::try_from(current).map_err(|_| refuse("The topic has too many partitions.".to_owned()))?;
    let record = PartitionsAdded {
        topic_id: found.id,
        first,
        partitions,
    };
    draft.push(MetadataRecord::PartitionsAdded(record))?;
    *budget -= added;
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Cluster, codes};
    use super::*;

    fn grow_to(name: &str, count: i32) -> GrowTopic {
        GrowTopic {
            name: name.to_owned(),
            count,
            assignments: Vec::new(),
        }
    }

    #[test]
    fn topics_only_grow() {
        let mut cluster = Cluster::with_topics(&["t"]);
        let reply = cluster.run(|context| create_partitions(context, &[grow_to("t", 3)], false));
        assert_eq!(reply, [Ok(3)]);
        for count in [3, 2, 0, -1] {
            assert_eq!(
                codes(&cluster.run(|context| create_partitions(context, &[grow_to("t", count)], false))),
                [ErrorCode::InvalidPartitions]
            );
        }
        assert_eq!(
            codes(&cluster.run(|context| create_partitions(context, &[grow_to("no", 2)], false))),
            [ErrorCode::UnknownTopicOrPartition]
        );
        assert_eq!(cluster.image.topic("t").unwrap().partitions.len(), 3);
    }

    #[test]
    fn assignments_must_fit_what_is_added() {
        let mut cluster = Cluster::with_topics(&["t"]);
        let with = |assignments: Vec<Vec<i32>>| GrowTopic {
            name: "t".to_owned(),
            count: 3,
            assignments,
        };
        for assignments in [vec![vec![1]], vec![vec![1], vec![9]], vec![vec![1], vec![1, 2]]] {
            let reply = cluster.run(|context| create_partitions(context, &[with(assignments.clone())], false));
            assert_eq!(codes(&reply), [ErrorCode::InvalidReplicaAssignment]);
        }
        assert_eq!(
            cluster.run(|context| create_partitions(context, &[with(vec![vec![2], vec![3]])], true)),
            [Ok(3)]
        );
        assert_eq!(
            cluster.image.topic("t").unwrap().partitions.len(),
            1,
            "validate_only changes nothing"
        );
    }

    #[test]
    fn a_restart_raises_the_epochs_of_led_partitions_only() {
        let mut cluster = Cluster::with_topics(&["t"]);
        cluster.run(|context| create_partitions(context, &[grow_to("t", 3)], false));
        cluster.run(|context| restart_broker(context, 1));
        for partition in &cluster.image.topic("t").unwrap().partitions {
            assert_eq!(partition.leader_epoch, i32::from(partition.leader == 1));
        }
    }
}
