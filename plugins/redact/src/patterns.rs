//! Finds e-mail addresses and card numbers in text of any kind.
//!
//! Both scanners look at bytes, in linear time. Bytes above ASCII count as letters, so that a match never ends inside a character.

use serde::Deserialize;

use crate::conceal::Conceal;

/// What can be looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pattern {
    Email,
    Card,
}

/// The patterns to look for, and what to do with matches.
#[derive(Debug)]
pub(crate) struct Patterns {
    email: bool,
    card: bool,
    conceal: Conceal,
}

/// Digits in the longest card number.
const CARD_DIGITS_MAX: usize = 19;
/// Digits in the shortest card number.
const CARD_DIGITS_MIN: usize = 13;

/// A match: first byte, and the byte after the last one.
type Span = (usize, usize);

impl Patterns {
    pub(crate) fn new(patterns: &[Pattern], conceal: Conceal) -> Self {
        Self {
            email: patterns.contains(&Pattern::Email),
            card: patterns.contains(&Pattern::Card),
            conceal,
        }
    }

    /// False if the text has no match, whatever it is: a quick look, which must also see through JSON's escapes.
    pub(crate) fn may_match(&self, text: &[u8]) -> bool {
        (self.email && memchr::memchr(b'@', text).is_some())
            || (self.card && has_long_number(text))
            || ((self.email || self.card) && memchr::memmem::find(text, b"\\u").is_some())
    }

    /// The text with every match concealed; `None` if there is none.
    pub(crate) fn redact(&self, text: &[u8]) -> Option<Vec<u8>> {
        let with_emails = if self.email {
            self.replace(text, &emails(text), masked_email)
        } else {
            None
        };
        let text = with_emails.as_deref().unwrap_or(text);
        let with_cards = if self.card {
            self.replace(text, &cards(text), masked_card)
        } else {
            None
        };
        with_cards.or(with_emails)
    }

    /// Like [`redact`](Self::redact), for text.
    pub(crate) fn redact_str(&self, text: &str) -> Option<String> {
        // Matches begin and end between characters and their replacements are ASCII, so this is UTF-8 again.
        self.redact(text.as_bytes())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn replace(&self, text: &[u8], spans: &[Span], mask: fn(&[u8], &mut Vec<u8>)) -> Option<Vec<u8>> {
        if spans.is_empty() {
            return None;
        }
        let mut out = Vec::with_capacity(text.len());
        let mut copied = 0;
        for (start, end) in spans {
            let found = text.get(*start..*end).unwrap_or_default();
            out.extend_from_slice(text.get(copied..*start).unwrap_or_default());
            match self.conceal {
                Conceal::Mask { .. } => mask(found, &mut out),
                Conceal::Hash { .. } => out.extend_from_slice(self.conceal.bytes(found).as_bytes()),
            }
            copied = *end;
        }
        out.extend_from_slice(text.get(copied..).unwrap_or_default());
        Some(out)
    }
}

/// A star for each character but the `@` and the dots.
fn masked_email(found: &[u8], out: &mut Vec<u8>) {
    let is_char_start = |byte: &&u8| **byte & 0xc0 != 0x80;
    out.extend(
        found
            .iter()
            .filter(is_char_start)
            .map(|byte| if matches!(byte, b'@' | b'.') { *byte } else { b'*' }),
    );
}

/// A star for each digit but the last four.
fn masked_card(found: &[u8], out: &mut Vec<u8>) {
    let mut left = found.iter().filter(|byte| byte.is_ascii_digit()).count();
    for byte in found {
        let is_digit = byte.is_ascii_digit();
        out.push(if is_digit && left > 4 { b'*' } else { *byte });
        left -= usize::from(is_digit);
    }
}

fn emails(text: &[u8]) -> Vec<Span> {
    let is_local = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'%' | b'+' | b'-' | 0x80..);
    let is_domain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | 0x80..);
    let mut spans = Vec::new();
    for at in memchr::memchr_iter(b'@', text) {
        let (before, after) = (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default());
        let local = before.iter().rev().take_while(|byte| is_local(byte)).count();
        let domain = after.iter().take_while(|byte| is_domain(byte)).count();
        let domain = trimmed(after.get(..domain).unwrap_or_default());
        let labels = domain.rsplit(|byte| *byte == b'.').collect::<Vec<_>>();
        let is_top_level = labels
            .first()
            .is_some_and(|label| label.len() >= 2 && label.iter().all(|byte| !byte.is_ascii_digit()));
        if local > 0 && labels.len() >= 2 && is_top_level && labels.iter().all(|label| !label.is_empty()) {
            spans.push((at - local, at + 1 + domain.len()));
        }
    }
    // Two addresses can share a word (`a@b.cd@e.fg`): the later match gives way.
    spans.dedup_by(|later, earlier| later.0 < earlier.1);
    spans
}

/// Without the dots and dashes at the end, which belong to the sentence.
fn trimmed(domain: &[u8]) -> &[u8] {
    let surplus = domain.iter().rev().take_while(|byte| matches!(byte, b'.' | b'-')).count();
    domain.get(..domain.len() - surplus).unwrap_or_default()
}

/// True if there are as many digits, joined by single blanks or dashes, as the shortest card number has.
fn has_long_number(text: &[u8]) -> bool {
    let (mut digits, mut is_after_digit) = (0, false);
    for byte in text {
        digits = match byte {
            b'0'..=b'9' => digits + 1,
            b' ' | b'-' if is_after_digit => digits,
            _ => 0,
        };
        is_after_digit = byte.is_ascii_digit();
        if digits >= CARD_DIGITS_MIN {
            return true;
        }
    }
    false
}

