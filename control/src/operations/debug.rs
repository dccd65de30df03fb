//! What is pushed, and to whom, as JSON.
//!
//! `/debug/state`: every resource with its version; `?type=ModelRoute` limits it, and `?name=namespace/name` shows what a
//! resource says in full. Of Secrets only names and versions, ever. `/debug/proxies`: every gateway, what it has, what it
//! refuses.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prost::Message;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sluice_config::push::{
    DocumentMessage, EndpointMessage, PeerMessage, ResourceType, RoleMessage,
};

use crate::push::acks::Acks;
use crate::state::{Entry, PushState};

#[derive(Clone)]
struct Shared {
    state: Arc<PushState>,
    acks: Arc<Acks>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    r#type: Option<String>,
    name: Option<String>,
}

/// The debug endpoints.
pub fn debug_router(state: Arc<PushState>, acks: Arc<Acks>) -> Router {
    Router::new()
        .route("/debug/state", get(debug_state))
        .route("/debug/proxies", get(proxies))
        .with_state(Shared { state, acks })
}

async fn proxies(State(shared): State<Shared>) -> Response {
    let proxies = shared.acks.proxies();
    let generation = shared.state.generation();
    json_text(&json!({ "generation": generation, "proxies": proxies }))
}

async fn debug_state(State(shared): State<Shared>, Query(wanted): Query<Wanted>) -> Response {
    let types = match kinds(wanted.r#type.as_deref()) {
        Ok(types) => types,
        Err(words) => return (StatusCode::BAD_REQUEST, words).into_response(),
    };
    let Some(name) = wanted.name else {
        return json_text(&overview(&shared.state, &types));
    };
    let found: Vec<Value> = types
        .into_iter()
        .filter_map(|kind| shared.state.get(kind, &name))
        .map(|entry| in_full(&entry))
        .collect();
    if found.is_empty() {
        let words =
            format!("nothing is called {name}; names are NAMESPACE/NAME, see /debug/state\n");
        return (StatusCode::NOT_FOUND, words).into_response();
    }
    json_text(&Value::Array(found))
}

/// The types to show.
fn kinds(wanted: Option<&str>) -> Result<Vec<ResourceType>, String> {
    let all = ResourceType::ALL
        .into_iter()
        .filter(|kind| *kind != ResourceType::Batch);
    let Some(wanted) = wanted else {
        return Ok(all.collect());
    };
    let found: Vec<_> = all
        .clone()
        .filter(|kind| kind.name().eq_ignore_ascii_case(wanted))
        .collect();
    if found.is_empty() {
        let names: Vec<_> = all.map(ResourceType::name).collect();
        return Err(format!(
            "there is no type {wanted}; types are {}\n",
            names.join(", ")
        ));
    }
    Ok(found)
}

fn overview(state: &PushState, types: &[ResourceType]) -> Value {
    let counts = state
        .counts()
        .map(|(kind, count)| (kind.name().to_owned(), json!(count)));
    let resources = types.iter().map(|kind| {
        let entries: Vec<Value> = state
            .list(*kind)
            .iter()
            .map(|entry| summary(entry))
            .collect();
        (kind.name().to_owned(), Value::Array(entries))
    });
    json!({
        "identity": state.identity(),
        "synced": state.is_synced(),
        "generation": state.generation(),
        "counts": counts.into_iter().collect::<Map<_, _>>(),
        "resources": resources.collect::<Map<_, _>>(),
    })
}

fn summary(entry: &Entry) -> Value {
    json!({
        "name": entry.resource.name.as_ref(),
        "version": entry.resource.version.as_ref(),
        "generation": entry.generation,
    })
}

fn in_full(entry: &Entry) -> Value {
    let resource = &entry.resource;
    let mut full = summary(entry);
    full["type"] = resource.kind.name().into();
    full["bytes"] = resource.value.len().into();
    full["value"] = match resource.kind {
        ResourceType::ModelServer
        | ResourceType::ExternalModelProvider
        | ResourceType::ModelRoute => {
            let document = DocumentMessage::decode(resource.value.as_ref()).ok();
            let parsed = document.and_then(|document| serde_json::from_str(&document.json).ok());
            parsed.unwrap_or(Value::Null)
        }
        ResourceType::Endpoint => {
            EndpointMessage::decode(resource.value.as_ref()).map_or(Value::Null, endpoint)
        }
        ResourceType::Peer => {
            PeerMessage::decode(resource.value.as_ref()).map_or(Value::Null, peer)
        }
        ResourceType::Secret => json!("(not shown)"),
        ResourceType::Batch => Value::Null,
    };
    full
}

fn endpoint(message: EndpointMessage) -> Value {
    let memberships: Vec<Value> = message
        .memberships
        .iter()
        .map(|membership| {
            let role = RoleMessage::try_from(membership.role).unwrap_or(RoleMessage::Whole);
            let role = format!("{role:?}").to_lowercase();
            json!({ "server": membership.server, "role": role, "pdGroup": membership.pd_group })
        })
        .collect();
    json!({
        "namespace": message.namespace,
        "pod": message.pod,
        "uid": message.uid,
        "host": message.host,
        "port": message.port,
        "draining": message.draining,
        "memberships": memberships,
        "revision": message.revision,
        "node": message.node,
        "zone": message.zone,
        "topology": message.topology,
        "labels": message.labels,
    })
}

fn peer(message: PeerMessage) -> Value {
    json!({
        "namespace": message.namespace,
        "pod": message.pod,
        "host": message.host,
        "zone": message.zone,
        "ready": message.ready,
    })
}

fn json_text(value: &Value) -> Response {
    let mut text = serde_json::to_string_pretty(value).expect("a JSON value can be written");
    text.push('\n');
    ([("content-type", "application/json")], text).into_response()
}
