//! Metadata: brokers, topics and partitions, for every client's first question.
//!
//! Names that do not exist are created if the client and `auto.create.topics.enable` allow it; they are ready in the same answer. The
//! broker's own topics are never made that way: it creates them when it needs them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millstream_core::metadata::{ClusterImage, configs::broker::AUTO_CREATE_TOPICS_ENABLE, names};
use millstream_protocol::{
    ErrorCode, KString,
    messages::{
        MetadataRequest, MetadataResponse,
        metadata_request::MetadataRequestTopic,
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    },
};
use uuid::Uuid;

use super::{
    decisions::not_stored,
    topology::{self, PartitionState},
};
use crate::{
    broker::{Broker, Named},
    context::RequestContext,
};

/// Which topics a request asks for.
#[derive(Debug, PartialEq)]
enum Wanted {
    All,
    These(Vec<Asked>),
}

/// One topic that a request asks for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone)]
enum Asked {
    Name(String),
    Id(Uuid),
    /// Neither name nor id, or an id in a version whose answer could not name it.
    Malformed,
}

/// Handles a request.
pub async fn handle(broker: Arc<Broker>, context: RequestContext, request: MetadataRequest) -> MetadataResponse {
    let wanted = wanted(request.topics, context.version);
    let may_create = request.allow_auto_topic_creation && broker.config.flag(AUTO_CREATE_TOPICS_ENABLE);
    let refused = match &wanted {
        Wanted::These(asked) if may_create => create_missing(&broker, asked).await,
        Wanted::These(_) | Wanted::All => BTreeMap::new(),
    };
    let image = broker.metadata.image();
    let asked = match wanted {
        Wanted::All => topology::all_names(&image)
            .into_iter()
            .map(|name| Asked::Name(name.into()))
            .collect(),
        Wanted::These(asked) => asked,
    };
    let node = topology::this_node(&broker);
    let with_operations = request.include_topic_authorized_operations;
    MetadataResponse {
        topics: asked
            .iter()
            .map(|asked| answer(&image, asked, &refused, node.id, with_operations))
            .collect(),
        cluster_id: Some(topology::cluster_id(&image)),
        controller_id: node.id,
        brokers: vec![MetadataResponseBroker {
            node_id: node.id,
            host: node.host,
            port: node.port,
            rack: node.rack,
        }],
        cluster_authorized_operations: topology::cluster_operations(request.include_cluster_authorized_operations),
        ..MetadataResponse::default()
    }
}

/// The topics of a request, each once.
fn wanted(topics: Option<Vec<MetadataRequestTopic>>, version: i16) -> Wanted {
    let Some(topics) = topics.filter(|topics| version > 0 || !topics.is_empty()) else {
        return Wanted::All;
    };
    let mut seen = BTreeSet::new();
    let asked = topics.into_iter().map(|topic| match topic.name {
        Some(name) if topic.topic_id.is_nil() => Asked::Name(name.into()),
        // Versions 10 and 11 have the field, but Kafka serves ids from 12 on, where a response may lack the name.
        // Java's admin client sends an empty name with it.
        _ if version >= 12 && !topic.topic_id.is_nil() => Asked::Id(topic.topic_id),
        Some(_) | None => Asked::Malformed,
    });
    Wanted::These(asked.filter(|asked| seen.insert(asked.clone())).collect())
}

/// Creates what is missing and may be created; answers what could not be.
async fn create_missing(broker: &Broker, asked: &[Asked]) -> BTreeMap<String, ErrorCode> {
    let missing = missing(&broker.metadata.image(), asked);
    if missing.is_empty() {
        return BTreeMap::new();
    }
    match broker.auto_create(missing.clone()).await {
        Ok(outcomes) => missing
            .into_iter()
            .zip(outcomes)
            .filter_map(|(name, outcome)| Some((name, outcome.err()?)))
            .collect(),
        Err(error) => {
            let code = not_stored(&error);
            missing.into_iter().map(|name| (name, code)).collect()
        }
    }
}

fn missing(image: &ClusterImage, asked: &[Asked]) -> Vec<String> {
    let names = asked.iter().filter_map(|asked| match asked {
        Asked::Name(name) => Some(name),
        Asked::Id(_) | Asked::Malformed => None,
    });
    let creatable = names.filter(|name| names::check_topic(name).is_ok() && !names::is_reserved(name));
    creatable.filter(|name| Named::by_name(image, name).is_none()).cloned().collect()
}

