//! A byte stream cut into lines of bounded length. Pure: bytes in, lines out.

use std::collections::VecDeque;

/// A longer line becomes several, each of this many bytes at most.
pub(crate) const LONGEST: usize = 8 * 1024;

/// What a slot's last exit shows of stderr, at most.
const LAST_LINES: usize = 20;
/// The bytes behind those lines.
const LAST_BYTES: usize = 8 * 1024;

/// Whole lines, each with its newline.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    text: Vec<u8>,
    count: u64,
}

/// Keeps the line that has not met its newline.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    partial: Vec<u8>,
}

impl Cutter {
    /// Takes bytes as they came, and returns the lines that they complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Lines {
        let mut lines = Lines::default();
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(end) => self.end_line(end, &mut lines),
                None => self.extend(piece, &mut lines),
            }
        }
        lines
    }

    /// The stream has ended: what is left is a line, too.
    pub(crate) fn finish(&mut self) -> Lines {
        let mut lines = Lines::default();
        if !self.partial.is_empty() {
            self.end_line(b"", &mut lines);
        }
        lines
    }

    fn end_line(&mut self, end: &[u8], lines: &mut Lines) {
        if self.partial.is_empty() && end.len() <= LONGEST {
            return lines.push(end);
        }
        self.extend(end, lines);
        lines.push(&self.partial);
        self.partial.clear();
    }

    fn extend(&mut self, mut piece: &[u8], lines: &mut Lines) {
        while self.partial.len() + piece.len() > LONGEST {
            let (first, rest) = piece.split_at(LONGEST - self.partial.len());
            self.partial.extend_from_slice(first);
            let begun = rest.first().is_some_and(|&next| is_continuation(next));
            let end = if begun { whole_letters(&self.partial) } else { LONGEST };
            lines.push(&self.partial[..end]);
            self.partial.drain(..end);
            piece = rest;
        }
        self.partial.extend_from_slice(piece);
    }
}

/// Where the last, unfinished letter begins; the whole length where there is no such letter.
fn whole_letters(bytes: &[u8]) -> usize {
    let letter = bytes.iter().rev().take(4).position(|&byte| !is_continuation(byte));
    letter.map_or(bytes.len(), |back| bytes.len() - back - 1)
}

/// A byte in the middle of a letter of UTF-8.
fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

impl Lines {
    fn push(&mut self, line: &[u8]) {
        self.text.extend_from_slice(line);
        self.text.push(b'\n');
        self.count += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Bytes that they hold.
    pub(crate) fn heap(&self) -> usize {
        self.text.capacity()
    }

    /// Each without its end, which may be `\r\n`.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.text.strip_suffix(b"\n").map(|text| text.split(|&byte| byte == b'\n'));
        lines.into_iter().flatten().map(without_return)
    }

    /// The same, the last one first.
    fn backwards(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.text.strip_suffix(b"\n").map(|text| text.rsplit(|&byte| byte == b'\n'));
        lines.into_iter().flatten().map(without_return)
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The last lines of a stream.
#[derive(Debug, Default)]
pub(crate) struct LastLines {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl LastLines {
    /// Lines without text say nothing, and are left out.
    pub(crate) fn push(&mut self, lines: &Lines) {
        let text = lines.backwards().filter(|line| !line.iter().all(u8::is_ascii_whitespace));
        let mut newest: Vec<&[u8]> = text.take(LAST_LINES).collect();
        while let Some(line) = newest.pop() {
            self.bytes += line.len();
            self.lines.push_back(line.to_vec());
        }
        while self.lines.len() > LAST_LINES || self.bytes > LAST_BYTES && self.lines.len() > 1 {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.len());
        }
    }

    /// Oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pieces = &'static [&'static [u8]];
    type Texts = &'static [&'static str];

    fn texts(lines: &Lines) -> Vec<String> {
        assert_eq!(lines.iter().count() as u64, lines.count());
        lines.iter().map(|line| String::from_utf8(line.to_vec()).unwrap()).collect()
    }

    fn cut(pieces: &[&[u8]]) -> (Vec<String>, Vec<String>) {
        let mut cutter = Cutter::default();
        let lines = pieces.iter().flat_map(|piece| texts(&cutter.push(piece))).collect();
        let rest = texts(&cutter.finish());
        assert!(cutter.finish().is_empty(), "told once");
        (lines, rest)
    }

    #[test]
    fn lines_are_cut_at_newlines() {
        let table: [(Pieces, Texts, Texts); 6] = [
            (&[b"a\nb\n"], &["a", "b"], &[]),
            (&[b"a", b"b\n", b"c"], &["ab"], &["c"]),
            (&[b"\n\n"], &["", ""], &[]),
            (&[b"dos\r\n", b"x\ry\n"], &["dos", "x\ry"], &[]),
            (&[b"a\n", b"", b"\n"], &["a", ""], &[]),
            (&[], &[], &[]),
        ];
        for (pieces, lines, rest) in table {
            let (cut, left) = cut(pieces);
            assert_eq!((cut, left), (own(lines), own(rest)), "{pieces:?}");
        }
    }

    fn own(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn a_line_that_is_too_long_becomes_several() {
        let x = |count| "x".repeat(count);
        let at_limit = [x(LONGEST), "\n".into()].concat();
        assert_eq!(cut(&[at_limit.as_bytes()]).0, [x(LONGEST)]);
        let over = [x(LONGEST + 1), "\n".into()].concat();
        assert_eq!(cut(&[over.as_bytes()]).0, [x(LONGEST), x(1)]);
        let pieces = [x(LONGEST), x(LONGEST), x(3)];
        let pieces: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
        assert_eq!(cut(&pieces), (vec![x(LONGEST), x(LONGEST)], vec![x(3)]));
    }

    #[test]
    fn letters_are_not_cut_in_two() {
        let line = ["x".repeat(LONGEST - 1), "é!\n".into()].concat();
        assert_eq!(cut(&[line.as_bytes()]).0, ["x".repeat(LONGEST - 1), "é!".to_owned()]);
        let byte_by_byte: Vec<&[u8]> = line.as_bytes().chunks(1).collect();
        assert_eq!(cut(&byte_by_byte).0, ["x".repeat(LONGEST - 1), "é!".to_owned()]);
    }

    #[test]
    fn bytes_that_are_no_text_at_all_are_cut_at_the_limit() {
        let mut cutter = Cutter::default();
        let lines = cutter.push(&vec![0x80; 3 * LONGEST + 5]);
        assert_eq!(lines.iter().map(<[u8]>::len).collect::<Vec<_>>(), [LONGEST; 3]);
        assert_eq!(cutter.finish().iter().map(<[u8]>::len).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn the_last_lines_are_few_and_short_in_all() {
        let mut last = LastLines::default();
        let mut cutter = Cutter::default();
        for number in 0..100 {
            last.push(&cutter.push(format!("line {number}\n\n  \n").as_bytes()));
        }
        let kept: Vec<&[u8]> = last.iter().collect();
        assert_eq!((kept.len(), kept[0], kept[19]), (20, &b"line 80"[..], &b"line 99"[..]));
        last.push(&cutter.push(&[vec![b'x'; LAST_BYTES], b"\n".to_vec()].concat()));
        assert_eq!(
            last.iter().map(<[u8]>::len).collect::<Vec<_>>(),
            [LAST_BYTES],
            "one line may take it all"
        );
        last.push(&cutter.push(b"end\n"));
        assert_eq!(last.iter().collect::<Vec<_>>(), [b"end"]);
    }
}
