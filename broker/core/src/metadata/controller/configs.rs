//! Altering configurations: of topics and views, of one broker, of all brokers.

use std::collections::BTreeSet;

use millstream_protocol::error_code::ErrorCode;
use uuid::Uuid;

use super::{Context, Decision, Draft, Outcome, Refusal, bindings::check_dead_letter_topic};
use crate::metadata::{
    configs::{
        AlterOp, ClientMatch, ConfigChange, Overrides, Scope, ShareOffsetReset, TopicConfig, alter_incrementally, check_topic_rules,
        effective_value,
        groups::{
            CONSUMER_HEARTBEAT_INTERVAL_MS, CONSUMER_SESSION_TIMEOUT_MS, DEAD_LETTER_TOPIC, METRICS_MATCH, SHARE_AUTO_OFFSET_RESET,
            SHARE_HEARTBEAT_INTERVAL_MS, SHARE_LOCK_DURATION_MS, SHARE_SESSION_TIMEOUT_MS, STREAMS_HEARTBEAT_INTERVAL_MS,
            STREAMS_NUM_STANDBY_REPLICAS, STREAMS_SESSION_TIMEOUT_MS,
        },
        replace,
        topic::{REMOTE_LOG_DELETE_ON_DISABLE, REMOTE_STORAGE_ENABLE},
    },
    image::ClusterImage,
    names,
    records::{ConfigTarget, ConfigsReplaced, MetadataRecord},
};

/// Whose configuration; Kafka's resource types TOPIC and BROKER.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigResource {
    /// A topic or view by name.
    Topic(String),
    /// A broker.
    Broker(i32),
    /// All brokers: the resource with the empty name.
    AllBrokers,
    /// A group; it need not exist.
    Group(String),
    /// A client metrics subscription.
    ClientMetrics(String),
}

/// What to do with a resource's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alteration {
    /// Change these (IncrementalAlterConfigs).
    Changes(Vec<ConfigChange>),
    /// Set exactly these (AlterConfigs).
    Replace(Vec<(String, Option<String>)>),
}

/// One resource of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterConfigs {
    /// Whose.
    pub resource: ConfigResource,
    /// What.
    pub alteration: Alteration,
}

/// Alters configurations; both request kinds of Kafka.
pub fn alter_configs(context: &Context<'_>, items: &[AlterConfigs], validate_only: bool) -> Decision<Vec<Outcome<()>>> {
    let mut draft = Draft::new(context);
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<&ConfigResource> = items
        .iter()
        .map(|item| &item.resource)
        .filter(|resource| !seen.insert(*resource))
        .collect();
    let mut reply = Vec::with_capacity(items.len());
    for item in items {
        let outcome = if twice.contains(&item.resource) {
            Err(Refusal::new(ErrorCode::InvalidRequest, "Each resource must appear at most once."))
        } else {
            match &item.resource {
                ConfigResource::Topic(name) => alter_topic(context, &mut draft, name, &item.alteration),
                ConfigResource::Broker(id) => alter_broker(context, &mut draft, Some(*id), &item.alteration),
                ConfigResource::AllBrokers => alter_broker(context, &mut draft, None, &item.alteration),
                ConfigResource::Group(name) => alter_group(context, &mut draft, name, &item.alteration),
                ConfigResource::ClientMetrics(name) => alter_client_metrics(context, &mut draft, name, &item.alteration),
            }
        };
        reply.push(outcome);
    }
    draft.finish(validate_only, reply)
}

