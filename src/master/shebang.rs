//! The first line of a script, as the kernel reads it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// `#!interpreter arg`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shebang {
    pub(super) interpreter: PathBuf,
    /// The rest of the line: one argument, whatever it holds.
    pub(super) arg: Option<OsString>,
}

impl Shebang {
    /// The kernel looks no further.
    pub(super) const LONGEST: u64 = 256;

    /// From the first bytes of a file.
    pub(super) fn parse(head: &[u8]) -> Option<Self> {
        let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?.trim_ascii();
        let (interpreter, arg) = match line.iter().position(|byte| b" \t".contains(byte)) {
            Some(end) => (&line[..end], line[end..].trim_ascii()),
            None => (line, &[][..]),
        };
        let text = |bytes| OsStr::from_bytes(bytes).to_owned();
        (!interpreter.is_empty()).then(|| Shebang {
            interpreter: text(interpreter).into(),
            arg: (!arg.is_empty()).then(|| text(arg)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines() {
        let table = [
            ("#!/bin/sh\nexit", Some(("/bin/sh", None))),
            ("#! /usr/bin/env  node \nx", Some(("/usr/bin/env", Some("node")))),
            ("#!/usr/bin/env -S node --flag\n", Some(("/usr/bin/env", Some("-S node --flag")))),
            ("#!/bin/sh", Some(("/bin/sh", None))),
            ("#!\n/bin/sh", None),
            ("\u{7f}ELF", None),
            ("", None),
        ];
        for (head, expected) in table {
            let found = Shebang::parse(head.as_bytes());
            let expected = expected.map(|(interpreter, arg): (&str, Option<&str>)| Shebang {
                interpreter: interpreter.into(),
                arg: arg.map(Into::into),
            });
            assert_eq!(found, expected, "{head}");
        }
    }
}
