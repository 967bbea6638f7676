//! The README's tables say what the code says.

use std::process::Command;

use proteus_cluster::orders;
use proteus_cluster::settings::SETTINGS;

use crate::harness::proteus;

fn readme() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    std::fs::read_to_string(path).expect("the README")
}

/// The rows of the README that begin with `before`, in order.
fn rows(before: &str) -> Vec<String> {
    readme().lines().filter(|line| line.starts_with(before)).map(str::to_owned).collect()
}

#[test]
fn every_setting_has_its_row() {
    let row = |setting: &proteus_cluster::settings::Setting| {
        let flag = setting.flag.map_or(String::new(), |flag| {
            let short = flag.short.map_or(String::new(), |short| format!("`-{short}` "));
            format!("{short}`--{}`", flag.long)
        });
        format!("| `{}` | {flag} | {} | {} |", setting.key, setting.default, setting.meaning)
    };
    let expected: Vec<String> = SETTINGS.iter().map(row).collect();
    let text = readme();
    let table = text.split_once("| key | flag | default | meaning |").expect("the table").1;
    let found: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert_eq!(found, expected, "the README's settings; expected:\n{}", expected.join("\n"));
}

#[test]
fn every_command_has_its_row() {
    let help = Command::new(proteus()).arg("--help").output().expect("proteus runs");
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    let commands =
        help.split_once("Commands:\n").and_then(|(_, text)| text.split_once("\n\n")).expect("them").0;
    // A summary may go on in a line of its own, deeper in.
    let commands = commands.replace("\n      ", " ");
    let row = |line: &str| {
        let (name, summary) = line.trim().split_once(' ').expect("a name and a summary");
        format!("| `proteus {name}` | {} |", summary.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let expected: Vec<String> = commands.lines().map(row).collect();
    assert_eq!(rows("| `proteus "), expected, "the README's commands; expected:\n{}", expected.join("\n"));
}

#[test]
fn every_signal_has_its_row() {
    let expected: Vec<String> =
        orders::signals().map(|(name, meaning)| format!("| {name} | {meaning} |")).collect();
    assert_eq!(rows("| SIG"), expected, "the README's signals; expected:\n{}", expected.join("\n"));
}

#[test]
fn every_route_has_its_row() {
    let expected: Vec<String> =
        orders::routes().map(|(path, meaning)| format!("| `{path}` | {meaning} |")).collect();
    assert_eq!(rows("| `/"), expected, "the README's routes; expected:\n{}", expected.join("\n"));
}
