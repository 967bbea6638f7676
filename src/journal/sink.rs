//! Where our logger's lines go.

use std::io;
use std::os::fd::AsFd;

use crate::sys::write::write_waiting;

/// What a pipe takes in one piece (`PIPE_BUF`): workers and others write to the same stderr, and must not
/// land in the middle of a line.
const PIECE: usize = 4096;

/// Writes whole lines; an error says how many of them are lost.
pub(super) fn write(lines: &[u8]) -> Result<(), Lost> {
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

fn count(lines: &[u8]) -> u64 {
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
