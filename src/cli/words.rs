//! The words after `proteus run`: flags out of the table of settings, then the program.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser};
use proteus_cluster::settings::{LATER, SETTINGS, Setting};
use proteus_cluster::{Builder, Config, Output};

use super::{Refusal, unknown_flag, usage};

/// While somebody edits, an open page (a socket, server-sent events) must not hold up what comes next.
const WATCHED_DISCONNECT: Duration = Duration::from_secs(1);

/// What was asked for.
pub(super) enum Asked<T> {
    Help,
    For(T),
}

/// The words of `proteus run`, not yet checked.
#[derive(Default)]
pub(super) struct Words {
    config: Option<PathBuf>,
    /// In the order of their first appearance; a repeated flag keeps all its values.
    flags: Vec<(&'static Setting, Vec<OsString>)>,
    watched: Vec<PathBuf>,
    /// The program and its arguments.
    program: Vec<OsString>,
}

impl Words {
    /// Reads flags up to the first word that is none: from there on, everything belongs to the program.
    pub(super) fn read(parser: &mut Parser) -> Result<Asked<Self>, Refusal> {
        let mut words = Words::default();
        while let Some(arg) = parser.next().map_err(usage)? {
            match arg {
                Arg::Short('h') | Arg::Long("help") => return Ok(Asked::Help),
                Arg::Short('c') | Arg::Long("config") => words.config = Some(file(parser)?),
                Arg::Long("watch") => words.watched.push(watched(parser)?),
                Arg::Short(short) => {
                    let setting = by_short(short).ok_or_else(|| unknown_flag(&format!("-{short}"), []))?;
                    words.push(setting, parser)?;
                }
                Arg::Long(long) => {
                    let setting = by_long(long)?;
                    words.push(setting, parser)?;
                }
                Arg::Value(program) => {
                    words.program.push(program);
                    words.program.extend(parser.raw_args().map_err(usage)?);
                }
            }
        }
        Ok(Asked::For(words))
    }

    /// The paths whose changes restart.
    pub(super) fn watched(&self) -> &[PathBuf] {
        &self.watched
    }

    fn push(&mut self, setting: &'static Setting, parser: &mut Parser) -> Result<(), Refusal> {
        let flag = setting.flag.expect("found by its flag");
        let value = parser.value().map_err(|_| format!("--{} needs a value: {}", flag.long, flag.value))?;
        match self.flags.iter_mut().find(|(known, _)| known.key == setting.key) {
            Some((_, values)) => values.push(value),
            None => self.flags.push((setting, vec![value])),
        }
        Ok(())
    }

    /// The file, the flags over it, and the program over both: another program takes none of the file's arguments.
    /// `--watch` bounds the file's `disconnectTimeout`, and not the flag's.
    pub(super) fn config(self) -> Result<Config, Refusal> {
        let mut builder = match &self.config {
            Some(path) => Builder::from_file(path).map_err(usage)?,
            None => Config::builder(),
        };
        if !self.watched.is_empty() {
            builder = builder.disconnect_timeout_at_most(WATCHED_DISCONNECT);
        }
        for (setting, values) in &self.flags {
            builder = builder.flag(setting, values).map_err(usage)?;
        }
        let mut program = self.program.into_iter();
        if let Some(name) = program.next() {
            builder = builder.exec(name).args(program);
        }
        let config = builder.output_unless_given(Output::Log).build().map_err(usage)?;
        if config.exec().is_none() {
            let hint = "name one, as in `proteus run -- ./server`, or set `exec` in the file";
            return Err(format!("no program to run: {hint}"));
        }
        Ok(config)
    }
}

/// The value of `--config`.
pub(super) fn file(parser: &mut Parser) -> Result<PathBuf, Refusal> {
    let path = parser.value().map_err(|_| "--config needs a value: FILE")?;
    if path.is_empty() { Err("--config: must not be empty".into()) } else { Ok(path.into()) }
}

/// The value of `--watch`.
fn watched(parser: &mut Parser) -> Result<PathBuf, Refusal> {
    let path = parser.value().map_err(|_| "--watch needs a value: PATH")?;
    match path.is_empty() {
        _ if !cfg!(feature = "watch") => Err(
            "--watch is not in this build: build proteus with the feature `watch`, which is on by default"
                .into(),
        ),
        true => Err("--watch: must not be empty".into()),
        false => Ok(path.into()),
    }
}

fn by_short(short: char) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.flag.is_some_and(|flag| flag.short == Some(short)))
}

