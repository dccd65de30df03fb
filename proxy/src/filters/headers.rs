//! `headers`: adds, sets and removes fields of requests and responses.
//!
//! Not for fields that frame or route a message (`host`, `content-length`, hop-by-hop ones): those are the
//! gateway's.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use super::{FilterError, Hooks, Plugin, Step, StreamFilter, StreamView, config};
use crate::http::{RequestHead, ResponseHead};

/// The configuration's `type`.
pub(super) const KIND: &str = "headers";

/// Framing, hop-by-hop and routing fields, which the gateway writes itself.
const RESERVED: [HeaderName; 10] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
];

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct HeadersConfig {
    /// Before routing, so that routes can match on the result.
    request: EditConfig,
    /// On every response, the gateway's own errors included.
    response: EditConfig,
}

/// Applied in the order `remove`, `set`, `add`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct EditConfig {
    /// Beside values that are there.
    add: BTreeMap<String, String>,
    /// In place of values that are there.
    set: BTreeMap<String, String>,
    remove: Vec<String>,
}

/// A checked [`EditConfig`].
#[derive(Debug, Clone, Default)]
struct Edit {
    add: Vec<(HeaderName, HeaderValue)>,
    set: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

struct Headers {
    edits: Arc<BothEdits>,
    hooks: Hooks,
}

struct BothEdits {
    request: Edit,
    response: Edit,
}

struct HeadersStream(Arc<BothEdits>);

/// Builds the plugin, or says which field is wrong.
pub(super) fn build(value: &Value) -> Result<Arc<dyn Plugin>, String> {
    let parsed: HeadersConfig = config::parse(value)?;
    let request = Edit::check("request", &parsed.request)?;
    let response = Edit::check("response", &parsed.response)?;
    let mut hooks = Hooks::NONE;
    if !request.is_empty() {
        hooks = hooks | Hooks::REQUEST_HEAD;
    }
    if !response.is_empty() {
        hooks = hooks | Hooks::RESPONSE_HEAD;
    }
    if hooks == Hooks::NONE {
        return Err(
            "nothing to do: give `request` or `response` with `add`, `set` or `remove`".into(),
        );
    }
    Ok(Arc::new(Headers {
        edits: Arc::new(BothEdits { request, response }),
        hooks,
    }))
}

impl Plugin for Headers {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn hooks(&self) -> Hooks {
        self.hooks
    }

    fn open(&self, _head: &RequestHead) -> Option<Box<dyn StreamFilter>> {
        Some(Box::new(HeadersStream(Arc::clone(&self.edits))))
    }
}

impl StreamFilter for HeadersStream {
    fn on_request_head(
        &mut self,
        _cx: &mut StreamView<'_>,
        head: &mut RequestHead,
    ) -> Result<Step, FilterError> {
        self.0.request.apply(&mut head.headers);
        Ok(Step::Next)
    }

    fn on_response_head(
        &mut self,
        _cx: &mut StreamView<'_>,
        response: &mut ResponseHead,
    ) -> Result<Step, FilterError> {
        self.0.response.apply(&mut response.headers);
        Ok(Step::Next)
    }
}

impl Edit {
    fn check(side: &str, config: &EditConfig) -> Result<Self, String> {
        let names = config.remove.iter();
        Ok(Self {
            add: fields(&format!("{side}.add"), &config.add)?,
            set: fields(&format!("{side}.set"), &config.set)?,
            remove: names
                .map(|text| name(&format!("{side}.remove"), text))
                .collect::<Result<_, _>>()?,
        })
    }

    fn is_empty(&self) -> bool {
        self.add.is_empty() && self.set.is_empty() && self.remove.is_empty()
    }

    fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}

fn fields(
    path: &str,
    given: &BTreeMap<String, String>,
) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    given
        .iter()
        .map(|(text, content)| {
            let value = HeaderValue::from_str(content).map_err(|_| {
                format!("{path}.{text}: the value has characters no header may have")
            })?;
            Ok((name(path, text)?, value))
        })
        .collect()
}

fn name(path: &str, text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| format!("{path}: `{text}` is not a header name"))?;
    if RESERVED.contains(&name) {
        return Err(format!(
            "{path}: `{name}` is written by the gateway, remove it here"
        ));
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
