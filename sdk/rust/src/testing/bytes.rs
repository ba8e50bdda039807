//! Bytes as golden files write them.

use serde::Deserialize;
use serde_json::Value;

/// Text, hexadecimal digits or JSON.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Written")]
pub enum Bytes {
    /// These bytes.
    Exact(Vec<u8>),
    /// A JSON document: written compactly as input, compared by content as output.
    Json(Value),
}

impl Bytes {
    /// The bytes to put into a record.
    pub fn to_vec(&self) -> Vec<u8> {
        match self {
            Bytes::Exact(bytes) => bytes.clone(),
            Bytes::Json(json) => json.to_string().into_bytes(),
        }
    }

    /// True if `found` is what was written.
    pub fn matches(&self, found: &[u8]) -> bool {
        match self {
            Bytes::Exact(bytes) => bytes == found,
            Bytes::Json(json) => serde_json::from_slice::<Value>(found).is_ok_and(|found| found == *json),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Hex(Hex),
    Json(Json),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hex {
    hex: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    json: Value,
}

impl TryFrom<Written> for Bytes {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Text(text) => Ok(Bytes::Exact(text.into_bytes())),
            Written::Hex(Hex { hex }) => from_hex(&hex).map(Bytes::Exact).ok_or_else(|| format!("not hexadecimal: {hex}")),
            Written::Json(Json { json }) => Ok(Bytes::Json(json)),
        }
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().filter_map(|[high, low]| u8::try_from(high * 16 + low).ok()).collect())
}
