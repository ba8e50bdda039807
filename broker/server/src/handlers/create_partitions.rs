//! CreatePartitions: more partitions for topics that exist.

use std::sync::Arc;

use millstream_core::metadata::controller::{self, GrowTopic, Outcome};
use millstream_protocol::{
    KString,
    messages::{
        CreatePartitionsRequest, CreatePartitionsResponse, create_partitions_request::CreatePartitionsTopic,
        create_partitions_response::CreatePartitionsTopicResult,
    },
};

use super::decisions::{each_once, mutate_each, verdict};
use crate::{broker::Broker, context::RequestContext};

/// First version whose clients know THROTTLING_QUOTA_EXCEEDED.
const STRICT_SINCE: i16 = 3;

/// Handles a request.
pub async fn handle(broker: Arc<Broker>, context: RequestContext, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let names: Vec<KString> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    let validate_only = request.validate_only;
    let image = broker.metadata.image();
    let wanted = request.topics.into_iter().map(|topic| {
        let topic = grow_topic(topic);
        let present = image.topic(&topic.name).map_or(0, |topic| topic.partitions.len());
        let added = usize::try_from(topic.count).unwrap_or(0).saturating_sub(present);
        (if validate_only { 0 } else { added }, topic)
    });
    let decide =
        move |context: &controller::Context<'_>, wanted: Vec<GrowTopic>| controller::create_partitions(context, &wanted, validate_only);
    let outcomes = mutate_each(&broker, &context, STRICT_SINCE, wanted.collect(), decide).await;
    let result = |(name, outcome): (KString, Outcome<usize>)| {
        let (error_code, error_message) = verdict(&outcome);
        CreatePartitionsTopicResult {
            name,
            error_code,
            error_message,
        }
    };
    CreatePartitionsResponse {
        results: each_once(names.into_iter().zip(outcomes)).map(result).collect(),
        ..Default::default()
    }
}

fn grow_topic(topic: CreatePartitionsTopic) -> GrowTopic {
    let assignments = topic.assignments.unwrap_or_default();
    GrowTopic {
        name: topic.name.into(),
        count: topic.count,
        assignments: assignments.into_iter().map(|assignment| assignment.broker_ids).collect(),
    }
}

#[cfg(test)]
mod tests {
    use millstream_protocol::messages::create_partitions_request::CreatePartitionsAssignment;

    use super::*;

    #[test]
    fn no_assignments_leave_the_choice_to_the_controller() {
        let topic = |assignments| CreatePartitionsTopic {
            name: KString::from("a"),
            count: 4,
            assignments,
        };
        let grown = grow_topic(topic(None));
        assert_eq!(
            grown,
            GrowTopic {
                name: "a".to_owned(),
                count: 4,
                assignments: vec![]
            }
        );
        let given = Some(vec![CreatePartitionsAssignment { broker_ids: vec![1, 2] }]);
        assert_eq!(grow_topic(topic(given)).assignments, [[1, 2]]);
    }
}
