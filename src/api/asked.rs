//! What a caller asks for: the worker named in the path, the parameters, the body. Pure.

use crate::handle::Handle;
use crate::principal::By;

/// The longest body that a route reads.
pub(super) const BODY_LIMIT: usize = 64 << 10;

/// A request as a route sees it.
pub(crate) struct Asked<'a> {
    pub(crate) handle: &'a Handle,
    pub(crate) by: By,
    /// The number that the path has where the route's has `ID`.
    pub(crate) id: Option<u64>,
    pub(crate) parameters: Parameters,
    /// Empty unless the route's kind reads one.
    pub(crate) body: Vec<u8>,
}

/// The `name=value` pairs after the `?`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads `worker=3&wait=30s`.
    pub(super) fn parse(query: &str) -> Self {
        let pair = |text: &str| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            (decoded(name), decoded(value))
        };
        Parameters(query.split('&').filter(|text| !text.is_empty()).map(pair).collect())
    }

    /// The value given to `name`, the last one if it was given twice.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().rfind(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The first name that is not among `known`.
    pub(super) fn stranger(&self, known: &[&str]) -> Option<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).find(|name| !known.contains(name))
    }
}

/// `%20` and `+` as what they stand for; what is not UTF-8 afterwards is replaced.
fn decoded(text: &str) -> String {
    let mut left = text.as_bytes();
    let mut bytes = Vec::with_capacity(left.len());
    while let Some((&first, rest)) = left.split_first() {
        let (byte, rest) = match first {
            b'+' => (b' ', rest),
            b'%' => escaped(rest).unwrap_or((first, rest)),
            byte => (byte, rest),
        };
        bytes.push(byte);
        left = rest;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The byte that two hexadecimal digits stand for, and what follows them.
fn escaped(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, rest) = text.split_at_checked(2)?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some((digit(digits[0])? << 4 | digit(digits[1])?, rest))
}

/// A path that is a route's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Match {
    /// The number that stands where the route's path has `ID`.
    pub(super) id: Option<u64>,
}

/// Whether `path` is the one that `pattern` describes.
pub(super) fn matches(pattern: &str, path: &str) -> Option<Match> {
    let Some((before, after)) = pattern.split_once("ID") else {
        return (pattern == path).then_some(Match { id: None });
    };
    let id = path.strip_prefix(before)?.strip_suffix(after)?;
    // One spelling for a number: neither `+7` nor `07`.
    let number = id.parse::<u64>().ok().filter(|number| number.to_string() == id)?;
    Some(Match { id: Some(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_forms_write_them() {
        let table: [(&str, &[(&str, &str)]); 8] = [
            ("", &[]),
            ("wait=30s", &[("wait", "30s")]),
            ("worker=3&wait=1m&", &[("worker", "3"), ("wait", "1m")]),
            ("wait", &[("wait", "")]),
            ("w%61it=3%30s", &[("wait", "30s")]),
            ("a=b=c+d", &[("a", "b=c d")]),
            ("a=%&b=%4&c=%zz&d=%+1", &[("a", "%"), ("b", "%4"), ("c", "%zz"), ("d", "% 1")]),
            ("a=%ff", &[("a", "\u{fffd}")]),
        ];
        for (query, pairs) in table {
            let pairs = pairs.iter().map(|(name, value)| (String::from(*name), String::from(*value)));
            assert_eq!(Parameters::parse(query), Parameters(pairs.collect()), "{query}");
        }
    }

    #[test]
    fn the_last_of_two_values_counts_and_strangers_are_named() {
        let parameters = Parameters::parse("wait=1s&wait=2s&wiat=3s");
        assert_eq!(parameters.value("wait"), Some("2s"));
        assert_eq!(parameters.value("worker"), None);
        assert_eq!(parameters.stranger(&["wait"]), Some("wiat"));
        assert_eq!(parameters.stranger(&["wait", "wiat"]), None);
    }

    #[test]
    fn a_path_matches_letter_by_letter() {
        let table = [
            ("/restart", "/restart", Some(None)),
            ("/restart", "/restart/", None),
            ("/restart", "/Restart", None),
            ("/restart", "/%72estart", None),
            ("/workers/ID/restart", "/workers/7/restart", Some(Some(7))),
            ("/workers/ID/restart", "/workers/18446744073709551615/restart", Some(Some(u64::MAX))),
            ("/workers/ID/restart", "/workers/18446744073709551616/restart", None),
            ("/workers/ID/restart", "/workers/ID/restart", None),
            ("/workers/ID/restart", "/workers//restart", None),
            ("/workers/ID/restart", "/workers/+7/restart", None),
            ("/workers/ID/restart", "/workers/07/restart", None),
            ("/workers/ID/restart", "/workers/7/8/restart", None),
            ("/workers/ID/restart", "/workers/restart", None),
        ];
        for (pattern, path, id) in table {
            assert_eq!(matches(pattern, path), id.map(|id| Match { id }), "{pattern} {path}");
        }
    }
}
