//! What may be called what.
//!
//! Topic and view names follow Kafka: 1 to 249 of `[a-zA-Z0-9._-]`, not `.` or `..`; and, as metrics turn dots into
//! underscores, no two names may differ in those alone. Names never become paths or object keys (ids do), so nothing else
//! needs to be refused. Plugin and binding names are `[a-z0-9-]{1,64}`, versions are semantic versions.

/// Longest topic or view name, in bytes.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;
/// Longest group or transactional id, in bytes: what a Kafka STRING of an old, non-flexible version can carry.
pub const GROUP_ID_BYTES_MAX: usize = 32_767;
/// Longest plugin or binding name, in bytes.
pub const PLUGIN_NAME_BYTES_MAX: usize = 64;
/// Longest plugin version, in bytes.
pub const PLUGIN_VERSION_BYTES_MAX: usize = 64;

/// Committed offsets and group metadata.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";
/// State of transactions.
pub const TRANSACTION_STATE: &str = "__transaction_state";
/// State of share groups.
pub const SHARE_GROUP_STATE: &str = "__share_group_state";
/// The metadata log itself.
pub const CLUSTER_METADATA: &str = "__cluster_metadata";
/// Kafka keeps this one for tiered metadata; reserved so that tools do not mistake a user's topic for it.
pub const REMOTE_LOG_METADATA: &str = "__remote_log_metadata";
/// Pushed plugin artefacts.
pub const PLUGINS: &str = "__millstream_plugins";
/// Log lines of plugins.
pub const PLUGIN_LOGS: &str = "__millstream_plugin_logs";

/// Everything of ours starts with this; clients cannot create such topics.
const OWN_PREFIX: &str = "__millstream_";
const RESERVED: [&str; 5] = [
    CONSUMER_OFFSETS,
    TRANSACTION_STATE,
    SHARE_GROUP_STATE,
    CLUSTER_METADATA,
    REMOTE_LOG_METADATA,
];

/// Whether a name is kept for the broker: topics of that name are internal, and clients may not create them.
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || name.starts_with(OWN_PREFIX)
}

/// Checks a topic or view name; the error is the message for `INVALID_TOPIC_EXCEPTION`.
pub fn check_topic(name: &str) -> Result<(), String> {
    let problem = if name.is_empty() {
        "the empty string is not allowed".to_owned()
    } else if name == "." || name == ".." {
        format!("'{name}' is not allowed")
    } else if name.len() > TOPIC_NAME_BYTES_MAX {
        format!(
            "the length of '{}…' is longer than the max allowed length {TOPIC_NAME_BYTES_MAX}",
            printable(name)
        )
    } else if !name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    {
        format!(
            "'{}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
            printable(name)
        )
    } else {
        return Ok(());
    };
    Err(format!("Topic name is invalid: {problem}"))
}

/// The form in which two names must differ: dots are underscores in metric names.
pub fn collision_key(name: &str) -> String {
    name.replace('.', "_")
}

/// Checks a consumer group's or transaction's id. Kafka allows any text; only the empty and the endless are refused.
pub fn check_group_id(id: &str) -> Result<(), String> {
    if id.is_empty() {
        return Err("The id must not be empty.".to_owned());
    }
    if id.len() > GROUP_ID_BYTES_MAX {
        return Err(format!("The id is longer than {GROUP_ID_BYTES_MAX} bytes."));
    }
    Ok(())
}

/// Checks the name of a plugin or of a binding.
pub fn check_plugin(name: &str) -> Result<(), String> {
    let well_formed = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if name.is_empty() || name.len() > PLUGIN_NAME_BYTES_MAX || !well_formed {
        return Err(format!(
            "Name '{}' is invalid: 1 to {PLUGIN_NAME_BYTES_MAX} of a-z, 0-9 and '-' are allowed",
            printable(name)
        ));
    }
    Ok(())
}

/// Checks a plugin's version: `MAJOR.MINOR.PATCH`, with `-pre.release` and `+build` parts as semantic versioning has them.
pub fn check_version(version: &str) -> Result<(), String> {
    let (rest, build) = version.split_once('+').map_or((version, None), |(rest, build)| (rest, Some(build)));
    let (core, pre_release) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let core_ok = core.split('.').count() == 3 && core.split('.').all(is_version_number);
    let tags_ok = pre_release.is_none_or(is_version_tag) && build.is_none_or(is_version_tag);
    if version.len() > PLUGIN_VERSION_BYTES_MAX || !core_ok || !tags_ok {
        return Err(format!("Version '{}' is not a semantic version such as 1.2.3", printable(version)));
    }
    Ok(())
}

fn is_version_number(text: &str) -> bool {
    let leading_zero = text.len() > 1 && text.starts_with('0');
    !text.is_empty() && text.len() <= 9 && !leading_zero && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_version_tag(text: &str) -> bool {
    text.split('.')
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'))
}

/// A hostile name for a message: no control characters, and short.
/// A name as it can stand in a message, however long it is and whatever it holds.
pub fn printable(name: &str) -> String {
    name.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_are_accepted() {
        for name in ["a", "orders", "a.b-c_D9", "...", "CON", "__mine", &"x".repeat(TOPIC_NAME_BYTES_MAX)] {
            assert_eq!(check_topic(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn hostile_names_are_refused_with_a_short_message() {
        let long = "x".repeat(TOPIC_NAME_BYTES_MAX + 1);
        for name in ["", ".", "..", "a/b", "%2e", "a\0b", "ä", "a b", "a\n", "../etc", &long] {
            let message = check_topic(name).expect_err(name);
            assert!(message.starts_with("Topic name is invalid: "), "{message}");
            assert!(
                message.len() < 250 && !message.contains('\0') && !message.contains('\n'),
                "{message}"
            );
        }
    }

    #[test]
    fn dots_and_underscores_collide() {
        assert_eq!(collision_key("a.b"), collision_key("a_b"));
        assert_ne!(collision_key("a-b"), collision_key("a_b"));
    }

    #[test]
    fn the_brokers_own_topics_are_reserved() {
        for name in [
            CONSUMER_OFFSETS,
            TRANSACTION_STATE,
            CLUSTER_METADATA,
            PLUGINS,
            PLUGIN_LOGS,
            "__millstream_later",
        ] {
            assert!(is_reserved(name), "{name}");
        }
        assert!(!is_reserved("__mine") && !is_reserved("consumer_offsets"));
    }

    #[test]
    fn group_ids_are_free_text_within_a_bound() {
        assert_eq!(check_group_id("any thing/ä"), Ok(()));
        assert_eq!(check_group_id(&"g".repeat(GROUP_ID_BYTES_MAX)), Ok(()));
        assert!(check_group_id("").is_err() && check_group_id(&"g".repeat(GROUP_ID_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn plugin_names_and_versions_are_narrow() {
        assert!(check_plugin("json-filter2").is_ok() && check_plugin(&"p".repeat(64)).is_ok());
        for name in ["", "Upper", "a_b", "a.b", "../x", &"p".repeat(65)] {
            assert!(check_plugin(name).is_err(), "{name}");
        }
        for version in ["0.1.0", "1.2.3", "1.2.3-rc.1", "1.2.3+build.5", "1.2.3-a+b"] {
            assert_eq!(check_version(version), Ok(()), "{version}");
        }
        for version in [
            "",
            "1",
            "1.2",
            "01.2.3",
            "1.2.3.4",
            "1.2.x",
            "1.2.3-",
            "1.2.3+",
            "1.2.3-a..b",
            "v1.2.3",
            "1.2.9999999999",
        ] {
            assert!(check_version(version).is_err(), "{version}");
        }
    }
}
