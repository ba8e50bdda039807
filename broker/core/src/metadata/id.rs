//! Ids as Kafka renders them: the 16 bytes in URL-safe base64 without padding, 22 characters.

use uuid::Uuid;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const CHARS: usize = 22;

/// Kafka keeps the ids 0 (none) and 1 (the metadata topic) for itself.
const RESERVED_MAX: u128 = 1;

/// Renders an id, `AAAAAAAAAAAAAAAAAAAAAA` for the nil id.
pub fn render(id: Uuid) -> String {
    let bits = id.as_u128();
    // 21 characters hold 126 bits; the last one holds the two lowest, followed by four zero bits.
    (0..CHARS)
        .map(|index| {
            if index + 1 == CHARS {
                (bits << 4) & 0x3f
            } else {
                (bits >> (122 - 6 * index)) & 0x3f
            }
        })
        .filter_map(|sextet| {
            usize::try_from(sextet)
                .ok()
                .and_then(|at| ALPHABET.get(at))
                .copied()
                .map(char::from)
        })
        .collect()
}

/// Reads what [`render`] wrote; anything else is `None`.
pub fn parse(text: &str) -> Option<Uuid> {
    let (last, head) = text.as_bytes().split_last()?;
    if text.len() != CHARS {
        return None;
    }
    let mut bits: u128 = 0;
    for byte in head {
        bits = (bits << 6) | sextet(*byte)?;
    }
    let tail = sextet(*last)?;
    (tail & 0xf == 0).then(|| Uuid::from_u128((bits << 2) | (tail >> 4)))
}

/// Whether a topic or view may carry this id.
pub fn is_usable(id: Uuid) -> bool {
    id.as_u128() > RESERVED_MAX
}

fn sextet(byte: u8) -> Option<u128> {
    let at = ALPHABET.iter().position(|known| *known == byte)?;
    u128::try_from(at).ok()
}

/// Serde form of an id, for `#[serde(with = …)]`.
pub mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use uuid::Uuid;

    /// Writes the rendered id.
    pub fn serialize<S: Serializer>(id: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::render(*id))
    }

    /// Reads a rendered id.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse(&text).ok_or_else(|| D::Error::custom("not an id in url-safe base64"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_are_rendered_as_kafka_does() {
        assert_eq!(render(Uuid::nil()), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(render(Uuid::from_u128(1)), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(render(Uuid::from_u128(u128::MAX)), "_____________________w");
    }

    #[test]
    fn ids_with_stray_bits_or_lengths_are_refused() {
        for text in [
            "",
            "AAAA",
            "AAAAAAAAAAAAAAAAAAAAAB",
            "AAAAAAAAAAAAAAAAAAAAA=",
            "AAAAAAAAAAAAAAAAAAAAAAA",
            "äAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert!(!is_usable(Uuid::nil()));
        assert!(!is_usable(Uuid::from_u128(1)));
        assert!(is_usable(Uuid::from_u128(2)));
    }

    proptest! {
        #[test]
        fn every_id_survives_its_text(bits: u128) {
            let id = Uuid::from_u128(bits);
            prop_assert_eq!(parse(&render(id)), Some(id));
        }
    }
}
