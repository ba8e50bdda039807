//! Which topics a pattern means, remembered until the metadata changes.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use super::re2::translate;
use crate::metadata::ClusterImage;

/// Longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 4_096;

/// Patterns that are remembered.
const PATTERNS_MAX: usize = 1_000;

/// Resolved patterns of one version of the metadata.
#[derive(Debug, Default)]
pub(in crate::group) struct Regexes {
    version: u64,
    topics: BTreeMap<String, BTreeSet<String>>,
}

/// Whether a pattern can be used. The syntax is RE2's, as in Kafka; matching takes linear time.
pub(super) fn is_valid(pattern: &str) -> bool {
    compile(pattern).is_some()
}

/// Whether a pattern means a topic.
pub(super) fn matches(pattern: &str, topic: &str) -> bool {
    compile(pattern).is_some_and(|regex| regex.is_match(topic))
}

fn compile(pattern: &str) -> Option<Regex> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return None;
    }
    let pattern = translate(pattern);
    // The bare pattern first: brackets that close what is added here would change what is meant.
    Regex::new(&pattern).ok()?;
    Regex::new(&format!("^(?:{pattern})$")).ok()
}

impl Regexes {
    /// The topics and views that a pattern means.
    pub fn resolve(&mut self, pattern: &str, image: &ClusterImage, version: u64) -> &BTreeSet<String> {
        if self.version != version || self.topics.len() >= PATTERNS_MAX {
            self.topics.clear();
            self.version = version;
        }
        self.topics.entry(pattern.to_owned()).or_insert_with(|| {
            let Some(regex) = compile(pattern) else { return BTreeSet::new() };
            let topics = image.topics.values().filter(|topic| !topic.internal).map(|topic| &topic.name);
            let names = topics.chain(image.views.keys());
            names.filter(|name| regex.is_match(name)).cloned().collect()
        })
    }
}
