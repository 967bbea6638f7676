//! Lines that are JSON, and that the JSON library refuses all the same: texts cut in the middle of a letter, as
//! JavaScript cuts them, and values nested deeper than its own limit.

use super::Garbage;

/// The deepest nesting that is read and sent: what reads a value calls itself for each level.
pub(crate) const MAX_DEPTH: usize = 512;

/// Half of a letter becomes U+FFFD, in place, as every reader of UTF-16 has it. Refuses what is nested too deep, and
/// numbers that are none. It takes the line for JSON; whether it is, the reader says.
pub(super) fn mend(line: &mut [u8]) -> Result<(), Garbage> {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(&byte) = line.get(at) {
        at = match byte {
            b'"' => mend_text(line, at + 1),
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(Garbage::new(format!("nested deeper than {MAX_DEPTH} levels")));
                }
                at + 1
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at + 1
            }
            b'-' | b'0'..=b'9' => skip_number(line, at)?,
            _ => at + 1,
        };
    }
    Ok(())
}

/// Whether a value is nested deeper than may be sent.
pub(super) fn is_too_deep(line: &[u8]) -> bool {
    // Most have fewer brackets than that, whatever they are.
    memchr::memchr2_iter(b'[', b'{', line).nth(MAX_DEPTH).is_some() && mend(&mut line.to_vec()).is_err()
}

/// From behind the quote that opens a text to behind the one that closes it.
fn mend_text(line: &mut [u8], mut at: usize) -> usize {
    while let Some(&byte) = line.get(at) {
        at += match byte {
            b'"' => return at + 1,
            b'\\' => match (unit(line, at), unit(line, at + 6)) {
                (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
                (Some(0xD800..=0xDFFF), _) => {
                    line[at..at + 6].copy_from_slice(b"\\ufffd");
                    6
                }
                (Some(_), _) => 6,
                (None, _) => 2,
            },
            _ => 1,
        };
    }
    at
}

/// The unit of UTF-16 that is escaped here: `\ud83d`.
fn unit(line: &[u8], at: usize) -> Option<u16> {
    let digits = line.get(at..at + 6)?.strip_prefix(b"\\u")?;
    let all_hex = digits.iter().all(u8::is_ascii_hexdigit);
    u16::from_str_radix(str::from_utf8(digits).ok().filter(|_| all_hex)?, 16).ok()
}

/// A number that no `f64` holds is none, here as in the JSON library.
fn skip_number(line: &[u8], at: usize) -> Result<usize, Garbage> {
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let length = line[at..].iter().take_while(|byte| is_part(byte)).count();
    let digits = str::from_utf8(&line[at..at + length]).unwrap_or_default();
    match digits.parse::<f64>() {
        Ok(number) if number.is_infinite() => Err(Garbage::new("a number out of range")),
        Ok(_) | Err(_) => Ok(at + length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mended(line: &str) -> Result<String, Garbage> {
        let mut line = line.as_bytes().to_vec();
        mend(&mut line).map(|()| String::from_utf8(line).expect("as it was, but for escapes"))
    }

    #[test]
    fn halves_of_letters_are_replaced_and_nothing_else_is_touched() {
        let table = [
            (r#""cut \ud83d""#, r#""cut \ufffd""#),
            (r#""\uD83D\uDE00 \ud83d\ude00""#, r#""\uD83D\uDE00 \ud83d\ude00""#),
            (r#""\ude00\ud83d""#, r#""\ufffd\ufffd""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\\ud83d \\\ud83d""#, r#""\\ud83d \\\ufffd""#),
            (r#"{"\udfff":["\ud800x"]}"#, r#"{"\ufffd":["\ufffdx"]}"#),
            (r#""\ud83" \ud83d"#, r#""\ud83" \ud83d"#),
            (r#""\"\ud83d\"" "\""#, r#""\"\ufffd\"" "\""#),
            (r#"[-1.5e3,"a\nb"]"#, r#"[-1.5e3,"a\nb"]"#),
        ];
        for (line, expected) in table {
            assert_eq!(mended(line).as_deref(), Ok(expected), "{line}");
        }
    }

    #[test]
    fn nesting_has_a_limit_and_brackets_in_texts_are_none() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(mended(&nested(MAX_DEPTH)).is_ok() && !is_too_deep(nested(MAX_DEPTH).as_bytes()));
        assert!(mended(&nested(MAX_DEPTH + 1)).is_err() && is_too_deep(nested(MAX_DEPTH + 1).as_bytes()));
        assert!(mended(&"[]".repeat(MAX_DEPTH + 1)).is_ok() && !is_too_deep("[]".repeat(5000).as_bytes()));
        assert!(!is_too_deep(format!("{:?}", "[".repeat(5000)).as_bytes()));
        assert!(mended("[1e400]").is_err() && mended("\"1e400\"").is_ok());
    }
}
