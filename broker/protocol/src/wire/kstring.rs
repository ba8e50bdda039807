//! Strings that share the frame they came in.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;

/// An immutable UTF-8 string; cloning it copies no text.
///
/// A string that was decoded keeps its whole frame alive. State that outlives the request should own its text: `KString::from(&*text)`.
#[derive(Clone, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct KString(Bytes);

impl KString {
    /// A string that costs no allocation.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// Takes `bytes` as text; none if they are not UTF-8.
    pub fn from_utf8(bytes: Bytes) -> Option<Self> {
        std::str::from_utf8(&bytes).is_ok().then_some(Self(bytes))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // Checked on construction. Without unsafe code the check is repeated here; it runs at memory speed and names are short.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The text's bytes.
    pub const fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl Deref for KString {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for KString {
    fn as_ref(&self) -> &str {
        self
    }
}

// `Borrow<str>` needs the hash of `str`; equality and order of the bytes are those of `str` already.
impl Hash for KString {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Borrow<str> for KString {
    fn borrow(&self) -> &str {
        self
    }
}

impl From<&str> for KString {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for KString {
    fn from(text: String) -> Self {
        Self(Bytes::from(text.into_bytes()))
    }
}

impl From<&String> for KString {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<KString> for String {
    fn from(text: KString) -> Self {
        text.as_str().to_owned()
    }
}

impl PartialEq<str> for KString {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for KString {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl fmt::Display for KString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for KString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Stands for a secret in `Debug` output.
pub struct Redacted;

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn maps_find_it_by_str() {
        let map = HashMap::from([(KString::from("orders"), 1)]);
        assert_eq!(map.get("orders"), Some(&1));
        assert_eq!(map.get("order"), None);
    }

    #[test]
    fn only_utf8_becomes_text() {
        assert_eq!(
            KString::from_utf8(Bytes::from_static(b"\xc3\xa9")),
            Some(KString::from_static("\u{e9}"))
        );
        assert_eq!(KString::from_utf8(Bytes::from_static(b"\xc3")), None);
    }
}
