//! What must be known of every line before anybody wants its value: that it is sound JSON, whom it is for,
//! and whether it is part of a request. Nothing else is kept, so a flood costs no allocation a value.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::user::REQUEST;

/// The outside of a message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Envelope<'a> {
    /// The text under `cmd`, where the value is an object that has one.
    pub(super) cmd: Option<Cow<'a, str>>,
    /// The number of the request that the message asks or answers.
    pub(super) request: Option<u64>,
}

impl<'a> Envelope<'a> {
    /// Accepts exactly what `serde_json::Value` would: its depth limit, UTF-8 and range of numbers.
    pub(super) fn read(line: &'a [u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(line)
    }
}

impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Outside)
    }
}

/// The visitor's methods for values that it has no use for.
macro_rules! indifferent {
    ($value:expr) => {
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok($value)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            while items.next_element::<Sound>()?.is_some() {}
            Ok($value)
        }
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("any JSON value")
        }
    };
}

struct Outside;

impl<'de> Visitor<'de> for Outside {
    type Value = Envelope<'de>;

    indifferent!(Envelope::default());

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Envelope::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Envelope::default())
    }

    /// Of a key that stands twice the last counts, as in `serde_json::Value`.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut envelope = Envelope::default();
        while let Some(key) = map.next_key::<Key>()? {
            let Scalar { text, number } = map.next_value()?;
            match key {
                Key::Cmd => envelope.cmd = text,
                Key::Request => envelope.request = number,
                Key::Other => {}
            }
        }
        Ok(envelope)
    }
}

enum Key {
    Cmd,
    Request,
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Named)
    }
}

struct Named;

impl Visitor<'_> for Named {
    type Value = Key;

    fn visit_str<E>(self, name: &str) -> Result<Key, E> {
        Ok(match name {
            "cmd" => Key::Cmd,
            REQUEST => Key::Request,
            _ => Key::Other,
        })
    }

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
}

/// A value, of which a text or a number is kept.
#[derive(Default)]
struct Scalar<'a> {
    text: Option<Cow<'a, str>>,
    number: Option<u64>,
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Inside)
    }
}

struct Inside;

impl<'de> Visitor<'de> for Inside {
    type Value = Scalar<'de>;

    indifferent!(Scalar::default());

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Scalar { text: None, number: Some(number) })
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar { text: Some(Cow::Borrowed(text)), number: None })
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar { text: Some(Cow::Owned(text.to_owned())), number: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        look_through(map).map(|()| Scalar::default())
    }
}

/// A value of which only its soundness matters.
struct Sound;

impl<'de> Deserialize<'de> for Sound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Anything)
    }
}

struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Sound;

    indifferent!(Sound);

    fn visit_u64<E>(self, _: u64) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_str<E>(self, _: &str) -> Result<Sound, E> {
        Ok(Sound)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Sound, A::Error> {
        look_through(map).map(|()| Sound)
    }
}

fn look_through<'de, A: MapAccess<'de>>(mut map: A) -> Result<(), A::Error> {
    while map.next_entry::<Key, Sound>()?.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn envelope(text: &str) -> (Option<String>, Option<u64>) {
        let found = Envelope::read(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
        (found.cmd.map(Cow::into_owned), found.request)
    }

    #[test]
    fn only_the_outermost_text_counts_and_the_last_of_two() {
        let table = [
            (r#"{"cmd":"a"}"#, Some("a"), None),
            (r#"{"x":{"cmd":"b"},"cmd":"a","y":[{"cmd":"c"}]}"#, Some("a"), None),
            (r#"{"c\u006dd":"\u0061"}"#, Some("a"), None),
            (r#"{"cmd":"a","cmd":"b"}"#, Some("b"), None),
            (r#"{"cmd":"a","cmd":7}"#, None, None),
            (r#"{"cmd":{"cmd":"a"}}"#, None, None),
            (r#"{"cmd":null,"PROTEUS_REQUEST":7}"#, None, Some(7)),
            (r#"{"cmd":"a","PROTEUS_REQUEST":-7}"#, Some("a"), None),
            (r#"{"cmd":"a","PROTEUS_REQUEST":"7"}"#, Some("a"), None),
            (r#"["cmd","a"]"#, None, None),
            (r#""cmd""#, None, None),
            ("7", None, None),
            ("null", None, None),
        ];
        for (text, cmd, request) in table {
            assert_eq!(envelope(text), (cmd.map(str::to_owned), request), "{text}");
        }
    }

    #[test]
    fn what_it_accepts_is_what_a_value_accepts() {
        let deep = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let (fits, too_deep) = (deep(127), deep(128));
        let table: [&[u8]; 15] = [
            fits.as_bytes(),
            too_deep.as_bytes(),
            br#"{"a":[1,-1,2.5,1e10,true,false,null,"x\u0000\ud83d\ude00"],"b":{}}"#,
            b"1e400",
            br#""\ud800""#,
            b"\"\xff\"",
            b"{\"\xff\":1}",
            b"{\"a\":\"\xc3\x28\"}",
            b"{\"a\":1,}",
            b"[1 2]",
            b"{} {}",
            b"\"a\nb\"",
            b"01",
            b"",
            b"nul",
        ];
        for line in table {
            let value: serde_json::Result<Value> = serde_json::from_slice(line);
            assert_eq!(Envelope::read(line).is_ok(), value.is_ok(), "{}", String::from_utf8_lossy(line));
        }
    }
}
