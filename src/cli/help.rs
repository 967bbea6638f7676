//! Help texts, out of the tables.

use std::fmt::Write;

use proteus_cluster::orders;
use proteus_cluster::settings::{SETTINGS, Setting};

use super::COMMANDS;
use super::client::TOKEN_VARIABLE;
use super::errand::Errand;

const WIDTH: usize = 80;
/// Where the right column begins.
const COLUMN: usize = 30;

const NOTES: &str = "TIME is 1500 (milliseconds), 1500ms, 30s, 5m or 1h. A flag given twice counts as it was \
    given last, but --listen and --env add up. --listen replaces the listeners of the file, --env adds to its \
    variables, and PROGRAM replaces its program and arguments.";

/// `proteus --help`.
pub(super) fn overview() -> String {
    let mut text =
        String::from("Runs a program as a cluster of workers that share their sockets: crashes are\n");
    text.push_str("replaced, and new code is rolled out without losing a request.\n\n");
    text.push_str("Usage: proteus COMMAND [FLAGS]\n\nCommands:\n");
    for command in COMMANDS {
        row(&mut text, command.name, command.summary);
    }
    text.push_str("\nFlags:\n");
    row(&mut text, "-h, --help", "this text; after a command, the command's");
    row(&mut text, "-V, --version", "the version");
    text.push_str("\nExample:\n  proteus run -n 4 --listen 127.0.0.1:8080 -- ./server --flag\n");
    text
}

/// `proteus run --help`.
pub(super) fn run() -> String {
    let mut text = String::from("Starts PROGRAM as a cluster of workers, and stays as their master.\n\n");
    text.push_str("Usage: proteus run [FLAGS] [--] PROGRAM [ARGUMENTS]\n");
    text.push_str("       proteus run --config FILE [FLAGS]\n\nFlags:\n");
    row(&mut text, "-c, --config FILE", "settings from a JSON file; flags override it");
    row(
        &mut text,
        "    --watch PATH",
        "restart when this file, or one below this folder, changes; may be repeated; workers then have 1 s to \
         finish, unless --disconnect-timeout says otherwise",
    );
    for setting in SETTINGS {
        if let Some(flag) = setting.flag {
            let short = flag.short.map_or("    ".into(), |short| format!("-{short}, "));
            row(&mut text, &format!("{short}--{} {}", flag.long, flag.value), &meaning(setting));
        }
    }
    row(&mut text, "-h, --help", "this text");
    text.push('\n');
    wrap(&mut text, 0, NOTES);
    text.push_str("\nIn the file only (exec and args are PROGRAM and ARGUMENTS here):\n");
    for setting in SETTINGS.iter().filter(|setting| setting.flag.is_none()) {
        row(&mut text, setting.key, &meaning(setting));
    }
    text.push_str("\nSignals to the master:\n");
    for (signal, order) in orders::signals() {
        row(&mut text, signal, order);
    }
    text.push_str("\nExit status: 0 graceful shutdown, 1 forced, 2 could not start, 3 gave up.\n");
    text
}

/// `proteus check --help`.
pub(super) fn check() -> String {
    let mut text =
        String::from("Reads a settings file, looks for its program, user and directory, and says\n");
    text.push_str("whether it is good. Starts no worker and binds no address.\n\nUsage: proteus check --config FILE\n\nFlags:\n");
    row(&mut text, "-c, --config FILE", "the settings, as `proteus run` takes them");
    row(&mut text, "-h, --help", "this text");
    text.push_str("\nExit status: 0 good, 2 not.\n");
    text
}

/// The help of a command for a running master.
pub(super) fn errand(errand: &Errand) -> String {
    let mut text = String::new();
    wrap(&mut text, 0, errand.about);
    let word = errand.word.map_or(String::new(), |word| format!(" {word}"));
    let _ = write!(text, "\nUsage: proteus {} [FLAGS]{word}\n\nFlags:\n", errand.name);
    for flag in errand.flags {
        let value = flag.value.map_or(String::new(), |value| format!(" {value}"));
        row(&mut text, &format!("    --{}{value}", flag.long), flag.meaning);
    }
    row(
        &mut text,
        "    --api ADDRESS",
        "the master's control API: HOST:PORT, unix:/path or unix:@name [127.0.0.1:8111]",
    );
    row(&mut text, "-c, --config FILE", "the master's settings, to find its API and its token there");
    row(&mut text, "-h, --help", "this text");
    text.push('\n');
    wrap(
        &mut text,
        0,
        &format!("A token that the API asks for is taken from {TOKEN_VARIABLE}, else from the file."),
    );
    text.push_str("\nExit status: 0 done, 1 failed or refused, 2 could not be asked.\n");
    text
}

fn meaning(setting: &Setting) -> String {
    format!("{} [{}]", setting.meaning, setting.default)
}

/// Two columns; a long `left` has the first line to itself.
fn row(text: &mut String, left: &str, right: &str) {
    let _ = write!(text, "  {left}");
    let column = left.chars().count() + 2;
    if column + 2 > COLUMN {
        let _ = write!(text, "\n{:COLUMN$}", "");
    } else {
        let _ = write!(text, "{:1$}", "", COLUMN - column);
    }
    wrap(text, COLUMN, right);
}

/// Prose, broken at words; every further line begins at `indent`, where the first one already is.
fn wrap(text: &mut String, indent: usize, prose: &str) {
    let mut column = indent;
    for word in prose.split(' ') {
        let letters = word.chars().count();
        if column > indent && column + 1 + letters > WIDTH {
            let _ = write!(text, "\n{:indent$}", "");
            column = indent;
        } else if column > indent {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += letters;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_stands_in_the_help() {
        let text = run();
        for setting in SETTINGS {
            let left =
                setting.flag.map_or(setting.key.into(), |flag| format!("--{} {}", flag.long, flag.value));
            assert!(text.contains(&left), "{left}");
        }
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let texts = COMMANDS.iter().map(|command| (command.help)()).chain([overview()]);
        for line in texts.collect::<Vec<_>>().iter().flat_map(|text| text.lines()) {
            assert!(line.chars().count() <= WIDTH, "{line}");
            assert_eq!(line, line.trim_end());
        }
    }

    #[test]
    fn a_long_left_column_has_its_own_line() {
        let mut text = String::new();
        row(&mut text, &"x".repeat(27), "a b");
        assert_eq!(text, format!("  {}\n{:30}a b\n", "x".repeat(27), ""));
    }
}
