//! Where an engine publishes its KV events: what vLLM's `GET /kv_event_sources` and SGLang's `GET /server_info` say,
//! or what an operator wrote.
//!
//! Pure: bytes in, sources out. Who asks the engine, and when, is not decided here.

#[cfg(test)]
mod tests;

use serde::Deserialize;
use serde_json::{Map, Value};

/// Publishers of one engine: more than any deployment has data-parallel ranks.
const MAX_RANKS: usize = 1024;

/// One publisher: one data-parallel rank of one engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSource {
    /// Data-parallel rank; `None` when it is not known, then the batches say.
    pub rank: Option<u32>,
    /// `tcp://HOST:PORT` or `ipc://PATH`.
    pub endpoint: String,
    /// Where lost batches can be asked for.
    pub replay: Option<String>,
    /// Topic it publishes under; information only, all topics are subscribed to.
    pub topic: String,
    /// Tokens per block, where the engine says so beforehand.
    pub block_size: Option<u32>,
    /// The engine connects to us, so the endpoint is ours to bind.
    pub bind: bool,
}

/// Why no sources come of an answer.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Not the JSON it should be.
    #[error(
        "cannot read the engine's answer about its KV events, does it come from another server?"
    )]
    Json(#[from] serde_json::Error),
    /// The engine has them switched off.
    #[error(
        "the engine does not publish KV events, start vLLM or SGLang with --kv-events-config and publisher \"zmq\""
    )]
    Disabled,
    /// Something is missing or makes no sense.
    #[error("{0}, check the engine's --kv-events-config")]
    Invalid(String),
}

#[derive(Debug, Deserialize)]
struct VllmSource {
    #[serde(default)]
    enable_kv_cache_events: bool,
    #[serde(default)]
    publisher: Option<String>,
    #[serde(default)]
    endpoint: Option<String>,
    #[serde(default)]
    replay_endpoint: Option<String>,
    #[serde(default)]
    topic: Option<String>,
    #[serde(default)]
    block_size: Option<u32>,
}

/// Sources in the answer to vLLM's `GET /kv_event_sources` (0.32 and later): a map from data-parallel rank to that
/// rank's resolved publisher. `host` is the engine's own, as the proxy reaches it.
///
/// # Errors
/// When the answer is no such map, or no rank publishes.
pub fn vllm_sources(answer: &[u8], host: &str) -> Result<Vec<EventSource>, SourceError> {
    let ranks: Map<String, Value> = serde_json::from_slice(answer)?;
    if ranks.len() > MAX_RANKS {
        return Err(SourceError::Invalid(format!(
            "the engine names {} publishers, at most {MAX_RANKS} are followed",
            ranks.len()
        )));
    }
    let mut sources = Vec::with_capacity(ranks.len());
    for (rank, source) in ranks {
        let source: VllmSource = serde_json::from_value(source)?;
        let publishes = source.publisher.as_deref() == Some("zmq");
        let Some(endpoint) = source
            .endpoint
            .filter(|_| source.enable_kv_cache_events && publishes)
        else {
            continue;
        };
        let rank: u32 = rank
            .parse()
            .map_err(|_| SourceError::Invalid(format!("`{rank}` is no data-parallel rank")))?;
        sources.push(EventSource {
            rank: Some(rank),
            bind: !engine_binds(&endpoint),
            endpoint: reachable(&endpoint, host)?,
            replay: match source.replay_endpoint.filter(|replay| !replay.is_empty()) {
                Some(replay) => Some(reachable(&replay, host)?),
                None => None,
            },
            topic: source.topic.unwrap_or_default(),
            block_size: source.block_size,
        });
    }
    sources.sort_by_key(|source| source.rank);
    match sources.is_empty() {
        true => Err(SourceError::Disabled),
        false => Ok(sources),
    }
}

#[derive(Debug, Deserialize)]
struct ServerInfo {
    kv_events: Option<SglangSources>,
}

#[derive(Debug, Deserialize)]
struct SglangSources {
    #[serde(default)]
    publisher: Option<String>,
    #[serde(default)]
    endpoint_host: Option<String>,
    endpoint_port_base: u16,
    #[serde(default)]
    replay_endpoint_port_base: Option<u16>,
    #[serde(default)]
    topic: Option<String>,
    #[serde(default)]
    block_size: Option<u32>,
    #[serde(default)]
    dp_size: Option<u16>,
}