fn alter_topic(context: &Context<'_>, draft: &mut Draft, name: &str, alteration: &Alteration) -> Outcome<()> {
    if let Some(view) = draft.image.view(name) {
        let (id, current) = (view.id, view.configs.clone());
        let configs = altered(context, Scope::View, &current, alteration)?;
        return push(draft, ConfigTarget::Topic { id }, current, configs);
    }
    if name.is_empty() {
        return Err(Refusal::new(ErrorCode::InvalidRequest, "Default topic resources are not allowed."));
    }
    names::check_topic(name).map_err(|message| Refusal::new(ErrorCode::InvalidTopicException, message.to_string()))?;
    let topic = draft.image.topic(name);
    let topic = topic.ok_or_else(|| Refusal::new(ErrorCode::UnknownTopicOrPartition, format!("The topic '{name}' does not exist.")))?;
    if topic.internal && !context.cluster_admin {
        let message = format!("Topic '{name}' is internal: only cluster administrators configure it.");
        return Err(Refusal::new(ErrorCode::TopicAuthorizationFailed, message));
    }
    let (id, current): (Uuid, Overrides) = (topic.id, topic.configs.clone());
    let configs = altered(context, Scope::Topic, &current, alteration)?;
    check_transition(context, &current, &configs).map_err(invalid)?;
    push(draft, ConfigTarget::Topic { id }, current, configs)
}

/// Checks the new values together, and against the old ones where going back loses data.
fn check_transition(context: &Context<'_>, current: &Overrides, next: &Overrides) -> Result<(), String> {
    let before = TopicConfig::resolve(current, &context.layers());
    let after = TopicConfig::resolve(next, &context.layers());
    check_topic_rules(&after)?;
    if !before.remote_storage_enable {
        context.check_tier(&after)?;
    }
    if before.remote_storage_enable && !after.remote_storage_enable && !after.remote_log_delete_on_disable {
        return Err(format!(
            "Disabling {REMOTE_STORAGE_ENABLE} would leave data in the bucket that nobody can read: set remote.log.copy.disable=true to stop \
             uploading and keep reading, or {REMOTE_LOG_DELETE_ON_DISABLE}=true as well to delete it."
        ));
    }
    Ok(())
}

fn alter_broker(context: &Context<'_>, draft: &mut Draft, id: Option<i32>, alteration: &Alteration) -> Outcome<()> {
    if let Some(unknown) = id.filter(|id| !context.brokers.contains(id)) {
        return Err(Refusal::new(
            ErrorCode::InvalidRequest,
            format!("No broker {unknown} is registered."),
        ));
    }
    let named: BTreeSet<&str> = match alteration {
        Alteration::Changes(changes) => changes.iter().map(|change| change.name.as_str()).collect(),
        Alteration::Replace(values) => values.iter().map(|(name, _)| name.as_str()).collect(),
    };
    let fixed = named
        .into_iter()
        .find(|name| Scope::Broker.definition(name).is_some_and(|definition| definition.read_only));
    if let Some(name) = fixed {
        return Err(Refusal::new(
            ErrorCode::InvalidRequest,
            format!("Cannot update these configs dynamically: {name}"),
        ));
    }
    let none = Overrides::new();
    let current = match id {
        Some(id) => draft.image.broker_configs.get(&id).unwrap_or(&none).clone(),
        None => draft.image.broker_default_configs.clone(),
    };
    let configs = altered(context, Scope::Broker, &current, alteration).map_err(as_request)?;
    let mut after = draft.image.clone();
    match id {
        Some(id) => drop(after.broker_configs.insert(id, configs.clone())),
        None => after.broker_default_configs.clone_from(&configs),
    }
    check_topics(&after, id, context.fixed_configs)
        .map_err(invalid)
        .map_err(as_request)?;
    let target = id.map_or(ConfigTarget::AllBrokers, |id| ConfigTarget::Broker { id });
    push(draft, target, current, configs)
}

fn alter_group(context: &Context<'_>, draft: &mut Draft, name: &str, alteration: &Alteration) -> Outcome<()> {
    if name.is_empty() {
        return Err(Refusal::new(ErrorCode::InvalidRequest, "Default group resources are not allowed."));
    }
    let current = draft.image.group_configs.get(name).cloned().unwrap_or_default();
    let configs = altered(context, Scope::Group, &current, alteration)?;
    check_group(context, &configs).map_err(invalid)?;
    let changed = configs
        .get(DEAD_LETTER_TOPIC)
        .filter(|topic| current.get(DEAD_LETTER_TOPIC) != Some(*topic));
    if let Some(topic) = changed.filter(|topic| !topic.is_empty()) {
        // Which topics the group reads is not known here.
        let found = check_dead_letter_topic(&draft.image, "", topic);
        found.map_err(|refusal| invalid(format!("{DEAD_LETTER_TOPIC}: {}", refusal.message)))?;
    }
    push(draft, ConfigTarget::Group { name: name.to_owned() }, current, configs)
}

