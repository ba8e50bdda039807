//! DeleteTopics: by name, or by name or id since version 6. Committed offsets of a deleted topic go with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millstream_core::metadata::{
    ClusterImage,
    controller::{self, Context, Decision, Outcome, Refusal, TopicRef},
};
use millstream_protocol::{
    ErrorCode, KString,
    messages::{
        DeleteTopicsRequest, DeleteTopicsResponse, delete_topics_request::DeleteTopicState, delete_topics_response::DeletableTopicResult,
    },
};
use uuid::Uuid;

use super::decisions::{mutate_each, refusal, verdict};
use crate::{broker::Broker, context::RequestContext};

/// First version whose clients know THROTTLING_QUOTA_EXCEEDED.
const STRICT_SINCE: i16 = 5;

/// A topic that was deleted.
#[derive(Debug, PartialEq)]
struct DeletedTopic {
    id: Uuid,
    name: String,
}

/// Handles a request.
pub async fn handle(broker: Arc<Broker>, context: RequestContext, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name = request.topic_names.into_iter().map(|name| DeleteTopicState {
        name: Some(name),
        topic_id: Uuid::nil(),
    });
    let asked: Vec<DeleteTopicState> = request.topics.into_iter().chain(by_name).collect();
    let image = broker.metadata.image();
    let (asked, twice) = without_repeats(&image, asked);
    let partitions = |topic: &DeleteTopicState| {
        let name = topic.name.as_ref().map(|name| name.as_str());
        let name = name.or_else(|| image.names.get(&topic.topic_id).map(String::as_str));
        name.and_then(|name| image.topic(name)).map_or(0, |topic| topic.partitions.len())
    };
    let wanted = asked.iter().map(|topic| (partitions(topic), topic_ref(topic)));
    let outcomes = mutate_each(&broker, &context, STRICT_SINCE, wanted.collect(), delete).await;
    for deleted in outcomes.iter().flatten() {
        broker.groups.topic_deleted(&broker, &deleted.name).await;
        let id = deleted.id;
        if let Err(error) = broker.shares.forget(&broker, move |key| key.topic_id == id).await {
            tracing::warn!(
                topic = deleted.name,
                ?error,
                "share groups' offsets in a deleted topic could not be deleted"
            );
        }
    }
    DeleteTopicsResponse {
        responses: asked
            .into_iter()
            .zip(&outcomes)
            .map(|(topic, outcome)| result(topic, outcome))
            .chain(twice.into_iter().map(refused_repeat))
            .collect(),
        ..Default::default()
    }
}

/// What is named once, and what is named more than once, by name or by id: none of that is deleted, as in Kafka.
fn without_repeats(image: &ClusterImage, asked: Vec<DeleteTopicState>) -> (Vec<DeleteTopicState>, Vec<DeleteTopicState>) {
    let key = |topic: &DeleteTopicState| match &topic.name {
        Some(name) => name.to_string(),
        None => image
            .names
            .get(&topic.topic_id)
            .cloned()
            .unwrap_or_else(|| topic.topic_id.to_string()),
    };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for topic in &asked {
        *counts.entry(key(topic)).or_default() += 1;
    }
    let mut told = BTreeSet::new();
    let (once, mut twice): (Vec<_>, Vec<_>) = asked.into_iter().partition(|topic| counts.get(&key(topic)) == Some(&1));
    twice.retain(|topic| told.insert(key(topic)));
    (once, twice)
}

fn refused_repeat(asked: DeleteTopicState) -> DeletableTopicResult {
    DeletableTopicResult {
        name: asked.name,
        topic_id: asked.topic_id,
        error_code: ErrorCode::InvalidRequest.code(),
        error_message: Some(KString::from_static("Duplicate topic name or id.")),
    }
}