/// Sources in the answer to SGLang's `GET /server_info` (old: `/get_server_info`): its `kv_events` object names the
/// ports of rank 0, and rank r is r further.
///
/// # Errors
/// When the answer has no such object, or its ports run past 65535.
pub fn sglang_sources(answer: &[u8], host: &str) -> Result<Vec<EventSource>, SourceError> {
    let info: ServerInfo = serde_json::from_slice(answer)?;
    let Some(kv_events) = info.kv_events else {
        return Err(SourceError::Disabled);
    };
    if matches!(kv_events.publisher.as_deref(), Some(publisher) if publisher != "zmq") {
        return Err(SourceError::Disabled);
    }
    let ranks = kv_events.dp_size.unwrap_or(1).max(1);
    if usize::from(ranks) > MAX_RANKS {
        return Err(SourceError::Invalid(format!(
            "the engine names {ranks} publishers, at most {MAX_RANKS} are followed"
        )));
    }
    let named = kv_events.endpoint_host.as_deref().unwrap_or("*");
    let host = if is_wildcard(named) { host } else { named };
    let endpoint = |base: u16, rank: u16| match base.checked_add(rank) {
        Some(port) => Ok(format!("tcp://{}:{port}", bracketed(host))),
        None => Err(SourceError::Invalid(format!(
            "port {base} of rank 0 leaves no port for rank {rank}"
        ))),
    };
    let sources = (0..ranks).map(|rank| {
        let replay = kv_events
            .replay_endpoint_port_base
            .filter(|&base| base != 0);
        Ok(EventSource {
            rank: Some(rank.into()),
            endpoint: endpoint(kv_events.endpoint_port_base, rank)?,
            replay: replay.map(|base| endpoint(base, rank)).transpose()?,
            topic: kv_events.topic.clone().unwrap_or_default(),
            block_size: kv_events.block_size.filter(|&size| size > 0),
            bind: false,
        })
    });
    sources.collect()
}

/// A source as an operator writes it: `tcp://HOST:PORT`, `connect tcp://HOST:PORT` or `bind tcp://ADDRESS:PORT`.
///
/// # Errors
/// When it is neither, or the endpoint is of another transport.
pub fn configured_source(text: &str, replay: Option<&str>) -> Result<EventSource, SourceError> {
    let (direction, endpoint) = match text.trim().split_once(char::is_whitespace) {
        Some((direction, endpoint)) => (direction, endpoint.trim()),
        None => ("connect", text.trim()),
    };
    let bind = match direction {
        "connect" => false,
        "bind" => true,
        other => {
            return Err(SourceError::Invalid(format!(
                "`{other}` is neither `connect` nor `bind`"
            )));
        }
    };
    for endpoint in std::iter::once(endpoint).chain(replay) {
        split(endpoint)?;
    }
    Ok(EventSource {
        rank: None,
        endpoint: endpoint.to_owned(),
        replay: replay.map(str::to_owned),
        topic: String::new(),
        block_size: None,
        bind,
    })
}

/// vLLM's rule for its publisher's direction (`vllm/distributed/kv_events.py`); its replay socket always binds.
fn engine_binds(endpoint: &str) -> bool {
    endpoint.contains('*')
        || endpoint.contains("::")
        || endpoint.starts_with("ipc://")
        || endpoint.starts_with("inproc://")
}

/// The endpoint with a host that the proxy can reach: where the engine listens on every interface, or on a name that
/// means "here", its own host stands in.
fn reachable(endpoint: &str, host: &str) -> Result<String, SourceError> {
    match split(endpoint)? {
        Some((named, port)) if is_wildcard(named) => {
            Ok(format!("tcp://{}:{port}", bracketed(host)))
        }
        _ => Ok(endpoint.to_owned()),
    }
}

/// Host, without brackets, and port; none of a path.
fn split(endpoint: &str) -> Result<Option<(&str, u16)>, SourceError> {
    if endpoint
        .strip_prefix("ipc://")
        .is_some_and(|path| !path.is_empty())
    {
        return Ok(None);
    }
    let parts = endpoint
        .strip_prefix("tcp://")
        .and_then(|address| address.rsplit_once(':'))
        .and_then(|(host, port)| Some((host, port.parse().ok()?)))
        .filter(|(host, _)| !host.is_empty());
    match parts {
        Some((host, port)) => Ok(Some((unbracketed(host), port))),
        None => Err(SourceError::Invalid(format!(
            "`{endpoint}` is neither tcp://HOST:PORT nor ipc://PATH"
        ))),
    }
}

fn is_wildcard(host: &str) -> bool {
    // Mapped loopback is how a vLLM engine binds to one interface, see `engine_binds`: it says no more than "here".
    matches!(
        unbracketed(host),
        "" | "*" | "0.0.0.0" | "::" | "::ffff:127.0.0.1" | "::ffff:0.0.0.0"
    )
}

fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

fn bracketed(host: &str) -> String {
    let host = unbracketed(host);
    match host.contains(':') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    }
}
