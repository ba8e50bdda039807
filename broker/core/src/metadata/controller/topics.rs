//! Creating and deleting topics.

use std::collections::{BTreeMap, BTreeSet};

use millstream_protocol::error_code::ErrorCode;
use uuid::Uuid;

use super::{Context, Decision, Draft, Outcome, Refusal, placement};
use crate::metadata::{
    configs::{
        Overrides, Scope, TopicConfig,
        broker::{
            AUTO_CREATE_TOPICS_ENABLE, DEFAULT_REPLICATION_FACTOR, DELETE_TOPIC_ENABLE, NUM_PARTITIONS, OFFSETS_TOPIC_NUM_PARTITIONS,
            OFFSETS_TOPIC_REPLICATION_FACTOR, OFFSETS_TOPIC_SEGMENT_BYTES, TRANSACTION_LOG_MIN_ISR, TRANSACTION_LOG_NUM_PARTITIONS,
            TRANSACTION_LOG_REPLICATION_FACTOR, TRANSACTION_LOG_SEGMENT_BYTES,
        },
        check_topic_rules,
        groups::DEAD_LETTER_TOPIC,
        replace,
        topic::DURABILITY,
    },
    id,
    image::{ClusterImage, PartitionImage, TopicImage},
    names,
    records::{Deleted, MetadataRecord, TopicCreated},
};

/// Kafka's number for "the broker's default".
const DEFAULT: i32 = -1;

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Name.
    pub name: String,
    /// A fresh random id.
    pub id: Uuid,
    /// Partitions, or -1 for the default.
    pub num_partitions: i32,
    /// Replicas, or -1 for the default.
    pub replication_factor: i32,
    /// Replicas by partition number instead of the two above, which are -1 then; empty to let the controller choose.
    pub assignments: Vec<(i32, Vec<i32>)>,
    /// Values to set.
    pub configs: Vec<(String, Option<String>)>,
}

/// A topic that somebody asked for without creating it: the broker's defaults apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Name.
    pub name: String,
    /// A fresh random id.
    pub id: Uuid,
}

/// A topic by name or id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicRef {
    /// By name.
    Name(String),
    /// By id.
    Id(Uuid),
}

/// Creates topics for a client. A created topic is answered as it will be, with its id, partitions and configuration.
pub fn create_topics(context: &Context<'_>, topics: &[NewTopic], validate_only: bool) -> Decision<Vec<Outcome<TopicImage>>> {
    let mut draft = Draft::new(context);
    let mut claims = Claims::new(&draft.image);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for topic in topics {
        *counts.entry(&topic.name).or_default() += 1;
    }
    let mut reply = Vec::with_capacity(topics.len());
    for topic in topics {
        let duplicated = counts.get(topic.name.as_str()).is_some_and(|count| *count > 1);
        let outcome = if duplicated {
            Err(Refusal::new(ErrorCode::InvalidRequest, "Duplicate topic name."))
        } else if names::is_reserved(&topic.name) {
            Err(Refusal::new(
                ErrorCode::InvalidTopicException,
                format!(
                    "Topic name is invalid: '{}' is reserved for the broker",
                    names::printable(&topic.name)
                ),
            ))
        } else {
            create(context, &mut draft, &mut claims, topic)
        };
        reply.push(outcome);
    }
    draft.finish(validate_only, reply)
}

/// Creates topics that were asked for, with the broker's defaults: a user's topic if `auto.create.topics.enable` allows it, and the
/// broker's own topics always, each with the shape it needs.
pub fn auto_create_topics(context: &Context<'_>, wishes: &[Wish]) -> Decision<Vec<Outcome<TopicImage>>> {
    let mut draft = Draft::new(context);
    let mut claims = Claims::new(&draft.image);
    let allowed = context.broker_flag(AUTO_CREATE_TOPICS_ENABLE);
    let mut one = |wish: &Wish| match internal(context, wish) {
        Some(topic) => create(context, &mut draft, &mut claims, &topic),
        None if !allowed || names::is_reserved(&wish.name) => Err(Refusal::new(
            ErrorCode::UnknownTopicOrPartition,
            "This topic does not exist and is not created automatically.",
        )),
        None => create(context, &mut draft, &mut claims, &plain(wish)),
    };
    let reply = wishes.iter().map(&mut one).collect();
    draft.finish(false, reply)
}

