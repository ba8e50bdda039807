//! Patterns of clients, which mean what RE2 makes of them, as Kafka takes them (KIP-848): said as Rust's `regex` understands the same.
//!
//! The two differ in little: RE2 has `\Q...\E`, octal numbers and `\p{^...}`, takes braces that are no repetition and escaped angle
//! brackets for themselves, and knows neither nested classes nor operators in classes, where a hyphen may be anywhere. Repetitions of
//! repetitions, `\u`, the flags `x`, `u` and `R`, and classes with unknown names are errors.

/// Most repetitions that braces may ask for.
const REPETITIONS_MAX: u32 = 1_000;

/// Names of classes, as in `[[:alpha:]]`.
const CLASS_NAMES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word", "xdigit",
];

/// The same pattern for Rust's `regex`; `None` if only that would take it. What both refuse may come out as it is.
pub(super) fn translate(pattern: &str) -> Option<String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    let mut is_repeated = false;
    while let Some(next) = rest.chars().next() {
        let repetition = repetition(rest);
        let length = match next {
            // Repetitions do not repeat each other.
            _ if repetition > 0 => {
                out.push_str(rest.get(..repetition)?);
                (!is_repeated && is_within_bounds(rest)).then_some(repetition)?
            }
            '\\' if rest.starts_with("\\Q") => quoted(rest, &mut out),
            '\\' => escape(rest, &mut out)?,
            '[' => class(rest, &mut out)?,
            '(' if rest.starts_with("(?") => group(rest, &mut out)?,
            '{' => {
                out.push_str("\\{");
                1
            }
            _ => {
                out.push(next);
                next.len_utf8()
            }
        };
        is_repeated = repetition > 0;
        rest = rest.get(length..).unwrap_or("");
    }
    Some(out)
}

/// Length of a repetition: a sign, or numbers in braces, and perhaps the question mark that makes it lazy. 0 if this is none.
fn repetition(rest: &str) -> usize {
    let length = match rest.bytes().next() {
        Some(b'*' | b'+' | b'?') => 1,
        Some(b'{') if is_repetition(rest) => rest.find('}').map_or(0, |end| end + 1),
        _ => return 0,
    };
    length + usize::from(rest.get(length..).is_some_and(|after| after.starts_with('?')))
}

fn is_within_bounds(rest: &str) -> bool {
    let Some((bounds, _)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
        return true;
    };
    let mut numbers = bounds.split(',').filter(|number| !number.is_empty());
    numbers.all(|number| number.parse::<u32>().is_ok_and(|number| number <= REPETITIONS_MAX))
}

/// Takes over the start of a group with flags or a name, and says how long that is.
fn group(rest: &str, out: &mut String) -> Option<usize> {
    if let Some(name) = rest.strip_prefix("(?P<") {
        // A name may begin with a digit, but not here.
        out.push_str("(?P<_");
        return Some(rest.len() - name.len());
    }
    let flags = rest.strip_prefix("(?")?;
    let end = flags.find([':', ')', '<']).unwrap_or(flags.len());
    let flags = flags.get(..end)?;
    out.push_str("(?");
    out.push_str(flags);
    flags.chars().all(|flag| "imsU-".contains(flag)).then_some("(?".len() + end)
}

/// Takes over what is quoted, and says how many bytes that was.
fn quoted(rest: &str, out: &mut String) -> usize {
    let quoted = rest.strip_prefix("\\Q").unwrap_or(rest);
    let text = quoted.split_once("\\E").map_or(quoted, |(text, _)| text);
    out.push_str(&regex::escape(text));
    let end = if text.len() < quoted.len() { "\\E".len() } else { 0 };
    "\\Q".len() + text.len() + end
}

/// Takes over what a backslash begins, and says how long it is: one character more, or as much as the braces of `\p{...}` and `\x{...}`
/// hold, or the digits of an octal number.
fn escape(rest: &str, out: &mut String) -> Option<usize> {
    let two: usize = rest.chars().take(2).map(char::len_utf8).sum();
    let has_braces = ["\\p{", "\\P{", "\\x{"].iter().any(|start| rest.starts_with(start));
    let length = match rest.find('}') {
        Some(end) if has_braces => end + 1,
        _ => two,
    };
    let escape = rest.get(..length)?;
    if let Some(digits) = octal(rest) {
        let number = u32::from_str_radix(digits, 8).ok()?;
        out.push_str(&format!("\\x{{{number:x}}}"));
        return Some(1 + digits.len());
    }
    match escape {
        // Ends of words, for `regex`.
        "\\<" => out.push('<'),
        "\\>" => out.push('>'),
        // Only `regex` knows these.
        "\\u" | "\\U" => return None,
        _ => match escape.split_once("{^") {
            Some(("\\p", name)) => out.push_str(&format!("\\P{{{name}")),
            Some(("\\P", name)) => out.push_str(&format!("\\p{{{name}")),
            _ => out.push_str(escape),
        },
    }
    Some(length)
}

