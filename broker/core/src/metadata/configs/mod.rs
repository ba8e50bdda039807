//! Configuration: what can be set, to what, and what applies.
//!
//! Kafka's definitions as tables ([`topic::CONFIGS`], [`broker::CONFIGS`], [`logs::CONFIGS`]) and ours beside them
//! ([`view::CONFIGS`]). Values are text until [`TopicConfig`] reads them; everything is checked against its definition before it
//! becomes a record, so nothing from the network is ever taken for a class, a path or a URL.
//! Times are milliseconds and sizes bytes unless a name says otherwise.

pub mod broker;
pub mod coordinators;
pub mod groups;
pub mod logs;
pub mod operations;
pub mod topic;
pub mod view;

mod alter;
mod definition;
mod effective;
mod group_values;
mod typed;

pub use alter::{AlterOp, ConfigChange, alter_incrementally, replace};
pub use definition::{ConfigDef, ConfigType, Importance, Synonym, Unit, VALUE_BYTES_MAX, Validator, address_limits};
pub(crate) use effective::nothing;
pub use effective::{
    BrokerLayers, ConfigEntry, ConfigSource, ConfigSynonym, describe_broker, describe_named, describe_topic, describe_view, effective_value,
};
pub use group_values::{ClientFacts, ClientMatch, ShareOffsetReset};
pub use typed::{CleanupPolicy, Compression, Durability, TimestampType, TopicConfig, check_topic_rules};

use std::collections::BTreeMap;

/// Values by configuration name.
pub type Overrides = BTreeMap<String, String>;

/// What kind of thing is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A topic.
    Topic,
    /// A view.
    View,
    /// A broker, or all of them.
    Broker,
    /// A group.
    Group,
    /// A client metrics subscription.
    ClientMetrics,
}

impl Scope {
    /// Every definition of the scope.
    pub fn definitions(self) -> impl Iterator<Item = &'static ConfigDef> {
        let tables: &'static [&'static [ConfigDef]] = match self {
            Self::Topic => &[topic::CONFIGS],
            Self::View => &[view::CONFIGS],
            Self::Broker => &[broker::CONFIGS, logs::CONFIGS, coordinators::CONFIGS, operations::CONFIGS],
            Self::Group => &[groups::CONFIGS],
            Self::ClientMetrics => &[groups::CLIENT_METRICS_CONFIGS],
        };
        tables.iter().copied().flatten()
    }

    /// The definition of a name.
    pub fn definition(self, name: &str) -> Option<&'static ConfigDef> {
        self.definitions().find(|definition| definition.name == name)
    }

    /// Checks a value against its definition; the error is a message in Kafka's words.
    pub fn check(self, name: &str, value: &str) -> Result<(), String> {
        match self.definition(name) {
            Some(definition) => definition.check(value),
            None => Err(format!(
                "Unknown {} config name: {}",
                self.word(),
                name.escape_default().take(128).collect::<String>()
            )),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::View => "view",
            Self::Broker => "broker",
            Self::Group => "group",
            Self::ClientMetrics => "client metrics",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SCOPES: [Scope; 5] = [Scope::Topic, Scope::View, Scope::Broker, Scope::Group, Scope::ClientMetrics];

    #[test]
    fn every_name_is_defined_once_and_documented() {
        for scope in SCOPES {
            let mut seen = BTreeSet::new();
            for definition in scope.definitions() {
                assert!(seen.insert(definition.name), "{} is defined twice", definition.name);
                assert!(definition.documentation.ends_with('.'), "{}", definition.name);
            }
        }
    }

    #[test]
    fn every_default_passes_its_own_validator() {
        for definition in SCOPES.into_iter().flat_map(Scope::definitions) {
            if let Some(default) = definition.default {
                assert_eq!(definition.check(default), Ok(()), "{}", definition.name);
            }
        }
    }

    #[test]
    fn every_synonym_is_a_broker_config() {
        for definition in SCOPES.into_iter().flat_map(Scope::definitions) {
            for synonym in definition.synonyms {
                assert!(
                    Scope::Broker.definition(synonym.name).is_some(),
                    "{} of {}",
                    synonym.name,
                    definition.name
                );
            }
        }
    }

    #[test]
    fn topic_defaults_are_those_of_their_synonyms() {
        let layers = BrokerLayers::none();
        for definition in Scope::Topic.definitions() {
            let value = effective_value(Scope::Topic, definition.name, &Overrides::new(), &layers);
            assert_eq!(value.as_deref(), definition.default, "{}", definition.name);
        }
    }

    #[test]
    fn unknown_names_are_named() {
        assert_eq!(
            Scope::Topic.check("no.such", "1"),
            Err("Unknown topic config name: no.such".to_owned())
        );
        assert!(Scope::Topic.check("node.id", "1").is_err(), "broker configs are none of a topic's");
    }
}
