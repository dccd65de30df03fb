//! Holds a value against the JSON schema of its Rust type: unknown and missing fields, wrong types, wrong
//! words, numbers out of range, and the texts that are durations or socket addresses.
//!
//! For: reporting all of these at once with their paths, where serde stops at the first.
//! Not for: rules between fields (`validate`, `bootstrap::validate`).

mod text;

use schemars::JsonSchema;
use serde_json::{Map, Value};

pub(crate) use self::text::Format;
use crate::path::Place;
use crate::problem::{Finding, Severity, did_you_mean};

/// A schema with its definitions, and which texts have a form of their own.
pub(crate) struct Shape {
    schema: Value,
    /// By field name: schemas say no more than "string".
    format: fn(&str) -> Option<Format>,
    /// How bad an unknown field is.
    unknown: Severity,
}

/// What is known of the field being looked at.
#[derive(Clone, Copy)]
struct Field<'a> {
    schema: &'a Value,
    name: &'a str,
    place: Place<'a>,
}

impl Shape {
    pub(crate) fn of<T: JsonSchema>(format: fn(&str) -> Option<Format>) -> Self {
        Self {
            schema: schemars::schema_for!(T).to_value(),
            format,
            unknown: Severity::Error,
        }
    }

    /// Unknown fields are warned about and taken out: for what others wrote for another reader.
    pub(crate) fn lenient(self) -> Self {
        Self {
            unknown: Severity::Warning,
            ..self
        }
    }

    /// Reports what does not fit. Takes it out of `value`, or puts something harmless there, so that the
    /// rest can still be read and checked; a value with findings must not be used.
    pub(crate) fn check(&self, value: &mut Value, place: Place<'_>, findings: &mut Vec<Finding>) {
        self.walk(
            Field {
                schema: &self.schema,
                name: "",
                place,
            },
            value,
            findings,
        );
    }

    /// False when the value is unusable and nothing could stand in for it.
    fn walk(&self, field: Field<'_>, value: &mut Value, findings: &mut Vec<Finding>) -> bool {
        let schema = self.resolve(field.schema);
        if let Some(words) = words(schema) {
            return check_word(&words, value, field.place, findings);
        }
        let finding = match schema_type(schema) {
            "object" => match value {
                Value::Object(map) => {
                    self.walk_object(schema, map, field.place, findings);
                    return true;
                }
                ref other => wrong_type(other, "a mapping", field.place),
            },
            "array" => match value {
                Value::Array(items) => {
                    return self.walk_items(schema, items, field, findings);
                }
                ref other => wrong_type(other, "a list", field.place),
            },
            "string" => match value {
                Value::String(text) => match (self.format)(field.name).map(|f| f.check(text)) {
                    None | Some(Ok(())) => return true,
                    Some(Err((message, remedy))) => Finding::error(field.place, message, remedy),
                },
                ref other => wrong_type(other, "text", field.place),
            },
            "integer" => match check_integer(schema, value) {
                None => return true,
                Some((message, remedy)) => Finding::error(field.place, message, remedy),
            },
            "boolean" if !value.is_boolean() => wrong_type(value, "true or false", field.place),
            "number" if !value.is_number() => wrong_type(value, "a number", field.place),
            _ => return true,
        };
        findings.push(finding);
        let stand_in = stand_in(schema_type(schema), (self.format)(field.name), value);
        stand_in.map(|harmless| *value = harmless).is_some()
    }

    fn walk_items(
        &self,
        schema: &Value,
        items: &mut [Value],
        field: Field<'_>,
        findings: &mut Vec<Finding>,
    ) -> bool {
        let mut good = true;
        for (index, item) in items.iter_mut().enumerate() {
            let place = field.place.index(index);
            let item_field = Field {
                schema: &schema["items"],
                name: field.name,
                place,
            };
            good &= self.walk(item_field, item, findings);
        }
        // An item cannot be taken out: the positions of the others would lie.
        good
    }

    fn walk_object(
        &self,
        schema: &Value,
        map: &mut Map<String, Value>,
        place: Place<'_>,
        findings: &mut Vec<Finding>,
    ) {
        let properties = schema["properties"].as_object();
        let others = &schema["additionalProperties"];
        if properties.is_none() && !others.is_object() {
            return;
        }
        map.retain(|key, value| {
            let at = place.key(key);
            let known = properties.and_then(|properties| properties.get(key));
            match known.or(others.as_object().map(|_| others)) {
                // Kubernetes drops a null where a field is not nullable; generated manifests have them.
                Some(_) if value.is_null() => false,
                Some(schema) => self.walk(
                    Field {
                        schema,
                        name: key,
                        place: at,
                    },
                    value,
                    findings,
                ),
                None => {
                    let names = properties
                        .into_iter()
                        .flat_map(Map::keys)
                        .map(String::as_str);
                    findings.push(self.unknown(key, at, names));
                    false
                }
            }
        });
        self.check_required(schema, map, place, findings);
    }

