//! Cuts a byte stream into lines. Pure: bytes in, lines out.

use std::collections::VecDeque;

use memchr::memchr;

/// The longest line, without its newline: 4 MiB bounds what one peer can make the other hold.
pub(crate) const MAX_LINE: usize = 4 << 20;

/// What is kept of a longer line: enough to see whom it was for.
const HEAD: usize = 1 << 10;

/// What the stream held.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line without its newline; not yet known to be JSON.
    Text(Vec<u8>),
    /// A line passed [`MAX_LINE`] and is dropped up to its newline; this is how it began. Said once, however long it
    /// grows.
    Oversize(Vec<u8>),
}

/// Cuts a byte stream into lines. Holds at most one partial line of [`MAX_LINE`] beside the lines not yet taken.
#[derive(Debug)]
pub(crate) struct Framer {
    limit: usize,
    tail: Tail,
    lines: VecDeque<Line>,
}

/// The line that has not met its newline.
#[derive(Debug)]
enum Tail {
    Kept(Vec<u8>),
    Skipped,
}

impl Framer {
    pub(crate) fn new() -> Self {
        Framer::with_limit(MAX_LINE)
    }

    pub(super) fn with_limit(limit: usize) -> Self {
        Framer { limit, tail: Tail::Kept(Vec::new()), lines: VecDeque::new() }
    }