fn by_long(long: &str) -> Result<&'static Setting, Refusal> {
    let found = SETTINGS.iter().find(|setting| setting.flag.is_some_and(|flag| flag.long == long));
    found.ok_or_else(|| no_flag(long))
}

/// Why `--long` is none: its feature is to come, it is set elsewhere, or it is misspelled.
fn no_flag(long: &str) -> Refusal {
    if LATER.iter().any(|key| kebab(key) == long) {
        return format!("--{long} is not available yet");
    }
    match SETTINGS.iter().find(|setting| kebab(setting.key) == long) {
        Some(setting) if setting.flag.is_none() && !matches!(setting.key, "exec" | "args") => {
            format!("--{long} is not a flag: set `{}` in the file", setting.key)
        }
        Some(Setting { key: "exec" | "args", .. }) => {
            format!("--{long} is not a flag: end the flags with the program and its arguments")
        }
        _ => {
            let flags = SETTINGS.iter().filter_map(|setting| setting.flag).map(|flag| flag.long);
            let known: Vec<String> =
                flags.chain(["config", "watch", "help"]).map(|known| format!("--{known}")).collect();
            unknown_flag(&format!("--{long}"), known.iter().map(String::as_str))
        }
    }
}

/// `--backoff-max` for `backoff.max`.
fn kebab(key: &str) -> String {
    let mut flag = String::new();
    for letter in key.chars() {
        match letter {
            '.' => flag.push('-'),
            _ if letter.is_ascii_uppercase() => flag.extend(['-', letter.to_ascii_lowercase()]),
            _ => flag.push(letter),
        }
    }
    flag
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(words: &[&str]) -> Result<String, Refusal> {
        match Words::read(&mut Parser::from_args(words))? {
            Asked::Help => Ok("help".into()),
            Asked::For(words) => words.config().map(|config| config.to_string()),
        }
    }

    #[test]
    fn flags_then_the_program() {
        let table: &[(&[&str], &str)] = &[
            (&["-n", "2", "./server"], "2 workers of ./server"),
            (&["-n1", "--", "./server", "--port", "80"], "1 worker of ./server"),
            (&["--workers=3", "./server", "-n", "9", "--", "-x"], "3 workers of ./server"),
            (&["-n2", "--", "-odd"], "2 workers of -odd"),
            (
                &["-n2", "--listen", "http=*:80", "--listen", "unix:/s", "--api", "localhost", "s"],
                "2 workers of s, listening on 0.0.0.0:80, unix:/s; control API on 127.0.0.1:8111",
            ),
            (&["-n2", "--help", "--nonsense"], "help"),
        ];
        for (words, summary) in table {
            assert_eq!(config(words).as_deref(), Ok(*summary), "{words:?}");
        }
    }

    #[test]
    fn a_word_that_is_wrong_is_named() {
        let table: &[(&[&str], &str)] = &[
            (
                &["-n", "2"],
                "no program to run: name one, as in `proteus run -- ./server`, or set `exec` in the file",
            ),
            (&["--", ""], "setting `exec`: must not be empty"),
            (&["--worker", "2", "s"], "unknown flag --worker: did you mean --workers?"),
            (
                &["--disconnectTimeout", "2"],
                "unknown flag --disconnectTimeout: did you mean --disconnect-timeout?",
            ),
            (&["--confg", "f"], "unknown flag --confg: did you mean --config?"),
            (&["--colour"], "unknown flag --colour"),
            (&["-x"], "unknown flag -x"),
            (&["-n"], "--workers needs a value: N"),
            (&["-c"], "--config needs a value: FILE"),
            (&["-n", "x", "s"], "--workers: \"x\" is not a whole number"),
            (&["--api-token", "t"], "--api-token is not a flag: set `api.token` in the file"),
            (&["--exec", "s"], "--exec is not a flag: end the flags with the program and its arguments"),
            (&["-n1", "--min-ready", "2", "s"], "setting `minReady`: 2 is more than `worker` (1)"),
            (&["--config", "/no/such/file"], "/no/such/file: no such file or directory"),
        ];
        for (words, line) in table {
            assert_eq!(config(words), Err((*line).to_string()), "{words:?}");
        }
    }
}
