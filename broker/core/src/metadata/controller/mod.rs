//! The controller's decisions: pure functions from an image and a request to records and a reply.
//!
//! Every request may hold several items. Each is decided after the ones before it, on a draft of the image, and gets its own
//! result; a refused item leaves no record. The shell commits the records of a decision as one batch, applies them, and only
//! then sends the reply.

mod bindings;
mod configs;
mod partitions;
mod placement;
mod plugins;
mod producer_ids;
mod quotas;
mod topics;
mod views;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod properties;

pub use bindings::{BINDINGS_PER_TARGET_MAX, NewBinding, bind, unbind};
pub use configs::{AlterConfigs, Alteration, ConfigResource, alter_configs};
pub use partitions::{GrowTopic, create_partitions, restart_broker};
pub use placement::PARTITIONS_PER_REQUEST_MAX;
pub use plugins::{NewPlugin, register_plugin, remove_plugin};
pub use producer_ids::{PRODUCER_ID_BLOCK_LEN, allocate_producer_ids};
pub use quotas::{AlterQuotas, FeatureUpdate, FeatureUpgrade, alter_client_quotas, update_features};
pub use topics::{NewTopic, TopicRef, Wish, auto_create_topics, create_topics, delete_topics};
pub use views::{NewView, VIEW_DEPTH_MAX, create_view, delete_view};

use millstream_protocol::error_code::ErrorCode;

use super::{
    apply::ApplyError,
    configs::{BrokerLayers, Overrides, Scope, TopicConfig, broker::REMOTE_LOG_STORAGE_SYSTEM_ENABLE, effective_value},
    image::ClusterImage,
    records::MetadataRecord,
};

/// What a decision may look at besides the request.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The image it starts from.
    pub image: &'a ClusterImage,
    /// Ids of the brokers that can take replicas, ascending.
    pub brokers: &'a [i32],
    /// The configuration file's values by Kafka's names.
    pub fixed_configs: &'a Overrides,
    /// Now, in milliseconds.
    pub now_ms: i64,
    /// Whether the requester may alter the cluster, and so the broker's own topics.
    pub cluster_admin: bool,
}

impl Context<'_> {
    /// A broker configuration as it holds for all brokers.
    fn broker_value(&self, name: &str) -> Option<String> {
        effective_value(Scope::Broker, name, super::configs::nothing(), &self.layers())
    }

    fn broker_number(&self, name: &str) -> i32 {
        self.broker_value(name).and_then(|value| value.trim().parse().ok()).unwrap_or(1)
    }

    fn broker_flag(&self, name: &str) -> bool {
        self.broker_value(name)
            .is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
    }

    /// A topic cannot be tiered by a broker without a bucket.
    fn check_tier(&self, config: &TopicConfig) -> Result<(), String> {
        if config.remote_storage_enable && !self.broker_flag(REMOTE_LOG_STORAGE_SYSTEM_ENABLE) {
            return Err(
                "Tiered storage is disabled in the broker: start it with a bucket before a topic sets remote.storage.enable.".to_owned(),
            );
        }
        Ok(())
    }

    fn layers(&self) -> BrokerLayers<'_> {
        self.image.broker_layers(None, self.fixed_configs)
    }
}

/// Why an item was refused: what goes into the response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Kafka's code.
    pub code: ErrorCode,
    /// A sentence for people.
    pub message: String,
}

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl From<ApplyError> for Refusal {
    // A decision that its own draft refuses is a bug of ours; the request fails and nothing is written.
    fn from(error: ApplyError) -> Self {
        Self::new(ErrorCode::UnknownServerError, error.to_string())
    }
}

/// The result of one item.
pub type Outcome<T> = Result<T, Refusal>;

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision<R> {
    /// To commit and apply, in this order, as one batch. May be empty.
    pub records: Vec<MetadataRecord>,
    /// To answer once they are applied. One result per item, in the order of the request.
    pub reply: R,
}

/// The image as it will be after the records so far.
struct Draft {
    image: ClusterImage,
    records: Vec<MetadataRecord>,
}

impl Draft {
    fn new(context: &Context<'_>) -> Self {
        Self {
            image: context.image.clone(),
            records: Vec::new(),
        }
    }

    fn push(&mut self, record: MetadataRecord) -> Outcome<()> {
        self.image.apply(&record)?;
        self.records.push(record);
        Ok(())
    }

    fn finish<R>(self, validate_only: bool, reply: R) -> Decision<R> {
        Decision {
            records: if validate_only { Vec::new() } else { self.records },
            reply,
        }
    }
}