/// Card numbers are groups of digits with at most one blank or dash between two groups.
fn cards(text: &[u8]) -> Vec<Span> {
    let groups = digit_groups(text);
    let mut spans = Vec::new();
    let mut rest = groups.as_slice();
    while let Some((_, tail)) = rest.split_first() {
        match card_at(text, rest) {
            Some((group_count, span)) => {
                spans.push(span);
                rest = rest.get(group_count..).unwrap_or_default();
            }
            None => rest = tail,
        }
    }
    spans
}

fn digit_groups(text: &[u8]) -> Vec<Span> {
    let mut groups: Vec<Span> = Vec::new();
    for (at, byte) in text.iter().enumerate() {
        if !byte.is_ascii_digit() {
            continue;
        }
        match groups.last_mut() {
            Some((_, end)) if *end == at => *end = at + 1,
            _ => groups.push((at, at + 1)),
        }
    }
    groups
}

/// The longest card number that starts with the first of these groups, and how many groups it takes.
fn card_at(text: &[u8], groups: &[Span]) -> Option<(usize, Span)> {
    let (start, mut end) = *groups.first()?;
    let is_fraction = start.checked_sub(1).and_then(|before| text.get(before)) == Some(&b'.');
    if is_fraction {
        return None;
    }
    let mut digits: Vec<u8> = Vec::with_capacity(CARD_DIGITS_MAX);
    let mut found = None;
    for (taken, (group_start, group_end)) in groups.iter().enumerate() {
        let is_joined = taken == 0 || (*group_start == end + 1 && matches!(text.get(end), Some(b' ' | b'-')));
        if !is_joined || digits.len() + (group_end - group_start) > CARD_DIGITS_MAX {
            break;
        }
        digits.extend(
            text.get(*group_start..*group_end)
                .unwrap_or_default()
                .iter()
                .map(|digit| digit - b'0'),
        );
        end = *group_end;
        let has_fraction = text.get(end) == Some(&b'.') && text.get(end + 1).is_some_and(u8::is_ascii_digit);
        if !has_fraction && is_card(&digits) {
            found = Some((taken + 1, (start, end)));
        }
    }
    found
}

/// A length that an issuer with this first digit uses, and a right check digit. Times in milliseconds start with 1: no card does.
fn is_card(digits: &[u8]) -> bool {
    let is_known_length = match digits.first() {
        Some(4) => matches!(digits.len(), 13 | 16 | 19),
        Some(2 | 5) => digits.len() == 16,
        Some(3) => (14..=19).contains(&digits.len()),
        Some(6) => (16..=19).contains(&digits.len()),
        _ => false,
    };
    is_known_length && luhn_sum(digits).is_multiple_of(10)
}

fn luhn_sum(digits: &[u8]) -> u32 {
    let doubled = |digit: u32| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let weighted = |(at, digit): (usize, &u8)| {
        if at % 2 == 1 {
            doubled(u32::from(*digit))
        } else {
            u32::from(*digit)
        }
    };
    digits.iter().rev().enumerate().map(weighted).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(text: &str) -> String {
        let patterns = Patterns::new(&[Pattern::Email, Pattern::Card], Conceal::Mask { keep_last: 0 });
        let redacted = patterns.redact_str(text);
        assert!(
            redacted.is_none() || patterns.may_match(text.as_bytes()),
            "the quick look missed {text}"
        );
        redacted.unwrap_or_else(|| text.to_owned())
    }

    #[test]
    fn emails_are_found_in_any_text() {
        assert_eq!(redacted("to bob.lee+x@mail.example.com."), "to ***.*****@****.*******.***.");
        assert_eq!(redacted("<jürgen@straße.de>;a@b.io"), "<******@******.**>;*@*.**");
        for innocent in ["@", "a@b", "@home.com", "a@.com", "a@b.c", "x @ y.com", "v@1.22", "a@b..com"] {
            assert_eq!(redacted(innocent), innocent);
        }
    }

    #[test]
    fn cards_are_found_with_and_without_separators() {
        assert_eq!(redacted("4111111111111111"), "************1111");
        assert_eq!(redacted("card 5555 5555 5555 4444 12/27"), "card **** **** **** 4444 12/27");
        assert_eq!(redacted("3782-822463-10005,"), "****-******-*0005,");
        assert_eq!(
            redacted("1 4111111111111111 4111111111111111"),
            "1 ************1111 ************1111"
        );
    }

    #[test]
    fn other_numbers_are_left_alone() {
        let innocents = [
            "4111111111111112",
            "1700000000000",
            "0.4111111111111111",
            "4111111111111111.5",
            "41111111111111111111111",
            "4111  1111  1111  1111",
        ];
        assert!(!has_long_number(b"4111  1111  1111  1111") && !has_long_number(b"1,2,3,4,5,6,7,8,9,10,11,12"));
        for innocent in innocents {
            assert_eq!(redacted(innocent), innocent);
        }
    }

    #[test]
    fn hashed_matches_stay_equal_to_each_other() {
        let patterns = Patterns::new(&[Pattern::Email], Conceal::hash("s"));
        let redacted = patterns.redact_str("a@b.io a@b.io").unwrap();
        let (first, second) = redacted.split_once(' ').unwrap();
        assert!(first == second && first.len() == 64);
    }
}
