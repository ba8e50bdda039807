//! Which value applies, and what DescribeConfigs says about it.
//!
//! A topic's own value comes first. Then, layer by layer (this broker's dynamic values, the cluster's dynamic defaults, the
//! configuration file, the defaults), the broker synonyms of the topic's configuration in their order. What applies is the first
//! that is set; all that are set are the entry's synonyms.

use std::borrow::Cow;

use super::{ConfigDef, ConfigType, Overrides, Scope, Unit};

static NOTHING: Overrides = Overrides::new();

/// What is set on a broker, from strongest to weakest.
#[derive(Debug, Clone, Copy)]
pub struct BrokerLayers<'a> {
    /// Altered for this one broker.
    pub dynamic: &'a Overrides,
    /// Altered for all brokers.
    pub dynamic_default: &'a Overrides,
    /// From the configuration file.
    pub fixed: &'a Overrides,
}

impl BrokerLayers<'_> {
    /// Nothing set: Kafka's defaults apply.
    pub fn none() -> Self {
        Self {
            dynamic: &NOTHING,
            dynamic_default: &NOTHING,
            fixed: &NOTHING,
        }
    }
}

/// An empty set of values that lives as long as the program.
pub(crate) fn nothing() -> &'static Overrides {
    &NOTHING
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set on the topic (or view).
    DynamicTopic,
    /// Altered for this broker.
    DynamicBroker,
    /// Altered for all brokers.
    DynamicDefaultBroker,
    /// In the configuration file.
    StaticBroker,
    /// The default.
    Default,
    /// Set on the client metrics subscription.
    DynamicClientMetrics,
    /// Set on the group.
    DynamicGroup,
}

impl ConfigSource {
    /// The number in DescribeConfigs.
    pub fn code(self) -> i8 {
        match self {
            Self::DynamicTopic => 1,
            Self::DynamicBroker => 2,
            Self::DynamicDefaultBroker => 3,
            Self::StaticBroker => 4,
            Self::Default => 5,
            Self::DynamicClientMetrics => 7,
            Self::DynamicGroup => 8,
        }
    }
}

/// One place in which a value is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSynonym {
    /// Name in that place.
    pub name: &'static str,
    /// Value in that place, unconverted; `None` if it is sensitive.
    pub value: Option<String>,
    /// The place.
    pub source: ConfigSource,
}

/// One entry of DescribeConfigs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Name.
    pub name: &'static str,
    /// The value that applies; `None` if it is unset or sensitive.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: ConfigSource,
    /// Every place in which it is set, the one that applies first.
    pub synonyms: Vec<ConfigSynonym>,
    /// Type of the value.
    pub kind: ConfigType,
    /// What it does.
    pub documentation: Cow<'static, str>,
    /// Whether it can be altered while running.
    pub read_only: bool,
    /// Whether its value is hidden.
    pub sensitive: bool,
}

/// Every entry of a topic.
pub fn describe_topic(overrides: &Overrides, layers: &BrokerLayers<'_>) -> Vec<ConfigEntry> {
    Scope::Topic
        .definitions()
        .map(|definition| entry(Scope::Topic, definition, overrides, layers))
        .collect()
}

/// Every entry of a view.
pub fn describe_view(overrides: &Overrides) -> Vec<ConfigEntry> {
    let layers = BrokerLayers::none();
    Scope::View
        .definitions()
        .map(|definition| entry(Scope::View, definition, overrides, &layers))
        .collect()
}

/// Every entry of a group or a client metrics subscription. What comes from the broker counts as its default.
pub fn describe_named(scope: Scope, overrides: &Overrides, layers: &BrokerLayers<'_>) -> Vec<ConfigEntry> {
    let own = |mut entry: ConfigEntry| {
        let is_own = |source: ConfigSource| matches!(source, ConfigSource::DynamicGroup | ConfigSource::DynamicClientMetrics);
        if !is_own(entry.source) {
            entry.source = ConfigSource::Default;
        }
        let default = ConfigSynonym {
            name: entry.name,
            value: scope.definition(entry.name).and_then(|definition| {
                let value = effective_value(scope, definition.name, &NOTHING, layers);
                value.filter(|_| !definition.sensitive)
            }),
            source: ConfigSource::Default,
        };
        entry.synonyms.retain(|synonym| is_own(synonym.source));
        if entry.synonyms.is_empty() && scope == Scope::Group {
            entry.synonyms.push(default);
        }
        entry
    };
    scope
        .definitions()
        .map(|definition| own(entry(scope, definition, overrides, layers)))
        .collect()
}

/// Every entry of a broker.
pub fn describe_broker(layers: &BrokerLayers<'_>) -> Vec<ConfigEntry> {
    let is_set = |name: &str| {
        [layers.dynamic, layers.dynamic_default]
            .iter()
            .any(|values| values.contains_key(name))
    };
    Scope::Broker
        .definitions()
        .filter(|definition| !definition.is_shown_if_set || is_set(definition.name))
        .map(|definition| entry(Scope::Broker, definition, &NOTHING, layers))
        .collect()
}

/// The value that applies, converted to the configuration's own unit; `None` if it is unset or the name is unknown.
pub fn effective_value(scope: Scope, name: &str, overrides: &Overrides, layers: &BrokerLayers<'_>) -> Option<String> {
    let definition = scope.definition(name)?;
    let first = settings(scope, definition, overrides, layers).into_iter().next()?;
    Some(first.unit.convert(first.value))
}

/// One place in which a value is set, before conversion.
pub(super) struct Setting<'a> {
    pub(super) name: &'static str,
    pub(super) value: &'a str,
    pub(super) source: ConfigSource,
    pub(super) unit: Unit,
}

