//! What a handler answers.

use millstream_abi::{HeaderRef, VerdictWriter};

/// New parts for a record. What is not named stays as it is; a change that names nothing keeps the record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    key: Option<Option<Vec<u8>>>,
    value: Option<Option<Vec<u8>>>,
    headers: Option<Vec<(String, Option<Vec<u8>>)>>,
}

impl Change {
    /// A change that changes nothing: the record is kept.
    pub fn none() -> Self {
        Self::default()
    }

    /// A change of the value alone.
    pub fn of_value(value: impl Into<Vec<u8>>) -> Self {
        Self::none().value(value)
    }

    /// Sets the value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Vec<u8>>) -> Self {
        self.value = Some(Some(value.into()));
        self
    }

    /// Makes the value null.
    #[must_use]
    pub fn null_value(mut self) -> Self {
        self.value = Some(None);
        self
    }

    /// Sets the key. The record stays in its partition.
    #[must_use]
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(Some(key.into()));
        self
    }

    /// Makes the key null.
    #[must_use]
    pub fn null_key(mut self) -> Self {
        self.key = Some(None);
        self
    }

    /// Replaces all headers by these. Names that start with `millstream.` belong to the broker.
    #[must_use]
    pub fn headers(mut self, headers: impl IntoIterator<Item = (String, Option<Vec<u8>>)>) -> Self {
        self.headers = Some(headers.into_iter().collect());
        self
    }

    pub(crate) fn write(&self, verdicts: &mut VerdictWriter) {
        let headers: Option<Vec<_>> = self.headers.as_ref().map(|headers| {
            headers
                .iter()
                .map(|(key, value)| HeaderRef {
                    key,
                    value: value.as_deref(),
                })
                .collect()
        });
        let (key, value) = (self.key.as_ref().map(Option::as_deref), self.value.as_ref().map(Option::as_deref));
        verdicts.replace(key, value, headers.as_deref());
    }
}

/// What happens to a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It stays as it is.
    Keep,
    /// It goes.
    Drop,
    /// It changes.
    Replace(Change),
    /// It is refused; the reason is for its producer.
    Reject(String),
    /// It goes to the dead-letter topic, with a reason.
    Divert(String),
}

impl Verdict {
    pub(crate) fn write(&self, verdicts: &mut VerdictWriter) {
        match self {
            Verdict::Keep => verdicts.keep(),
            Verdict::Drop => verdicts.drop_record(),
            Verdict::Replace(change) => change.write(verdicts),
            Verdict::Reject(reason) => verdicts.reject(reason),
            Verdict::Divert(reason) => verdicts.divert(reason),
        }
    }
}
