//! Whose words a worker speaks on its channel: seen from how it is started, unless the settings say so.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::shebang::Shebang;

/// The words on a channel. A runtime with words of its own is another variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// This project's lines.
    Own,
    /// Those of Node's `cluster`, whose workers run unmodified.
    Node,
}

/// Files that are not programs by themselves: `node` runs them.
const SCRIPTS: [&str; 6] = ["js", "mjs", "cjs", "ts", "mts", "cts"];
/// They start what is named in a package, which gets neither their channel nor their signals.
const RUNNERS: [&str; 6] = ["npm", "npx", "yarn", "yarnpkg", "pnpm", "pnpx"];

/// How a program is started, as far as it tells what runs.
#[derive(Debug)]
pub(super) struct Shape<'a> {
    /// Where it was found, and where that led to.
    pub(super) exec: &'a Path,
    pub(super) real: &'a Path,
    pub(super) shebang: Option<&'a Shebang>,
    /// It is `node` by the name of the file that it is to run.
    pub(super) is_script: bool,
    pub(super) args: Vec<&'a OsStr>,
}

/// Whether `node` is to run the file.
pub(super) fn is_script(path: &Path) -> bool {
    path.extension().is_some_and(|found| SCRIPTS.iter().any(|script| *script == found))
}

impl Dialect {
    /// Node's, where what runs can be seen to be `node`.
    pub(super) fn of(shape: &Shape<'_>) -> Self {
        let by_env = || named(shape.exec, &["env"]) && runs_node(shape.args.iter().copied());
        let by_first_line = || shape.shebang.is_some_and(reads_by_node);
        let is_node = shape.is_script || is_node(shape.exec) || is_node(shape.real) || by_env();
        if is_node || by_first_line() || is_of_package(shape.exec) { Dialect::Node } else { Dialect::Own }
    }
}

/// What to say of a program that looks like one of Node's and may be taken for something else.
pub(super) fn hint(shape: &Shape<'_>) -> Option<&'static str> {
    if named(shape.exec, &RUNNERS) {
        return Some(
            "it starts the program of a package, which gets neither its channel nor its signals: name that program's own file",
        );
    }
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./".contains(byte);
    let mut words = shape.args.iter().flat_map(|arg| arg.as_bytes().split(move |byte| !is_word(byte)));
    let names_node = words.any(|word| {
        let word = Path::new(OsStr::from_bytes(word));
        is_node(word) || is_script(word)
    });
    (names_node && Dialect::of(shape) == Dialect::Own).then_some(
        "it looks as if node ran in it; if so, --speaks node (\"speaks\": \"node\") lets its workers share what they listen \
         on, and --speaks proteus says that it does not",
    )
}

/// `node`, `nodejs`, `node-20`…
fn is_node(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(OsStr::to_str) else { return false };
    let version = name.strip_prefix("node").map(|rest| rest.strip_prefix("js").unwrap_or(rest));
    version.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit() || b"-.".contains(&byte)))
}

fn named(path: &Path, names: &[&str]) -> bool {
    path.file_name().is_some_and(|found| names.iter().any(|name| *name == found))
}

/// Whether `env` with these arguments runs it.
fn runs_node<'a>(args: impl Iterator<Item = &'a OsStr>) -> bool {
    let mut words = args.flat_map(|arg| arg.as_bytes().split(u8::is_ascii_whitespace));
    while let Some(word) = words.next() {
        match word {
            // Options whose value is the next word.
            b"-u" | b"-C" | b"--unset" | b"--chdir" => drop(words.next()),
            _ if word.is_empty() || word.starts_with(b"-") => {}
            _ if word.contains(&b'=') => {}
            program => return is_node(Path::new(OsStr::from_bytes(program))),
        }
    }
    false
}

fn reads_by_node(shebang: &Shebang) -> bool {
    let by_env = named(&shebang.interpreter, &["env"]) && runs_node(shebang.arg.as_deref().into_iter());
    is_node(&shebang.interpreter) || by_env
}

