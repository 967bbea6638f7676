//! The command line: one row a command.

mod check;
mod client;
mod errand;
mod help;
mod launch;
mod orders;
mod progress;
mod table;
#[cfg(feature = "watch")]
mod watch;
mod words;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use lexopt::{Arg, Parser};
use proteus_cluster::settings::nearest;

/// Could not start: usage, settings, addresses, files.
const REFUSED: u8 = 2;

/// One line for stderr; the exit status is then [`REFUSED`].
type Refusal = String;

/// A command, its line in the help and its own help.
struct Command {
    name: &'static str,
    summary: &'static str,
    help: fn() -> String,
    run: fn(&mut Parser) -> Result<ExitCode, Refusal>,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "run",
        summary: "start a program as a cluster of workers",
        help: help::run,
        run: launch::run,
    },
    Command {
        name: "check",
        summary: "read a settings file and say whether it is good; starts nothing",
        help: help::check,
        run: check::run,
    },
    Command {
        name: orders::RESTART.name,
        summary: "replace every worker of a running cluster, and say how it went",
        help: || help::errand(&orders::RESTART),
        run: |parser| orders::RESTART.carry_out(parser),
    },
    Command {
        name: orders::SHUTDOWN.name,
        summary: "end a running cluster, and say when it has ended",
        help: || help::errand(&orders::SHUTDOWN),
        run: |parser| orders::SHUTDOWN.carry_out(parser),
    },
    Command {
        name: orders::SCALE.name,
        summary: "change the number of workers",
        help: || help::errand(&orders::SCALE),
        run: |parser| orders::SCALE.carry_out(parser),
    },
    Command {
        name: orders::REOPEN.name,
        summary: "open the log file of a running cluster anew",
        help: || help::errand(&orders::REOPEN),
        run: |parser| orders::REOPEN.carry_out(parser),
    },
    Command {
        name: orders::SEND.name,
        summary: "send a message to every worker",
        help: || help::errand(&orders::SEND),
        run: |parser| orders::SEND.carry_out(parser),
    },
    Command {
        name: orders::ASK.name,
        summary: "send a message to every worker, and print what they reply",
        help: || help::errand(&orders::ASK),
        run: |parser| orders::ASK.carry_out(parser),
    },
    Command {
        name: orders::STATUS.name,
        summary: "show a running cluster",
        help: || help::errand(&orders::STATUS),
        run: |parser| orders::STATUS.carry_out(parser),
    },
];

/// Runs the command that `words` ask for.
pub(crate) fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    dispatch(&mut Parser::from_args(words)).unwrap_or_else(|refusal| {
        // What led to it comes first.
        log::logger().flush();
        say(&refusal);
        ExitCode::from(REFUSED)
    })
}

fn dispatch(parser: &mut Parser) -> Result<ExitCode, Refusal> {
    match parser.next().map_err(usage)? {
        Some(Arg::Short('h') | Arg::Long("help")) => print(&help::overview()),
        Some(Arg::Short('V') | Arg::Long("version")) => {
            print(concat!("proteus ", env!("CARGO_PKG_VERSION"), "\n"))
        }
        Some(Arg::Value(name)) if name == "help" => help_about(parser),
        Some(Arg::Value(name)) => {
            let command = find(&name.to_string_lossy())?;
            (command.run)(parser)
        }
        Some(Arg::Long(flag)) => Err(unknown_flag(&format!("--{flag}"), ["--help", "--version"])),
        Some(Arg::Short(flag)) => Err(unknown_flag(&format!("-{flag}"), [])),
        None => Err("no command: see `proteus --help`".into()),
    }
}

fn help_about(parser: &mut Parser) -> Result<ExitCode, Refusal> {
    match parser.next().map_err(usage)? {
        Some(Arg::Value(name)) => print(&(find(&name.to_string_lossy())?.help)()),
        Some(Arg::Long(_) | Arg::Short(_)) | None => print(&help::overview()),
    }
}

fn find(name: &str) -> Result<&'static Command, Refusal> {
    COMMANDS.iter().find(|command| command.name == name).ok_or_else(|| {
        let meant = nearest(name, COMMANDS.iter().map(|command| command.name));
        let hint = meant.map_or("see `proteus --help`".into(), |meant| format!("did you mean `{meant}`?"));
        format!("unknown command {name:?}: {hint}")
    })
}

fn unknown_flag<'a>(flag: &str, known: impl IntoIterator<Item = &'a str>) -> Refusal {
    let hint = nearest(flag, known).map_or(String::new(), |meant| format!(": did you mean {meant}?"));
    format!("unknown flag {}{hint}", flag.escape_debug())
}

/// An `io::Error` without Rust's `(os error 2)`, and in small letters.
fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

fn usage(error: impl Display) -> Refusal {
    error.to_string()
}

/// To stderr, in one piece; nobody may be reading it, and then nobody is told.
fn say(line: &str) {
    drop(io::stderr().write_all(format!("proteus: {line}\n").as_bytes()));
}

/// A pipe whose reader has left (`proteus --help | head -1`) has what it wanted.
fn print(text: &str) -> Result<ExitCode, Refusal> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("stdout: {error}")),
        Ok(()) | Err(_) => Ok(ExitCode::SUCCESS),
    }
}
