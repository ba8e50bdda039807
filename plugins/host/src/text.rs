//! Text that came out of a guest, made fit for logs, error messages and headers.

/// Longest line of text that leaves the host, in bytes.
pub(crate) const LINE_BYTES_MAX: usize = 1024;

/// One line of at most [`LINE_BYTES_MAX`] bytes: control characters, line separators and characters that reorder text are escaped,
/// so that a guest can neither forge log lines nor drive a terminal.
pub(crate) fn line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(LINE_BYTES_MAX));
    for c in text.chars() {
        let before = line.len();
        if is_unsafe(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
        if line.len() > LINE_BYTES_MAX {
            line.truncate(before);
            break;
        }
    }
    line
}

fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(line("a\u{1b}[31m\nb\u{202e}é"), "a\\u{1b}[31m\\nb\\u{202e}é");
    }

    #[test]
    fn lines_are_cut_between_characters_at_the_limit() {
        assert_eq!(line(&"x".repeat(LINE_BYTES_MAX)).len(), LINE_BYTES_MAX);
        assert_eq!(line(&"x".repeat(LINE_BYTES_MAX + 1)).len(), LINE_BYTES_MAX);
        assert_eq!(line(&"é".repeat(LINE_BYTES_MAX)).len(), LINE_BYTES_MAX);
        assert_eq!(line(&"\n".repeat(LINE_BYTES_MAX)).len(), LINE_BYTES_MAX);
    }
}
