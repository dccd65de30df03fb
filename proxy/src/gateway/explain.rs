//! `/debug/explain`: what would happen to a request. Runs the same code as a request, and sends nothing.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::Gateway;
use super::body::Body;
use super::inference;
use super::request::Request;
use super::tokenize;
use crate::http::RequestHead;

/// Route, rule, targets and every endpoint with its place and reason, or why the request would be refused.
pub(super) async fn explain(gateway: &Gateway, head: RequestHead, bytes: Bytes) -> Value {
    let body = match Body::parse(&head.headers, bytes) {
        Ok(body) => body,
        Err(error) => {
            return json!({"refused": error.to_string(), "status": error.status().as_u16()});
        }
    };
    let mut request = Request::begin(gateway, head, None);
    let serving = Arc::clone(&request.serving);
    let (body, matched) = match inference::route_for_explain(&mut request, &serving, body).await {
        Ok(routed) => routed,
        Err(halt) => return json!({"refused": inference::halt_in_words(&halt)}),
    };
    let route = &serving.routes[matched.route_index];
    let mut answer = json!({
        "generation": serving.snapshot.generation,
        "model": body.model,
        "lora": matched.lora,
        "route": &*route.name,
        "routeInFlight": route.in_flight(),
        "rule": {"index": matched.rule_index, "name": matched.rule.name},
    });
    let routed = inference::Routed::new(&serving, &matched, &body);
    match inference::plan(gateway, &mut request, &routed) {
        Err(halt) => answer["refused"] = json!(inference::halt_in_words(&halt)),
        Ok(mut plan) => {
            tokenize::tokenize(gateway, &routed, request.head.uri.path(), &mut plan).await;
            let now = gateway.now();
            let rows = plan.explain(now, &mut request.random);
            if let Some(chosen) = plan.peek(now, &mut request.random) {
                let pool = &serving.pools[chosen.server];
                answer["target"] = json!(&*pool.name);
                answer["policy"] = json!(pool.policy.name());
                // Equals are ranked by chance, and the ranking that is shown is the one to go by.
                let first = rows
                    .iter()
                    .find(|row| row.rank == Some(1) && row.server == *pool.name)
                    .map(|row| row.address.as_str());
                let last_resort = &*pool.members[chosen.member].endpoint.address;
                answer["endpoint"] = json!(first.unwrap_or(last_resort));
                let server = &serving.snapshot.servers[chosen.server];
                let renamed = server.model.clone().filter(|_| !matched.lora);
                answer["upstreamModel"] = json!(renamed.unwrap_or_else(|| body.model.clone()));
            }
            answer["candidates"] = json!(rows);
        }
    }
    answer
}
