//! CreateTopics: every topic gets its own outcome, with the configuration it will have.

use std::{collections::BTreeMap, sync::Arc};

use millstream_core::metadata::{
    configs::{ConfigEntry, describe_topic},
    controller::{self, NewTopic, Outcome},
    image::TopicImage,
};
use millstream_protocol::{
    KString,
    messages::{
        CreateTopicsRequest, CreateTopicsResponse,
        create_topics_request::CreatableTopic,
        create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
    },
};
use uuid::Uuid;

use super::decisions::{each_once, mutate_each, verdict};
use crate::{broker::Broker, context::RequestContext};

/// First version whose clients know THROTTLING_QUOTA_EXCEEDED.
const STRICT_SINCE: i16 = 6;

/// Handles a request. `timeout_ms` has nothing to bound: the answer comes as soon as the topics are stored.
pub async fn handle(broker: Arc<Broker>, context: RequestContext, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let names: Vec<KString> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    let validate_only = request.validate_only;
    let partitions_default = broker.config.size("num.partitions");
    let wanted = request.topics.into_iter().map(|topic| {
        let topic = new_topic(topic, Uuid::new_v4());
        let partitions = if validate_only {
            0
        } else {
            partitions_of(&topic, partitions_default)
        };
        (partitions, topic)
    });
    let decide = move |context: &controller::Context<'_>, wanted: Vec<NewTopic>| controller::create_topics(context, &wanted, validate_only);
    let outcomes = mutate_each(&broker, &context, STRICT_SINCE, wanted.collect(), decide).await;
    let image = broker.metadata.image();
    let layers = image.broker_layers(Some(broker.config.node_id), broker.metadata.fixed_configs());
    let result = |(name, outcome): (KString, Outcome<TopicImage>)| {
        let configs = outcome
            .as_ref()
            .map(|topic| describe_topic(&topic.configs, &layers))
            .unwrap_or_default();
        result(name, &outcome, configs)
    };
    CreateTopicsResponse {
        topics: each_once(names.into_iter().zip(outcomes)).map(result).collect(),
        ..Default::default()
    }
}

/// Partitions that a topic will have.
fn partitions_of(topic: &NewTopic, default: usize) -> usize {
    match usize::try_from(topic.num_partitions) {
        Ok(count) => count,
        Err(_) if topic.assignments.is_empty() => default,
        Err(_) => topic.assignments.len(),
    }
}

fn new_topic(topic: CreatableTopic, id: Uuid) -> NewTopic {
    NewTopic {
        name: topic.name.into(),
        id,
        num_partitions: topic.num_partitions,
        replication_factor: i32::from(topic.replication_factor),
        assignments: topic
            .assignments
            .into_iter()
            .map(|assignment| (assignment.partition_index, assignment.broker_ids))
            .collect(),
        // Of a configuration that is given twice the last counts, as in Kafka.
        configs: topic
            .configs
            .into_iter()
            .map(|config| (String::from(config.name), config.value.map(String::from)))
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .collect(),
    }
}

fn result(name: KString, outcome: &Outcome<TopicImage>, configs: Vec<ConfigEntry>) -> CreatableTopicResult {
    let (error_code, error_message) = verdict(outcome);
    let mut result = CreatableTopicResult {
        name,
        error_code,
        error_message,
        ..Default::default()
    };
    if let Ok(topic) = outcome {
        let replicas = topic.partitions.first().map_or(0, |partition| partition.replicas.len());
        result.topic_id = topic.id;
        result.num_partitions = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        result.replication_factor = i16::try_from(replicas).unwrap_or(i16::MAX);
        result.configs = Some(configs.into_iter().map(config).collect());
    }
    result
}

fn config(entry: ConfigEntry) -> CreatableTopicConfigs {
    CreatableTopicConfigs {
        name: KString::from_static(entry.name),
        value: entry.value.map(KString::from),
        read_only: entry.read_only,
        config_source: entry.source.code(),
        is_sensitive: entry.sensitive,
    }
}

#[cfg(test)]
mod tests {
    use millstream_core::metadata::configs::BrokerLayers;
    use millstream_protocol::{
        ErrorCode,
        messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopicConfig},
    };

    use super::super::{decisions::refusal, topology::test_image};
    use super::*;

    #[test]
    fn everything_of_a_request_reaches_the_controller() {
        let topic = CreatableTopic {
            name: KString::from("a"),
            num_partitions: -1,
            replication_factor: -1,
            assignments: vec![CreatableReplicaAssignment {
                partition_index: 0,
                broker_ids: vec![1, 2],
            }],
            configs: vec![CreatableTopicConfig {
                name: KString::from("retention.ms"),
                value: None,
            }],
        };
        let expected = NewTopic {
            name: "a".to_owned(),
            id: Uuid::from_u128(9),
            num_partitions: -1,
            replication_factor: -1,
            assignments: vec![(0, vec![1, 2])],
            configs: vec![("retention.ms".to_owned(), None)],
        };
        assert_eq!(new_topic(topic, Uuid::from_u128(9)), expected);
    }

    #[test]
    fn a_created_topic_is_described() {
        let topic = TopicImage::clone(test_image().topic("orders").unwrap());
        let configs = describe_topic(&topic.configs, &BrokerLayers::none());
        let result = result(KString::from("orders"), &Ok(topic), configs);
        assert_eq!((result.error_code, result.num_partitions, result.replication_factor), (0, 3, 1));
        let configs = result.configs.unwrap();
        let retention = configs.iter().find(|config| config.name == "retention.ms").unwrap();
        assert_eq!((retention.value.as_deref(), retention.config_source), (Some("60000"), 1));
    }

    #[test]
    fn a_refused_topic_has_neither_id_nor_numbers() {
        let refused = Err(refusal(ErrorCode::InvalidConfig, "bad"));
        let result = result(KString::from("a"), &refused, Vec::new());
        assert_eq!((result.error_code, result.error_message.as_deref()), (40, Some("bad")));
        assert_eq!(
            (result.topic_id, result.num_partitions, result.replication_factor),
            (Uuid::nil(), -1, -1)
        );
    }
}
