//! Whether the kernel clears the parent-death signal when a program is executed, so that its process outlives a
//! master that is killed: it does for programs that give rights which their caller has not.

use std::ffi::{CStr, OsStr};
use std::fs::Metadata;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::folder::Found;
use super::shebang::Shebang;
use crate::sys::xattr;

/// Where the kernel stops following interpreters of interpreters.
const DEPTH: usize = 5;
const SET_ID_BITS: u32 = 0o6000;
const CAPABILITIES: &CStr = c"security.capability";

/// Of a program, or of what interprets it: `env NAME` is what `find` finds. Relative paths count from `base`.
///
/// What a process does later (a script that executes another program, a program that changes its own user) is not seen.
pub(super) fn clears_death_signal(
    program: &Found,
    metadata: &Metadata,
    base: &Path,
    find: impl Fn(&OsStr) -> Option<PathBuf>,
) -> bool {
    let mut elevated = is_elevated(program, metadata);
    let mut next = interpreter(program, metadata, &find);
    for _ in 0..DEPTH {
        let Some((found, metadata)) = next.and_then(|path| Found::open(&base.join(path)).ok()) else { break };
        elevated |= is_elevated(&found, &metadata);
        next = interpreter(&found, &metadata, &find);
    }
    elevated
}

fn is_elevated(file: &Found, metadata: &Metadata) -> bool {
    metadata.permissions().mode() & SET_ID_BITS != 0 || xattr::has(file.as_fd(), CAPABILITIES)
}

/// What the first line names, if the file is a script.
fn interpreter(
    file: &Found,
    metadata: &Metadata,
    find: impl Fn(&OsStr) -> Option<PathBuf>,
) -> Option<PathBuf> {
    let mut head = Vec::new();
    // Whatever else lies there is not opened: that may do something.
    let file = metadata.is_file().then(|| file.reopen().ok())??;
    file.take(Shebang::LONGEST).read_to_end(&mut head).ok()?;
    let Shebang { interpreter, arg } = Shebang::parse(&head)?;
    if interpreter.file_name() != Some(OsStr::new("env")) {
        return Some(interpreter);
    }
    let arg = arg?;
    let words = arg.as_bytes().split(u8::is_ascii_whitespace);
    let is_name = |word: &&[u8]| !word.is_empty() && !word.starts_with(b"-") && !word.contains(&b'=');
    find(OsStr::from_bytes(words.into_iter().find(is_name)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_of_a_script() {
        let folder = std::env::temp_dir().join(format!("proteus-elevation-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let find = |name: &OsStr| Some(Path::new("/found").join(name));
        let table = [
            ("#!/bin/sh\necho", Some("/bin/sh")),
            ("#! /usr/bin/python3 -u\n", Some("/usr/bin/python3")),
            ("#!/usr/bin/env node", Some("/found/node")),
            ("#!/usr/bin/env -S A=b node --flag\n", Some("/found/node")),
            ("#!/usr/bin/env\n", None),
            ("\x7fELF", None),
        ];
        for (at, (text, expected)) in table.into_iter().enumerate() {
            let path = folder.join(at.to_string());
            std::fs::write(&path, text).unwrap();
            let (file, metadata) = Found::open(&path).unwrap();
            assert_eq!(interpreter(&file, &metadata, find).as_deref(), expected.map(Path::new), "{text:?}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn bits_of_the_program_or_of_its_interpreter() {
        let folder = std::env::temp_dir().join(format!("proteus-elevated-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (program, script) = (folder.join("program"), folder.join("script"));
        std::fs::write(&program, "\x7fELF").unwrap();
        std::fs::write(&script, format!("#!{}\n", program.display())).unwrap();
        for (mode, expected) in [(0o755, false), (0o4755, true), (0o2755, true)] {
            std::fs::set_permissions(&program, PermissionsExt::from_mode(mode)).unwrap();
            for path in [&program, &script] {
                let (file, metadata) = Found::open(path).unwrap();
                assert_eq!(clears_death_signal(&file, &metadata, &folder, |_| None), expected, "{mode:o}");
            }
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
