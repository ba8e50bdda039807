//! Patterns of clients, which mean what RE2 makes of them, as Kafka takes them (KIP-848): said as Rust's `regex` understands the same.
//!
//! The two differ in little: RE2 has `\Q...\E`, takes braces that are no repetition and escaped angle brackets for themselves, and knows
//! neither nested classes nor operators in classes, where a hyphen may be anywhere.

/// The same pattern for Rust's `regex`.
pub(super) fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '\\' if rest.starts_with("\\Q") => quoted(rest, &mut out),
            '\\' => {
                let escape = escape_of(rest);
                out.push_str(meaning_of(escape));
                escape.len()
            }
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

/// Takes over what is quoted, and says how many bytes that was.
fn quoted(rest: &str, out: &mut String) -> usize {
    let quoted = rest.strip_prefix("\\Q").unwrap_or(rest);
    let text = quoted.split_once("\\E").map_or(quoted, |(text, _)| text);
    out.push_str(&regex::escape(text));
    let end = if text.len() < quoted.len() { "\\E".len() } else { 0 };
    "\\Q".len() + text.len() + end
}

/// What a backslash begins: one character more, or as much as the braces of `\p{...}` and `\x{...}` hold.
fn escape_of(rest: &str) -> &str {
    let two: usize = rest.chars().take(2).map(char::len_utf8).sum();
    let has_braces = ["\\p{", "\\P{", "\\x{"].iter().any(|start| rest.starts_with(start));
    let length = match rest.find('}') {
        Some(end) if has_braces => end + 1,
        _ => two,
    };
    rest.get(..length).unwrap_or(rest)
}

/// Escaped angle brackets are the ends of words for `regex`.
fn meaning_of(escape: &str) -> &str {
    match escape {
        "\\<" => "<",
        "\\>" => ">",
        _ => escape,
    }
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
    let mut left = rest.get(1..).unwrap_or("");
    out.push('[');
    if let Some(after) = left.strip_prefix('^') {
        out.push('^');
        left = after;
    }
    let mut is_first = true;
    while !left.is_empty() && (is_first || !left.starts_with(']')) {
        is_first = false;
        if let Some(name) = class_name(left) {
            out.push_str(name);
            left = left.get(name.len()..).unwrap_or("");
            continue;
        }
        let (is_set, after) = one(left, out);
        left = after;
        // A hyphen between two characters makes a range.
        let range = left.strip_prefix('-').filter(|end| !is_set && !end.is_empty());
        if let Some(end) = range.filter(|end| !end.starts_with(']')) {
            out.push('-');
            (_, left) = one(end, out);
        }
    }
    if let Some(after) = left.strip_prefix(']') {
        out.push(']');
        left = after;
    }
    // Without its end it is an error for both.
    rest.len() - left.len()
}

/// `[:alpha:]` or `[:^alpha:]`, with which a class goes on.
fn class_name(left: &str) -> Option<&str> {
    let (name, _) = left.strip_prefix("[:")?.split_once(":]")?;
    let letters = name.strip_prefix('^').unwrap_or(name);
    let is_name = !letters.is_empty() && letters.bytes().all(|byte| byte.is_ascii_lowercase());
    left.get(..name.len() + "[::]".len()).filter(|_| is_name)
}

/// Takes over one character of a class, or an escape; whether that is a set such as `\d`, and what is left.
fn one<'a>(left: &'a str, out: &mut String) -> (bool, &'a str) {
    if left.starts_with('\\') {
        let escape = escape_of(left);
        out.push_str(meaning_of(escape));
        let is_set = escape.chars().nth(1).is_some_and(|kind| "dDsSwWpP".contains(kind));
        return (is_set, left.get(escape.len()..).unwrap_or(""));
    }
    let mut chars = left.chars();
    if let Some(char) = chars.next() {
        if char.is_ascii_punctuation() && !"_<>".contains(char) {
            out.push('\\');
        }
        out.push(char);
    }
    (false, chars.as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    fn means(pattern: &str, text: &str) -> bool {
        Regex::new(&format!("^(?:{})$", translate(pattern))).expect(pattern).is_match(text)
    }

    #[test]
    fn what_is_quoted_is_itself() {
        assert!(means(r"\Qa.b\E", "a.b") && !means(r"\Qa.b\E", "axb"));
        assert!(means(r"x\Q[\E.\Q*", "x[y*"));
        assert!(means(r"a\.b\\", r"a.b\") && means(r"\<a\>", "<a>"));
    }

    #[test]
    fn escapes_with_braces_stay_whole() {
        assert!(means(r"\p{L}+\PN", "abc") && means(r"\p{Greek}", "α") && means(r"\P{L}", "7"));
        assert!(means(r"\x{4e2d}\x41", "中A") && means(r"[\x{61}-\x{63}\p{Lu}]+", "abcX"));
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
            ("[a-c-e]", &["a", "b", "-", "e"], "d"),
            ("[-a]", &["-", "a"], "b"),
            ("[a~~b]", &["a", "~", "b"], "c"),
            ("[[:digit:]x]", &["7", "x"], "d"),
            ("[[:digit:]&&b]", &["7", "&", "b"], "d"),
            ("[[:alpha:][]", &["a", "["], "7"),
            ("[[:^alpha:]]", &["7", ":"], "a"),
            (r"[\d\]]", &["7", "]"], "d"),
            (r"[\w-.]", &["a", "-", "."], "!"),
            (r"[\d-z]", &["7", "-", "z"], "y"),
            ("[+--]", &["+", ",", "-"], "."),
            ("[<>]", &["<", ">"], "a"),
            (r"[\<a]", &["<", "a"], r"\"),
            ("[^<]", &["a"], "<"),
            ("[#-&]", &["#", "$", "&"], "-"),
        ] {
            assert!(texts.iter().all(|text| means(pattern, text)), "{pattern}");
            assert!(!means(pattern, not), "{pattern}");
        }
    }

    #[test]
    fn what_is_wrong_stays_wrong() {
        for pattern in ["[a", "(", r"\", "(?!x)a", "[b-a]", r"\p{", r"[\", "[", "[^"] {
            assert!(Regex::new(&translate(pattern)).is_err(), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_is_translated(pattern in r"[\[\]\\{}()^:\-&a-c0-2QEpx<>αβ]{0,12}") {
            let _ = Regex::new(&translate(&pattern));
        }

        #[test]
        fn plain_names_mean_themselves(name in "[a-zA-Z0-9_]{1,20}") {
            prop_assert!(means(&name, &name));
        }
    }
}
