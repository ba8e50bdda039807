//! What stands in the place of something secret.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// How a text is made unreadable.
#[derive(Debug, Clone)]
pub(crate) enum Conceal {
    /// A star for each character but the last few.
    Mask { keep_last: usize },
    /// SHA-256 of salt and text, in hexadecimal: equal texts stay equal.
    Hash { salted: Sha256 },
}

impl Conceal {
    pub(crate) fn hash(salt: &str) -> Self {
        Conceal::Hash {
            salted: Sha256::new_with_prefix(salt),
        }
    }

    /// The text in disguise.
    pub(crate) fn text(&self, text: &str) -> String {
        match self {
            Conceal::Mask { keep_last } => masked(text, *keep_last),
            Conceal::Hash { .. } => self.bytes(text.as_bytes()),
        }
    }

    /// For things that are not text: arrays, objects, booleans. A mask says nothing of their size.
    pub(crate) fn other(&self, json: &str) -> String {
        match self {
            Conceal::Mask { .. } => "***".to_owned(),
            Conceal::Hash { .. } => self.bytes(json.as_bytes()),
        }
    }

    /// The hash of bytes, or a mask of fixed length.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> String {
        match self {
            Conceal::Mask { .. } => "***".to_owned(),
            Conceal::Hash { salted } => {
                let digest = salted.clone().chain_update(bytes).finalize();
                digest.iter().fold(String::with_capacity(64), |mut hex, byte| {
                    // Writing to a string cannot fail.
                    let _ = write!(hex, "{byte:02x}");
                    hex
                })
            }
        }
    }
}

/// Keeps the last characters only if there are more than that: a short text would not be masked at all.
fn masked(text: &str, keep_last: usize) -> String {
    let count = text.chars().count();
    let hidden = if count > keep_last { count - keep_last } else { count };
    text.chars()
        .enumerate()
        .map(|(at, letter)| if at < hidden { '*' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_keep_the_last_characters_of_longer_texts_only() {
        assert_eq!(masked("N12345", 4), "**2345");
        assert_eq!(masked("2345", 4), "****");
        assert_eq!(masked("äöü€", 1), "***€");
        assert_eq!(masked("", 3), "");
    }

    #[test]
    fn hashes_are_sha256_of_salt_and_text() {
        // printf saltN12345 | sha256sum
        let hash = Conceal::hash("salt").text("N12345");
        assert_eq!(hash, "8b25ec0728c4d4ac542daafe325357b5d361bf06e575b1a1d43cb730a6c50d4c");
        assert_ne!(Conceal::hash("pepper").text("N12345"), hash);
    }
}
