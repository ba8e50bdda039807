//! Which brokers hold a partition: ours to choose, or given by the request.

use std::collections::BTreeSet;

use millstream_protocol::error_code::ErrorCode;

use super::{Outcome, Refusal};
use crate::metadata::image::{ClusterImage, PartitionImage};

/// Most partitions that one request may create, as in Kafka.
pub const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;

/// Places new partitions over the brokers: leaders take turns, and the order of followers shifts by one with every round, so
/// that the load of a lost broker spreads over all others.
pub(super) fn place(brokers: &[i32], first: usize, count: usize, replication_factor: i32) -> Outcome<Vec<PartitionImage>> {
    let brokers_len = brokers.len();
    let copies = usize::try_from(replication_factor).ok().filter(|copies| (1..=brokers_len).contains(copies)).ok_or_else(|| {
        let message = format!(
            "Unable to replicate the partition {replication_factor} time(s): The target replication factor of {replication_factor} cannot be reached \
             because only {brokers_len} broker(s) are registered."
        );
        Refusal::new(ErrorCode::InvalidReplicationFactor, message)
    })?;
    let one = |number: usize| {
        let round = number / brokers_len;
        let follower = |copy: usize| {
            if copy == 0 {
                number
            } else {
                number + 1 + (copy - 1 + round) % (brokers_len - 1)
            }
        };
        (0..copies)
            .filter_map(|copy| brokers.get(follower(copy) % brokers_len).copied())
            .collect()
    };
    Ok((first..first + count).map(|number| fresh(one(number))).collect())
}

/// Takes the replicas that a request names, after checking them. Every list must be as long as `copies` if that is given.
pub(super) fn assigned(brokers: &[i32], assignments: &[Vec<i32>], copies: Option<usize>) -> Outcome<Vec<PartitionImage>> {
    let refuse = |message: String| Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
    let mut expected = copies;
    for replicas in assignments {
        if replicas.is_empty() {
            return refuse("The manual partition assignment includes an empty replica list.".to_owned());
        }
        let mut seen = BTreeSet::new();
        for broker in replicas {
            if !seen.insert(broker) {
                return refuse(format!(
                    "The manual partition assignment includes the broker {broker} more than once."
                ));
            }
            if !brokers.contains(broker) {
                return refuse(format!(
                    "The manual partition assignment includes broker {broker}, but no such broker is registered."
                ));
            }
        }
        let before = *expected.get_or_insert(replicas.len());
        if before != replicas.len() {
            let message = format!(
                "The manual partition assignment includes a partition with {} replica(s), but this is not consistent with previous partitions, \
                 which have {before} replica(s).",
                replicas.len()
            );
            return refuse(message);
        }
    }
    Ok(assignments.iter().cloned().map(fresh).collect())
}

/// Where the next topic's leaders start, so that small topics do not all land on the first broker.
pub(super) fn next_start(image: &ClusterImage) -> usize {
    image.topics.values().map(|topic| topic.partitions.len()).sum()
}

fn fresh(replicas: Vec<i32>) -> PartitionImage {
    PartitionImage {
        isr: replicas.clone(),
        leader: replicas.first().copied().unwrap_or(-1),
        leader_epoch: 0,
        replicas,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaders_take_turns_and_replicas_differ() {
        let partitions = place(&[1, 2, 3, 4], 0, 12, 3).unwrap();
        for broker in 1..=4 {
            assert_eq!(partitions.iter().filter(|partition| partition.leader == broker).count(), 3);
        }
        for partition in &partitions {
            assert_eq!(partition.replicas.iter().collect::<BTreeSet<_>>().len(), 3, "{partition:?}");
            assert_eq!(
                (partition.replicas.first(), &partition.isr),
                (Some(&partition.leader), &partition.replicas)
            );
        }
        assert_ne!(
            partitions[0].replicas[1], partitions[4].replicas[1],
            "followers shift with every round"
        );
    }

    #[test]
    fn more_copies_than_brokers_are_refused() {
        for copies in [0, -1, 2] {
            assert_eq!(place(&[1], 0, 1, copies).unwrap_err().code, ErrorCode::InvalidReplicationFactor);
        }
        assert!(place(&[], 0, 1, 1).is_err());
    }

    #[test]
    fn bad_assignments_are_refused() {
        for assignments in [vec![vec![]], vec![vec![1, 1]], vec![vec![9]], vec![vec![1], vec![1, 2]]] {
            assert_eq!(
                assigned(&[1, 2], &assignments, None).unwrap_err().code,
                ErrorCode::InvalidReplicaAssignment
            );
        }
        assert_eq!(assigned(&[1, 2], &[vec![2, 1]], None).unwrap()[0].leader, 2);
    }
}
