//! Why a handler could not decide.

use std::fmt;

/// A failure on one record (or, from `on_batch`, on a batch). Any standard error turns into one with `?`.
///
/// The text goes into logs and dead-letter headers: say what is wrong, and keep the record's contents out of it.
#[derive(PartialEq, Eq)]
pub struct Error {
    message: String,
}

impl Error {
    /// An error with this text.
    pub fn new(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
        }
    }

    /// The text.
    pub fn message(&self) -> &str {
        &self.message
    }
}

// `Error` is not itself a `std::error::Error`: this conversion would then overlap with the one from a type to itself.
impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// A result whose error fails the record at hand.
pub type Result<T, E = Error> = std::result::Result<T, E>;
