//! The configuration, and what it is compiled into.

use memchr::memmem::{self, Finder};
use millstream_sdk::{Error, Result};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::conceal::Conceal;
use crate::patterns::{Pattern, Patterns};
use crate::rewrite;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    fields: Vec<FieldConfig>,
    #[serde(default)]
    patterns: Vec<Pattern>,
    #[serde(default)]
    pattern_action: PatternAction,
    #[serde(default)]
    salt: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldConfig {
    pointer: String,
    action: FieldAction,
    keep_last: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FieldAction {
    Hash,
    Mask,
    Remove,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PatternAction {
    #[default]
    Mask,
    Hash,
}

/// The compiled configuration.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Config")]
pub(crate) struct Redactor {
    rules: Vec<Rule>,
    patterns: Patterns,
}

/// What happens to the fields at a pointer.
#[derive(Debug)]
pub(crate) struct Rule {
    /// At least one.
    pub(crate) segments: Vec<Segment>,
    pub(crate) action: Action,
    /// A quoted name that must occur in every document with such a field; `None` if that cannot be said.
    needle: Option<Finder<'static>>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// `*`: every member or element.
    Any,
    /// A member's name or an element's index.
    Name(String),
}

#[derive(Debug)]
pub(crate) enum Action {
    Conceal(Conceal),
    Remove,
}

impl Redactor {
    /// The new value; `None` if nothing is to be redacted. An error if a JSON document cannot be looked through.
    pub(crate) fn redact(&self, value: &[u8]) -> Result<Option<Vec<u8>>> {
        let may_have_fields = self.may_have_fields(value);
        if !may_have_fields && !self.patterns.may_match(value) {
            return Ok(None);
        }
        let document = std::str::from_utf8(value)
            .ok()
            .and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
        let Some(document) = document else {
            return Ok(self.patterns.redact(value));
        };
        let active: Vec<&Rule> = if may_have_fields { self.rules.iter().collect() } else { Vec::new() };
        rewrite::document(document, &active, &self.patterns)
            .map(|text| text.map(String::into_bytes))
            .map_err(|error| Error::new(format_args!("value: {error}")))
    }

    fn may_have_fields(&self, value: &[u8]) -> bool {
        let may_have = |rule: &Rule| rule.needle.as_ref().is_none_or(|needle| needle.find(value).is_some());
        // A name can also be spelled with \u escapes; then only parsing can tell.
        self.rules.iter().any(may_have) || (!self.rules.is_empty() && memmem::find(value, b"\\u").is_some())
    }
}

impl TryFrom<Config> for Redactor {
    type Error = String;

    fn try_from(config: Config) -> Result<Self, String> {
        let needs_salt = config.fields.iter().any(|field| field.action == FieldAction::Hash)
            || (config.pattern_action == PatternAction::Hash && !config.patterns.is_empty());
        if needs_salt && config.salt.is_empty() {
            return Err("salt: missing; without one, hashes of guessable values can be looked up".to_owned());
        }
        if config.fields.is_empty() && config.patterns.is_empty() {
            return Err("fields, patterns: both are empty, so there is nothing to redact".to_owned());
        }
        let conceal = match config.pattern_action {
            PatternAction::Mask => Conceal::Mask { keep_last: 0 },
            PatternAction::Hash => Conceal::hash(&config.salt),
        };
        let rules: Result<_, _> = config.fields.into_iter().map(|field| Rule::new(field, &config.salt)).collect();
        Ok(Self {
            rules: rules?,
            patterns: Patterns::new(&config.patterns, conceal),
        })
    }
}

impl Rule {
    fn new(field: FieldConfig, salt: &str) -> Result<Self, String> {
        let pointer = &field.pointer;
        let Some(path) = pointer.strip_prefix('/') else {
            return Err(format!("fields: pointer {pointer:?} must start with `/`"));
        };
        let action = match (field.action, field.keep_last) {
            (FieldAction::Mask, keep_last) => Action::Conceal(Conceal::Mask {
                keep_last: keep_last.unwrap_or(0),
            }),
            (FieldAction::Hash, None) => Action::Conceal(Conceal::hash(salt)),
            (FieldAction::Remove, None) => Action::Remove,
            (FieldAction::Hash | FieldAction::Remove, Some(_)) => {
                return Err(format!("fields: keep_last of {pointer:?} needs action mask"));
            }
        };
        let segments: Vec<Segment> = path.split('/').map(Segment::new).collect();
        let needle = segments.iter().rev().find_map(Segment::needle);
        Ok(Self { segments, action, needle })
    }
}

impl Segment {
    fn new(written: &str) -> Self {
        match written {
            "*" => Segment::Any,
            name => Segment::Name(name.replace("~1", "/").replace("~0", "~")),
        }
    }

    /// How the name stands in a document, unless it may be an index or be spelled in several ways.
    fn needle(&self) -> Option<Finder<'static>> {
        let Segment::Name(name) = self else { return None };
        let is_index = name.bytes().all(|byte| byte.is_ascii_digit());
        let has_escapes = name.bytes().any(|byte| matches!(byte, b'"' | b'\\' | b'/' | 0..0x20));
        (!is_index && !has_escapes).then(|| Finder::new(format!("\"{name}\"").as_bytes()).into_owned())
    }
}