/// Checks a group's values against what the brokers allow.
fn check_group(context: &Context<'_>, configs: &Overrides) -> Result<(), String> {
    let layers = context.layers();
    let limit = |name: &str| effective_value(Scope::Broker, name, &Overrides::new(), &layers).and_then(|value| value.parse::<i64>().ok());
    let bounded = [
        (
            CONSUMER_SESSION_TIMEOUT_MS,
            "group.consumer.min.session.timeout.ms",
            "group.consumer.max.session.timeout.ms",
        ),
        (
            CONSUMER_HEARTBEAT_INTERVAL_MS,
            "group.consumer.min.heartbeat.interval.ms",
            "group.consumer.max.heartbeat.interval.ms",
        ),
        (
            SHARE_SESSION_TIMEOUT_MS,
            "group.share.min.session.timeout.ms",
            "group.share.max.session.timeout.ms",
        ),
        (
            SHARE_HEARTBEAT_INTERVAL_MS,
            "group.share.min.heartbeat.interval.ms",
            "group.share.max.heartbeat.interval.ms",
        ),
        (
            SHARE_LOCK_DURATION_MS,
            "group.share.min.record.lock.duration.ms",
            "group.share.max.record.lock.duration.ms",
        ),
        (
            STREAMS_SESSION_TIMEOUT_MS,
            "group.streams.min.session.timeout.ms",
            "group.streams.max.session.timeout.ms",
        ),
        (
            STREAMS_HEARTBEAT_INTERVAL_MS,
            "group.streams.min.heartbeat.interval.ms",
            "group.streams.max.heartbeat.interval.ms",
        ),
    ];
    for (name, min, max) in bounded {
        let Some(value) = configs.get(name).and_then(|value| value.trim().parse::<i64>().ok()) else {
            continue;
        };
        if limit(min).is_some_and(|least| value < least) {
            return Err(format!("{name} must be greater than or equal to {min}"));
        }
        if limit(max).is_some_and(|most| value > most) {
            return Err(format!("{name} must be less than or equal to {max}"));
        }
    }
    let standbys = configs
        .get(STREAMS_NUM_STANDBY_REPLICAS)
        .and_then(|value| value.trim().parse::<i64>().ok());
    let most = "group.streams.max.standby.replicas";
    if standbys > limit(most) {
        return Err(format!("{STREAMS_NUM_STANDBY_REPLICAS} must be less than or equal to {most}"));
    }
    let number = |name: &str| effective_value(Scope::Group, name, configs, &layers).and_then(|value| value.parse::<i64>().ok());
    for (session, heartbeat) in [
        (CONSUMER_SESSION_TIMEOUT_MS, CONSUMER_HEARTBEAT_INTERVAL_MS),
        (SHARE_SESSION_TIMEOUT_MS, SHARE_HEARTBEAT_INTERVAL_MS),
        (STREAMS_SESSION_TIMEOUT_MS, STREAMS_HEARTBEAT_INTERVAL_MS),
    ] {
        if number(session) <= number(heartbeat) {
            return Err(format!("{session} must be greater than {heartbeat}"));
        }
    }
    match configs.get(SHARE_AUTO_OFFSET_RESET) {
        Some(reset) => ShareOffsetReset::parse(reset).map(|_| ()),
        None => Ok(()),
    }
}

