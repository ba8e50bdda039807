//! What a broker is started with.

use std::{net::SocketAddr, path::PathBuf};

use millstream_core::metadata::configs::{BrokerLayers, Overrides, Scope, effective_value};

/// A start configuration that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value was refused.
    #[error("{0}")]
    Invalid(String),
    /// A listener that everybody can reach, without authentication.
    #[error("{name} {address} is not a loopback address and has no authentication; bind it to 127.0.0.1 or pass --allow-insecure")]
    Insecure {
        /// `kafka listener` or `admin listener`.
        name: &'static str,
        /// The address.
        address: SocketAddr,
    },
}

/// What a broker is started with. Everything that Kafka has a name for is in `values`.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// `node.id`
    pub node_id: i32,
    /// Where logs live.
    pub data_dir: PathBuf,
    /// Address of the Kafka listener; port 0 takes a free one.
    pub kafka_address: SocketAddr,
    /// Host and port that clients are told; the bound address if not set.
    pub advertised: Option<(String, u16)>,
    /// Address of the admin listener.
    pub admin_address: SocketAddr,
    /// Whether listeners may be open to all.
    pub allow_insecure: bool,
    /// Kafka's broker configurations, checked against their definitions.
    pub values: Overrides,
}

impl BrokerConfig {
    /// Checks names, values and listeners.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (name, value) in &self.values {
            Scope::Broker.check(name, value).map_err(ConfigError::Invalid)?;
        }
        crate::groups::group_config(self)
            .validate()
            .map_err(|error| ConfigError::Invalid(error.to_string()))?;
        self.check_group_bounds().map_err(ConfigError::Invalid)?;
        for (name, address) in [("kafka listener", self.kafka_address), ("admin listener", self.admin_address)] {
            if !self.allow_insecure && !address.ip().is_loopback() {
                return Err(ConfigError::Insecure { name, address });
            }
        }
        Ok(())
    }

    /// The brokers' own settings of groups must lie within the bounds that they give to those of single groups.
    fn check_group_bounds(&self) -> Result<(), String> {
        let at_least = |greater: &str, less: &str| match self.number(greater) >= self.number(less) {
            true => Ok(()),
            false => Err(format!("{greater} must be greater than or equal to {less}")),
        };
        for kind in ["consumer", "share", "streams"] {
            for setting in ["session.timeout.ms", "heartbeat.interval.ms"] {
                let [own, min, max] = ["", "min.", "max."].map(|bound| format!("group.{kind}.{bound}{setting}"));
                at_least(&max, &min)?;
                at_least(&own, &min)?;
                at_least(&max, &own)?;
            }
            let [session, heartbeat] = ["session.timeout.ms", "heartbeat.interval.ms"].map(|setting| format!("group.{kind}.{setting}"));
            if self.number(&heartbeat) >= self.number(&session) {
                return Err(format!("{heartbeat} must be less than {session}"));
            }
        }
        at_least("group.share.max.record.lock.duration.ms", "group.share.min.record.lock.duration.ms")?;
        at_least("group.share.record.lock.duration.ms", "group.share.min.record.lock.duration.ms")?;
        at_least("group.share.max.record.lock.duration.ms", "group.share.record.lock.duration.ms")?;
        at_least("group.streams.max.standby.replicas", "group.streams.num.standby.replicas")
    }

    /// Tells of settings that change nothing.
    pub(crate) fn warn_of_settings_without_effect(&self) {
        for (name, value) in &self.values {
            let definition = Scope::Broker.definition(name);
            if definition.is_some_and(|definition| !definition.has_effect && definition.default != Some(value)) {
                tracing::warn!(%name, "the setting is accepted, and without effect");
            }
        }
    }

    /// Adds what the fields say under Kafka's names, so that DescribeConfigs shows it.
    pub(crate) fn with_identity(mut self, has_bucket: bool) -> Self {
        let listener = format!("PLAINTEXT://{}", self.kafka_address);
        let advertised = self
            .advertised
            .as_ref()
            .map_or_else(|| listener.clone(), |(host, port)| format!("PLAINTEXT://{host}:{port}"));
        let facts = [
            ("node.id", self.node_id.to_string()),
            ("remote.log.storage.system.enable", has_bucket.to_string()),
            ("listeners", listener),
            ("advertised.listeners", advertised),
            ("log.dirs", self.data_dir.display().to_string()),
        ];
        for (name, value) in facts {
            self.values.insert(name.to_owned(), value);
        }
        self
    }

    /// A value from the start configuration or its default, as text.
    pub fn text(&self, name: &str) -> String {
        let layers = BrokerLayers {
            fixed: &self.values,
            ..BrokerLayers::none()
        };
        let value = effective_value(Scope::Broker, name, &Overrides::new(), &layers);
        value.unwrap_or_else(|| unreachable!("{name} is a defined broker configuration with a default"))
    }

    /// A number from the start configuration or its default.
    pub fn number(&self, name: &str) -> i64 {
        let text = self.text(name);
        text.trim()
            .parse()
            .unwrap_or_else(|_| unreachable!("{name} was checked to be a number, not {text:?}"))
    }

    /// A size or count from the start configuration or its default; negative numbers count as 0.
    pub fn size(&self, name: &str) -> usize {
        usize::try_from(self.number(name)).unwrap_or(0)
    }

    /// A flag from the start configuration or its default.
    pub fn flag(&self, name: &str) -> bool {
        self.text(name).trim().eq_ignore_ascii_case("true")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(values: &[(&str, &str)]) -> Result<(), String> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let config = BrokerConfig {
            node_id: 1,
            data_dir: PathBuf::new(),
            kafka_address: any,
            advertised: None,
            admin_address: any,
            allow_insecure: false,
            values: values.collect(),
        };
        config.check().map_err(|error| error.to_string())
    }

    #[test]
    fn settings_of_groups_lie_within_their_own_bounds() {
        assert_eq!(checked(&[]), Ok(()));
        let refused = |name, value, message: &str| assert_eq!(checked(&[(name, value)]), Err(message.to_owned()));
        let (session, heartbeat) = ("group.streams.session.timeout.ms", "group.consumer.heartbeat.interval.ms");
        refused(
            session,
            "1000",
            &format!("{session} must be greater than or equal to group.streams.min.session.timeout.ms"),
        );
        refused(
            session,
            "90000",
            &format!("group.streams.max.session.timeout.ms must be greater than or equal to {session}"),
        );
        refused(
            heartbeat,
            "100",
            &format!("{heartbeat} must be greater than or equal to group.consumer.min.heartbeat.interval.ms"),
        );
        let (copies, most) = ("group.streams.num.standby.replicas", "group.streams.max.standby.replicas");
        refused(copies, "3", &format!("{most} must be greater than or equal to {copies}"));
        let close = [
            ("group.share.min.session.timeout.ms", "1000"),
            ("group.share.session.timeout.ms", "5000"),
        ];
        let expected = "group.share.heartbeat.interval.ms must be less than group.share.session.timeout.ms";
        assert_eq!(checked(&close), Err(expected.to_owned()));
    }
}
