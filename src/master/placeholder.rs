//! `{slot}`, `{id}`, `{generation}` and `{port}` in the workers' arguments and environment.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::supervisor::{Generation, WorkerId};

/// What the placeholders stand for in one worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values {
    pub(super) slot: usize,
    pub(super) worker: WorkerId,
    pub(super) generation: Generation,
    /// Where some text asks for one.
    pub(super) port: Option<u16>,
}

const NAMES: [&str; 4] = ["slot", "id", "generation", "port"];

impl Values {
    fn all(self) -> impl Iterator<Item = (&'static str, String)> {
        let port = self.port.map_or_else(String::new, |port| port.to_string());
        let values = [self.slot.to_string(), self.worker.to_string(), self.generation.to_string(), port];
        NAMES.into_iter().zip(values)
    }
}

/// The text for one worker. `{{slot}}` stands for `{slot}` itself, and `${slot}` is the shell's own; any other
/// brace is left as it is.
pub(super) fn fill(text: &OsStr, values: Values) -> Cow<'_, OsStr> {
    if !text.as_bytes().contains(&b'{') {
        return Cow::Borrowed(text);
    }
    let table: Vec<(String, String)> = values
        .all()
        .flat_map(|(name, value)| {
            [
                (format!("${{{name}}}"), format!("${{{name}}}")),
                (format!("{{{{{name}}}}}"), format!("{{{name}}}")),
                (format!("{{{name}}}"), value),
            ]
        })
        .collect();
    let (mut rest, mut filled) = (text.as_bytes(), Vec::new());
    while let Some((first, after)) = rest.split_first() {
        let found = table.iter().find(|(written, _)| rest.starts_with(written.as_bytes()));
        if let Some((written, meant)) = found {
            filled.extend_from_slice(meant.as_bytes());
            rest = &rest[written.len()..];
        } else {
            filled.push(*first);
            rest = after;
        }
    }
    Cow::Owned(OsString::from_vec(filled))
}

/// A text that [`fill`] turns into this one.
pub(super) fn literal(text: &OsStr) -> OsString {
    let braced = NAMES.map(|name| format!("{{{name}}}"));
    let (mut rest, mut doubled) = (text.as_bytes(), Vec::new());
    while let Some((first, after)) = rest.split_first() {
        if let Some(found) = braced.iter().find(|found| rest.starts_with(found.as_bytes())) {
            doubled.extend_from_slice(format!("{{{found}}}").as_bytes());
            rest = &rest[found.len()..];
        } else {
            doubled.push(*first);
            rest = after;
        }
    }
    OsString::from_vec(doubled)
}

/// Whether the text has a place for a port.
pub(super) fn asks_for_port(text: &OsStr) -> bool {
    let with = |port| {
        fill(text, Values { slot: 0, worker: WorkerId(1), generation: Generation::FIRST, port: Some(port) })
    };
    with(1) != with(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Values =
        Values { slot: 2, worker: WorkerId(7), generation: Generation(3), port: Some(20_001) };

    #[test]
    fn what_the_braces_mean() {
        let table = [
            ("--port={port}", "--port=20001"),
            ("{slot}{id}{generation}", "273"),
            ("/var/log/app-{slot}.log", "/var/log/app-2.log"),
            ("{{slot}} is {slot}", "{slot} is 2"),
            ("${slot} $slot ${port:-1}", "${slot} $slot ${port:-1}"),
            ("${{id}}", "${id}"),
            ("{ slot } {Slot} {slots} {} { {slot", "{ slot } {Slot} {slots} {} { {slot"),
            (r#"{"cmd":"hello","slot":{slot}}"#, r#"{"cmd":"hello","slot":2}"#),
            ("{{slot}", "{2"),
            ("", ""),
        ];
        for (written, meant) in table {
            assert_eq!(fill(OsStr::new(written), VALUES), OsStr::new(meant), "{written}");
        }
        let bytes = OsStr::from_bytes(b"\xff{slot}\xff");
        assert_eq!(fill(bytes, VALUES).as_bytes(), b"\xff2\xff");
    }

    #[test]
    fn literal_text_comes_back_as_it_was() {
        for text in ["{slot}", "{{slot}}", "${port}", "a{id}{id}b", "{{{generation}}}", "{}", "plain", ""] {
            assert_eq!(fill(&literal(OsStr::new(text)), VALUES), OsStr::new(text), "{text}");
        }
    }

    #[test]
    fn a_port_is_asked_for_only_where_it_would_be_seen() {
        for (text, asks) in [
            ("{port}", true),
            ("-p{port}x", true),
            ("{{port}}", false),
            ("${port}", false),
            ("{slot}", false),
        ] {
            assert_eq!(asks_for_port(OsStr::new(text)), asks, "{text}");
        }
    }
}