fn alter_client_metrics(context: &Context<'_>, draft: &mut Draft, name: &str, alteration: &Alteration) -> Outcome<()> {
    if name.is_empty() {
        let message = "Default client-metrics resources are not allowed.";
        return Err(Refusal::new(ErrorCode::InvalidRequest, message));
    }
    let current = draft.image.client_metrics.get(name).cloned().unwrap_or_default();
    let configs = altered(context, Scope::ClientMetrics, &current, alteration).map_err(as_request)?;
    if let Some(patterns) = configs.get(METRICS_MATCH) {
        ClientMatch::parse(patterns).map_err(invalid)?;
    }
    push(draft, ConfigTarget::ClientMetrics { name: name.to_owned() }, current, configs)
}

/// Checks that no topic's values contradict each other under the brokers' new defaults.
fn check_topics(image: &ClusterImage, broker: Option<i32>, fixed: &Overrides) -> Result<(), String> {
    let layers = image.broker_layers(broker, fixed);
    let checked = |topic: &Overrides| check_topic_rules(&TopicConfig::resolve(topic, &layers));
    checked(&Overrides::new())?;
    image
        .topics
        .values()
        .try_for_each(|topic| checked(&topic.configs).map_err(|message| format!("Topic '{}': {message}", topic.name)))
}

fn altered(context: &Context<'_>, scope: Scope, current: &Overrides, alteration: &Alteration) -> Outcome<Overrides> {
    match alteration {
        Alteration::Changes(changes) => {
            check_request(
                changes
                    .iter()
                    .map(|change| (change.name.as_str(), change.value.is_none() && change.op != AlterOp::Delete)),
            )?;
            alter_incrementally(scope, current, changes, &context.layers()).map_err(invalid)
        }
        Alteration::Replace(values) => {
            check_request(values.iter().map(|(name, value)| (name.as_str(), value.is_none())))?;
            replace(scope, values).map_err(invalid)
        }
    }
}

/// What is wrong with a request whatever its configurations mean: a value that is null, a name twice.
fn check_request<'a>(changes: impl Iterator<Item = (&'a str, bool)>) -> Outcome<()> {
    let mut seen = BTreeSet::new();
    for (name, is_null) in changes {
        let shown: String = name.escape_default().take(128).collect();
        if is_null {
            return Err(Refusal::new(
                ErrorCode::InvalidRequest,
                format!("Null value not supported for : {shown}"),
            ));
        }
        if !seen.insert(name) {
            return Err(Refusal::new(
                ErrorCode::InvalidRequest,
                format!("Error due to duplicate config keys: {shown}"),
            ));
        }
    }
    Ok(())
}

/// Kafka tells a wrong value of a broker or a subscription as INVALID_REQUEST, one of a topic or group as INVALID_CONFIG.
fn as_request(refusal: Refusal) -> Refusal {
    Refusal {
        code: ErrorCode::InvalidRequest,
        ..refusal
    }
}

fn push(draft: &mut Draft, target: ConfigTarget, current: Overrides, configs: Overrides) -> Outcome<()> {
    if current == configs {
        return Ok(());
    }
    draft.push(MetadataRecord::ConfigsReplaced(ConfigsReplaced { target, configs }))
}