fn topic_ref(topic: &DeleteTopicState) -> Result<TopicRef, Refusal> {
    match (&topic.name, topic.topic_id.is_nil()) {
        (Some(name), true) => Ok(TopicRef::Name(name.as_str().to_owned())),
        (None, false) => Ok(TopicRef::Id(topic.topic_id)),
        (Some(_), false) => Err(refusal(
            ErrorCode::InvalidRequest,
            "Topic name and topic id can not both be specified.",
        )),
        (None, true) => Err(refusal(ErrorCode::InvalidRequest, "Neither topic name nor id were specified.")),
    }
}

/// Decides, and keeps the names of what goes: afterwards nothing knows them.
fn delete(context: &Context<'_>, wanted: Vec<Result<TopicRef, Refusal>>) -> Decision<Vec<Outcome<DeletedTopic>>> {
    let valid: Vec<TopicRef> = wanted.iter().flatten().cloned().collect();
    let Decision { records, reply } = controller::delete_topics(context, &valid);
    let mut decided = reply.into_iter();
    let unanswered = || Err(refusal(ErrorCode::UnknownServerError, "The topic was not decided on."));
    let outcome = |wanted: Result<TopicRef, Refusal>| {
        let id = wanted.and_then(|_| decided.next().unwrap_or_else(unanswered))?;
        Ok(DeletedTopic {
            id,
            name: context.image.names.get(&id).cloned().unwrap_or_default(),
        })
    };
    Decision {
        records,
        reply: wanted.into_iter().map(outcome).collect(),
    }
}

fn result(asked: DeleteTopicState, outcome: &Outcome<DeletedTopic>) -> DeletableTopicResult {
    let (error_code, error_message) = verdict(outcome);
    let (name, topic_id) = match outcome {
        Ok(deleted) => (Some(KString::from(&deleted.name)), deleted.id),
        Err(_) => (asked.name, asked.topic_id),
    };
    DeletableTopicResult {
        name,
        topic_id,
        error_code,
        error_message,
    }
}

#[cfg(test)]
mod tests {
    use millstream_core::metadata::configs::Overrides;

    use super::super::topology::test_image;
    use super::*;

    fn asked(name: Option<&str>, id: u128) -> DeleteTopicState {
        DeleteTopicState {
            name: name.map(KString::from),
            topic_id: Uuid::from_u128(id),
        }
    }

    #[test]
    fn a_topic_is_named_by_exactly_one_of_name_and_id() {
        assert_eq!(topic_ref(&asked(Some("a"), 0)), Ok(TopicRef::Name("a".to_owned())));
        assert_eq!(topic_ref(&asked(None, 5)), Ok(TopicRef::Id(Uuid::from_u128(5))));
        for malformed in [asked(Some("a"), 5), asked(None, 0)] {
            assert_eq!(topic_ref(&malformed).unwrap_err().code, ErrorCode::InvalidRequest);
        }
    }

    #[test]
    fn outcomes_stay_beside_their_requests() {
        let mut image = test_image();
        image.views.clear();
        image.names.remove(&Uuid::from_u128(101));
        let fixed = Overrides::new();
        let context = Context {
            image: &image,
            brokers: &[1],
            fixed_configs: &fixed,
            now_ms: 0,
            cluster_admin: true,
        };
        let wanted = [asked(None, 0), asked(None, 9), asked(None, 100)].iter().map(topic_ref).collect();
        let reply = delete(&context, wanted).reply;
        let codes: Vec<_> = reply.iter().map(|outcome| verdict(outcome).0).collect();
        assert_eq!(codes, [42, 100, 0]);
        assert_eq!(reply[2].as_ref().unwrap().name, "orders");
    }

    #[test]
    fn an_unknown_id_is_answered_without_a_name() {
        let unknown = result(asked(None, 9), &Err(refusal(ErrorCode::UnknownTopicId, "no")));
        assert_eq!(
            (unknown.name, unknown.topic_id, unknown.error_code),
            (None, Uuid::from_u128(9), 100)
        );
    }
}
