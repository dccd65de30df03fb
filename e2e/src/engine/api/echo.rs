//! `x-echo`: what arrived, byte for byte, so that a test can tell whether a gateway touched it. Not a part of any
//! engine's surface.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::engine::reply::{Incoming, Reply};

pub(super) fn reply(kind: &str, incoming: &Incoming) -> Reply {
    if kind == "body" {
        let content_type = incoming
            .header("content-type")
            .unwrap_or("application/octet-stream");
        return Reply::full(200, content_type, incoming.body.clone());
    }
    let digest = Sha256::digest(&incoming.body);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Reply::json(
        200,
        &json!({
            "bytes": incoming.body.len(),
            "sha256": digest,
            "method": incoming.method,
            "target": incoming.target,
            "headers": headers(&incoming.headers),
        }),
    )
}

/// Headers by lower-case name; repeated ones are joined by `, `.
pub(super) fn headers(headers: &[(bytes::Bytes, bytes::Bytes)]) -> Value {
    let mut map = Map::new();
    for (name, value) in headers {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let value = String::from_utf8_lossy(value);
        match map.get_mut(&name) {
            Some(Value::String(joined)) => {
                joined.push_str(", ");
                joined.push_str(&value);
            }
            _ => {
                map.insert(name, Value::String(value.into_owned()));
            }
        }
    }
    Value::Object(map)
}
