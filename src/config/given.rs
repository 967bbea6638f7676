//! A value as it was given, in any of the three spellings, and what is said when it cannot be taken.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::error::Error;

/// Longer than anybody means, short enough that no deadline overflows.
const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Longer values are cut in error lines.
const SHOWN_CHARS: usize = 60;

/// A value for one setting: out of the file, off the command line, or from Rust.
#[derive(Clone, Copy)]
pub(crate) enum Given<'a> {
    /// From the JSON file.
    Json(&'a Value),
    /// The words given to a flag (several when it was repeated), or text and lists from Rust.
    Words(&'a [OsString]),
    /// A number from Rust.
    Count(u64),
    /// A duration from Rust.
    Time(Duration),
}

impl Given<'_> {
    /// A whole number within `range`.
    pub(super) fn count<T>(&self, range: &RangeInclusive<T>) -> Result<T, Refusal>
    where
        T: TryFrom<i128> + PartialOrd + Display,
    {
        let number = T::try_from(self.whole().ok_or_else(|| self.is_not("a whole number"))?);
        number.ok().filter(|n| range.contains(n)).ok_or_else(|| {
            format!("{} is out of range ({} to {})", self.shown(), range.start(), range.end()).into()
        })
    }

    fn whole(&self) -> Option<i128> {
        match self {
            Given::Json(value) => value.as_u64().map(i128::from).or(value.as_i64().map(i128::from)),
            Given::Words(words) => last(words).to_str()?.parse().ok(),
            Given::Count(number) => Some(i128::from(*number)),
            Given::Time(_) => None,
        }
    }

    /// A number of bytes above zero: whole, or as text with a K, M or G behind it.
    pub(super) fn size(&self) -> Result<u64, Refusal> {
        let bytes = match self {
            Given::Words(words) => last(words).to_str().and_then(read_size),
            Given::Json(Value::String(text)) => read_size(text),
            Given::Json(_) | Given::Count(_) => self.whole().and_then(|n| u64::try_from(n).ok()),
            Given::Time(_) => None,
        };
        match bytes {
            Some(0) => Err("must be more than 0".into()),
            Some(bytes) => Ok(bytes),
            None => Err(self.is_not("a number of bytes such as 1000000, 512K, 10M or 1G")),
        }
    }

    /// A duration of at most ten years.
    pub(super) fn time(&self) -> Result<Duration, Refusal> {
        let time = match self {
            Given::Words(words) => read_duration(last(words))
                .ok_or_else(|| self.is_not("a duration such as 1500, 1500ms, 30s or 5m"))?,
            Given::Time(time) => *time,
            Given::Json(_) | Given::Count(_) => {
                let milliseconds = self.whole().and_then(|n| u64::try_from(n).ok());
                Duration::from_millis(
                    milliseconds.ok_or_else(|| self.is_not("a whole number of milliseconds"))?,
                )
            }
        };
        if time > TEN_YEARS {
            return Err(format!("{} is more than ten years", self.shown()).into());
        }
        Ok(time)
    }

    /// A duration that is not zero.
    pub(super) fn time_above_zero(&self) -> Result<Duration, Refusal> {
        let time = self.time()?;
        if time.is_zero() { Err("must be more than 0".into()) } else { Ok(time) }
    }

    /// Text that is not empty.
    pub(super) fn text(&self) -> Result<&str, Refusal> {
        let text = match self {
            Given::Json(value) => value.as_str(),
            Given::Words(words) => last(words).to_str(),
            Given::Count(_) | Given::Time(_) => None,
        };
        let text = text.ok_or_else(|| self.is_not(self.text_kind()))?;
        plain(OsStr::new(text))?;
        Ok(text)
    }

    /// On the command line only bytes that are not UTF-8 can fail to be text.
    fn text_kind(&self) -> &'static str {
        if matches!(self, Given::Words(_)) { "UTF-8 text" } else { "a string" }
    }

    /// A path that is not empty; from the command line and Rust any bytes but NUL.
    pub(super) fn path(&self) -> Result<PathBuf, Refusal> {
        let Given::Words(words) = self else { return self.text().map(PathBuf::from) };
        plain(last(words))?;
        Ok(PathBuf::from(last(words)))
    }

    /// A list of words, each of which may be empty.
    pub(super) fn list(&self) -> Result<Vec<OsString>, Refusal> {
        let words = match self {
            Given::Words(words) => words.to_vec(),
            Given::Json(Value::Array(items)) => {
                items.iter().enumerate().map(word).collect::<Result<_, _>>()?
            }
            Given::Json(_) | Given::Count(_) | Given::Time(_) => {
                return Err(self.is_not("an array of strings"));
            }
        };
        for (position, word) in words.iter().enumerate() {
            without_nul(word).map_err(|refusal| refusal.under(format!("[{position}]")))?;
        }
        Ok(words)
    }

    /// `true` or `false`.
    pub(super) fn yes_or_no(&self) -> Result<bool, Refusal> {
        match self {
            Given::Json(Value::Bool(yes)) => Ok(*yes),
            Given::Words(words) if last(words) == "true" => Ok(true),
            Given::Words(words) if last(words) == "false" => Ok(false),
            Given::Json(_) | Given::Words(_) | Given::Count(_) | Given::Time(_) => {
                Err(self.is_not("true or false"))
            }
        }
    }

    /// One of the words that `choices` spells.
    pub(super) fn one_of<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, Refusal> {
        let text = self.text()?;
        let names = || choices.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        let choice = choices.iter().find(|(name, _)| *name == text);
        choice.map(|(_, value)| *value).ok_or_else(|| self.is_not(&format!("one of {}", names())))
    }

    /// The same, where `true` and `false` may also be given as JSON's own.
    pub(super) fn one_of_or_bool<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, Refusal> {
        match self {
            Given::Json(Value::Bool(on)) => {
                let word = Value::from(on.to_string());
                Given::Json(&word).one_of(choices)
            }
            Given::Json(_) | Given::Words(_) | Given::Count(_) | Given::Time(_) => self.one_of(choices),
        }
    }

    pub(super) fn is_not(&self, kind: &str) -> Refusal {
        format!("{} is not {kind}", self.shown()).into()
    }

    /// The value for an error line.
    pub(super) fn shown(&self) -> String {
        match self {
            Given::Json(value) => shown(value),
            Given::Words(words) => quoted(&last(words).to_string_lossy()),
            Given::Count(number) => number.to_string(),
            Given::Time(time) => format!("{time:?}"),
        }
    }
}

