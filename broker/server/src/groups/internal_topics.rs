//! Internal topics of streams groups: the broker creates the repartition and changelog topics that a topology needs (KIP-1071).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{Mutex, PoisonError},
};

use millstream_core::{
    group::streams::{InternalTopic, StreamsHeartbeatResponse, StreamsStatusCode},
    metadata::controller::{self, NewTopic, Outcome},
};
use millstream_protocol::ErrorCode;
use uuid::Uuid;

use crate::{
    broker::{Broker, Named},
    handlers::not_stored,
};

/// Failures that are remembered.
const FAILURES_MAX: usize = 1_000;
/// Failures that a status names.
const FAILURES_SHOWN: usize = 3;
/// Topics, and partitions of them, that one heartbeat creates; the next one goes on.
const TOPICS_AT_ONCE: usize = 200;
const PARTITIONS_AT_ONCE: i32 = 10_000;

/// A topic that could not be created.
struct Failure {
    why: String,
    /// When it is tried again.
    retry_ms: i64,
}

#[derive(Default)]
struct State {
    failures: BTreeMap<String, Failure>,
    /// What other heartbeats create now.
    in_flight: BTreeSet<String>,
}

/// Creates internal topics, and waits a while after a failure.
#[derive(Default)]
pub(super) struct InternalTopics {
    state: Mutex<State>,
}

impl InternalTopics {
    /// Creates what an answer says is missing. Of what failed, now or not long ago, the answer's status says why.
    pub(super) async fn create(&self, broker: &Broker, response: &mut StreamsHeartbeatResponse) {
        if response.missing_topics.is_empty() {
            return;
        }
        let now_ms = broker.clock.wall_ms();
        let due = self.begin(broker, &response.missing_topics, now_ms);
        if !due.is_empty() {
            let names: Vec<String> = due.iter().map(|topic| topic.name.clone()).collect();
            let failed = create(broker, due).await;
            let retry_ms = now_ms.saturating_add(2 * i64::from(response.heartbeat_interval_ms));
            self.end(&names, failed, retry_ms);
        }
        self.explain(response);
    }

    /// What this heartbeat creates.
    fn begin(&self, broker: &Broker, missing: &[InternalTopic], now_ms: i64) -> Vec<NewTopic> {
        let image = broker.metadata.image();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures.retain(|_, failure| failure.retry_ms > now_ms);
        let mut partitions_left = PARTITIONS_AT_ONCE;
        let mut due = Vec::new();
        for topic in missing {
            if due.len() == TOPICS_AT_ONCE || !due.is_empty() && partitions_left < topic.partitions {
                break;
            }
            let is_known = state.failures.contains_key(&topic.name) || Named::by_name(&image, &topic.name).is_some();
            if !is_known && state.in_flight.insert(topic.name.clone()) {
                partitions_left = partitions_left.saturating_sub(topic.partitions);
                due.push(new_topic(topic));
            }
        }
        due
    }

    fn end(&self, names: &[String], failed: Vec<(String, String)>, retry_ms: i64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            state.in_flight.remove(name);
        }
        for (name, why) in failed {
            while state.failures.len() >= FAILURES_MAX {
                let oldest = state.failures.iter().min_by_key(|(_, failure)| failure.retry_ms);
                let Some(oldest) = oldest.map(|(name, _)| name.clone()) else {
                    break;
                };
                state.failures.remove(&oldest);
            }
            state.failures.insert(name, Failure { why, retry_ms });
        }
    }

    /// Adds the reasons of failures to the status that says what is missing.
    fn explain(&self, response: &mut StreamsHeartbeatResponse) {
        let mut statuses = response.statuses.iter_mut();
        let Some(status) = statuses.find(|status| status.code == StreamsStatusCode::MissingInternalTopics) else {
            return;
        };
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let reasons = response
            .missing_topics
            .iter()
            .filter_map(|topic| Some((&topic.name, &state.failures.get(&topic.name)?.why)));
        let failed: Vec<String> = reasons.map(|(name, why)| format!("{name} ({why})")).collect();
        let Some(shown) = failed.get(..failed.len().min(FAILURES_SHOWN)).filter(|shown| !shown.is_empty()) else {
            return;
        };
        // Writing to a string cannot fail.
        let _ = write!(status.detail, "; Creation failed: {}", shown.join(", "));
        if failed.len() > shown.len() {
            let _ = write!(status.detail, " and {} more", failed.len() - shown.len());
        }
        status.detail.push('.');
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
