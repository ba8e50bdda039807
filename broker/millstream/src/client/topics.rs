//! Topics: where their partitions are, and their administration.

use anyhow::{Context, Result, bail};
use millstream_protocol::{
    ErrorCode, KString,
    messages::{
        CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
        MetadataRequest,
        create_partitions_request::CreatePartitionsTopic,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        delete_topics_request::DeleteTopicState,
        describe_configs_request::DescribeConfigsResource,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
        metadata_request::MetadataRequestTopic,
        metadata_response::MetadataResponseTopic,
    },
};
use serde_json::{Value, json};

use super::kafka::{Kafka, check};

const TIMEOUT_MS: i32 = 30_000;
const RESOURCE_TOPIC: i8 = 2;
/// `config_source` of a value that was set on the topic itself.
const SOURCE_TOPIC: i8 = 1;
const OPERATION_SET: i8 = 0;
const OPERATION_DELETE: i8 = 1;

/// A topic or view and its partitions.
#[derive(Debug, Clone)]
pub struct TopicPartitions {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: uuid::Uuid,
    /// Whether the broker keeps it for itself.
    pub is_internal: bool,
    /// Its partitions, as rows of a report.
    pub partitions: Vec<Value>,
    /// The partitions' numbers, in order.
    pub numbers: Vec<i32>,
    /// Number of replicas of the first partition.
    pub replicas: usize,
}

impl TopicPartitions {
    fn new(topic: MetadataResponseTopic) -> Self {
        let mut partitions = topic.partitions;
        partitions.sort_by_key(|partition| partition.partition_index);
        let row = |partition: &millstream_protocol::messages::metadata_response::MetadataResponsePartition| {
            json!({
                "partition": partition.partition_index,
                "leader": partition.leader_id,
                "leader_epoch": partition.leader_epoch,
                "replicas": partition.replica_nodes,
                "isr": partition.isr_nodes,
            })
        };
        Self {
            name: topic.name.unwrap_or_default().as_str().to_owned(),
            id: topic.topic_id,
            is_internal: topic.is_internal,
            numbers: partitions.iter().map(|partition| partition.partition_index).collect(),
            replicas: partitions.first().map_or(0, |partition| partition.replica_nodes.len()),
            partitions: partitions.iter().map(row).collect(),
        }
    }
}

impl Kafka {
    /// All topics and views by name.
    pub async fn topics(&mut self) -> Result<Vec<TopicPartitions>> {
        let request = MetadataRequest {
            topics: None,
            ..MetadataRequest::default()
        };
        let mut topics: Vec<_> = self.call(&request).await?.topics.into_iter().map(TopicPartitions::new).collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// One topic or view; it is not created by asking for it.
    pub async fn topic(&mut self, name: &str) -> Result<TopicPartitions> {
        let request = MetadataRequest {
            topics: Some(vec![MetadataRequestTopic {
                name: Some(name.into()),
                ..MetadataRequestTopic::default()
            }]),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let topic = self.call(&request).await?.topics.into_iter().next();
        let topic = topic.with_context(|| format!("no answer about topic {name}"))?;
        if ErrorCode::from_code(topic.error_code) == Some(ErrorCode::UnknownTopicOrPartition) {
            bail!("topic {name} does not exist; create it with \"millstream topic create {name}\"");
        }
        check(topic.error_code, None, || format!("topic {name}"))?;
        Ok(TopicPartitions::new(topic))
    }

    /// Creates a topic; -1 partitions are the broker's default. Returns its number of partitions.
    pub async fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(String, String)]) -> Result<i32> {
        let config = |(name, value): &(String, String)| CreatableTopicConfig {
            name: name.into(),
            value: Some(value.into()),
        };
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: name.into(),
                num_partitions: partitions,
                replication_factor: -1,
                configs: configs.iter().map(config).collect(),
                ..CreatableTopic::default()
            }],
            timeout_ms: TIMEOUT_MS,
            validate_only: false,
        };
        let result = self.call(&request).await?.topics.into_iter().next();
        let result = result.with_context(|| format!("no answer about topic {name}"))?;
        check(result.error_code, result.error_message.as_ref(), || format!("create topic {name}"))?;
        Ok(result.num_partitions)
    }

    /// Deletes a topic.
    pub async fn delete_topic(&mut self, name: &str) -> Result<()> {
        let request = DeleteTopicsRequest {
            topics: vec![DeleteTopicState {
                name: Some(name.into()),
                ..DeleteTopicState::default()
            }],
            timeout_ms: TIMEOUT_MS,
            ..DeleteTopicsRequest::default()
        };
        let result = self.call(&request).await?.responses.into_iter().next();
        let result = result.with_context(|| format!("no answer about topic {name}"))?;
        check(result.error_code, result.error_message.as_ref(), || format!("delete topic {name}"))
    }

    /// Raises a topic's number of partitions.
    pub async fn grow_topic(&mut self, name: &str, partitions: i32) -> Result<()> {
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: name.into(),
                count: partitions,
                assignments: None,
            }],
            timeout_ms: TIMEOUT_MS,
            validate_only: false,
        };
        let result = self.call(&request).await?.results.into_iter().next();
        let result = result.with_context(|| format!("no answer about topic {name}"))?;
        check(result.error_code, result.error_message.as_ref(), || format!("grow topic {name}"))
    }

    /// Sets and deletes configurations of a topic or view, all or none.
    pub async fn alter_configs(&mut self, name: &str, set: &[(String, String)], delete: &[String]) -> Result<()> {
        let mut configs: Vec<AlterableConfig> = Vec::with_capacity(set.len() + delete.len());
        configs.extend(set.iter().map(|(name, value)| AlterableConfig {
            name: name.into(),
            config_operation: OPERATION_SET,
            value: Some(value.into()),
        }));
        configs.extend(delete.iter().map(|name| AlterableConfig {
            name: name.into(),
            config_operation: OPERATION_DELETE,
            value: None,
        }));
        let request = IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: RESOURCE_TOPIC,
                resource_name: name.into(),
                configs,
            }],
            validate_only: false,
        };
        let result = self.call(&request).await?.responses.into_iter().next();
        let result = result.with_context(|| format!("no answer about topic {name}"))?;
        check(result.error_code, result.error_message.as_ref(), || format!("alter topic {name}"))
    }

    /// What was set on a topic or view itself, as an object of texts.
    pub async fn topic_configs(&mut self, name: &str) -> Result<Value> {
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: RESOURCE_TOPIC,
                resource_name: name.into(),
                configuration_keys: None,
            }],
            ..DescribeConfigsRequest::default()
        };
        let result = self.call(&request).await?.results.into_iter().next();
        let Some(result) = result else {
            bail!("no answer about topic {name}")
        };
        check(result.error_code, result.error_message.as_ref(), || {
            format!("configs of topic {name}")
        })?;
        let own = result.configs.iter().filter(|config| config.config_source == SOURCE_TOPIC);
        let pairs = own.map(|config| (config.name.as_str().to_owned(), json!(config.value.as_ref().map(KString::as_str))));
        Ok(Value::Object(pairs.collect()))
    }
}