/// Deletes topics. What a view reads and what a binding diverts to must be let go first.
pub fn delete_topics(context: &Context<'_>, topics: &[TopicRef]) -> Decision<Vec<Outcome<Uuid>>> {
    let mut draft = Draft::new(context);
    let enabled = context.broker_flag(DELETE_TOPIC_ENABLE);
    let mut one = |topic: &TopicRef| {
        if !enabled {
            return Err(Refusal::new(ErrorCode::TopicDeletionDisabled, "Topic deletion is disabled."));
        }
        let id = deletable(&draft.image, topic)?;
        draft.push(MetadataRecord::TopicDeleted(Deleted { id }))?;
        Ok(id)
    };
    let reply = topics.iter().map(&mut one).collect();
    draft.finish(false, reply)
}

/// What earlier items and the image have taken.
struct Claims {
    names: BTreeMap<String, String>,
    partitions: usize,
}

impl Claims {
    fn new(image: &ClusterImage) -> Self {
        let taken = image.topics.keys().chain(image.views.keys());
        Self {
            names: taken.map(|name| (names::collision_key(name), name.clone())).collect(),
            partitions: 0,
        }
    }
}

fn create(context: &Context<'_>, draft: &mut Draft, claims: &mut Claims, topic: &NewTopic) -> Outcome<TopicImage> {
    check_new_name(&draft.image, &topic.name, topic.id)?;
    let key = names::collision_key(&topic.name);
    if let Some(other) = claims.names.get(&key) {
        return Err(collision(&topic.name, other));
    }
    let partitions = partitions(context, draft, topic)?;
    if claims.partitions + partitions.len() > placement::PARTITIONS_PER_REQUEST_MAX {
        return Err(Refusal::new(
            ErrorCode::PolicyViolation,
            "Excessively large number of partitions per request.",
        ));
    }
    let configs = new_configs(context, &topic.configs)?;
    let record = TopicCreated {
        name: topic.name.clone(),
        id: topic.id,
        internal: names::is_reserved(&topic.name),
        created_ms: context.now_ms,
        configs,
        partitions,
    };
    claims.partitions += record.partitions.len();
    draft.push(MetadataRecord::TopicCreated(record))?;
    claims.names.insert(key, topic.name.clone());
    let created = draft.image.topic(&topic.name).map(|created| TopicImage::clone(created));
    created.ok_or_else(|| Refusal::new(ErrorCode::UnknownServerError, "the created topic is not in the image"))
}

/// Checks the name and id of a new topic or view, but for collisions.
pub(super) fn check_new_name(image: &ClusterImage, name: &str, id: Uuid) -> Outcome<()> {
    names::check_topic(name).map_err(|message| Refusal::new(ErrorCode::InvalidTopicException, message))?;
    if image.topic(name).is_some() {
        return Err(Refusal::new(
            ErrorCode::TopicAlreadyExists,
            format!("Topic '{name}' already exists."),
        ));
    }
    if image.view(name).is_some() {
        return Err(Refusal::new(
            ErrorCode::TopicAlreadyExists,
            format!("A view named '{name}' already exists."),
        ));
    }
    if !id::is_usable(id) || image.names.contains_key(&id) {
        return Err(Refusal::new(ErrorCode::UnknownServerError, "The id for the new topic is in use."));
    }
    Ok(())
}

/// The refusal of a name that differs from another in dots and underscores only.
pub(super) fn collision(name: &str, other: &str) -> Refusal {
    Refusal::new(
        ErrorCode::InvalidTopicException,
        format!("Topic '{name}' collides with existing topic: {other}"),
    )
}