/// A flag that is given twice counts as it was given last.
fn last(words: &[OsString]) -> &OsStr {
    words.last().map_or(OsStr::new(""), OsString::as_os_str)
}

fn word((position, value): (usize, &Value)) -> Result<OsString, Refusal> {
    let text = value.as_str().map(OsString::from);
    text.ok_or_else(|| Given::Json(value).is_not("a string").under(format!("[{position}]")))
}

/// Neither empty nor with a NUL byte, which no system call takes.
pub(super) fn plain(text: &OsStr) -> Result<(), Refusal> {
    if text.is_empty() { Err("must not be empty".into()) } else { without_nul(text) }
}

pub(super) fn without_nul(text: &OsStr) -> Result<(), Refusal> {
    let reason = || format!("{} holds a NUL byte", quoted(&text.to_string_lossy())).into();
    if text.as_bytes().contains(&0) { Err(reason()) } else { Ok(()) }
}

/// `1500`, `1500ms`, `30s`, `5m` or `1h`: whole numbers only.
fn read_duration(text: &OsStr) -> Option<Duration> {
    let text = text.to_str()?;
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ms: u64 = match &text[digits.len()..] {
        "" | "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        _ => return None,
    };
    Some(Duration::from_millis(digits.parse::<u64>().ok()?.saturating_mul(unit_ms)))
}

/// `1000`, `512K`, `10M` or `1G`, with 1024 bytes to the kilobyte.
fn read_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" => 1,
        "K" | "KIB" => 1 << 10,
        "M" | "MIB" => 1 << 20,
        "G" | "GIB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// A JSON value for an error line: short, and on one line.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// Quoted and escaped, and cut when it is long.
pub(super) fn quoted(text: &str) -> String {
    if text.chars().count() <= SHOWN_CHARS {
        return format!("{text:?}");
    }
    format!("{:?}…", text.chars().take(SHOWN_CHARS).collect::<String>())
}

/// A key as it stands in error lines: escaped, and cut when it is long.
pub(super) fn backticked(key: &str) -> String {
    let cut: String = key.chars().take(SHOWN_CHARS).collect();
    format!("`{}{}`", cut.escape_debug(), if cut.len() < key.len() { "…" } else { "" })
}

/// Why a value was refused, before it is known which spelling of the setting to blame.
#[derive(Debug)]
pub(crate) struct Refusal {
    within: String,
    reason: String,
}

impl Refusal {
    /// The fault lies deeper: `[1]` or `.reusePort`.
    pub(super) fn under(mut self, part: impl Display) -> Self {
        self.within = format!("{part}{}", self.within);
        self
    }

    pub(super) fn reason(&self) -> &str {
        &self.reason
    }

    /// The refusal of a setting in JSON or from Rust.
    pub(super) fn of_setting(self, key: &str) -> Error {
        Error::setting(format!("setting `{key}{}`: {}", self.within, self.reason))
    }

    /// The refusal of a flag.
    pub(super) fn of_flag(self, flag: &str) -> Error {
        Error::setting(format!("--{flag}: {}", self.reason))
    }
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Refusal { within: String::new(), reason }
    }
}

impl From<&str> for Refusal {
    fn from(reason: &str) -> Self {
        reason.to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_flags() {
        let table = [
            ("0", Some(0)),
            ("1500", Some(1500)),
            ("1500ms", Some(1500)),
            ("30s", Some(30_000)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("", None),
            ("s", None),
            ("1.5s", None),
            ("-1", None),
            ("5 m", None),
            ("5d", None),
            ("5é", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in table {
            assert_eq!(read_duration(OsStr::new(text)), expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn sizes() {
        let table = [
            ("1", Some(1)),
            ("1000000", Some(1_000_000)),
            ("512K", Some(512 << 10)),
            ("10m", Some(10 << 20)),
            ("1GiB", Some(1 << 30)),
            ("", None),
            ("M", None),
            ("1.5M", None),
            ("10 M", None),
            ("10MB", None),
            ("99999999999G", None),
        ];
        for (text, expected) in table {
            assert_eq!(read_size(text), expected, "{text}");
        }
    }

    #[test]
    fn a_huge_duration_is_refused_and_does_not_overflow() {
        let refused = |word: &str| {
            let words = [OsString::from(word)];
            Given::Words(&words).time().unwrap_err().reason().to_string()
        };
        assert_eq!(refused("18446744073709551615m"), "\"18446744073709551615m\" is more than ten years");
        assert!(Given::Time(Duration::MAX).time().is_err());
        assert!(Given::Time(TEN_YEARS).time().is_ok());
    }

    #[test]
    fn values_in_errors_are_short_and_on_one_line() {
        assert_eq!(quoted("a\nb"), "\"a\\nb\"");
        assert_eq!(quoted(&"é".repeat(61)), format!("\"{}\"…", "é".repeat(60)));
        assert_eq!(shown(&serde_json::json!({"a": 1})), "an object");
    }
}
