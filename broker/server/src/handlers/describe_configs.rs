//! DescribeConfigs: every configuration of a topic, view or broker, with its value, source and type.
//!
//! Groups and client metrics subscriptions are described whether or not anybody configured them. Loggers are those of this process.

use std::sync::Arc;

use millstream_core::metadata::{
    ClusterImage,
    configs::{BrokerLayers, ConfigEntry, Overrides, Scope, describe_broker, describe_named, describe_topic, describe_view},
    controller::{Outcome, Refusal},
};
use millstream_protocol::{
    ErrorCode, KString,
    messages::{
        DescribeConfigsRequest, DescribeConfigsResponse,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym},
    },
};

use super::{
    decisions::{refusal, verdict},
    once_by,
    topology::unknown_name,
};
use crate::{
    broker::{Broker, Named},
    context::RequestContext,
    log_levels::LogLevels,
};

/// Kafka's numbers of what can be configured.
pub(super) mod resource_type {
    pub const TOPIC: i8 = 2;
    pub const BROKER: i8 = 4;
    pub const BROKER_LOGGER: i8 = 8;
    pub const CLIENT_METRICS: i8 = 16;
    pub const GROUP: i8 = 32;
}

/// Kafka's number of the source of a logger's level.
const DYNAMIC_BROKER_LOGGER: i8 = 6;

/// Handles a request.
pub async fn handle(broker: Arc<Broker>, _context: RequestContext, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let image = broker.metadata.image();
    let cluster = Cluster {
        image: &image,
        fixed: broker.metadata.fixed_configs(),
        node_id: broker.config.node_id,
        log_levels: &broker.log_levels,
    };
    let shown = Shown {
        synonyms: request.include_synonyms,
        documentation: request.include_documentation,
    };
    DescribeConfigsResponse {
        results: once_by(request.resources, |resource| {
            let keys = resource.configuration_keys.clone();
            (resource.resource_type, resource.resource_name.clone(), keys)
        })
        .into_iter()
        .map(|resource| result(&cluster, resource, &shown))
        .collect(),
        ..Default::default()
    }
}

/// What the answers are made from.
struct Cluster<'a> {
    image: &'a ClusterImage,
    fixed: &'a Overrides,
    node_id: i32,
    log_levels: &'a LogLevels,
}

/// What the client wants to see besides the values.
struct Shown {
    synonyms: bool,
    documentation: bool,
}

fn result(cluster: &Cluster<'_>, resource: DescribeConfigsResource, shown: &Shown) -> DescribeConfigsResult {
    let outcome = match resource.resource_type {
        resource_type::BROKER_LOGGER => loggers(cluster, &resource.resource_name),
        kind => {
            entries(cluster, kind, &resource.resource_name).map(|entries| entries.into_iter().map(|entry| config(entry, shown)).collect())
        }
    };
    let (error_code, error_message) = verdict(&outcome);
    // Kafka's success has a message without words.
    let error_message = Some(error_message.unwrap_or_default());
    let keys = resource.configuration_keys.filter(|keys| !keys.is_empty());
    let is_asked = |entry: &DescribeConfigsResourceResult| keys.as_ref().is_none_or(|keys| keys.contains(&entry.name));
    DescribeConfigsResult {
        error_code,
        error_message,
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
        configs: outcome.unwrap_or_default().into_iter().filter(is_asked).collect(),
    }
}

fn entries(cluster: &Cluster<'_>, kind: i8, name: &str) -> Outcome<Vec<ConfigEntry>> {
    match kind {
        resource_type::TOPIC => of_topic(cluster, name),
        resource_type::BROKER if name.is_empty() => Ok(of_all_brokers(cluster)),
        resource_type::BROKER => {
            this_broker(cluster, name)?;
            Ok(describe_broker(&cluster.image.broker_layers(Some(cluster.node_id), cluster.fixed)))
        }
        resource_type::CLIENT_METRICS if name.is_empty() => Err(invalid("Client metrics subscription name must not be empty")),
        resource_type::GROUP if name.is_empty() => Err(invalid("Group name must not be empty")),
        resource_type::CLIENT_METRICS => Ok(of_named(cluster, Scope::ClientMetrics, cluster.image.client_metrics.get(name))),
        resource_type::GROUP => Ok(of_named(cluster, Scope::Group, cluster.image.group_configs.get(name))),
        other => Err(invalid(format!("Unsupported resource type: {other}"))),
    }
}

/// The levels of this process's loggers.
fn loggers(cluster: &Cluster<'_>, name: &str) -> Outcome<Vec<DescribeConfigsResourceResult>> {
    if name.is_empty() {
        return Err(invalid("Broker id must not be empty"));
    }
    this_broker(cluster, name)?;
    let levels = cluster.log_levels.describe().into_iter();
    let described = levels.map(|(logger, level)| DescribeConfigsResourceResult {
        name: logger.into(),
        value: Some(KString::from_static(level.name())),
        config_source: DYNAMIC_BROKER_LOGGER,
        ..DescribeConfigsResourceResult::default()
    });
    Ok(described.collect())
}

fn of_topic(cluster: &Cluster<'_>, name: &str) -> Outcome<Vec<ConfigEntry>> {
    match Named::by_name(cluster.image, name) {
        Some(Named::Topic(topic)) => Ok(describe_topic(
            &topic.configs,
            &cluster.image.broker_layers(Some(cluster.node_id), cluster.fixed),
        )),
        Some(Named::View(view, _)) => Ok(describe_view(&view.configs)),
        None => {
            let code = unknown_name(name);
            Err(refusal(code, code.message()))
        }
    }
}