fn partitions(context: &Context<'_>, draft: &Draft, topic: &NewTopic) -> Outcome<Vec<PartitionImage>> {
    if !topic.assignments.is_empty() {
        return manual_partitions(context, topic);
    }
    let count = if topic.num_partitions == DEFAULT {
        context.broker_number(NUM_PARTITIONS)
    } else {
        topic.num_partitions
    };
    let count = usize::try_from(count).ok().filter(|count| *count > 0).ok_or_else(|| {
        Refusal::new(
            ErrorCode::InvalidPartitions,
            "Number of partitions was set to an invalid non-positive value.",
        )
    })?;
    let factor = if topic.replication_factor == DEFAULT {
        context.broker_number(DEFAULT_REPLICATION_FACTOR)
    } else {
        topic.replication_factor
    };
    if factor < 1 {
        let message = "Replication factor must be larger than 0, or -1 to use the default value.";
        return Err(Refusal::new(ErrorCode::InvalidReplicationFactor, message));
    }
    if count > placement::PARTITIONS_PER_REQUEST_MAX {
        return Err(Refusal::new(
            ErrorCode::PolicyViolation,
            "Excessively large number of partitions per request.",
        ));
    }
    placement::place(context.brokers, placement::next_start(&draft.image), count, factor)
}

fn manual_partitions(context: &Context<'_>, topic: &NewTopic) -> Outcome<Vec<PartitionImage>> {
    for (value, what) in [
        (topic.replication_factor, "replication factor"),
        (topic.num_partitions, "numPartitions"),
    ] {
        if value != DEFAULT {
            let message = format!("A manual partition assignment was specified, but {what} was not set to -1.");
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
    }
    let refuse = |message: &str| Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
    let mut by_number = BTreeMap::new();
    for (number, replicas) in &topic.assignments {
        if by_number.insert(*number, replicas.clone()).is_some() {
            return refuse("Found multiple manual partition assignments for one partition.");
        }
    }
    if !by_number.keys().copied().eq((0..).take(by_number.len())) {
        return refuse("partitions should be a consecutive 0-based integer sequence");
    }
    let assignments: Vec<_> = by_number.into_values().collect();
    placement::assigned(context.brokers, &assignments, None)
}

fn new_configs(context: &Context<'_>, configs: &[(String, Option<String>)]) -> Outcome<Overrides> {
    let invalid = |message: String| Refusal::new(ErrorCode::InvalidConfig, message);
    let configs = replace(Scope::Topic, configs).map_err(invalid)?;
    let resolved = TopicConfig::resolve(&configs, &context.layers());
    check_topic_rules(&resolved).map_err(invalid)?;
    context.check_tier(&resolved).map_err(invalid)?;
    Ok(configs)
}

fn plain(wish: &Wish) -> NewTopic {
    let Wish { name, id } = wish.clone();
    NewTopic {
        name,
        id,
        num_partitions: DEFAULT,
        replication_factor: DEFAULT,
        assignments: Vec::new(),
        configs: Vec::new(),
    }
}

/// The shape of one of the broker's own topics; `None` for a user's.
fn internal(context: &Context<'_>, wish: &Wish) -> Option<NewTopic> {
    let brokers = i32::try_from(context.brokers.len()).unwrap_or(i32::MAX);
    let factor = |name: &str| context.broker_number(name).min(brokers);
    let set = |name: &str, value: String| (name.to_owned(), Some(value));
    let (num_partitions, replication_factor, mut configs) = match wish.name.as_str() {
        names::CONSUMER_OFFSETS => {
            let segment_bytes = context.broker_number(OFFSETS_TOPIC_SEGMENT_BYTES).max(1 << 20).to_string();
            let configs = vec![
                set("cleanup.policy", "compact".to_owned()),
                set("compression.type", "producer".to_owned()),
                set("segment.bytes", segment_bytes),
            ];
            (
                context.broker_number(OFFSETS_TOPIC_NUM_PARTITIONS),
                factor(OFFSETS_TOPIC_REPLICATION_FACTOR),
                configs,
            )
        }
        names::TRANSACTION_STATE => {
            let replicas = factor(TRANSACTION_LOG_REPLICATION_FACTOR);
            let segment_bytes = context.broker_number(TRANSACTION_LOG_SEGMENT_BYTES).max(1 << 20).to_string();
            let min_isr = context.broker_number(TRANSACTION_LOG_MIN_ISR).min(replicas).to_string();
            let configs = vec![
                set("cleanup.policy", "compact".to_owned()),
                set("compression.type", "uncompressed".to_owned()),
                set("segment.bytes", segment_bytes),
                set("min.insync.replicas", min_isr),
                set("unclean.leader.election.enable", "false".to_owned()),
            ];
            (context.broker_number(TRANSACTION_LOG_NUM_PARTITIONS), replicas, configs)
        }
        names::SHARE_GROUP_STATE => {
            let segment_bytes = context
                .broker_number("share.coordinator.state.topic.segment.bytes")
                .max(1 << 20)
                .to_string();
            let replicas = factor("share.coordinator.state.topic.replication.factor");
            let min_isr = context
                .broker_number("share.coordinator.state.topic.min.isr")
                .min(replicas)
                .to_string();
            let configs = vec![
                set("cleanup.policy", "compact".to_owned()),
                set("compression.type", "producer".to_owned()),
                set("segment.bytes", segment_bytes),
                set("min.insync.replicas", min_isr),
            ];
            (
                context.broker_number("share.coordinator.state.topic.num.partitions"),
                replicas,
                configs,
            )
        }
        // A component is stored in records of 512 KiB; the rest is headroom.
        names::PLUGINS => {
            let configs = vec![
                set("cleanup.policy", "compact".to_owned()),
                set("max.message.bytes", (64_i32 << 20).to_string()),
            ];
            (1, factor(OFFSETS_TOPIC_REPLICATION_FACTOR), configs)
        }
        names::PLUGIN_LOGS => (
            1,
            factor(OFFSETS_TOPIC_REPLICATION_FACTOR),
            vec![set("retention.bytes", (64_i32 << 20).to_string())],
        ),
        _ => return None,
    };
    // What the broker itself acknowledged is on disk, whatever the default for users' topics says.
    configs.push(set(DURABILITY, "fsync".to_owned()));
    Some(NewTopic {
        num_partitions,
        replication_factor,
        configs,
        ..plain(wish)
    })
}

fn deletable(image: &ClusterImage, topic: &TopicRef) -> Outcome<Uuid> {
    let found = match topic {
        TopicRef::Name(name) => image.topic(name),
        TopicRef::Id(id) => image.topic_by_id(*id),
    };
    let Some(found) = found else {
        return Err(not_a_topic(image, topic));
    };
    let name = &found.name;
    if found.internal {
        return Err(Refusal::new(
            ErrorCode::InvalidRequest,
            format!("Topic '{name}' is internal and cannot be deleted."),
        ));
    }
    let views: BTreeSet<&str> = image
        .views
        .values()
        .filter(|view| view.source == *name)
        .map(|view| view.name.as_str())
        .collect();
    if let Some(view) = views.first() {
        let message = format!(
            "Topic '{name}' is the source of {} view(s), such as '{view}': delete them first.",
            views.len()
        );
        return Err(Refusal::new(ErrorCode::PolicyViolation, message));
    }
    let diverting = image
        .bindings()
        .find(|(target, binding)| binding.dead_letter_topic.as_ref() == Some(name) && target != name);
    if let Some((target, binding)) = diverting {
        let message = format!(
            "Topic '{name}' takes the dead letters of binding '{}' on '{target}': unbind it first.",
            binding.name
        );
        return Err(Refusal::new(ErrorCode::PolicyViolation, message));
    }
    let mut groups = image.group_configs.iter();
    if let Some((group, _)) = groups.find(|(_, configs)| configs.get(DEAD_LETTER_TOPIC) == Some(name)) {
        let message =
            format!("Topic '{name}' takes the dead letters of share group '{group}': delete the group's {DEAD_LETTER_TOPIC} first.");
        return Err(Refusal::new(ErrorCode::PolicyViolation, message));
    }
    Ok(found.id)
}

fn not_a_topic(image: &ClusterImage, topic: &TopicRef) -> Refusal {
    let view = match topic {
        TopicRef::Name(name) => image.view(name),
        TopicRef::Id(id) => image.view_by_id(*id),
    };
    match (view, topic) {
        (Some(view), _) => Refusal::new(
            ErrorCode::InvalidRequest,
            format!("'{}' is a view: delete it as a view.", view.name),
        ),
        (None, TopicRef::Name(_)) => Refusal::new(ErrorCode::UnknownTopicOrPartition, "This server does not host this topic."),
        (None, TopicRef::Id(_)) => Refusal::new(ErrorCode::UnknownTopicId, "This server does not host this topic ID."),
    }
}

#[cfg(test)]
#[path = "topics_tests.rs"]
mod tests;
