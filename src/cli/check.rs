//! `proteus check`: says whether a settings file is good, and starts nothing.

use std::path::Path;
use std::process::ExitCode;

use lexopt::{Arg, Parser};
use proteus_cluster::Builder;

use super::words::file;
use super::{Refusal, help, print, say, unknown_flag, usage};

pub(super) fn run(parser: &mut Parser) -> Result<ExitCode, Refusal> {
    let mut config = None;
    while let Some(arg) = parser.next().map_err(usage)? {
        match arg {
            Arg::Short('h') | Arg::Long("help") => return print(&help::check()),
            Arg::Short('c') | Arg::Long("config") => config = Some(file(parser)?),
            Arg::Long(flag) => return Err(unknown_flag(&format!("--{flag}"), ["--config", "--help"])),
            Arg::Short(flag) => return Err(unknown_flag(&format!("-{flag}"), [])),
            Arg::Value(word) => {
                let word = word.to_string_lossy();
                return Err(format!("unexpected word {word:?}: the file is named by --config"));
            }
        }
    }
    let path = config.ok_or("no file to check: `proteus check --config FILE`")?;
    print(&format!("{}\n", verdict(&path)?))
}

/// Refuses what `proteus run` would, by the same words.
fn verdict(path: &Path) -> Result<String, Refusal> {
    let builder = Builder::from_file(path).map_err(usage)?;
    let path = path.display();
    let refused = |error| format!("{path}: {error}");
    let config = builder.build().map_err(refused)?;
    proteus_cluster::check(&config).map_err(refused)?;
    if let Some(warning) = config.warning() {
        say(&format!("{path}: warning: {warning}"));
    }
    let rest = match config.exec() {
        Some(_) => "",
        None => " (no `exec`: the command line must name the program)",
    };
    Ok(format!("{path}: ok: {config}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn says_what_a_start_would_say() {
        let file = std::env::temp_dir().join(format!("proteus-check-{}.json", std::process::id()));
        let table = [
            (r#"{"worker": 1, "exec": "sh"}"#, Ok("ok: 1 worker of sh")),
            (r#"{"worker": 1}"#, Ok("ok: 1 worker (no `exec`: the command line must name the program)")),
            (r#"{"exec": "/tmp"}"#, Err("exec /tmp: is a directory")),
            (r#"{"exec": "no-such-program"}"#, Err("exec no-such-program: no such program in PATH")),
            (r#"{"exec": "sh", "cwd": "/no/such"}"#, Err("cwd /no/such: no such file or directory")),
            (r#"{"exec": "sh", "user": "nobody-here"}"#, Err("user `nobody-here`: no such user")),
            (
                r#"{"exec": "sh", "listen": {"address": "unix:/s", "group": "nobody-here"}}"#,
                Err("listener listen0 at unix:/s: group `nobody-here`: no such group"),
            ),
            (
                r#"{"worker": 1, "exec": "sh", "listen": ["0.0.0.0:80", "[::]:80"]}"#,
                Ok("ok: 1 worker of sh, listening on 0.0.0.0:80, [::]:80 (IPv6 alone)"),
            ),
        ];
        for (settings, verdict_on_it) in table {
            fs::write(&file, settings).unwrap();
            let line = |text: &str| format!("{}: {text}", file.display());
            assert_eq!(verdict(&file), verdict_on_it.map(line).map_err(line), "{settings}");
        }
        fs::remove_file(&file).unwrap();
    }
}