/// Every place in which a value is set, strongest first.
pub(super) fn settings<'a>(
    scope: Scope,
    definition: &'static ConfigDef,
    overrides: &'a Overrides,
    layers: &BrokerLayers<'a>,
) -> Vec<Setting<'a>> {
    let name = definition.name;
    let mut found = Vec::new();
    if let Some(value) = overrides.get(name) {
        found.push(Setting {
            name,
            value,
            source: match scope {
                Scope::Topic | Scope::View | Scope::Broker => ConfigSource::DynamicTopic,
                Scope::Group => ConfigSource::DynamicGroup,
                Scope::ClientMetrics => ConfigSource::DynamicClientMetrics,
            },
            unit: Unit::Same,
        });
    }
    let alone = [super::Synonym { name, unit: Unit::Same }];
    let synonyms = match (scope, definition.synonyms) {
        (Scope::Broker, []) => &alone,
        (_, synonyms) => synonyms,
    };
    let by_layer = [
        (layers.dynamic, ConfigSource::DynamicBroker),
        (layers.dynamic_default, ConfigSource::DynamicDefaultBroker),
        (layers.fixed, ConfigSource::StaticBroker),
    ];
    for (values, source) in by_layer {
        let set = synonyms
            .iter()
            .filter_map(|synonym| values.get(synonym.name).map(|value| (synonym, value)));
        found.extend(set.map(|(synonym, value)| Setting {
            name: synonym.name,
            value,
            source,
            unit: synonym.unit,
        }));
    }
    let source = ConfigSource::Default;
    for synonym in synonyms {
        if let Some(value) = Scope::Broker.definition(synonym.name).and_then(|broker| broker.default) {
            found.push(Setting {
                name: synonym.name,
                value,
                source,
                unit: synonym.unit,
            });
        }
    }
    if let (true, Some(value)) = (synonyms.is_empty(), definition.default) {
        found.push(Setting {
            name,
            value,
            source,
            unit: Unit::Same,
        });
    }
    found
}

fn entry(scope: Scope, definition: &'static ConfigDef, overrides: &Overrides, layers: &BrokerLayers<'_>) -> ConfigEntry {
    let mut set = settings(scope, definition, overrides, layers);
    if scope == Scope::Broker {
        // What stands in for it is an entry of its own.
        set.retain(|one| one.name == definition.name);
    }
    let shown = |value: String| (!definition.sensitive).then_some(value);
    // Kafka tells of a topic's defaults where the first synonym, which has the same unit, has one.
    let first_default = definition
        .synonyms
        .first()
        .and_then(|first| Scope::Broker.definition(first.name))
        .and_then(|broker| broker.default);
    let tells_default = scope != Scope::Topic || first_default.is_some();
    ConfigEntry {
        name: definition.name,
        value: set.first().and_then(|first| shown(first.unit.convert(first.value))),
        source: set.first().map_or(ConfigSource::Default, |first| first.source),
        synonyms: set
            .iter()
            .filter(|one| tells_default || one.source != ConfigSource::Default)
            .map(|one| ConfigSynonym {
                name: one.name,
                value: shown(one.value.to_owned()),
                source: one.source,
            })
            .collect(),
        kind: definition.kind,
        documentation: definition.description(),
        read_only: definition.read_only,
        sensitive: definition.sensitive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Overrides {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn find(entries: Vec<ConfigEntry>, name: &str) -> ConfigEntry {
        entries.into_iter().find(|entry| entry.name == name).expect(name)
    }

    #[test]
    fn the_default_of_retention_comes_from_its_hours() {
        let entry = find(describe_topic(&Overrides::new(), &BrokerLayers::none()), "retention.ms");
        assert_eq!((entry.value.as_deref(), entry.source), (Some("604800000"), ConfigSource::Default));
        // Only names that hold the value in the same unit are synonyms of it.
        assert_eq!(entry.synonyms, []);
    }

    #[test]
    fn stronger_layers_win_and_weaker_ones_are_listed() {
        let (own, all, file) = (
            Overrides::new(),
            values(&[("log.retention.ms", "5")]),
            values(&[("log.retention.minutes", "2")]),
        );
        let layers = BrokerLayers {
            dynamic: &own,
            dynamic_default: &all,
            fixed: &file,
        };
        let entry = find(describe_topic(&values(&[("retention.ms", "1")]), &layers), "retention.ms");
        let sources: Vec<_> = entry.synonyms.iter().map(|synonym| synonym.source.code()).collect();
        assert_eq!((entry.value.as_deref(), sources), (Some("1"), vec![1, 3, 4]));
        let entry = find(
            describe_topic(
                &Overrides::new(),
                &BrokerLayers {
                    dynamic_default: &own,
                    ..layers
                },
            ),
            "retention.ms",
        );
        assert_eq!((entry.value.as_deref(), entry.source), (Some("120000"), ConfigSource::StaticBroker));
    }

    #[test]
    fn secrets_are_never_shown() {
        let file = values(&[("ssl.key.password", "hunter2")]);
        let entry = find(
            describe_broker(&BrokerLayers {
                fixed: &file,
                ..BrokerLayers::none()
            }),
            "ssl.key.password",
        );
        assert!(entry.sensitive && entry.value.is_none() && entry.synonyms.iter().all(|synonym| synonym.value.is_none()));
        assert_eq!(entry.source, ConfigSource::StaticBroker);
    }

    #[test]
    fn every_topic_config_is_described_with_a_value() {
        for entry in describe_topic(&Overrides::new(), &BrokerLayers::none()) {
            assert!(entry.value.is_some() && !entry.read_only, "{}", entry.name);
        }
    }
}