fn invalid(message: String) -> Refusal {
    Refusal::new(ErrorCode::InvalidConfig, message)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Cluster, codes};
    use super::*;

    fn alter(cluster: &mut Cluster, resource: ConfigResource, changes: &[(&str, &str)]) -> Outcome<()> {
        let changes = changes.iter().map(|(name, value)| ConfigChange::set(name, value)).collect();
        let item = AlterConfigs {
            resource,
            alteration: Alteration::Changes(changes),
        };
        cluster.run(|context| alter_configs(context, &[item], false)).remove(0)
    }

    fn topic(name: &str) -> ConfigResource {
        ConfigResource::Topic(name.to_owned())
    }

    #[test]
    fn values_are_set_and_replaced() {
        let mut cluster = Cluster::with_topics(&["t"]);
        assert_eq!(alter(&mut cluster, topic("t"), &[("retention.ms", "5")]), Ok(()));
        assert_eq!(cluster.image.topic("t").unwrap().configs["retention.ms"], "5");
        let all = vec![("segment.ms".to_owned(), Some("9".to_owned()))];
        let item = AlterConfigs {
            resource: topic("t"),
            alteration: Alteration::Replace(all),
        };
        assert_eq!(
            cluster.run(|context| alter_configs(context, std::slice::from_ref(&item), false)),
            [Ok(())]
        );
        assert_eq!(cluster.image.topic("t").unwrap().configs.keys().collect::<Vec<_>>(), ["segment.ms"]);
    }

    #[test]
    fn a_resource_appears_once() {
        let mut cluster = Cluster::with_topics(&["t"]);
        let item = AlterConfigs {
            resource: topic("t"),
            alteration: Alteration::Changes(Vec::new()),
        };
        let reply = cluster.run(|context| alter_configs(context, &[item.clone(), item.clone()], false));
        assert_eq!(codes(&reply), [ErrorCode::InvalidRequest; 2]);
    }

    #[test]
    fn compacted_topics_are_not_tiered() {
        let mut cluster = Cluster::with_topics(&["t"]);
        assert!(alter(&mut cluster, topic("t"), &[("remote.storage.enable", "true")]).is_ok());
        assert_eq!(
            alter(&mut cluster, topic("t"), &[("cleanup.policy", "compact")]).unwrap_err().code,
            ErrorCode::InvalidConfig
        );
        let refused = alter(&mut cluster, ConfigResource::AllBrokers, &[("log.cleanup.policy", "compact")]).unwrap_err();
        assert!(refused.message.starts_with("Topic 't': "), "{}", refused.message);
    }

    #[test]
    fn tiered_data_is_not_left_behind() {
        let mut cluster = Cluster::with_topics(&["t"]);
        assert!(alter(&mut cluster, topic("t"), &[("remote.storage.enable", "true")]).is_ok());
        assert!(alter(&mut cluster, topic("t"), &[("remote.storage.enable", "false")]).is_err());
        let both = [("remote.storage.enable", "false"), ("remote.log.delete.on.disable", "true")];
        assert!(alter(&mut cluster, topic("t"), &both).is_ok());
    }

    #[test]
    fn brokers_take_dynamic_values_only() {
        let mut cluster = Cluster::with_topics(&[]);
        assert!(alter(&mut cluster, ConfigResource::AllBrokers, &[("log.retention.ms", "5")]).is_ok());
        assert!(alter(&mut cluster, ConfigResource::Broker(2), &[("log.retention.ms", "6")]).is_ok());
        assert_eq!(
            alter(&mut cluster, ConfigResource::Broker(9), &[("log.retention.ms", "6")])
                .unwrap_err()
                .code,
            ErrorCode::InvalidRequest
        );
        let refused = alter(&mut cluster, ConfigResource::AllBrokers, &[("node.id", "5")]).unwrap_err();
        assert_eq!(
            (refused.code, refused.message.as_str()),
            (ErrorCode::InvalidRequest, "Cannot update these configs dynamically: node.id")
        );
        let none = Overrides::new();
        let of = |id: i32| TopicConfig::resolve(&none, &cluster.image.broker_layers(Some(id), &none)).retention_ms;
        assert_eq!((of(1), of(2)), (5, 6));
    }

    #[test]
    fn names_of_classes_and_files_are_no_configs() {
        let mut cluster = Cluster::with_topics(&["t"]);
        for (name, value) in [
            ("sasl.jaas.config", "com.sun.JndiLoginModule"),
            ("metric.reporters", "x"),
            ("config.providers", "file:///etc/passwd"),
        ] {
            for resource in [topic("t"), ConfigResource::AllBrokers] {
                let code = alter(&mut cluster, resource, &[(name, value)]).unwrap_err().code;
                assert!(
                    [ErrorCode::InvalidConfig, ErrorCode::InvalidRequest].contains(&code),
                    "{name}: {code:?}"
                );
            }
        }
    }
}