fn answer(
    image: &ClusterImage,
    asked: &Asked,
    refused: &BTreeMap<String, ErrorCode>,
    node_id: i32,
    with_operations: bool,
) -> MetadataResponseTopic {
    let failed = |error: ErrorCode, name: Option<KString>, topic_id: Uuid| MetadataResponseTopic {
        error_code: error.code(),
        name,
        topic_id,
        ..MetadataResponseTopic::default()
    };
    let found = match asked {
        // A name that was refused may have been created by another client meanwhile, so the image is asked first.
        Asked::Name(name) => Named::by_name(image, name).ok_or_else(|| {
            let error = refused.get(name).copied().unwrap_or_else(|| topology::unknown_name(name));
            failed(error, Some(KString::from(name)), Uuid::nil())
        }),
        Asked::Id(id) => Named::by_id(image, *id).ok_or_else(|| failed(ErrorCode::UnknownTopicId, None, *id)),
        Asked::Malformed => Err(failed(ErrorCode::InvalidRequest, Some(KString::default()), Uuid::nil())),
    };
    let named = match found {
        Ok(named) => named,
        Err(failed) => return failed,
    };
    MetadataResponseTopic {
        error_code: ErrorCode::None.code(),
        name: Some(KString::from(named.name())),
        topic_id: named.id(),
        is_internal: topology::is_internal(&named),
        partitions: topology::partitions(&named, node_id).map(partition).collect(),
        topic_authorized_operations: topology::topic_operations(&named, with_operations),
    }
}

fn partition(state: PartitionState) -> MetadataResponsePartition {
    MetadataResponsePartition {
        error_code: state.error.code(),
        partition_index: state.number,
        leader_id: state.leader,
        leader_epoch: state.leader_epoch,
        replica_nodes: state.replicas,
        isr_nodes: state.isr,
        offline_replicas: state.offline,
    }
}

#[cfg(test)]
mod tests {
    use millstream_protocol::Message;

    use super::*;

    fn by_name(name: &str) -> MetadataRequestTopic {
        MetadataRequestTopic {
            name: Some(KString::from(name)),
            topic_id: Uuid::nil(),
        }
    }

    fn by_id(id: u128) -> MetadataRequestTopic {
        MetadataRequestTopic {
            name: None,
            topic_id: Uuid::from_u128(id),
        }
    }

    fn answered(asked: &Asked) -> MetadataResponseTopic {
        answer(&topology::test_image(), asked, &BTreeMap::new(), 1, false)
    }

    #[test]
    fn null_asks_for_all_and_so_does_an_empty_list_in_version_0() {
        assert_eq!(wanted(None, 13), Wanted::All);
        assert_eq!(wanted(Some(vec![]), 0), Wanted::All);
        assert_eq!(wanted(Some(vec![]), 1), Wanted::These(vec![]));
    }

    #[test]
    fn a_topic_is_answered_once() {
        assert_eq!(
            wanted(Some(vec![by_name("a"), by_name("a")]), 9),
            Wanted::These(vec![Asked::Name("a".to_owned())])
        );
    }

    #[test]
    fn ids_are_served_from_version_12() {
        assert_eq!(wanted(Some(vec![by_id(5)]), 12), Wanted::These(vec![Asked::Id(Uuid::from_u128(5))]));
        assert_eq!(wanted(Some(vec![by_id(5)]), 11), Wanted::These(vec![Asked::Malformed]));
        let both = MetadataRequestTopic {
            name: Some(KString::from("a")),
            topic_id: Uuid::from_u128(5),
        };
        assert_eq!(wanted(Some(vec![both]), 13), Wanted::These(vec![Asked::Id(Uuid::from_u128(5))]));
    }

    #[test]
    fn only_ordinary_names_that_nothing_has_are_created() {
        let asked = ["orders", "orders.masked", "new", "bad name", "__consumer_offsets"].map(|name| Asked::Name(name.to_owned()));
        assert_eq!(missing(&topology::test_image(), &asked), ["new"]);
    }

    #[test]
    fn a_view_is_answered_by_its_own_id() {
        let topic = answered(&Asked::Id(Uuid::from_u128(101)));
        assert_eq!(
            (topic.name, topic.error_code, topic.partitions.len()),
            (Some(KString::from("orders.masked")), 0, 3)
        );
    }

    #[test]
    fn every_answer_encodes_in_every_version_that_can_ask_for_it() {
        for version in 0..=13 {
            let request = vec![by_name("orders"), by_name("new"), by_id(100), by_id(9)];
            let Wanted::These(asked) = wanted(Some(request), version) else {
                panic!("version {version} asked for all")
            };
            let response = MetadataResponse {
                topics: asked.iter().map(answered).collect(),
                ..MetadataResponse::default()
            };
            assert!(response.encode_to_bytes(version).is_ok(), "{version}");
        }
    }

    #[test]
    fn what_is_unknown_says_how() {
        let codes = [
            Asked::Name("new".to_owned()),
            Asked::Name("bad name".to_owned()),
            Asked::Id(Uuid::from_u128(9)),
            Asked::Malformed,
        ]
        .map(|asked| answered(&asked).error_code);
        assert_eq!(codes, [3, 17, 100, 42]);
    }
}
