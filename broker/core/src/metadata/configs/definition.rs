//! One configuration's definition and the check of a value against it.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

/// Longest value, in bytes. Kafka's STRING allows 32,767; lists of throttled replicas are the long ones.
pub const VALUE_BYTES_MAX: usize = 32_767;

/// Type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigType {
    /// `true` or `false`.
    Boolean,
    /// Text.
    String,
    /// 32-bit integer.
    Int,
    /// 16-bit integer.
    Short,
    /// 64-bit integer.
    Long,
    /// Floating point.
    Double,
    /// Comma-separated texts.
    List,
    /// Text that is never shown.
    Password,
}

impl ConfigType {
    /// The number in DescribeConfigs.
    pub fn code(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String => 2,
            Self::Int => 3,
            Self::Short => 4,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
            Self::Password => 9,
        }
    }
}

/// How much a configuration matters to an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Importance {
    /// Look at it before going to production.
    High,
    /// Worth knowing.
    Medium,
    /// For the rare case.
    Low,
}

/// What a value must be beyond its type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Validator {
    /// Anything of the type.
    Any,
    /// A number not below this.
    AtLeast(i64),
    /// A number in this range, both ends included.
    Between(i64, i64),
    /// A number in the range of the first two, or exactly the third.
    BetweenOr(i64, i64, i64),
    /// A fraction from 0 to 1.
    Fraction,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A list of one or more of these texts.
    ListOf(&'static [&'static str]),
    /// `*`, or a list of `partition:broker`.
    ThrottledReplicas,
    /// A list of `address:limit`.
    AddressLimits,
}

/// Reads `address:limit,…`; an error says which part is none.
pub fn address_limits(text: &str) -> Result<BTreeMap<IpAddr, usize>, String> {
    let read = |pair: &str| {
        // An address can hold colons itself.
        let (ip, max) = pair.rsplit_once(':')?;
        let ip: IpAddr = ip.trim_matches(['[', ']']).parse().ok()?;
        Some((ip.to_canonical(), max.trim().parse().ok()?))
    };
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let entry = |pair: &str| read(pair).ok_or_else(|| format!("{pair:?} is not an IP address, a colon and a number"));
    pairs.map(entry).collect()
}

/// What a synonym's value is multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nothing.
    Same,
    /// Minutes become milliseconds.
    Minutes,
    /// Hours become milliseconds.
    Hours,
}

impl Unit {
    /// Converts a value. Negative values mean "no limit" and stay as they are; what is no number stays too.
    pub fn convert(self, value: &str) -> String {
        let factor = match self {
            Self::Same => return value.to_owned(),
            Self::Minutes => 60_000,
            Self::Hours => 3_600_000,
        };
        match value.trim().parse::<i64>() {
            Ok(number) if number < 0 => "-1".to_owned(),
            Ok(number) => number.saturating_mul(factor).to_string(),
            Err(_) => value.to_owned(),
        }
    }
}

/// A broker configuration that stands in for another when that is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Synonym {
    /// Name of the broker configuration.
    pub name: &'static str,
    /// Its unit.
    pub unit: Unit,
}

/// A synonym in the same unit.
pub(super) const fn same(name: &'static str) -> Synonym {
    Synonym { name, unit: Unit::Same }
}

/// A synonym in minutes.
pub(super) const fn minutes(name: &'static str) -> Synonym {
    Synonym { name, unit: Unit::Minutes }
}

/// A synonym in hours.
pub(super) const fn hours(name: &'static str) -> Synonym {
    Synonym { name, unit: Unit::Hours }
}

/// One configuration.
#[derive(Debug, Clone, Copy)]
pub struct ConfigDef {
    /// Name, Kafka's where Kafka has one.
    pub name: &'static str,
    /// Type of its value.
    pub kind: ConfigType,
    /// Value if nobody set one; `None` is Kafka's null.
    pub default: Option<&'static str>,
    /// One or two sentences, with the unit.
    pub documentation: &'static str,
    /// What values are allowed.
    pub validator: Validator,
    /// How much it matters.
    pub importance: Importance,
    /// Whether the value is kept out of every answer and log.
    pub sensitive: bool,
    /// Whether it can be set in the configuration file only.
    pub read_only: bool,
    /// Whether it is described only where somebody set it.
    pub is_shown_if_set: bool,
    /// Whether anything depends on the value. Those of Kafka's on which nothing depends here can be set, so that its configuration files and
    /// tools work, but say so.
    pub has_effect: bool,
    /// Broker configurations that apply if this one is not set, the first that is set wins.
    pub synonyms: &'static [Synonym],
}

