//! How requests name objects: paths, parameters and selectors.

use std::collections::BTreeMap;

use serde_json::Value;

/// Plural, namespace and name. Groups are left out: no two of ours have a plural in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) plural: String,
    namespace: String,
    name: String,
}

/// `/api/v1` or `/apis/GROUP/VERSION`, then `[/namespaces/NS]/PLURAL[/NAME[/status]]`.
pub(super) struct Path {
    pub(super) namespace: Option<String>,
    pub(super) plural: String,
    /// Empty: all of them.
    pub(super) name: String,
    pub(super) is_status: bool,
}

/// By labels: `a=b`, `a in (b,c)` and `a`, joined by commas; by fields: `metadata.name=a`.
pub(super) struct Selector {
    labels: String,
    name: Option<String>,
}

impl Key {
    pub(super) fn new(plural: &str, namespace: &str, name: &str) -> Self {
        Self {
            plural: plural.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Of an object that names itself.
    pub(super) fn of(plural: &str, object: &Value) -> Self {
        let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
        Self::new(plural, text("namespace"), text("name"))
    }

    pub(super) fn is_in(&self, plural: &str, namespace: Option<&str>) -> bool {
        self.plural == plural && namespace.is_none_or(|wanted| wanted == self.namespace)
    }
}

impl Path {
    pub(super) fn of(path: &str) -> Self {
        let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        parts.drain(..if parts[0] == "api" { 2 } else { 3 });
        let mut namespace = None;
        if parts[0] == "namespaces" && parts.len() > 2 {
            namespace = Some(parts[1].to_owned());
            parts.drain(..2);
        }
        Self {
            namespace,
            plural: parts[0].to_owned(),
            name: parts.get(1).copied().unwrap_or_default().to_owned(),
            is_status: parts.get(2) == Some(&"status"),
        }
    }

    pub(super) fn key(&self) -> Key {
        let namespace = self.namespace.as_deref().unwrap_or_default();
        Key::new(&self.plural, namespace, &self.name)
    }
}

impl Selector {
    pub(super) fn of(parameters: &BTreeMap<String, String>) -> Self {
        let fields = parameters.get("fieldSelector");
        let name = fields.and_then(|fields| fields.strip_prefix("metadata.name="));
        Self {
            labels: parameters.get("labelSelector").cloned().unwrap_or_default(),
            name: name.map(str::to_owned),
        }
    }

    pub(super) fn takes(&self, object: &Value) -> bool {
        let is_named = |name: &String| object["metadata"]["name"] == name.as_str();
        if !self.name.as_ref().is_none_or(is_named) {
            return false;
        }
        let labels = &object["metadata"]["labels"];
        let mut rest = self.labels.as_str();
        while !rest.is_empty() {
            let end = match (rest.find(" in ("), rest.find(',')) {
                (Some(list), comma) if comma.is_none_or(|comma| list < comma) => {
                    rest.find(')').unwrap() + 1
                }
                (_, comma) => comma.unwrap_or(rest.len()),
            };
            if !holds(&rest[..end], labels) {
                return false;
            }
            rest = rest[end..].trim_start_matches(',');
        }
        true
    }
}

fn holds(term: &str, labels: &Value) -> bool {
    if let Some((key, values)) = term.split_once(" in (") {
        let mut values = values.trim_end_matches(')').split(',');
        let label = labels[key].as_str();
        label.is_some_and(|label| values.any(|value| value == label))
    } else if let Some((key, value)) = term.split_once('=') {
        labels[key] == value
    } else {
        labels[term].is_string()
    }
}

pub(super) fn parameters(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    let text = text.replace('+', " ");
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        let hex = |b: u8| (b as char).to_digit(16).unwrap() as u8;
        decoded.push(match byte {
            b'%' => 16 * hex(bytes.next().unwrap()) + hex(bytes.next().unwrap()),
            other => other,
        });
    }
    String::from_utf8(decoded).unwrap()
}
