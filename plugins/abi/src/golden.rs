//! Reads the files in `golden/`.

/// The bytes that a golden file spells in hexadecimal; `#` starts a comment.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let digits = text
        .lines()
        .flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace());
    digits
        .map(|pair| u8::from_str_radix(pair, 16).expect("two hexadecimal digits"))
        .collect()
}
