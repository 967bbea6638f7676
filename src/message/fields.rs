//! Single fields of a line, found without reading the rest: whatever else stands there costs neither memory nor
//! stack, however much of it there is and however deep.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The values under these names, as they stand in the line, and whether the line is JSON to its end. Where it is not,
/// those that came before the fault. Of a name that stands twice the last counts.
pub(crate) fn find<'a, const N: usize>(
    line: &'a [u8],
    names: [&str; N],
) -> (serde_json::Result<()>, [Option<&'a RawValue>; N]) {
    let mut found = [None; N];
    let mut reader = serde_json::Deserializer::from_slice(line);
    let read = Search { names, found: &mut found }.deserialize(&mut reader);
    (read.and_then(|()| reader.end()), found)
}

/// One field of a line that is known to be JSON.
pub(crate) fn field<'a>(line: &'a [u8], name: &str) -> Option<&'a RawValue> {
    let (_, [found]) = find(line, [name]);
    found
}

/// The text that it is.
pub(crate) fn text(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// The natural number that it is.
pub(crate) fn number(raw: &RawValue) -> Option<u64> {
    serde_json::from_str(raw.get()).ok()
}

struct Search<'f, 'a, 'n, const N: usize> {
    names: [&'n str; N],
    found: &'f mut [Option<&'a RawValue>; N],
}

impl<'de, const N: usize> DeserializeSeed<'de> for Search<'_, 'de, '_, N> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// The visitor's methods for values that have no fields.
macro_rules! fieldless {
    ($($visit:ident: $kind:ty),*) => {
        $(fn $visit<E>(self, _: $kind) -> Result<(), E> {
            Ok(())
        })*
    };
}

impl<'de, const N: usize> Visitor<'de> for Search<'_, 'de, '_, N> {
    type Value = ();

    fieldless!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(known) = map.next_key_seed(Known(&self.names))? {
            match known {
                Some(at) => self.found[at] = Some(map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }
}

/// Which of the names a key is.
struct Known<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for Known<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Known<'_> {
    type Value = Option<usize>;

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|name| *name == key))
    }

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> (bool, [Option<&str>; 2]) {
        let (read, found) = find(line.as_bytes(), ["a", "b"]);
        (read.is_ok(), found.map(|found| found.map(RawValue::get)))
    }

    #[test]
    fn fields_stand_as_they_were_written() {
        let table = [
            (
                r#"{"b": {"z":1, "a":[2]} ,"x":[{"a":3}],"a":"\u0041"}"#,
                true,
                [Some(r#""\u0041""#), Some(r#"{"z":1, "a":[2]}"#)],
            ),
            (r#"{"a":1,"a":2}"#, true, [Some("2"), None]),
            (r#"["a",{"a":1}]"#, true, [None, None]),
            ("7", true, [None, None]),
            (r#"{"a":1,"b":2,"#, false, [Some("1"), Some("2")]),
            (r#"{"a":1,"b":"never ends"#, false, [Some("1"), None]),
            (r#"{"a":1} x"#, false, [Some("1"), None]),
            ("nonsense", false, [None, None]),
        ];
        for (line, is_json, fields) in table {
            assert_eq!(found(line), (is_json, fields), "{line}");
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = 1_000_000;
        let line = format!(r#"{{"x":{}{},"a":1}}"#, "[".repeat(deep), "]".repeat(deep));
        let small = std::thread::Builder::new().stack_size(64 << 10);
        small.spawn(move || assert_eq!(found(&line), (true, [Some("1"), None]))).unwrap().join().unwrap();
    }
}
