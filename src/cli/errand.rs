//! Commands that carry an order to a running master: what they have in common, and one row each.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::{Arg, Parser};
use proteus_cluster::settings::duration;

use super::words::file;
use super::{Refusal, help, print, unknown_flag, usage};

/// A command for a running master.
pub(super) struct Errand {
    pub(super) name: &'static str,
    /// What stands for its one word in the help, if it takes one.
    pub(super) word: Option<&'static str>,
    pub(super) flags: &'static [Flag],
    /// For its help.
    pub(super) about: &'static str,
    pub(super) run: fn(&Words) -> Result<ExitCode, Refusal>,
}

/// A flag of one errand.
pub(super) struct Flag {
    /// `timeout` of `--timeout`.
    pub(super) long: &'static str,
    /// What stands for its value in the help, if it takes one.
    pub(super) value: Option<&'static str>,
    pub(super) meaning: &'static str,
}

/// The words after the command.
#[derive(Default)]
pub(super) struct Words {
    pub(super) config: Option<PathBuf>,
    pub(super) api: Option<OsString>,
    flags: Vec<(&'static str, String)>,
    word: Option<String>,
}

impl Errand {
    pub(super) fn carry_out(&'static self, parser: &mut Parser) -> Result<ExitCode, Refusal> {
        match self.read(parser)? {
            Some(words) => (self.run)(&words),
            None => print(&help::errand(self)),
        }
    }

    /// `None` where help was asked for.
    fn read(&'static self, parser: &mut Parser) -> Result<Option<Words>, Refusal> {
        let mut words = Words::default();
        while let Some(arg) = parser.next().map_err(usage)? {
            match arg {
                Arg::Short('h') | Arg::Long("help") => return Ok(None),
                Arg::Short('c') | Arg::Long("config") => words.config = Some(file(parser)?),
                Arg::Long("api") => {
                    words.api = Some(parser.value().map_err(|_| "--api needs a value: ADDRESS")?);
                }
                Arg::Long(long) => {
                    let flag = self.flag(long)?;
                    words.push(flag, parser)?;
                }
                Arg::Short(flag) => return Err(unknown_flag(&format!("-{flag}"), [])),
                Arg::Value(word) if self.word.is_some() && words.word.is_none() => {
                    words.word = Some(word.into_string().map_err(|_| "a word that is not UTF-8 text")?);
                }
                Arg::Value(word) => return Err(format!("unexpected word {:?}", word.to_string_lossy())),
            }
        }
        match self.word {
            Some(word) if words.word.is_none() => {
                Err(format!("nothing to {}: `proteus {0} {word}`", self.name))
            }
            Some(_) | None => Ok(Some(words)),
        }
    }

    fn flag(&'static self, long: &str) -> Result<&'static Flag, Refusal> {
        self.flags.iter().find(|flag| flag.long == long).ok_or_else(|| {
            let own = self.flags.iter().map(|flag| flag.long);
            let known: Vec<_> =
                own.chain(["api", "config", "help"]).map(|flag| format!("--{flag}")).collect();
            unknown_flag(&format!("--{long}"), known.iter().map(String::as_str))
        })
    }
}

impl Words {
    fn push(&mut self, flag: &'static Flag, parser: &mut Parser) -> Result<(), Refusal> {
        let value = match flag.value {
            Some(value) => {
                let given = parser.value().map_err(|_| format!("--{} needs a value: {value}", flag.long))?;
                given.into_string().map_err(|_| format!("--{}: not UTF-8 text", flag.long))?
            }
            None => String::new(),
        };
        self.flags.push((flag.long, value));
        Ok(())
    }

    pub(super) fn has(&self, long: &str) -> bool {
        self.flags.iter().any(|(known, _)| *known == long)
    }

    pub(super) fn time(&self, long: &str) -> Result<Option<Duration>, Refusal> {
        let given = self.flags.iter().rfind(|(known, _)| *known == long);
        given.map(|(_, text)| duration(text).map_err(|why| format!("--{long}: {why}"))).transpose()
    }

    /// The errand's one word.
    pub(super) fn word(&self) -> &str {
        self.word.as_deref().unwrap_or_default()
    }
}
