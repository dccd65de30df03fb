//! Schema helpers: what schemars says, in the dialect a CustomResourceDefinition accepts.
//!
//! For: the pieces of OpenAPI schema that derives cannot express, shared by all kinds.
//! Not for: the rules of one kind (they stand beside its fields), and no YAML (see [`crate::manifest`]).

use schemars::transform::transform_subschemas;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::Value;

/// Value of a Kubernetes label: at most 63 characters, may be empty.
const LABEL_VALUE: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";

/// Takes out what Rust's types add to a schema and Kubernetes does not want.
///
/// - `null` as a value of optional fields: the API server then prunes a null and fills the default, as it
///   does for Go's types; with `nullable` it would keep the null, and `has()` in a rule would be true.
/// - Unsigned and machine-word formats: the API server warns about formats it does not know.
pub(crate) fn plain(schema: &mut Schema) {
    transform_subschemas(&mut plain, schema);
    if let Some(inner) = without_null_branch(schema) {
        schema.remove("anyOf");
        for (key, value) in inner {
            // A description on the field says more than the one on its type.
            schema.ensure_object().entry(key).or_insert(value);
        }
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    let unknown_format = schema
        .get("format")
        .and_then(Value::as_str)
        .is_some_and(|format| format.starts_with("uint") || format.starts_with("int8"));
    if unknown_format {
        schema.remove("format");
    }
}

/// The other branch of `anyOf: [X, null]`.
fn without_null_branch(schema: &Schema) -> Option<serde_json::Map<String, Value>> {
    let [first, second] = schema.get("anyOf")?.as_array()?.as_slice() else {
        return None;
    };
    (second.get("type")? == "null").then(|| first.as_object().cloned())?
}

/// Labels, values checked. Keys cannot be: a structural schema has no `propertyNames`.
pub(crate) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": { "type": "string", "maxLength": 63, "pattern": LABEL_VALUE },
    })
}

/// Labels that select something: an empty selector would match every pod of the namespace.
pub(crate) fn selecting_labels(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = labels(generator);
    schema.insert("minProperties".to_owned(), 1.into());
    schema
}

/// Any JSON, kept as it is.
pub(crate) fn free_form(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_optional_enum_loses_its_null() {
        let mut schema = json_schema!({ "type": ["string", "null"], "enum": ["a", null] });
        plain(&mut schema);
        assert_eq!(schema, json_schema!({ "type": "string", "enum": ["a"] }));
    }

    #[test]
    fn an_any_of_with_null_becomes_its_other_branch() {
        let mut schema = json_schema!({
            "description": "of the field",
            "anyOf": [{ "oneOf": [{ "const": "a" }], "description": "of the type" }, { "type": "null" }],
        });
        plain(&mut schema);
        assert_eq!(
            schema,
            json_schema!({ "description": "of the field", "oneOf": [{ "const": "a" }] })
        );
    }

    #[test]
    fn formats_unknown_to_kubernetes_go_and_others_stay() {
        let mut schema = json_schema!({ "properties": {
            "weight": { "type": "integer", "format": "uint32" },
            "port": { "type": "integer", "format": "int32" },
        }});
        plain(&mut schema);
        assert_eq!(
            schema,
            json_schema!({ "properties": {
                "weight": { "type": "integer" },
                "port": { "type": "integer", "format": "int32" },
            }})
        );
    }

    #[test]
    fn a_real_choice_keeps_its_branches() {
        let mut schema = json_schema!({ "anyOf": [{ "type": "string" }, { "type": "integer" }] });
        let before = schema.clone();
        plain(&mut schema);
        assert_eq!(schema, before);
    }
}
