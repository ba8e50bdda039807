//! Patterns of clients, which mean what RE2 makes of them, as Kafka takes them (KIP-848): said as Rust's `regex` understands the same.
//!
//! The two have one syntax but for this: RE2 has `\Q...\E`, takes braces that are no repetition for themselves, and knows no nested
//! classes and no operators in classes.

use std::{iter::Peekable, str::Chars};

/// The same pattern for Rust's `regex`.
pub(super) fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '\\' => escape(rest, &mut out),
            '[' => class(rest, &mut out),
            '{' if !is_repetition(rest) => {
                out.push_str("\\{");
                1
            }
            _ => {
                out.push(next);
                next.len_utf8()
            }
        };
        rest = rest.get(length..).unwrap_or("");
    }
    out
}

/// Takes over what a backslash begins, and says how many bytes that was.
fn escape(rest: &str, out: &mut String) -> usize {
    if let Some(quoted) = rest.strip_prefix("\\Q") {
        let text = quoted.split_once("\\E").map_or(quoted, |(text, _)| text);
        out.push_str(&regex::escape(text));
        let end = if text.len() < quoted.len() { "\\E".len() } else { 0 };
        return "\\Q".len() + text.len() + end;
    }
    let length = rest.chars().take(2).map(char::len_utf8).sum();
    out.push_str(rest.get(..length).unwrap_or(rest));
    length
}

/// `{2}`, `{2,}` or `{2,3}`.
fn is_repetition(rest: &str) -> bool {
    let Some((bounds, _)) = rest.get(1..).and_then(|rest| rest.split_once('}')) else {
        return false;
    };
    let (least, most) = bounds.split_once(',').unwrap_or((bounds, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !least.is_empty() && is_number(least) && is_number(most)
}

/// Takes over a class, every character of it that could mean something else escaped, and says how many bytes it was.
fn class(rest: &str, out: &mut String) -> usize {
    let mut chars = rest.chars().peekable();
    out.extend(chars.next());
    if let Some(not) = chars.next_if_eq(&'^') {
        out.push(not);
    }
    let mut is_first = true;
    while let Some(next) = chars.next() {
        match next {
            ']' if !is_first => {
                out.push(']');
                return rest.len() - chars.collect::<String>().len();
            }
            '\\' => {
                out.push('\\');
                escaped_in_class(&mut chars, out);
            }
            '[' if chars.peek() == Some(&':') => out.push('['),
            // Between two others it makes a range, of which the second is never itself the beginning of one.
            '-' if !is_first && chars.peek().is_some_and(|after| *after != ']') => {
                out.push('-');
                match chars.next() {
                    Some('\\') => {
                        out.push('\\');
                        escaped_in_class(&mut chars, out);
                    }
                    Some(end) => literal(end, out),
                    None => {}
                }
            }
            // Of a class by name, such as `[:alpha:]`.
            ':' => out.push(':'),
            other => literal(other, out),
        }
        is_first = false;
    }
    // It has no end, which is an error for both.
    rest.len()
}

fn escaped_in_class(chars: &mut Peekable<Chars<'_>>, out: &mut String) {
    out.extend(chars.next());
}

fn literal(char: char, out: &mut String) {
    if char.is_ascii_punctuation() && char != '_' {
        out.push('\\');
    }
    out.push(char);
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    fn means(pattern: &str, text: &str) -> bool {
        Regex::new(&format!("^(?:{})$", translate(pattern))).unwrap().is_match(text)
    }

    #[test]
    fn what_is_quoted_is_itself() {
        assert!(means(r"\Qa.b\E", "a.b") && !means(r"\Qa.b\E", "axb"));
        assert!(means(r"x\Q[\E.\Q*", "x[y*"));
        assert!(means(r"a\.b\\", r"a.b\"));
    }

    #[test]
    fn braces_that_repeat_nothing_are_themselves() {
        assert!(means("a{b", "a{b") && means("a{,2}", "a{,2}") && means("{}", "{}"));
        assert!(means("a{2}", "aa") && means("a{1,}", "aaa") && !means("a{1,2}", "aaa"));
    }

    #[test]
    fn classes_have_neither_operators_nor_classes_in_them() {
        for (pattern, texts, not) in [
            ("[a&&b]", &["a", "&", "b"][..], "c"),
            ("[[]", &["["], "]"),
            ("[]a]", &["]", "a"], "["),
            ("[^]a]", &["b"], "]"),
            ("[a-c-]", &["a", "b", "-"], "d"),
            ("[-a]", &["-", "a"], "b"),
            ("[a~~b]", &["a", "~", "b"], "c"),
            ("[[:digit:]x]", &["7", "x"], "d"),
            (r"[\d\]]", &["7", "]"], "d"),
            ("[+--]", &["+", ",", "-"], "."),
        ] {
            assert!(texts.iter().all(|text| means(pattern, text)), "{pattern}");
            assert!(!means(pattern, not), "{pattern}");
        }
    }

    #[test]
    fn what_is_wrong_stays_wrong() {
        for pattern in ["[a", "(", r"\", "(?!x)a", "[b-a]"] {
            assert!(Regex::new(&translate(pattern)).is_err(), "{pattern}");
        }
    }
}
