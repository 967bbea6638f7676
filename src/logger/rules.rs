//! What `RUST_LOG` asks for, and what is wrong with it. Pure.

use std::str::FromStr;

use log::LevelFilter;

use crate::config::settings::nearest;

/// What is shown when nothing is asked for: info and louder.
const USUAL: &str = "info";
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// Targets of the lines that `proteus run` itself has, each also the beginning of others.
const OWN_TARGETS: [&str; 3] = ["proteus", "proteus_cluster", "worker"];

/// Rules that `env_logger` reads without a complaint.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) text: String,
    /// What was left out, each as a line of the log.
    pub(super) complaints: Vec<String>,
}

/// What a word that is no level may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// A part of the program, whose modules nobody else knows.
    Target,
    /// A slip: the program is `proteus run`, all of whose targets are known.
    Slip,
}

impl Rules {
    /// Reads the variable's value; an empty one is none. Where nothing good is left, [`USUAL`] holds.
    pub(super) fn read(value: Option<&str>, word: Word) -> Self {
        let value = value.map_or("", str::trim);
        let (rules, text) = value.split_once('/').unwrap_or((value, ""));
        if text.contains('/') {
            let complaint = "is no rule: one slash at most, before the text that lines must hold";
            return Rules { text: USUAL.into(), complaints: vec![complain(value, complaint)] };
        }
        let mut complaints = Vec::new();
        let given = rules.split(',').map(str::trim).filter(|rule| !rule.is_empty());
        let mut good: Vec<&str> = given
            .filter(|rule| {
                is_rule(rule) || {
                    complaints.push(complain(rule, "is no rule: LEVEL, TARGET or TARGET=LEVEL"));
                    false
                }
            })
            .collect();
        if let ([only], Word::Slip) = (good.as_slice(), word)
            && is_slip(only)
        {
            complaints.push(no_level(only));
            good.clear();
        }
        let rules = if good.is_empty() { USUAL.to_owned() } else { good.join(",") };
        let text = if text.is_empty() { rules } else { format!("{rules}/{text}") };
        Rules { text, complaints }
    }
}

/// As `env_logger` reads it.
fn is_rule(rule: &str) -> bool {
    match rule.split_once('=') {
        None | Some((_, "")) => true,
        Some((_, level)) => LevelFilter::from_str(level.trim()).is_ok(),
    }
}

/// A plain word that names neither a level nor anything that `proteus run` logs.
fn is_slip(rule: &str) -> bool {
    let plain = rule.chars().all(|letter| letter.is_alphanumeric() || letter == '_' || letter == '-');
    plain && LevelFilter::from_str(rule).is_err() && !OWN_TARGETS.contains(&rule)
}

fn no_level(word: &str) -> String {
    let meant = nearest(&word.to_lowercase(), LEVELS);
    let meant = meant.map_or(String::new(), |meant| format!(", did you mean {meant}?"));
    complain(word, &format!("is no level ({}){meant}", LEVELS.join(", ")))
}

fn complain(what: &str, why: &str) -> String {
    format!("RUST_LOG: {what:?} {why}; it is left out, and without any other rule {USUAL} holds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_and_what_is_wrong_with_them() {
        use Word::{Slip, Target};
        // The value, for whom, the rules that hold, how each complaint begins.
        let table: [(Option<&str>, Word, &str, &[&str]); 20] = [
            (None, Slip, "info", &[]),
            (Some(""), Slip, "info", &[]),
            (Some(" , "), Target, "info", &[]),
            (Some("off"), Slip, "off", &[]),
            (Some("WARN"), Slip, "WARN", &[]),
            (Some("inof"), Slip, "info", &["\"inof\" is no level"]),
            (Some("inof/text"), Slip, "info/text", &["\"inof\" is no level"]),
            (Some("inof"), Target, "inof", &[]),
            (Some("shop"), Slip, "info", &["\"shop\" is no level"]),
            (Some("shop="), Slip, "shop=", &[]),
            (Some("shop::cart"), Slip, "shop::cart", &[]),
            (Some("worker"), Slip, "worker", &[]),
            (Some("inof,shop=debug"), Slip, "inof,shop=debug", &[]),
            (Some("shop=inof"), Slip, "info", &["\"shop=inof\" is no rule"]),
            (Some("warn, shop=inof"), Target, "warn", &["\"shop=inof\" is no rule"]),
            (Some("inof,a=b=c"), Slip, "info", &["\"a=b=c\" is no rule", "\"inof\" is no level"]),
            (Some("off,worker=info"), Slip, "off,worker=info", &[]),
            (Some("/text"), Slip, "info/text", &[]),
            (Some("a/b/c"), Target, "info", &["\"a/b/c\" is no rule"]),
            (Some("in\u{1b}of=x\n"), Slip, "info", &["\"in\\u{1b}of=x\" is no rule"]),
        ];
        for (value, word, text, complaints) in table {
            let rules = Rules::read(value, word);
            assert_eq!(rules.text, text, "{value:?} for {word:?}");
            assert_eq!(rules.complaints.len(), complaints.len(), "{value:?} for {word:?}: {rules:?}");
            for (complaint, beginning) in rules.complaints.iter().zip(complaints) {
                assert!(complaint.starts_with(&format!("RUST_LOG: {beginning}")), "{complaint}");
            }
        }
    }

    #[test]
    fn a_near_miss_is_named() {
        let table = [("inof", "did you mean info?"), ("Eror", "did you mean error?")];
        for (word, hint) in table {
            let complaint = Rules::read(Some(word), Word::Slip).complaints.concat();
            assert!(complaint.contains(hint), "{complaint}");
        }
    }

    /// What is left must be good to `env_logger` too, which would say on stderr what is not.
    #[test]
    fn env_logger_reads_them_alike() {
        for value in ["warn,shop=debug", "off", "shop", "a=trace/text", "=warn", "a=", "x y"] {
            let rules = Rules::read(Some(value), Word::Target);
            assert!(rules.complaints.is_empty(), "{rules:?}");
            let ours = env_logger::Builder::new().parse_filters(&rules.text).build().filter();
            let theirs = env_logger::Builder::new().parse_filters(value).build().filter();
            assert_eq!(ours, theirs, "{value}");
        }
    }
}
