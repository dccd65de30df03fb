//! What is stored, in versions, and who watches it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use bytes::Bytes;
use futures::channel::mpsc;
use serde_json::{Value, json};

use super::path::{Key, Path, Selector};

pub(super) const EXISTS: &str = "already exists";

/// Status code and message.
pub(super) type Refusal = (u16, &'static str);

#[derive(Default)]
pub(super) struct Objects {
    by_key: BTreeMap<Key, Value>,
    version: u64,
    /// Writes that changed something.
    pub(super) writes: usize,
    /// Plurals whose statuses are not kept.
    pub(super) dropping: BTreeSet<String>,
    /// All that has happened, for watches that begin at an old version.
    history: Vec<Event>,
    watches: Vec<Watch>,
}

struct Event {
    version: u64,
    key: Key,
    kind: &'static str,
    object: Value,
}

struct Watch {
    plural: String,
    namespace: Option<String>,
    selector: Selector,
    lines: mpsc::UnboundedSender<Result<Bytes, Infallible>>,
}

impl Objects {
    pub(super) fn get(&self, key: &Key) -> Option<Value> {
        self.by_key.get(key).cloned()
    }

    /// Creates or replaces; one that is the same stays in its version.
    pub(super) fn store(&mut self, key: Key, mut object: Value) -> Value {
        let old = self.by_key.get(&key);
        if let Some(old) = old {
            object["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
            if *old == object {
                return object;
            }
        }
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        self.writes += 1;
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.by_key.insert(key.clone(), object.clone());
        self.happened(key, kind, object.clone());
        object
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(mut object) = self.by_key.remove(key) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = self.version.to_string().into();
            self.happened(key.clone(), "DELETED", object);
        }
    }

    pub(super) fn create(&mut self, path: Path, object: Value) -> Result<Value, Refusal> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let key = Path {
            name: name.to_owned(),
            ..path
        }
        .key();
        if self.by_key.contains_key(&key) {
            return Err((409, EXISTS));
        }
        Ok(self.store(key, object))
    }

    pub(super) fn replace(&mut self, key: Key, object: Value) -> Result<Value, Refusal> {
        let old = self.by_key.get(&key).ok_or((404, "not found"))?;
        let wanted = &object["metadata"]["resourceVersion"];
        if !wanted.is_null() && *wanted != old["metadata"]["resourceVersion"] {
            return Err((409, "the object has been modified"));
        }
        Ok(self.store(key, object))
    }

    /// Server-side apply, as far as that is a merge.
    pub(super) fn apply(&mut self, key: Key, applied: Value) -> Value {
        let mut object = self.get(&key).unwrap_or_else(|| json!({}));
        merge(&mut object, applied);
        self.store(key, object)
    }

    pub(super) fn apply_status(&mut self, key: Key, applied: Value) -> Result<Value, Refusal> {
        let mut object = self.get(&key).ok_or((404, "not found"))?;
        if applied["metadata"]["uid"] != object["metadata"]["uid"] {
            return Err((409, "another uid"));
        }
        if !self.dropping.contains(&key.plural) {
            object["status"] = applied["status"].clone();
        }
        Ok(self.store(key, object))
    }

    pub(super) fn list(&self, path: &Path, parameters: &BTreeMap<String, String>) -> Value {
        let selector = Selector::of(parameters);
        let objects = self.by_key.iter().filter(|(key, object)| {
            key.is_in(&path.plural, path.namespace.as_deref()) && selector.takes(object)
        });
        json!({
            "kind": "List", "apiVersion": "v1",
            "metadata": { "resourceVersion": self.version.to_string() },
            "items": objects.map(|(_, object)| object).collect::<Vec<_>>(),
        })
    }

    /// Everything after the version that is asked from, then what happens.
    pub(super) fn watch(
        &mut self,
        path: Path,
        parameters: &BTreeMap<String, String>,
    ) -> mpsc::UnboundedReceiver<Result<Bytes, Infallible>> {
        let (lines, receiver) = mpsc::unbounded();
        let watch = Watch {
            plural: path.plural,
            namespace: path.namespace,
            selector: Selector::of(parameters),
            lines,
        };
        let since = parameters.get("resourceVersion");
        let since = since.and_then(|since| since.parse().ok()).unwrap_or(0);
        for event in self.history.iter().filter(|event| event.version > since) {
            watch.tell(event);
        }
        self.watches.push(watch);
        receiver
    }

    /// Ends all watches, with an error first if there is one.
    pub(super) fn end_watches(&mut self, error: Option<&Value>) {
        for watch in std::mem::take(&mut self.watches) {
            if let Some(error) = error {
                watch.send("ERROR", error);
            }
        }
    }

    fn happened(&mut self, key: Key, kind: &'static str, object: Value) {
        let event = Event {
            version: self.version,
            key,
            kind,
            object,
        };
        self.watches.retain(|watch| watch.tell(&event));
        self.history.push(event);
    }
}

impl Watch {
    /// False when nobody watches any more.
    fn tell(&self, event: &Event) -> bool {
        let is_wanted = event.key.is_in(&self.plural, self.namespace.as_deref())
            && self.selector.takes(&event.object);
        if !is_wanted {
            return !self.lines.is_closed();
        }
        self.send(event.kind, &event.object)
    }

    fn send(&self, kind: &str, object: &Value) -> bool {
        let line = format!("{}\n", json!({ "type": kind, "object": object }));
        self.lines.unbounded_send(Ok(line.into())).is_ok()
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