/// The digits of an octal number: up to three, of which the first is 0 or others follow it. One alone would be a reference.
fn octal(rest: &str) -> Option<&str> {
    let digits = rest.get(1..)?;
    let count = digits.bytes().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
    let digits = digits.get(..count)?;
    (count > 1 || digits == "0").then_some(digits)
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
fn class(rest: &str, out: &mut String) -> Option<usize> {
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
            let letters = name.strip_prefix('^').unwrap_or(name);
            if !CLASS_NAMES.contains(&letters) {
                return None;
            }
            out.push_str(&format!("[:{name}:]"));
            left = left.get(name.len() + "[::]".len()..).unwrap_or("");
            continue;
        }
        let (is_set, after) = one(left, out)?;
        left = after;
        // A hyphen between two characters makes a range.
        let range = left.strip_prefix('-').filter(|end| !is_set && !end.is_empty());
        if let Some(end) = range.filter(|end| !end.starts_with(']')) {
            out.push('-');
            (_, left) = one(end, out)?;
        }
    }
    if let Some(after) = left.strip_prefix(']') {
        out.push(']');
        left = after;
    }
    // Without its end it is an error for both.
    Some(rest.len() - left.len())
}

/// The name in `[:alpha:]` or `[:^alpha:]`, with which a class goes on.
fn class_name(left: &str) -> Option<&str> {
    left.strip_prefix("[:")?.split_once(":]").map(|(name, _)| name)
}

/// Takes over one character of a class, or an escape; whether that is a set such as `\d`, and what is left.
fn one<'a>(left: &'a str, out: &mut String) -> Option<(bool, &'a str)> {
    if left.starts_with('\\') {
        let length = escape(left, out)?;
        let is_set = left.chars().nth(1).is_some_and(|kind| "dDsSwWpP".contains(kind));
        return Some((is_set, left.get(length..).unwrap_or("")));
    }
    let mut chars = left.chars();
    if let Some(char) = chars.next() {
        if char.is_ascii_punctuation() && !"_<>".contains(char) {
            out.push('\\');
        }
        out.push(char);
    }
    Some((false, chars.as_str()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    fn means(pattern: &str, text: &str) -> bool {
        let translated = translate(pattern).expect(pattern);
        Regex::new(&format!("^(?:{translated})$")).expect(pattern).is_match(text)
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
        for pattern in ["[a", "(", r"\", "(?!x)a", "[b-a]", r"\p{", r"[\", "[", "[^", r"\1", "(?P<a"] {
            assert!(translate(pattern).is_none_or(|pattern| Regex::new(&pattern).is_err()), "{pattern}");
        }
    }

    #[test]
    fn what_only_rust_would_take_is_wrong() {
        for pattern in [
            "(?x)a b",
            "(?u:a)",
            "a**",
            "a++",
            "a{2}{3}",
            "a+?*",
            "a{1001}",
            "a{1,1001}",
            r"\u0061",
            r"[\u0061]",
            "[[:nope:]]",
        ] {
            assert_eq!(translate(pattern), None, "{pattern}");
        }
        assert!(means("a{1000}", &"a".repeat(1000)) && means("a+?b*?", "aab") && means("(?i)A(?s:.)", "a\n"));
    }

    #[test]
    fn what_only_re2_takes_is_translated() {
        assert!(means(r"\p{^L}\P{^L}", "7a") && means(r"[\p{^L}]", "7"));
        assert!(means(r"(?P<1x>a)(?P<y>b)", "ab"));
        assert!(means(r"\101\0", "A\0") && means(r"[\101-\103]", "B") && means(r"\1011", "A1"));
    }

    proptest! {
        #[test]
        fn any_pattern_is_translated(pattern in r"[\[\]\\{}()^:\-&a-c0-2QEpx<>αβ]{0,12}") {
            let _ = translate(&pattern).map(|pattern| Regex::new(&pattern));
        }

        #[test]
        fn plain_names_mean_themselves(name in "[a-zA-Z0-9_]{1,20}") {
            prop_assert!(means(&name, &name));
        }
    }
}
