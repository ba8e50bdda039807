//! Moving leaders and replicas: ElectLeaders, AlterPartitionReassignments, ListPartitionReassignments. With one node every partition is where
//! it can be, and the answers say so.

use std::{collections::BTreeSet, sync::Arc};

use millstream_core::metadata::{ClusterImage, image::PartitionImage, names::printable};
use millstream_protocol::{
    ErrorCode, KString,
    messages::{
        AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ElectLeadersRequest, ElectLeadersResponse,
        ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
        alter_partition_reassignments_request::ReassignablePartition,
        alter_partition_reassignments_response::{ReassignablePartitionResponse, ReassignableTopicResponse},
        elect_leaders_response::{PartitionResult, ReplicaElectionResult},
    },
};

use crate::{broker::Broker, context::RequestContext};

/// Elects the preferred replica, or one that is not in sync.
const ELECTION_TYPES: std::ops::RangeInclusive<i8> = 0..=1;

type Verdict = Result<(), (ErrorCode, String)>;

fn partition<'a>(image: &'a ClusterImage, topic: &str, number: i32) -> Option<&'a PartitionImage> {
    image.topic(topic)?.partitions.get(usize::try_from(number).ok()?)
}

fn unknown(topic: &str, number: i32) -> (ErrorCode, String) {
    (
        ErrorCode::UnknownTopicOrPartition,
        format!("No such partition as {}-{number}", printable(topic)),
    )
}

fn to_wire(verdict: Verdict) -> (i16, Option<KString>) {
    match verdict {
        Ok(()) => (ErrorCode::None.code(), None),
        Err((code, message)) if message.is_empty() => (code.code(), None),
        Err((code, message)) => (code.code(), Some(message.into())),
    }
}

pub(crate) async fn elect_leaders(broker: Arc<Broker>, context: RequestContext, request: ElectLeadersRequest) -> ElectLeadersResponse {
    if context.version > 0 && !ELECTION_TYPES.contains(&request.election_type) {
        return ElectLeadersResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            ..ElectLeadersResponse::default()
        };
    }
    let image = broker.metadata.image();
    // Asked about all partitions, Kafka names those only that needed an election.
    let topics = request.topic_partitions.unwrap_or_default().into_iter().map(|topic| {
        let results = topic.partitions.iter().map(|number| {
            let verdict = match partition(&image, &topic.topic, *number) {
                None => Err(unknown(&topic.topic, *number)),
                Some(_) => Err((
                    ErrorCode::ElectionNotNeeded,
                    "Leader election not needed for topic partition.".to_owned(),
                )),
            };
            let (error_code, error_message) = to_wire(verdict);
            PartitionResult {
                partition_id: *number,
                error_code,
                error_message,
            }
        });
        let partition_result = results.collect();
        ReplicaElectionResult {
            topic: topic.topic,
            partition_result,
        }
    });
    ElectLeadersResponse {
        replica_election_results: topics.collect(),
        ..ElectLeadersResponse::default()
    }
}

pub(crate) async fn alter_reassignments(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let image = broker.metadata.image();
    let node_id = broker.config.node_id;
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let verdict = match partition(&image, &topic.name, wanted.partition_index) {
                None => Err(unknown(&topic.name, wanted.partition_index)),
                Some(_) => check_replicas(wanted, node_id),
            };
            let (error_code, error_message) = to_wire(verdict);
            ReassignablePartitionResponse {
                partition_index: wanted.partition_index,
                error_code,
                error_message,
            }
        });
        let partitions = partitions.collect();
        ReassignableTopicResponse {
            name: topic.name,
            partitions,
        }
    });
    AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: request.allow_replication_factor_change,
        responses: topics.collect(),
        error_message: None,
        ..AlterPartitionReassignmentsResponse::default()
    }
}

/// Whether a partition is where it shall be; to anywhere else there is no way.
fn check_replicas(wanted: &ReassignablePartition, node_id: i32) -> Verdict {
    let invalid = |message: String| Err((ErrorCode::InvalidReplicaAssignment, message));
    let Some(replicas) = &wanted.replicas else {
        return Err((ErrorCode::NoReassignmentInProgress, String::new()));
    };
    if replicas.is_empty() {
        return invalid("The manual partition assignment includes an empty replica list.".to_owned());
    }
    let distinct: BTreeSet<&i32> = replicas.iter().collect();
    if distinct.len() < replicas.len() {
        return invalid(format!(
            "The manual partition assignment includes the broker {} more than once.",
            replicas[0]
        ));
    }
    match replicas.iter().find(|replica| **replica != node_id) {
        Some(stranger) => invalid(format!(
            "The manual partition assignment includes broker {stranger}, but no such broker is registered."
        )),
        None => Ok(()),
    }
}

pub(crate) async fn list_reassignments(
    _broker: Arc<Broker>,
    _context: RequestContext,
    _request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    // Nothing is ever on its way.
    ListPartitionReassignmentsResponse::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(replicas: Option<&[i32]>) -> ErrorCode {
        let wanted = ReassignablePartition {
            partition_index: 0,
            replicas: replicas.map(<[i32]>::to_vec),
        };
        check_replicas(&wanted, 1).err().map_or(ErrorCode::None, |(code, _)| code)
    }

    #[test]
    fn a_partition_can_only_stay_where_it_is() {
        assert_eq!(code(Some(&[1])), ErrorCode::None);
        assert_eq!(code(None), ErrorCode::NoReassignmentInProgress);
        for bad in [&[][..], &[2], &[1, 1], &[1, 2]] {
            assert_eq!(code(Some(bad)), ErrorCode::InvalidReplicaAssignment, "{bad:?}");
        }
    }
}
