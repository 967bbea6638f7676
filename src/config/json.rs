//! The JSON spelling: an object of settings, in which nothing is ignored.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::api::Api;
use super::builder::Builder;
use super::given::{Given, backticked, quoted, shown};
use super::nearest::nearest;
use super::settings::{LATER, SETTINGS};
use crate::error::{Error, Result};

/// Keys whose value is an object of settings: the part before the dot.
const GROUPS: [&str; 3] = ["api", "backoff", "logFile"];
/// The member that a group stands for when it is given as a string.
const SHORT: [(&str, &str); 1] = [("logFile", "logFile.path")];

pub(super) fn apply(builder: &mut Builder, text: &str) -> Result<()> {
    let unreadable = |error| Error::setting(format!("the settings are not valid JSON: {error}"));
    let Unique(value) = serde_json::from_str(text).map_err(unreadable)?;
    let Value::Object(settings) = &value else {
        return Err(Error::setting(format!("the settings are not a JSON object but {}", shown(&value))));
    };
    for (key, value) in settings {
        let short = SHORT.iter().find(|(group, _)| group == key && value.is_string());
        if let Some((_, member)) = short {
            apply_one(builder, member, value)?;
        } else if GROUPS.contains(&key.as_str()) {
            apply_group(builder, key, value)?;
        } else if key.contains('.') {
            return Err(dotted(key, value));
        } else {
            apply_one(builder, key, value)?;
        }
    }
    builder.check_api()
}

fn apply_group(builder: &mut Builder, group: &str, value: &Value) -> Result<()> {
    let Value::Object(settings) = value else {
        return Err(Given::Json(value).is_not("an object").of_setting(group));
    };
    if group == "api" {
        builder.api.get_or_insert_with(Api::default);
    }
    for (key, value) in settings {
        apply_one(builder, &format!("{group}.{key}"), value)?;
    }
    Ok(())
}

fn apply_one(builder: &mut Builder, key: &str, value: &Value) -> Result<()> {
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) {
        return builder.take(setting, &Given::Json(value)).map_err(|refusal| refusal.of_setting(key));
    }
    if LATER.contains(&key) {
        return Err(Error::setting(format!("`{key}` is not available yet")));
    }
    let known = SETTINGS.iter().map(|setting| setting.key).chain(GROUPS);
    let hint = nearest(key, known).map_or(String::new(), |meant| format!(": did you mean `{meant}`?"));
    Err(unknown(key, value, &hint))
}

/// A group is an object; its dotted name as one key is the table's spelling, not JSON's.
fn dotted(key: &str, value: &Value) -> Error {
    let hint = key.split_once('.').filter(|(group, _)| GROUPS.contains(group));
    let hint =
        hint.map(|(group, rest)| format!(": write {{\"{group}\": {{\"{}\": …}}}}", rest.escape_debug()));
    unknown(key, value, &hint.unwrap_or_default())
}

/// The text of a string stays out: under a misspelled key it may be a secret.
fn unknown(key: &str, value: &Value, hint: &str) -> Error {
    let value = if value.is_string() { "a string".to_string() } else { shown(value) };
    Error::setting(format!("unknown setting {} ({value}){hint}", backticked(key)))
}

/// JSON in which no object has a key twice; `serde_json` would keep the last one without a word.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Unique)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Unique(value))) = entries.next_entry::<String, Unique>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {} stands twice", quoted(&key))));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}
