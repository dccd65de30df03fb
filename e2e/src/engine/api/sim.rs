//! The simulator's own paths: switch faults, ask what arrived.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{ApiError, echo, read};
use crate::engine::fault::FaultRule;
use crate::engine::kv::KvFault;
use crate::engine::reply::{Incoming, Reply};
use crate::engine::shared::Shared;

/// `POST /sim/fault {"fault": "KIND[:ARG][@P]" | ["...", ...] | null}`. Answers when the listener is as asked.
pub(super) async fn fault(shared: &Arc<Shared>, incoming: &Incoming) -> Result<Reply, ApiError> {
    let request: Value = read(incoming)?;
    let texts = match request.get("fault") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => vec![text.as_str()],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        Some(_) => {
            return Err(ApiError::bad_request(
                Some("fault"),
                "fault must be a string, a list or null",
            ));
        }
    };
    let rules: Result<Vec<FaultRule>, _> = texts.iter().map(|text| text.parse()).collect();
    let rules = rules.map_err(|error| ApiError::bad_request(Some("fault"), error.to_string()))?;
    let (sender, receiver) = oneshot::channel();
    shared.set_faults(
        rules,
        Box::new(move || {
            let _ = sender.send(());
        }),
    );
    // An error means that the server is stopping: then nobody waits for this answer.
    let _ = receiver.await;
    Ok(Reply::json(200, &json!({"fault": texts})))
}

/// `POST /sim/kv {"drop": SHARE, "silent": BOOL, "restart": true}`, each optional: how the publisher of KV events
/// misbehaves from now on.
pub(super) fn kv(shared: &Arc<Shared>, incoming: &Incoming) -> Result<Reply, ApiError> {
    #[derive(Debug, Deserialize)]
    struct KvRequest {
        drop: Option<f64>,
        silent: Option<bool>,
        #[serde(default)]
        restart: bool,
    }
    let request: KvRequest = read(incoming)?;
    let Some(kv) = &shared.kv else {
        return Err(ApiError::bad_request(
            None,
            "KV events are off, start the engine with --kv-events",
        ));
    };
    let faults = [
        request.drop.map(KvFault::Drop),
        request.silent.map(KvFault::Silence),
        request.restart.then_some(KvFault::Restart),
    ];
    faults
        .into_iter()
        .flatten()
        .for_each(|fault| kv.fault(fault));
    Ok(Reply::json(200, &json!({"success": true})))
}

/// `GET /sim/requests`.
pub(super) fn requests(shared: &Arc<Shared>) -> Reply {
    let mut body = serde_json::to_value(shared.counters.counts()).unwrap_or_default();
    let last = shared.counters.last();
    body["last"] = json!({
        "method": last.method,
        "target": last.target,
        "headers": echo::headers(&last.headers),
        "body": String::from_utf8_lossy(&last.body),
    });
    Reply::json(200, &body)
}