/// A definition of medium importance that may be altered while running.
pub(super) const fn define(kind: ConfigType, name: &'static str, default: &'static str, documentation: &'static str) -> ConfigDef {
    ConfigDef {
        name,
        kind,
        default: Some(default),
        documentation,
        validator: Validator::Any,
        importance: Importance::Medium,
        sensitive: false,
        read_only: false,
        is_shown_if_set: false,
        has_effect: true,
        synonyms: &[],
    }
}

impl ConfigDef {
    pub(super) const fn valid(mut self, validator: Validator) -> Self {
        self.validator = validator;
        self
    }

    pub(super) const fn at_least(self, least: i64) -> Self {
        self.valid(Validator::AtLeast(least))
    }

    pub(super) const fn rated(mut self, importance: Importance) -> Self {
        self.importance = importance;
        self
    }

    pub(super) const fn or(mut self, synonyms: &'static [Synonym]) -> Self {
        self.synonyms = synonyms;
        self
    }

    /// Set in the configuration file only.
    pub(super) const fn fixed(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Described only where it is set.
    pub(super) const fn shown_if_set(mut self) -> Self {
        self.is_shown_if_set = true;
        self
    }

    /// Accepted because Kafka has it; nothing depends on it.
    pub(super) const fn without_effect(mut self) -> Self {
        self.has_effect = false;
        self
    }

    pub(super) const fn secret(mut self) -> Self {
        self.sensitive = true;
        self
    }

    /// Kafka's null default.
    pub(super) const fn unset(mut self) -> Self {
        self.default = None;
        self
    }

    /// What an administrator is told about it.
    pub fn description(&self) -> Cow<'static, str> {
        if self.has_effect {
            Cow::Borrowed(self.documentation)
        } else {
            Cow::Owned(format!("{} Accepted, and without effect.", self.documentation))
        }
    }

    /// Checks a value; the error is a message in Kafka's words, without the value if it is sensitive.
    pub fn check(&self, value: &str) -> Result<(), String> {
        self.problem(value).map_or(Ok(()), |problem| {
            let shown: String = if self.sensitive {
                "[hidden]".to_owned()
            } else {
                value.escape_default().take(128).collect()
            };
            Err(format!("Invalid value {shown} for configuration {}: {problem}", self.name))
        })
    }

    fn problem(&self, value: &str) -> Option<String> {
        if value.len() > VALUE_BYTES_MAX {
            return Some(format!("Value is longer than {VALUE_BYTES_MAX} bytes"));
        }
        match self.kind {
            ConfigType::Boolean => {
                let known = ["true", "false"].iter().any(|word| value.trim().eq_ignore_ascii_case(word));
                (!known).then(|| "Expected value to be either true or false".to_owned())
            }
            ConfigType::Int => self.number_problem(value, i64::from(i32::MIN), i64::from(i32::MAX), "INT"),
            ConfigType::Short => self.number_problem(value, i64::from(i16::MIN), i64::from(i16::MAX), "SHORT"),
            ConfigType::Long => self.number_problem(value, i64::MIN, i64::MAX, "LONG"),
            ConfigType::Double => self.fraction_problem(value),
            ConfigType::String | ConfigType::Password => self.text_problem(value),
            ConfigType::List => self.list_problem(value),
        }
    }

    fn number_problem(&self, value: &str, type_min: i64, type_max: i64, type_name: &str) -> Option<String> {
        let not_a_number = || Some(format!("Not a number of type {type_name}"));
        let Ok(number) = value.trim().parse::<i64>() else {
            return not_a_number();
        };
        if number < type_min || number > type_max {
            return not_a_number();
        }
        match self.validator {
            Validator::AtLeast(least) | Validator::Between(least, _) if number < least => Some(format!("Value must be at least {least}")),
            Validator::Between(_, most) if number > most => Some(format!("Value must be no more than {most}")),
            Validator::BetweenOr(least, most, other) if number != other && (number < least || number > most) => {
                Some(format!("Value must be between {least} and {most} or equal to {other}"))
            }
            _ => None,
        }
    }

    fn fraction_problem(&self, value: &str) -> Option<String> {
        match value.trim().parse::<f64>() {
            Ok(number) if !number.is_finite() => Some("Not a number of type DOUBLE".to_owned()),
            Ok(number) if self.validator == Validator::Fraction && number < 0.0 => Some("Value must be at least 0".to_owned()),
            Ok(number) if self.validator == Validator::Fraction && number > 1.0 => Some("Value must be no more than 1".to_owned()),
            Ok(_) => None,
            Err(_) => Some("Not a number of type DOUBLE".to_owned()),
        }
    }

    fn text_problem(&self, value: &str) -> Option<String> {
        match self.validator {
            Validator::OneOf(allowed) if !allowed.contains(&value.trim()) => Some(format!("String must be one of: {}", allowed.join(", "))),
            Validator::AddressLimits => address_limits(value).err(),
            _ => None,
        }
    }