    /// Takes bytes as they came, however they were cut. Each byte is looked at once.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        while let Some(end) = memchr(b'\n', bytes) {
            self.extend(&bytes[..end]);
            if let Tail::Kept(line) = std::mem::replace(&mut self.tail, Tail::Kept(Vec::new())) {
                self.lines.push_back(Line::Text(line));
            }
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
    }

    /// The next whole line, if one has come.
    pub(crate) fn next_line(&mut self) -> Option<Line> {
        self.lines.pop_front()
    }

    /// All whole lines that have come.
    pub(crate) fn take_lines(&mut self) -> VecDeque<Line> {
        std::mem::take(&mut self.lines)
    }

    /// Lines that were taken and are not done with, before those that came since.
    pub(crate) fn put_back(&mut self, mut lines: VecDeque<Line>) {
        lines.append(&mut self.lines);
        self.lines = lines;
    }

    /// The stream has ended: the bytes after the last newline, if any. An oversize tail has been told already.
    pub(crate) fn finish(&mut self) -> Option<Vec<u8>> {
        match std::mem::replace(&mut self.tail, Tail::Kept(Vec::new())) {
            Tail::Kept(line) if !line.is_empty() => Some(line),
            Tail::Kept(_) | Tail::Skipped => None,
        }
    }

    fn extend(&mut self, piece: &[u8]) {
        let Tail::Kept(line) = &mut self.tail else { return };
        if line.len() + piece.len() <= self.limit {
            line.extend_from_slice(piece);
        } else {
            let mut head = std::mem::take(line);
            head.truncate(HEAD);
            head.extend_from_slice(&piece[..piece.len().min(HEAD.min(self.limit) - head.len())]);
            head.shrink_to_fit();
            self.tail = Tail::Skipped;
            self.lines.push_back(Line::Oversize(head));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(framer: &mut Framer) -> Vec<Line> {
        std::iter::from_fn(|| framer.next_line()).collect()
    }

    fn oversize(letter: u8) -> Line {
        Line::Oversize(vec![letter; HEAD])
    }

    fn texts(items: &[&str]) -> Vec<Line> {
        items.iter().map(|item| Line::Text(item.as_bytes().to_vec())).collect()
    }

    #[test]
    fn lines_are_cut_at_newlines_only() {
        let table: [(&[&str], &[&str], Option<&str>); 6] = [
            (&["a\nb\n"], &["a", "b"], None),
            (&["a", "b\n", "c"], &["ab"], Some("c")),
            (&["\n\n"], &["", ""], None),
            (&["a\r\n"], &["a\r"], None),
            (&["{\"x\":", "1}\n{\"y\"", ":2}", "\n"], &["{\"x\":1}", "{\"y\":2}"], None),
            (&[], &[], None),
        ];
        for (pieces, expected, rest) in table {
            let mut framer = Framer::new();
            for piece in pieces {
                framer.push(piece.as_bytes());
            }
            assert_eq!(lines(&mut framer), texts(expected), "{pieces:?}");
            assert_eq!(framer.finish(), rest.map(|rest| rest.as_bytes().to_vec()), "{pieces:?}");
        }
    }

    #[test]
    fn an_oversize_line_is_told_once_and_the_stream_goes_on() {
        let mut framer = Framer::new();
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..64 {
            framer.push(&piece);
            let held = match &framer.tail {
                Tail::Kept(line) => line.capacity(),
                Tail::Skipped => 0,
            };
            assert!(held <= 2 * MAX_LINE, "{held} bytes held");
        }
        framer.push(b"\nnext\n");
        assert_eq!(lines(&mut framer), [oversize(b'x'), Line::Text(b"next".to_vec())]);
        framer.push(&vec![b'y'; MAX_LINE + 1]);
        assert_eq!(lines(&mut framer), [oversize(b'y')]);
        assert_eq!(framer.finish(), None);
    }

    #[test]
    fn the_limit_itself_still_fits() {
        let mut framer = Framer::new();
        framer.push(&vec![b'x'; MAX_LINE]);
        framer.push(b"\n");
        assert!(matches!(framer.next_line(), Some(Line::Text(line)) if line.len() == MAX_LINE));
        framer.push(&[&vec![b'x'; MAX_LINE + 1][..], b"\nz\n"].concat());
        assert_eq!(lines(&mut framer), [oversize(b'x'), Line::Text(b"z".to_vec())]);
    }

    #[test]
    fn single_bytes_are_never_scanned_again() {
        let mut framer = Framer::new();
        let start = std::time::Instant::now();
        for _ in 0..MAX_LINE {
            framer.push(b"x");
        }
        framer.push(b"\n");
        assert_eq!(lines(&mut framer).len(), 1);
        assert!(start.elapsed() < std::time::Duration::from_secs(5), "quadratic: {:?}", start.elapsed());
    }

    /// `xorshift64`: a seeded stream of numbers, so that a failure can be repeated.
    fn random(state: &mut u64) -> usize {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        usize::try_from(*state >> 33).unwrap_or(0)
    }

    #[test]
    fn random_cuts_change_nothing() {
        for seed in 1..=500u64 {
            let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let expected: Vec<Line> = (0..random(&mut state) % 20)
                .map(|_| match random(&mut state) % 24 {
                    0 => oversize(b'z'),
                    length => Line::Text((0..length).map(|_| b"abcdefgh"[random(&mut state) % 8]).collect()),
                })
                .collect();
            let stream: Vec<u8> = expected.iter().flat_map(wire).collect();
            let mut framer = Framer::new();
            let (mut rest, mut found) = (&stream[..], Vec::new());
            while !rest.is_empty() {
                let most = if random(&mut state).is_multiple_of(2) { 8 } else { 3 << 20 };
                let (piece, after) = rest.split_at(rest.len().min(1 + random(&mut state) % most));
                framer.push(piece);
                if random(&mut state).is_multiple_of(2) {
                    found.extend(lines(&mut framer));
                }
                rest = after;
            }
            found.extend(lines(&mut framer));
            assert_eq!(found, expected, "seed {seed}");
            assert_eq!(framer.finish(), None, "seed {seed}");
        }
    }

    fn wire(line: &Line) -> Vec<u8> {
        match line {
            Line::Text(text) => [text, &b"\n"[..]].concat(),
            Line::Oversize(_) => [&vec![b'z'; MAX_LINE + 1][..], b"\n"].concat(),
        }
    }
}