/// What packages install as commands: scripts of Node, or of the shell that end as such.
fn is_of_package(path: &Path) -> bool {
    path.parent().is_some_and(|folder| folder.ends_with("node_modules/.bin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape<'a>(exec: &'a str, args: &'a [&'a str]) -> Shape<'a> {
        let args = args.iter().map(OsStr::new).collect();
        let exec = Path::new(exec);
        Shape { exec, real: exec, shebang: None, is_script: false, args }
    }

    #[test]
    fn what_is_taken_for_node() {
        let table: [(&str, &[&str], Dialect); 19] = [
            ("/usr/bin/node", &["w.js"], Dialect::Node),
            ("/usr/bin/nodejs", &["w.js"], Dialect::Node),
            ("/opt/node-20.1/bin/node-20", &["w.js"], Dialect::Node),
            ("/usr/bin/env", &["node", "w.js"], Dialect::Node),
            ("/usr/bin/env", &["-i", "-u", "X", "A=b", "nodejs", "w.js"], Dialect::Node),
            ("/usr/bin/env", &["-S", "node --flag", "w.js"], Dialect::Node),
            ("/usr/bin/env", &["-S node --flag w.js"], Dialect::Node),
            ("/usr/bin/env", &["-C", "node", "python3", "node"], Dialect::Own),
            ("/usr/bin/env", &[], Dialect::Own),
            ("/srv/node_modules/.bin/next", &["start"], Dialect::Node),
            ("/srv/node_modules/next", &["start"], Dialect::Own),
            ("/usr/bin/nodemon", &["w.js"], Dialect::Own),
            ("/usr/bin/node_exporter", &[], Dialect::Own),
            ("/srv/node/server", &[], Dialect::Own),
            ("/usr/bin/sh", &["-c", "exec node w.js"], Dialect::Own),
            ("/usr/bin/python3", &["node"], Dialect::Own),
            ("/usr/bin/bun", &["w.ts"], Dialect::Own),
            ("/usr/bin/deno", &["w.ts"], Dialect::Own),
            ("/", &[], Dialect::Own),
        ];
        for (exec, args, expected) in table {
            assert_eq!(Dialect::of(&shape(exec, args)), expected, "{exec} {args:?}");
        }
        let linked = Shape { real: Path::new("/usr/bin/node"), ..shape("/srv/runtime", &[]) };
        assert_eq!(Dialect::of(&linked), Dialect::Node);
    }

    #[test]
    fn what_the_first_line_of_a_script_says() {
        let table = [
            ("#!/usr/bin/env node\n", Dialect::Node),
            ("#!/usr/bin/env -S node --enable-source-maps\n", Dialect::Node),
            ("#!/usr/bin/nodejs\n", Dialect::Node),
            ("#!/usr/bin/env python3\n", Dialect::Own),
            ("#!/bin/sh\n", Dialect::Own),
        ];
        for (line, expected) in table {
            let shebang = Shebang::parse(line.as_bytes());
            let script = Shape { shebang: shebang.as_ref(), ..shape("/srv/bin/www", &[]) };
            assert_eq!(Dialect::of(&script), expected, "{line}");
        }
    }

    #[test]
    fn what_looks_like_node() {
        let table: [(&str, &[&str], Option<&str>); 8] = [
            ("/bin/sh", &["-c", "cd /srv && exec node server.js"], Some("--speaks node")),
            ("/bin/sh", &["-c", "exec ./run dist/server.mjs"], Some("--speaks node")),
            ("/usr/bin/nodemon", &["server.js"], Some("--speaks node")),
            ("/usr/bin/npm", &["start"], Some("name that program's own file")),
            ("/usr/bin/node", &["server.js"], None),
            ("/bin/sh", &["-c", "exec sleep 1000"], None),
            ("/usr/bin/python3", &["nodes.py"], None),
            ("/srv/server", &["--node-id=3"], None),
        ];
        for (exec, args, expected) in table {
            let hint = hint(&shape(exec, args));
            let fits = expected.map_or(hint.is_none(), |text| hint.is_some_and(|hint| hint.contains(text)));
            assert!(fits, "{exec} {args:?}: {hint:?}");
        }
    }
}
