//! Reading a filter's `config` object, with errors that name the field.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Parses `config` as a filter's own type; a missing one is the empty object.
pub(super) fn parse<T: DeserializeOwned>(config: &Value) -> Result<T, String> {
    let config = match config {
        Value::Null => Value::Object(serde_json::Map::new()),
        given => given.clone(),
    };
    // Plain serde_json does not say where in an object a value of the wrong type stands.
    serde_path_to_error::deserialize(config).map_err(|error| {
        let path = error.path().to_string();
        match path.as_str() {
            "." => error.into_inner().to_string(),
            _ => format!("{path}: {}", error.into_inner()),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    type Nested = BTreeMap<String, BTreeMap<String, u8>>;

    #[test]
    fn an_error_names_the_whole_path() {
        let error = parse::<Nested>(&json!({"outer": {"inner": "x"}})).unwrap_err();
        assert!(error.starts_with("outer.inner: invalid type"), "{error}");
    }

    #[test]
    fn an_error_of_the_whole_names_no_path() {
        let error = parse::<Nested>(&json!([])).unwrap_err();
        assert!(error.starts_with("invalid type"), "{error}");
    }

    #[test]
    fn nothing_given_is_the_empty_object() {
        assert_eq!(parse::<Nested>(&Value::Null), Ok(Nested::new()));
    }
}
