//! Where our logger's lines go.

use std::io;
use std::os::fd::AsFd;

use super::file::LogFile;
use crate::sys::write::{is_writable, write_waiting};

/// What a pipe takes in one piece (`PIPE_BUF`): workers and others write to the same stderr, and must not
/// land in the middle of a line.
const PIECE: usize = 4096;

/// One of two.
pub(super) enum Sink {
    Stderr,
    File(Box<LogFile>),
}

impl Sink {
    /// Writes whole lines; an error says how many of them are lost.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), Lost> {
        match self {
            Sink::Stderr => write_to_stderr(lines),
            Sink::File(file) => file.write(lines),
        }
    }

    /// What the file has to say, which may not be able to say it itself.
    pub(super) fn news(&mut self) -> Vec<String> {
        match self {
            Sink::Stderr => Vec::new(),
            Sink::File(file) => file.news(),
        }
    }

    /// For whoever has moved the file.
    pub(super) fn reopen(&mut self) {
        match self {
            Sink::Stderr => {}
            Sink::File(file) => file.reopen(),
        }
    }
}

fn write_to_stderr(lines: &[u8]) -> Result<(), Lost> {
    let stderr = io::stderr();
    let mut rest = lines;
    while !rest.is_empty() {
        let piece = &rest[..piece(rest)];
        let mut sent = 0;
        while sent < piece.len() {
            match write_waiting(stderr.as_fd(), &piece[sent..]) {
                Ok(count) => sent += count,
                Err(_) => return Err(Lost { lines: count(&rest[sent..]) }),
            }
        }
        rest = &rest[piece.len()..];
    }
    Ok(())
}

/// A word to whoever reads stderr at this moment; nobody waits for one who does not.
pub(super) fn tell_stderr(line: &[u8]) {
    let stderr = io::stderr();
    if is_writable(stderr.as_fd()) {
        // What cannot be said there can be said nowhere.
        let _ = write_waiting(stderr.as_fd(), &line[..line.len().min(PIECE)]);
    }
}

/// Lines that could not be written.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) lines: u64,
}

/// As many whole lines as go into one piece; a longer line goes alone.
fn piece(lines: &[u8]) -> usize {
    let end_of = |part: &[u8]| part.iter().rposition(|&byte| byte == b'\n').map(|at| at + 1);
    let whole = end_of(&lines[..lines.len().min(PIECE)]);
    let first = || lines.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
    whole.or_else(first).unwrap_or(lines.len())
}

pub(super) fn count(lines: &[u8]) -> u64 {
    lines.split_inclusive(|&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_whole_lines() {
        let long = [vec![b'x'; 5000], b"\nrest\n".to_vec()].concat();
        let many = b"0123456789\n".repeat(1000);
        let table: [(&[u8], usize); 5] =
            [(b"a\n", 2), (b"a\nb\n", 4), (b"half", 4), (&long, 5001), (&many, PIECE / 11 * 11)];
        for (lines, expected) in table {
            assert_eq!(piece(lines), expected, "{} bytes", lines.len());
        }
    }
}
