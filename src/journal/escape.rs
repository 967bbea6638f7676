//! Text from a worker, made safe for a line of the log: it can neither end the line nor steer a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Replaces what is not UTF-8 and escapes what [`text`] escapes.
pub(crate) fn bytes(bytes: &[u8]) -> Cow<'_, str> {
    match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(valid) => text(valid),
        Cow::Owned(mended) => match text(&mended) {
            Cow::Owned(escaped) => Cow::Owned(escaped),
            Cow::Borrowed(_) => Cow::Owned(mended),
        },
    }
}

/// Escapes control characters (C0, DEL and C1), line separators, and what turns the direction of text: `\n`,
/// `\t`, `\u{1b}`. Everything else stays as it is, backslashes too.
pub fn text(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            '\0' => escaped.push_str("\\0"),
            harmful if is_harmful(harmful) => escaped.extend(harmful.escape_default()),
            plain => escaped.push(plain),
        }
    }
    Cow::Owned(escaped)
}

/// The same for text that is JSON already: what is harmful stands within its strings, and is written as JSON would.
pub fn json(text: String) -> String {
    if !text.contains(is_harmful) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_harmful(letter) {
            // All of them have four digits at most; writing to a string cannot fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(letter));
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

fn is_harmful(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmful_letters_are_escaped_and_the_rest_stays() {
        let table: [(&[u8], &str); 14] = [
            (b"plain", "plain"),
            ("héllo 日本 🎉".as_bytes(), "héllo 日本 🎉"),
            (br"C:\path\n \u{1b}", r"C:\path\n \u{1b}"),
            (b"a\nb\r\n", r"a\nb\r\n"),
            (b"tab\there", r"tab\there"),
            (b"\x1b[31mred\x1b[0m", r"\u{1b}[31mred\u{1b}[0m"),
            (b"nul\0bell\x07del\x7f", r"nul\0bell\u{7}del\u{7f}"),
            ("csi \u{9b}31m nel \u{85}".as_bytes(), r"csi \u{9b}31m nel \u{85}"),
            ("ls \u{2028} ps \u{2029}".as_bytes(), r"ls \u{2028} ps \u{2029}"),
            ("bidi \u{202e}txt\u{2069}".as_bytes(), r"bidi \u{202e}txt\u{2069}"),
            (b"bad \xff\xfe utf", "bad \u{fffd}\u{fffd} utf"),
            (b"raw c1 \x9b31m", "raw c1 \u{fffd}31m"),
            (b"bad \xff and \x1b", "bad \u{fffd} and \\u{1b}"),
            (b"", ""),
        ];
        for (given, expected) in table {
            assert_eq!(bytes(given), expected, "{given:?}");
        }
    }

    /// `xorshift64`: a seeded stream of numbers, so that a failure can be repeated.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state >> 33
    }

    #[test]
    fn no_bytes_get_a_harmful_letter_through() {
        for seed in 1..=2000u64 {
            let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let given: Vec<u8> =
                (0..random(&mut state) % 64).map(|_| random(&mut state).to_le_bytes()[0]).collect();
            let escaped = bytes(&given);
            assert!(!escaped.contains(is_harmful), "seed {seed}: {given:?} became {escaped:?}");
            assert_eq!(text(&escaped), escaped, "seed {seed}: nothing is left to escape");
        }
    }
}
