//! What must hold of any bytes on the channel. `fuzz/fuzz_targets/framer.rs` looks for bytes of which it does not;
//! the ordinary tests try random ones.

use serde_json::Value;

use super::envelope::Envelope;
use super::mend::mend;
use super::{Framer, FromWorker, Line, Message, ToWorker};

/// Lines over this length are refused here, so that few bytes are enough to get there.
const LIMIT: usize = 64;

/// Panics if the framer or the parsers misbehave. The first byte chooses how the rest is cut into pieces.
pub fn holds_of(bytes: &[u8]) {
    let Some((&cut, stream)) = bytes.split_first() else { return };
    let (expected, rest) = reference(stream);
    let (found, left) = framed(stream, usize::from(cut));
    assert_eq!(found, expected, "the same lines, however they were cut");
    assert_eq!(left, rest, "and the same rest");
    for line in found.into_iter().filter_map(text) {
        parses_as_json_does(line);
    }
}

/// The plain meaning of it: split at newlines, refuse what is too long.
fn reference(stream: &[u8]) -> (Vec<Line>, Option<Vec<u8>>) {
    let judge = |line: &[u8]| match line.get(..LIMIT) {
        Some(head) if line.len() > LIMIT => Line::Oversize(head.to_vec()),
        _ => Line::Text(line.to_vec()),
    };
    let mut lines: Vec<&[u8]> = stream.split(|&byte| byte == b'\n').collect();
    let rest = lines.pop().unwrap_or_default();
    let mut judged: Vec<Line> = lines.into_iter().map(judge).collect();
    // What is too long is said before its end has come.
    match judge(rest) {
        oversize @ Line::Oversize(_) => judged.push(oversize),
        Line::Text(text) if !text.is_empty() => return (judged, Some(text)),
        Line::Text(_) => {}
    }
    (judged, None)
}

fn framed(stream: &[u8], cut: usize) -> (Vec<Line>, Option<Vec<u8>>) {
    let (mut framer, mut lines) = (Framer::with_limit(LIMIT), Vec::new());
    for (number, piece) in stream.chunks(cut.max(1)).enumerate() {
        framer.push(piece);
        match number % 3 {
            0 => lines.extend(framer.next_line()),
            1 => {
                let mut taken = framer.take_lines();
                lines.extend(taken.pop_front());
                framer.put_back(taken);
            }
            _ => {}
        }
    }
    lines.extend(std::iter::from_fn(|| framer.next_line()));
    (lines, framer.finish())
}

fn text(line: Line) -> Option<Vec<u8>> {
    match line {
        Line::Text(text) => Some(text),
        Line::Oversize(_) => None,
    }
}

/// A line is taken when it is JSON, and its `cmd` is what the value says; nothing else is.
fn parses_as_json_does(line: Vec<u8>) {
    let value: Option<Value> = serde_json::from_slice(&line).ok();
    let envelope = Envelope::read(&line).ok();
    assert_eq!(envelope.is_some(), value.is_some(), "{}", String::from_utf8_lossy(&line));
    let cmd = value.as_ref().and_then(|value| value.get("cmd")).and_then(Value::as_str);
    assert_eq!(envelope.as_ref().and_then(|envelope| envelope.cmd.as_deref()), cmd);
    // What is JSON but for half a letter is mended; the rest that is none is refused. Nothing panics.
    let mut mended = line.clone();
    let value = value.or_else(|| mend(&mut mended).ok().and_then(|()| serde_json::from_slice(&mended).ok()));
    let (from, to) = (FromWorker::parse(line.as_slice()), ToWorker::parse(line.as_slice()));
    assert!(value.is_some() || (from.is_err() && to.is_err()));
    let _ = super::glimpse(&line);
    if let (Ok(message), Some(mut value)) = (Message::parse(line), value) {
        if let (Some(_), Value::Object(fields)) = (message.request(), &mut value) {
            fields.remove(super::user::REQUEST);
        }
        assert_eq!(*message.value(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `xorshift64`: a seeded stream of numbers, so that a failure can be repeated.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 >> 33).unwrap_or(0) % bound
        }
    }

    /// What lines are made of: enough to make sense now and then, and to go wrong in every way.
    const PIECES: [&[u8]; 28] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"",
        b"\\",
        b"\n",
        b"\r\n",
        b"\"cmd\"",
        b"\"PROTEUS_READY\"",
        b"\"PROTEUS_LISTEN\"",
        b"\"PROTEUS_REQUEST\"",
        b"\"NODE_CLUSTER\"",
        b"\"address\":\"a\"",
        b"{\"cmd\":\"x\"}",
        b"{\"cmd\":\"PROTEUS_LOG\",\"message\":\"m\"}",
        b"\\u0063md",
        b"1",
        b"-1e400",
        b"null",
        b"true",
        b"\xff",
        b"\0",
        b"\xf0\x9f\x98\x80",
        b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        b" ",
    ];

    #[test]
    fn it_holds_of_random_bytes() {
        for seed in 1..=20_000u64 {
            let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let mut bytes = vec![u8::try_from(random.below(256)).unwrap_or(1)];
            for _ in 0..random.below(40) {
                bytes.extend_from_slice(PIECES[random.below(PIECES.len())]);
            }
            let caught = std::panic::catch_unwind(|| holds_of(&bytes));
            assert!(caught.is_ok(), "seed {seed}: {:?}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn it_holds_of_what_is_known_to_be_hard() {
        let deep = [b"\x07".to_vec(), b"[".repeat(60), b"\n".to_vec()].concat();
        let table: [&[u8]; 7] = [
            b"",
            b"\x01",
            b"\x01\n",
            b"\x03{\"cmd\":1,\"cmd\":\"x\"}\n",
            b"\x00\"\\ud800\"\n",
            b"\xff\n\n\n",
            &deep,
        ];
        for bytes in table {
            holds_of(bytes);
        }
    }
}
