//! Golden files: reading them, making a batch of them, and judging a reply.

use std::collections::BTreeMap;
use std::fmt;

use millstream_abi::{AbiError, HeaderList, HeaderRef, Verdict, VerdictReader, append_record};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::testing::Bytes;
use crate::{Context, Hook};

/// A golden file: a configuration, and what it must do to records.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// The plugin's configuration.
    #[serde(default = "empty_object")]
    pub config: Value,
    /// Records and verdicts; together they are one batch.
    pub cases: Vec<Case>,
}

/// One record and its verdict.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What the case shows.
    pub name: String,
    /// The record's key.
    #[serde(default)]
    pub key: Option<Bytes>,
    /// The record's value.
    #[serde(default)]
    pub value: Option<Bytes>,
    /// The record's headers, in the order of their names.
    #[serde(default)]
    pub headers: BTreeMap<String, Option<Bytes>>,
    /// The record's timestamp: milliseconds since the epoch.
    #[serde(default)]
    pub timestamp_ms: i64,
    /// The verdict it must get.
    pub expect: Expect,
}

/// The verdict that a case must get.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// The record stays as it is.
    Keep(True),
    /// The record goes.
    Drop(True),
    /// Exactly these parts change.
    Replace(Replaced),
    /// The record is refused, and the reason contains this.
    Reject(String),
    /// The record goes to the dead-letter topic, and the reason contains this.
    Divert(String),
    /// The plugin fails on the record, and the message contains this.
    Error(String),
}

/// The literal `true`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "bool")]
pub struct True;

impl TryFrom<bool> for True {
    type Error = &'static str;

    fn try_from(value: bool) -> Result<Self, Self::Error> {
        if value { Ok(True) } else { Err("only true is meaningful here") }
    }
}

/// The parts that a replacement must name. The outer `None` means that the part must stay; the inner one is null.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replaced {
    /// The new key.
    #[serde(default, deserialize_with = "present")]
    pub key: Option<Option<Bytes>>,
    /// The new value.
    #[serde(default, deserialize_with = "present")]
    pub value: Option<Option<Bytes>>,
    /// All the new headers; their order does not matter.
    #[serde(default)]
    pub headers: Option<BTreeMap<String, Option<Bytes>>>,
}

/// A case that got another verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The case's name.
    pub case: String,
    /// What the file says.
    pub expected: String,
    /// What the plugin said.
    pub found: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, found {}", self.case, self.expected, self.found)
    }
}

impl Golden {
    /// Reads a golden file; the error names the field.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut json = serde_json::Deserializer::from_str(text);
        let golden = serde_path_to_error::deserialize(&mut json).map_err(|error| format!("{}: {}", error.path(), error.inner()))?;
        json.end().map_err(|error| error.to_string())?;
        Ok(golden)
    }

    /// The batch's records in Kafka's v2 encoding; offsets count from zero, timestamps from the epoch.
    pub fn section(&self) -> Result<Vec<u8>, AbiError> {
        let mut section = Vec::new();
        for (case, offset_delta) in self.cases.iter().zip(0..) {
            let (key, value) = (case.key.as_ref().map(Bytes::to_vec), case.value.as_ref().map(Bytes::to_vec));
            let headers: Vec<_> = case
                .headers
                .iter()
                .map(|(key, value)| (key, value.as_ref().map(Bytes::to_vec)))
                .collect();
            let headers: Vec<_> = headers
                .iter()
                .map(|(key, value)| HeaderRef {
                    key,
                    value: value.as_deref(),
                })
                .collect();
            append_record(
                &mut section,
                case.timestamp_ms,
                offset_delta,
                key.as_deref(),
                value.as_deref(),
                &headers,
            )?;
        }
        Ok(section)
    }

    /// A context that fits [`section`](Self::section): topic `golden`, on the produce hook.
    pub fn context(&self) -> Context {
        Context {
            hook: Hook::Produce,
            topic: "golden".to_owned(),
            partition: 0,
            base_offset: None,
            base_timestamp_ms: 0,
            leader_epoch: None,
            record_count: i32::try_from(self.cases.len()).unwrap_or(i32::MAX),
            principal: None,
            client_id: None,
            view: None,
        }
    }

    /// Compares a reply with the expected verdicts: nothing in the result means that all is well.
    pub fn check(&self, reply: &[u8]) -> Result<Vec<Mismatch>, AbiError> {
        let count = u32::try_from(self.cases.len()).unwrap_or(u32::MAX);
        let verdicts: Vec<Verdict<'_>> = VerdictReader::new(reply, count)?.collect::<Result<_, _>>()?;
        let differing = self
            .cases
            .iter()
            .zip(verdicts)
            .filter(|(case, verdict)| !case.expect.matches(verdict));
        let mismatch = |(case, verdict): (&Case, Verdict<'_>)| Mismatch {
            case: case.name.clone(),
            expected: case.expect.to_string(),
            found: shown(&verdict),
        };
        Ok(differing.map(mismatch).collect())
    }
}