    fn list_problem(&self, value: &str) -> Option<String> {
        match self.validator {
            Validator::ListOf(allowed) => {
                // The empty list is one, as in Kafka; an empty item is not.
                let known = value.trim().is_empty() || value.split(',').all(|item| allowed.contains(&item.trim()));
                (!known).then(|| format!("String must be one of: {}", allowed.join(", ")))
            }
            Validator::ThrottledReplicas => {
                let valid = value.trim() == "*" || list_items(value).all(is_partition_and_broker);
                (!valid)
                    .then(|| "must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],…".to_owned())
            }
            _ => None,
        }
    }
}

/// The items of a list value.
pub(super) fn list_items(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn is_partition_and_broker(item: &str) -> bool {
    let number = |text: &str| text.parse::<i32>().is_ok_and(|number| number >= 0);
    item.split_once(':')
        .is_some_and(|(partition, broker)| number(partition) && number(broker))
}

#[cfg(test)]
mod tests {
    use super::super::Scope;
    use super::*;

    fn refusal(name: &str, value: &str) -> String {
        Scope::Topic.check(name, value).expect_err(value)
    }

    #[test]
    fn refusals_are_in_kafkas_words() {
        assert_eq!(
            refusal("retention.ms", "x"),
            "Invalid value x for configuration retention.ms: Not a number of type LONG"
        );
        assert_eq!(
            refusal("retention.ms", "-2"),
            "Invalid value -2 for configuration retention.ms: Value must be at least -1"
        );
        assert_eq!(
            refusal("segment.bytes", "2147483648"),
            "Invalid value 2147483648 for configuration segment.bytes: Not a number of type INT"
        );
        assert_eq!(
            refusal("preallocate", "yes"),
            "Invalid value yes for configuration preallocate: Expected value to be either true or false"
        );
        assert_eq!(
            refusal("cleanup.policy", "shred"),
            "Invalid value shred for configuration cleanup.policy: String must be one of: compact, delete"
        );
        assert_eq!(
            refusal("compression.gzip.level", "0"),
            "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1"
        );
    }

    #[test]
    fn ranges_hold_at_their_ends() {
        assert!(Scope::Topic.check("compression.zstd.level", "22").is_ok());
        assert!(Scope::Topic.check("compression.zstd.level", "23").is_err());
        assert!(Scope::Topic.check("min.cleanable.dirty.ratio", "1.0").is_ok());
        for value in ["1.01", "-0.1", "NaN", "inf", ""] {
            assert!(Scope::Topic.check("min.cleanable.dirty.ratio", value).is_err(), "{value}");
        }
        assert!(Scope::Topic.check("compression.gzip.level", "-1").is_ok());
    }

    #[test]
    fn lists_take_several_values() {
        for value in ["compact,delete", "delete", " compact , delete ", ""] {
            assert!(Scope::Topic.check("cleanup.policy", value).is_ok(), "{value}");
        }
        assert!(Scope::Topic.check("cleanup.policy", "shred").is_err());
        assert!(Scope::Topic.check("leader.replication.throttled.replicas", "").is_ok());
        assert!(Scope::Topic.check("leader.replication.throttled.replicas", "*").is_ok());
        assert!(Scope::Topic.check("leader.replication.throttled.replicas", "0:1,1:2").is_ok());
        assert!(Scope::Topic.check("leader.replication.throttled.replicas", "0:1,x").is_err());
    }

    #[test]
    fn long_values_are_refused_at_the_bound() {
        let longest = "*".repeat(VALUE_BYTES_MAX + 1);
        let message = refusal("leader.replication.throttled.replicas", &longest);
        assert!(message.contains("longer than") && message.len() < 400);
    }

    #[test]
    fn hours_become_milliseconds_and_no_limit_stays() {
        assert_eq!(Unit::Hours.convert("168"), "604800000");
        assert_eq!(Unit::Minutes.convert("-1"), "-1");
        assert_eq!(Unit::Hours.convert(&i64::MAX.to_string()), i64::MAX.to_string());
    }

    #[test]
    fn limits_of_addresses_are_read_and_what_is_none_is_named() {
        let read = address_limits("10.0.0.9:2, [::1]:3,::ffff:10.0.0.1:4").unwrap();
        let of = |ip: &str| read.get(&ip.parse().unwrap()).copied();
        assert_eq!((of("10.0.0.9"), of("::1"), of("10.0.0.1")), (Some(2), Some(3), Some(4)));
        assert_eq!(address_limits(""), Ok(BTreeMap::new()));
        for wrong in ["x", "host:2", "10.0.0.9", "10.0.0.9:-1", "10.0.0.9:many"] {
            assert!(address_limits(wrong).unwrap_err().contains(wrong), "{wrong}");
        }
    }
}