fn of_named(cluster: &Cluster<'_>, scope: Scope, overrides: Option<&Overrides>) -> Vec<ConfigEntry> {
    let none = Overrides::new();
    let layers = cluster.image.broker_layers(Some(cluster.node_id), cluster.fixed);
    describe_named(scope, overrides.unwrap_or(&none), &layers)
}

/// What was altered for all brokers, and nothing else.
fn of_all_brokers(cluster: &Cluster<'_>) -> Vec<ConfigEntry> {
    let altered = &cluster.image.broker_default_configs;
    let layers = BrokerLayers {
        dynamic_default: altered,
        ..BrokerLayers::none()
    };
    describe_broker(&layers)
        .into_iter()
        .filter(|entry| altered.contains_key(entry.name))
        .collect()
}

fn this_broker(cluster: &Cluster<'_>, name: &str) -> Outcome<()> {
    match name.parse::<i32>() {
        Ok(id) if id == cluster.node_id => Ok(()),
        Ok(id) => Err(invalid(format!(
            "Unexpected broker id, expected {} or empty string, but received {id}",
            cluster.node_id
        ))),
        Err(_) => Err(invalid("Broker id must be an integer")),
    }
}

fn invalid(message: impl Into<String>) -> Refusal {
    refusal(ErrorCode::InvalidRequest, message)
}

fn config(entry: ConfigEntry, shown: &Shown) -> DescribeConfigsResourceResult {
    let synonyms = if shown.synonyms { entry.synonyms } else { Vec::new() };
    let synonyms = synonyms.into_iter().map(|synonym| DescribeConfigsSynonym {
        name: KString::from_static(synonym.name),
        value: synonym.value.map(KString::from),
        source: synonym.source.code(),
    });
    DescribeConfigsResourceResult {
        name: KString::from_static(entry.name),
        value: entry.value.map(KString::from),
        read_only: entry.read_only,
        config_source: entry.source.code(),
        is_sensitive: entry.sensitive,
        synonyms: synonyms.collect(),
        config_type: entry.kind.code(),
        documentation: shown.documentation.then(|| KString::from(entry.documentation.into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::topology::test_image, *};
    use crate::log_levels::Levels;

    fn describe(kind: i8, name: &str, keys: Option<&[&str]>, verbose: bool) -> DescribeConfigsResult {
        let mut image = test_image();
        image.broker_default_configs.insert("log.retention.ms".to_owned(), "5".to_owned());
        let fixed = Overrides::new();
        let cluster = Cluster {
            image: &image,
            fixed: &fixed,
            node_id: 1,
            log_levels: &LogLevels::new(Levels::new(), |_| {}),
        };
        let resource = DescribeConfigsResource {
            resource_type: kind,
            resource_name: KString::from(name),
            configuration_keys: keys.map(|keys| keys.iter().map(|key| KString::from(*key)).collect()),
        };
        result(
            &cluster,
            resource,
            &Shown {
                synonyms: verbose,
                documentation: verbose,
            },
        )
    }

    #[test]
    fn keys_filter_and_an_empty_list_does_not() {
        let all = describe(resource_type::TOPIC, "orders", None, false).configs;
        assert_eq!(describe(resource_type::TOPIC, "orders", Some(&[]), false).configs, all);
        let one = describe(resource_type::TOPIC, "orders", Some(&["retention.ms", "no.such"]), false).configs;
        assert_eq!(
            one.iter()
                .map(|config| (config.name.as_str(), config.value.as_deref()))
                .collect::<Vec<_>>(),
            [("retention.ms", Some("60000"))]
        );
    }

    #[test]
    fn synonyms_and_documentation_come_only_when_asked() {
        let config = |verbose| {
            describe(resource_type::TOPIC, "orders", Some(&["retention.ms"]), verbose)
                .configs
                .remove(0)
        };
        assert!(config(false).synonyms.is_empty() && config(false).documentation.is_none());
        let sources: Vec<i8> = config(true).synonyms.iter().map(|synonym| synonym.source).collect();
        assert!(sources.starts_with(&[1, 3]), "{sources:?}");
        assert!(config(true).documentation.is_some());
    }

    #[test]
    fn views_have_their_own_configs() {
        let configs = describe(resource_type::TOPIC, "orders.masked", None, false).configs;
        assert!(!configs.is_empty() && configs.iter().all(|config| config.name.starts_with("millstream.view.")));
    }

    #[test]
    fn the_empty_broker_name_shows_what_was_altered_for_all() {
        let configs = describe(resource_type::BROKER, "", None, false).configs;
        let shown: Vec<_> = configs.iter().map(|config| (config.name.as_str(), config.config_source)).collect();
        assert_eq!(shown, [("log.retention.ms", 3)]);
    }

    #[test]
    fn sensitive_values_are_null() {
        for config in describe(resource_type::BROKER, "1", None, true).configs {
            let is_null = config.value.is_none() && config.synonyms.iter().all(|synonym| synonym.value.is_none());
            assert!(!config.is_sensitive || is_null, "{}", config.name);
        }
    }

    #[test]
    fn other_resources_are_answered_as_unconfigured_or_refused() {
        use resource_type::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
        let code = |kind, name| describe(kind, name, None, false).error_code;
        assert_eq!([code(GROUP, "g"), code(CLIENT_METRICS, "m"), code(BROKER_LOGGER, "1")], [0, 0, 0]);
        assert_eq!(
            [code(GROUP, ""), code(CLIENT_METRICS, ""), code(BROKER_LOGGER, ""), code(0, "x")],
            [42; 4]
        );
        assert_eq!(
            [code(BROKER, "2"), code(BROKER, "x"), code(TOPIC, "no"), code(TOPIC, "a b")],
            [42, 42, 3, 17]
        );
    }
}
