//! Requests about partitions of which some may not exist: the core decides on those that do, the answer names all.

use millstream_core::{group::PartitionOutcomes, metadata::ClusterImage};
use millstream_protocol::ErrorCode;

use crate::broker::Named;

/// Topics and partitions in request order, each with whether it exists.
pub(crate) type AskedPartitions = Vec<(String, Vec<(i32, bool)>)>;

/// The number of partitions of a topic or view, 0 if there is none of that name.
pub(crate) fn partition_count(image: &ClusterImage, name: &str) -> i32 {
    let count = Named::by_name(image, name).map_or(0, |named| named.stored_in().partitions.len());
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Whether anything is left for the core to decide.
pub(crate) fn any_exists(asked: &AskedPartitions) -> bool {
    asked.iter().flat_map(|(_, partitions)| partitions).any(|(_, exists)| *exists)
}

/// The outcome of everything asked for, from what was decided about the partitions that exist, in the same order.
pub(crate) fn merge(asked: AskedPartitions, decided: Result<PartitionOutcomes, ErrorCode>) -> PartitionOutcomes {
    let (decided, otherwise) = match decided {
        Ok(decided) => (decided, ErrorCode::UnknownServerError),
        Err(error) => (Vec::new(), error),
    };
    let mut decided = decided
        .into_iter()
        .flat_map(|(_, partitions)| partitions)
        .map(|(_, outcome)| outcome);
    let mut outcome = |exists| {
        if exists {
            decided.next().unwrap_or(otherwise)
        } else {
            ErrorCode::UnknownTopicOrPartition
        }
    };
    let mut merged = Vec::with_capacity(asked.len());
    for (topic, partitions) in asked {
        let outcomes = partitions.into_iter().map(|(partition, exists)| (partition, outcome(exists)));
        merged.push((topic, outcomes.collect()));
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNKNOWN: ErrorCode = ErrorCode::UnknownTopicOrPartition;

    fn asked() -> AskedPartitions {
        vec![
            ("a".to_owned(), vec![(0, true), (9, false), (1, true)]),
            ("b".to_owned(), vec![(0, false)]),
            ("a".to_owned(), vec![(0, true)]),
        ]
    }

    #[test]
    fn outcomes_keep_the_order_of_the_request() {
        let too_large = ErrorCode::OffsetMetadataTooLarge;
        let first = vec![(0, ErrorCode::None), (1, too_large)];
        let decided = vec![
            ("a".to_owned(), first),
            ("b".to_owned(), vec![]),
            ("a".to_owned(), vec![(0, ErrorCode::None)]),
        ];
        let expected = vec![
            ("a".to_owned(), vec![(0, ErrorCode::None), (9, UNKNOWN), (1, too_large)]),
            ("b".to_owned(), vec![(0, UNKNOWN)]),
            ("a".to_owned(), vec![(0, ErrorCode::None)]),
        ];
        assert_eq!(merge(asked(), Ok(decided)), expected);
    }

    #[test]
    fn an_error_is_the_outcome_of_every_partition_that_exists() {
        let merged = merge(asked(), Err(ErrorCode::NotCoordinator));
        let codes: Vec<_> = merged
            .into_iter()
            .flat_map(|(_, partitions)| partitions)
            .map(|(_, outcome)| outcome)
            .collect();
        assert_eq!(
            codes,
            [
                ErrorCode::NotCoordinator,
                UNKNOWN,
                ErrorCode::NotCoordinator,
                UNKNOWN,
                ErrorCode::NotCoordinator
            ]
        );
    }
}
