//! `GET /v1/models`: the names that routes serve, adapters included.

use serde_json::{Value, json};
use sluice_config::Snapshot;
use sluice_config::snapshot::Route;

/// All names, in order of precedence, each once.
pub(super) fn list(snapshot: &Snapshot) -> Value {
    let mut seen = std::collections::HashSet::new();
    let data: Vec<Value> = snapshot
        .routes
        .iter()
        .flat_map(|route| names(route).map(move |name| (route, name)))
        .filter(|(_, name)| seen.insert(*name))
        .map(|(route, name)| object(route, name))
        .collect();
    json!({"object": "list", "data": data})
}

/// One name, if a route serves it.
pub(super) fn find(snapshot: &Snapshot, name: &str) -> Option<Value> {
    let index = [&snapshot.by_model, &snapshot.by_lora]
        .into_iter()
        .find_map(|index| index.get(name)?.first().copied())?;
    Some(object(&snapshot.routes[index], name))
}

fn names(route: &Route) -> impl Iterator<Item = &str> {
    let base = Some(route.model_name.as_str()).filter(|name| !name.is_empty());
    base.into_iter()
        .chain(route.lora_adapters.iter().map(String::as_str))
}

/// An adapter names its base model as `parent`, as vLLM does.
fn object(route: &Route, name: &str) -> Value {
    let mut model =
        json!({"id": name, "object": "model", "created": route.created, "owned_by": "sluice"});
    if name != route.model_name && !route.model_name.is_empty() {
        model["parent"] = json!(route.model_name);
    }
    model
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn names_are_listed_once_with_their_parents() {
        let route = |model: &str, lora: &[&str], created| Route {
            namespace: "default".into(),
            name: model.into(),
            model_name: model.into(),
            lora_adapters: lora.iter().map(ToString::to_string).collect(),
            rules: Vec::new(),
            filters: BTreeMap::new(),
            created,
        };
        let routes = [route("base", &["adapter"], 7), route("base", &[], 9)];
        let snapshot = Snapshot {
            routes: Arc::new(routes.map(Arc::new).to_vec()),
            by_model: Arc::new([("base".to_owned(), vec![0, 1])].into()),
            by_lora: Arc::new([("adapter".to_owned(), vec![0])].into()),
            ..Snapshot::default()
        };
        let list = list(&snapshot);
        assert_eq!(list["data"].as_array().unwrap().len(), 2);
        assert_eq!(list["data"][0]["id"], "base");
        assert_eq!(list["data"][0]["created"], 7);
        assert_eq!(find(&snapshot, "adapter").unwrap()["parent"], "base");
        assert!(find(&snapshot, "other").is_none());
    }
}