    fn unknown<'a>(
        &self,
        key: &str,
        at: Place<'_>,
        names: impl Iterator<Item = &'a str>,
    ) -> Finding {
        let remedy = did_you_mean(key, names);
        match self.unknown {
            Severity::Error => Finding::error(at, format!("unknown field `{key}`"), remedy),
            Severity::Warning => {
                let message = format!("unknown field `{key}`: it has no effect");
                Finding::warning(at, message, remedy)
            }
        }
    }

    fn check_required(
        &self,
        schema: &Value,
        map: &Map<String, Value>,
        place: Place<'_>,
        findings: &mut Vec<Finding>,
    ) {
        let required = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        for name in required.filter(|name| !map.contains_key(*name)) {
            let at = place.key(name).into();
            // Already reported if it was there and was wrong.
            if !findings.iter().any(|finding| finding.path == at) {
                let remedy = format!("add `{name}:`");
                findings.push(Finding::error(
                    at,
                    format!("required field `{name}` is missing"),
                    remedy,
                ));
            }
        }
    }

    /// Follows references, and the `or null` of optional fields.
    fn resolve<'a>(&'a self, mut schema: &'a Value) -> &'a Value {
        loop {
            if let Some(reference) = schema["$ref"].as_str() {
                let Some(target) = self.schema.pointer(reference.trim_start_matches('#')) else {
                    return schema;
                };
                schema = target;
                continue;
            }
            let not_null = |s: &&Value| s["type"] != "null";
            let only = ["anyOf", "allOf"].into_iter().find_map(|word| {
                let mut options = schema[word].as_array()?.iter().filter(not_null);
                let first = options.next()?;
                options.next().is_none().then_some(first)
            });
            match only {
                Some(only) => schema = only,
                None => return schema,
            }
        }
    }
}

/// The one type that is not null, or nothing when any will do.
fn schema_type(schema: &Value) -> &str {
    match &schema["type"] {
        Value::String(name) => name,
        Value::Array(names) => {
            let mut names = names
                .iter()
                .filter_map(Value::as_str)
                .filter(|name| *name != "null");
            let first = names.next().unwrap_or_default();
            if names.next().is_some() { "" } else { first }
        }
        _ => "",
    }
}

/// The words of an enumeration: `enum`, or schemars' `oneOf` of documented constants.
fn words(schema: &Value) -> Option<Vec<&str>> {
    let of = |list: &'static str, schema: &'_ Value| schema[list].is_array();
    if of("enum", schema) {
        return Some(
            schema["enum"]
                .as_array()?
                .iter()
                .filter_map(Value::as_str)
                .collect(),
        );
    }
    let mut all = Vec::new();
    for option in schema["oneOf"].as_array()? {
        match (option["const"].as_str(), option["enum"].as_array()) {
            (Some(word), _) => all.push(word),
            (None, Some(words)) => all.extend(words.iter().filter_map(Value::as_str)),
            (None, None) => return None,
        }
    }
    Some(all)
}

fn check_word(
    words: &[&str],
    value: &mut Value,
    place: Place<'_>,
    findings: &mut Vec<Finding>,
) -> bool {
    let text = match value {
        Value::String(text) if words.contains(&text.as_str()) => return true,
        Value::String(text) => text.clone(),
        ref other => other.to_string(),
    };
    let message = format!("`{text}` is none of {}", words.join(", "));
    findings.push(Finding::error(
        place,
        message,
        did_you_mean(&text, words.iter().copied()),
    ));
    let harmless = words.first().map(|word| Value::from(*word));
    harmless.map(|word| *value = word).is_some()
}

/// A value of the right type in place of a wrong scalar.
fn stand_in(kind: &str, format: Option<Format>, wrong: &Value) -> Option<Value> {
    if wrong.is_array() || wrong.is_object() {
        return None;
    }
    match kind {
        "string" => match format {
            // Every duration has a default, which suits the other rules better than any guess.
            Some(Format::Duration) => None,
            Some(Format::SocketAddress) => Some("127.0.0.1:0".into()),
            None => Some(wrong.to_string().into()),
        },
        "integer" | "number" => Some(1.into()),
        "boolean" => Some(false.into()),
        _ => None,
    }
}

fn check_integer(schema: &Value, value: &Value) -> Option<(String, String)> {
    let (low, high) = match schema["format"].as_str() {
        Some("uint8") => (0, i128::from(u8::MAX)),
        Some("uint16") => (0, i128::from(u16::MAX)),
        Some("uint32") => (0, i128::from(u32::MAX)),
        Some("uint64" | "uint") => (0, i128::from(u64::MAX)),
        Some("int32") => (i128::from(i32::MIN), i128::from(i32::MAX)),
        _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
    };
    // Bounds come as integers or floats; both are exact below 2^53.
    let bound = |word: &str| schema[word].as_f64().map(|bound| bound as i128);
    let low = bound("minimum").map_or(low, |minimum| minimum.max(low));
    let high = bound("maximum").map_or(high, |maximum| maximum.min(high));
    let number = value
        .as_i64()
        .map(i128::from)
        .or_else(|| value.as_u64().map(i128::from));
    match number {
        Some(number) if (low..=high).contains(&number) => None,
        Some(number) => Some((
            format!("{number} is out of range"),
            format!("use a whole number from {low} to {high}"),
        )),
        None if value.is_string() => Some((
            format!("expected a whole number, found {}", describe(value)),
            "write the number without quotes and without a unit".into(),
        )),
        None => Some((
            format!("expected a whole number, found {}", describe(value)),
            "write a number such as 8".into(),
        )),
    }
}

fn wrong_type(value: &Value, expected: &str, place: Place<'_>) -> Finding {
    let remedy = match (expected, value) {
        ("text", Value::Number(_) | Value::Bool(_)) => "put it in quotes".to_owned(),
        ("a list", _) => "start each item with `- `".to_owned(),
        ("a mapping", _) => "write `key: value` lines below it".to_owned(),
        _ => format!("write {expected}"),
    };
    Finding::error(
        place,
        format!("expected {expected}, found {}", describe(value)),
        remedy,
    )
}

/// A value in words, cut short: it may be anything.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(value) => format!("`{value}`"),
        Value::Number(value) => format!("the number {value}"),
        Value::String(value) => {
            format!("the text {:?}", value.chars().take(60).collect::<String>())
        }
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
    }
}

#[cfg(test)]
mod tests;