impl Expect {
    /// True if a verdict is the expected one.
    pub fn matches(&self, verdict: &Verdict<'_>) -> bool {
        match (self, verdict) {
            (Expect::Keep(True), Verdict::Keep) | (Expect::Drop(True), Verdict::Drop) => true,
            (Expect::Replace(replaced), Verdict::Replace { key, value, headers }) => {
                part_matches(&replaced.key, *key)
                    && part_matches(&replaced.value, *value)
                    && headers_match(replaced.headers.as_ref(), headers.as_ref())
            }
            (Expect::Reject(part), Verdict::Reject(reason))
            | (Expect::Divert(part), Verdict::Divert(reason))
            | (Expect::Error(part), Verdict::Error(reason)) => reason.contains(part),
            _ => false,
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expect::Keep(True) => f.write_str("keep"),
            Expect::Drop(True) => f.write_str("drop"),
            Expect::Replace(replaced) => {
                f.write_str("replace")?;
                if let Some(key) = &replaced.key {
                    write!(f, " key {}", shown_bytes(key.as_ref().map(Bytes::to_vec).as_deref()))?;
                }
                if let Some(value) = &replaced.value {
                    write!(f, " value {}", shown_bytes(value.as_ref().map(Bytes::to_vec).as_deref()))?;
                }
                for (key, value) in replaced.headers.iter().flatten() {
                    write!(f, " header {key:?} {}", shown_bytes(value.as_ref().map(Bytes::to_vec).as_deref()))?;
                }
                Ok(())
            }
            Expect::Reject(part) => write!(f, "reject {part:?}"),
            Expect::Divert(part) => write!(f, "divert {part:?}"),
            Expect::Error(part) => write!(f, "error {part:?}"),
        }
    }
}

fn part_matches(expected: &Option<Option<Bytes>>, found: Option<Option<&[u8]>>) -> bool {
    match (expected, found) {
        (None, None) => true,
        (Some(expected), Some(found)) => nullable_matches(expected.as_ref(), found),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

fn nullable_matches(expected: Option<&Bytes>, found: Option<&[u8]>) -> bool {
    match (expected, found) {
        (None, None) => true,
        (Some(expected), Some(found)) => expected.matches(found),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

fn headers_match(expected: Option<&BTreeMap<String, Option<Bytes>>>, found: Option<&HeaderList<'_>>) -> bool {
    let (Some(expected), Some(found)) = (expected, found) else {
        return expected.is_none() && found.is_none();
    };
    let is_expected = |header: HeaderRef<'_>| {
        expected
            .get(header.key)
            .is_some_and(|value| nullable_matches(value.as_ref(), header.value))
    };
    found.len() == expected.len() && found.iter().all(is_expected)
}

fn shown(verdict: &Verdict<'_>) -> String {
    match verdict {
        Verdict::Keep => "keep".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Replace { key, value, headers } => {
            let key = key.map(|key| format!(" key {}", shown_bytes(key)));
            let value = value.map(|value| format!(" value {}", shown_bytes(value)));
            let header = |header: HeaderRef<'_>| format!(" header {:?} {}", header.key, shown_bytes(header.value));
            let headers: String = headers.iter().flat_map(HeaderList::iter).map(header).collect();
            format!("replace{}{}{headers}", key.unwrap_or_default(), value.unwrap_or_default())
        }
        Verdict::Reject(reason) => format!("reject {reason:?}"),
        Verdict::Divert(reason) => format!("divert {reason:?}"),
        Verdict::Error(message) => format!("error {message:?}"),
    }
}

fn shown_bytes(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "null".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
}

fn empty_object() -> Value {
    Value::Object(serde_json::Map::new())
}

/// Tells a part that is null from one that is absent: serde calls this only if the field is there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Bytes>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}
