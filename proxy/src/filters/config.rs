//! Reading a filter's `config` object, with errors that name the field.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Parses `config` as a filter's own type; a missing one is the empty object.
pub(super) fn parse<T: DeserializeOwned>(config: &Value) -> Result<T, String> {
    let config = match config {
        Value::Null => Value::Object(serde_json::Map::new()),
        given => given.clone(),
    };
    serde_json::from_value(config).map_err(|error| error.to_string())
}
