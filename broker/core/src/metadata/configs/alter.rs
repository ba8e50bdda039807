//! What a change request makes of the values that are set: IncrementalAlterConfigs and the older AlterConfigs.

use std::collections::BTreeSet;

use super::{BrokerLayers, ConfigType, Overrides, Scope, definition::list_items, effective_value};

/// What to do with one value; the numbers of the wire are in [`AlterOp::from_code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlterOp {
    /// Sets it.
    Set,
    /// Back to the default.
    Delete,
    /// Adds items to a list.
    Append,
    /// Takes items from a list.
    Subtract,
}

impl AlterOp {
    /// The operation of a wire code.
    pub fn from_code(code: i8) -> Option<Self> {
        match code {
            0 => Some(Self::Set),
            1 => Some(Self::Delete),
            2 => Some(Self::Append),
            3 => Some(Self::Subtract),
            _ => None,
        }
    }
}

/// One change of one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    /// Which configuration.
    pub name: String,
    /// What to do.
    pub op: AlterOp,
    /// With what; deletions need none.
    pub value: Option<String>,
}

impl ConfigChange {
    /// Sets a value.
    pub fn set(name: &str, value: &str) -> Self {
        Self {
            name: name.to_owned(),
            op: AlterOp::Set,
            value: Some(value.to_owned()),
        }
    }
}

/// Applies changes in order and returns all values that are then set; the error is a message.
pub fn alter_incrementally(
    scope: Scope,
    current: &Overrides,
    changes: &[ConfigChange],
    layers: &BrokerLayers<'_>,
) -> Result<Overrides, String> {
    let mut seen = BTreeSet::new();
    let mut next = current.clone();
    for change in changes {
        let name = change.name.as_str();
        if !seen.insert(name) {
            return Err(format!("Error due to duplicate config keys: {}", shown(name)));
        }
        let Some(definition) = scope.definition(name) else {
            // Also one that is not known any more can be taken away.
            if change.op == AlterOp::Delete {
                next.remove(name);
                continue;
            }
            return Err(scope.check(name, "").err().unwrap_or_default());
        };
        let given = || {
            change
                .value
                .as_deref()
                .ok_or_else(|| format!("Null value not supported for : {name}"))
        };
        let value = match change.op {
            AlterOp::Delete => {
                next.remove(name);
                continue;
            }
            AlterOp::Set => given()?.to_owned(),
            AlterOp::Append | AlterOp::Subtract if definition.kind != ConfigType::List => {
                let verb = if change.op == AlterOp::Append {
                    "APPEND to"
                } else {
                    "SUBTRACT from"
                };
                return Err(format!("Can't {verb} key {name} because its type is not LIST."));
            }
            AlterOp::Append => appended(&effective_value(scope, name, &next, layers).unwrap_or_default(), given()?),
            AlterOp::Subtract => subtracted(&effective_value(scope, name, &next, layers).unwrap_or_default(), given()?),
        };
        definition.check(&value)?;
        next.insert(name.to_owned(), value);
    }
    Ok(next)
}

/// Checks a whole new set of values, as AlterConfigs and CreateTopics give it.
pub fn replace(scope: Scope, values: &[(String, Option<String>)]) -> Result<Overrides, String> {
    let mut next = Overrides::new();
    for (name, value) in values {
        let value = value
            .as_deref()
            .ok_or_else(|| format!("Null value not supported for {} configs: {}", scope.word(), shown(name)))?;
        scope.check(name, value)?;
        if next.insert(name.clone(), value.to_owned()).is_some() {
            return Err(format!("Error due to duplicate config keys: {}", shown(name)));
        }
    }
    Ok(next)
}

fn appended(current: &str, added: &str) -> String {
    let mut items: Vec<&str> = list_items(current).collect();
    for item in list_items(added) {
        if !items.contains(&item) {
            items.push(item);
        }
    }
    items.join(",")
}

fn subtracted(current: &str, removed: &str) -> String {
    let removed: Vec<&str> = list_items(removed).collect();
    list_items(current)
        .filter(|item| !removed.contains(item))
        .collect::<Vec<_>>()
        .join(",")
}

fn shown(name: &str) -> String {
    name.escape_default().take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(name: &str, op: AlterOp, value: &str) -> ConfigChange {
        ConfigChange {
            name: name.to_owned(),
            op,
            value: Some(value.to_owned()),
        }
    }

    fn alter(current: &Overrides, changes: &[ConfigChange]) -> Result<Overrides, String> {
        alter_incrementally(Scope::Topic, current, changes, &BrokerLayers::none())
    }

    #[test]
    fn append_starts_from_the_value_that_applies() {
        let next = alter(&Overrides::new(), &[change("cleanup.policy", AlterOp::Append, "compact")]).unwrap();
        assert_eq!(next["cleanup.policy"], "delete,compact");
        let again = alter(&next, &[change("cleanup.policy", AlterOp::Append, "compact")]).unwrap();
        assert_eq!(again, next, "what is there is not added twice");
        let less = alter(&next, &[change("cleanup.policy", AlterOp::Subtract, "delete")]).unwrap();
        assert_eq!(less["cleanup.policy"], "compact");
    }

    #[test]
    fn only_lists_are_appended_to() {
        let refused = alter(&Overrides::new(), &[change("retention.ms", AlterOp::Append, "1")]).unwrap_err();
        assert_eq!(refused, "Can't APPEND to key retention.ms because its type is not LIST.");
        let refused = alter(&Overrides::new(), &[change("retention.ms", AlterOp::Subtract, "1")]).unwrap_err();
        assert_eq!(refused, "Can't SUBTRACT from key retention.ms because its type is not LIST.");
    }

    #[test]
    fn a_list_can_be_emptied() {
        let emptied = alter(&Overrides::new(), &[change("cleanup.policy", AlterOp::Subtract, "delete")]).unwrap();
        assert_eq!(emptied.get("cleanup.policy").map(String::as_str), Some(""));
    }

    #[test]
    fn delete_goes_back_to_the_default_and_set_needs_a_value() {
        let set = alter(&Overrides::new(), &[change("retention.ms", AlterOp::Set, "1")]).unwrap();
        let unset = alter(
            &set,
            &[ConfigChange {
                name: "retention.ms".to_owned(),
                op: AlterOp::Delete,
                value: None,
            }],
        )
        .unwrap();
        assert!(unset.is_empty());
        assert!(
            alter(
                &set,
                &[ConfigChange {
                    name: "retention.ms".to_owned(),
                    op: AlterOp::Set,
                    value: None
                }]
            )
            .is_err()
        );
    }

    #[test]
    fn one_name_is_changed_once_per_request() {
        let twice = [change("retention.ms", AlterOp::Set, "1"), change("retention.ms", AlterOp::Set, "2")];
        assert!(alter(&Overrides::new(), &twice).unwrap_err().contains("duplicate"));
        let twice = [
            ("retention.ms".to_owned(), Some("1".to_owned())),
            ("retention.ms".to_owned(), Some("2".to_owned())),
        ];
        assert!(replace(Scope::Topic, &twice).unwrap_err().contains("duplicate"));
        assert!(
            replace(Scope::Topic, &[("retention.ms".to_owned(), None)])
                .unwrap_err()
                .contains("Null value")
        );
    }
}
