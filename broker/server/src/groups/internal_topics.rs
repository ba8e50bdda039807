//! Internal topics of streams groups: the broker creates the repartition and changelog topics that a topology needs (KIP-1071).

use std::collections::BTreeMap;

use millstream_core::{
    group::streams::{InternalTopic, StreamsHeartbeatResponse, StreamsStatusCode},
    metadata::controller::{self, NewTopic, Outcome},
};
use millstream_protocol::ErrorCode;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::{broker::Broker, handlers::not_stored};

/// Failures that are remembered.
const FAILURES_MAX: usize = 1_000;
/// Failures that a status names.
const FAILURES_SHOWN: usize = 3;

/// A topic that could not be created.
struct Failure {
    why: String,
    /// When it is tried again.
    retry_ms: i64,
}

/// Creates internal topics, and waits a while after a failure.
#[derive(Default)]
pub(super) struct InternalTopics {
    /// By topic. Held while topics are created, so that members that ask at the same time do not get in each other's way.
    failures: Mutex<BTreeMap<String, Failure>>,
}

impl InternalTopics {
    /// Creates what an answer says is missing. Of what fails, the answer's status says why.
    pub(super) async fn create(&self, broker: &Broker, response: &mut StreamsHeartbeatResponse) {
        if response.missing_topics.is_empty() {
            return;
        }
        let mut failures = self.failures.lock().await;
        let now_ms = broker.clock.wall_ms();
        failures.retain(|_, failure| failure.retry_ms > now_ms);
        let due: Vec<NewTopic> = response
            .missing_topics
            .iter()
            .filter(|topic| !failures.contains_key(&topic.name))
            .map(new_topic)
            .collect();
        if !due.is_empty() {
            let retry_ms = now_ms.saturating_add(2 * i64::from(response.heartbeat_interval_ms));
            for (name, why) in create(broker, due).await {
                if failures.len() < FAILURES_MAX {
                    failures.insert(name, Failure { why, retry_ms });
                }
            }
        }
        let failed: Vec<String> = response
            .missing_topics
            .iter()
            .filter_map(|topic| Some(format!("{} ({})", topic.name, failures.get(&topic.name)?.why)))
            .collect();
        let status = response
            .statuses
            .iter_mut()
            .find(|status| status.code == StreamsStatusCode::MissingInternalTopics);
        if let Some(status) = status.filter(|_| !failed.is_empty()) {
            let shown: Vec<&str> = failed.iter().take(FAILURES_SHOWN).map(String::as_str).collect();
            status.detail.push_str("; Creation failed: ");
            status.detail.push_str(&shown.join(", "));
            if failed.len() > FAILURES_SHOWN {
                status.detail.push_str(&format!(" and {} more", failed.len() - FAILURES_SHOWN));
            }
            status.detail.push('.');
        }
    }
}

fn new_topic(topic: &InternalTopic) -> NewTopic {
    NewTopic {
        name: topic.name.clone(),
        id: Uuid::new_v4(),
        num_partitions: topic.partitions,
        replication_factor: match topic.replication_factor {
            0 => -1,
            given => given.into(),
        },
        assignments: Vec::new(),
        configs: topic
            .configs
            .iter()
            .map(|(name, value)| (name.clone(), Some(value.clone())))
            .collect(),
    }
}

/// The topics that could not be created, with the reason.
async fn create(broker: &Broker, topics: Vec<NewTopic>) -> Vec<(String, String)> {
    let names: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
    let decide = move |context: &controller::Context<'_>| controller::create_topics(context, &topics, false);
    match broker.metadata.decide(true, decide).await {
        Ok(outcomes) => {
            let failed = |(name, outcome): (String, Outcome<_>)| match outcome {
                Ok(_) => None,
                // Somebody was faster.
                Err(refusal) if refusal.code == ErrorCode::TopicAlreadyExists => None,
                Err(refusal) => Some((name, refusal.message)),
            };
            names.into_iter().zip(outcomes).filter_map(failed).collect()
        }
        Err(error) => {
            let why = not_stored(&error).message().to_owned();
            names.into_iter().map(|name| (name, why.clone())).collect()
        }
    }
}
