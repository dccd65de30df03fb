//! `cors`: lets web pages of other origins call the API (the Fetch standard's CORS protocol). Answers preflights
//! itself and marks every response, errors included. Field names are those of Gateway API's CORS filter.
//!
//! Not a guard for anything but browsers: other clients ignore it.

use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, VARY,
};
use http::{Method, StatusCode};
use serde_json::Value;

use super::{FilterError, Hooks, LocalReply, Plugin, Step, StreamFilter, StreamView};
use crate::http::{RequestHead, ResponseHead};

mod policy;

use policy::{Allow, Policy};

/// The configuration's `type`.
pub(super) const KIND: &str = "cors";

/// What an engine may have set by its own policy; the gateway's goes before it.
const OWNED: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

struct Cors(Arc<Policy>);

struct CorsStream {
    policy: Arc<Policy>,
    /// What `Access-Control-Allow-Origin` is to say; `None` for an origin that is not allowed, or none at all.
    allow_origin: Option<HeaderValue>,
    /// Its answer is a preflight's, and complete.
    preflight: bool,
}

/// Builds the plugin, or says which field is wrong.
pub(super) fn build(value: &Value) -> Result<Arc<dyn Plugin>, String> {
    Ok(Arc::new(Cors(Arc::new(Policy::parse(value)?))))
}

impl Plugin for Cors {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn hooks(&self) -> Hooks {
        Hooks::REQUEST_HEAD | Hooks::RESPONSE_HEAD
    }

    /// Opens for requests without `Origin` too: their responses must say `Vary: Origin`, or a cache would hand
    /// them to pages.
    fn open(&self, head: &RequestHead) -> Option<Box<dyn StreamFilter>> {
        let origin = head.headers.get(ORIGIN);
        Some(Box::new(CorsStream {
            allow_origin: origin.and_then(|origin| self.0.allow_origin(origin)),
            policy: Arc::clone(&self.0),
            preflight: false,
        }))
    }
}

impl StreamFilter for CorsStream {
    fn on_request_head(
        &mut self,
        _cx: &mut StreamView<'_>,
        head: &mut RequestHead,
    ) -> Result<Step, FilterError> {
        self.preflight = head.method == Method::OPTIONS
            && head.headers.contains_key(ORIGIN)
            && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if !self.preflight {
            return Ok(Step::Next);
        }
        let mut reply = LocalReply::empty(StatusCode::NO_CONTENT);
        self.preflight_headers(&head.headers, &mut reply.headers);
        Ok(Step::Reply(reply))
    }

    fn on_response_head(
        &mut self,
        _cx: &mut StreamView<'_>,
        response: &mut ResponseHead,
    ) -> Result<Step, FilterError> {
        if self.preflight {
            return Ok(Step::Next);
        }
        for name in OWNED {
            response.headers.remove(name);
        }
        self.origin_headers(&mut response.headers);
        if self.allow_origin.is_some()
            && let Some(names) = &self.policy.expose_headers
        {
            response
                .headers
                .insert(ACCESS_CONTROL_EXPOSE_HEADERS, names.clone());
        }
        Ok(Step::Next)
    }
}

impl CorsStream {
    /// An origin that is not allowed gets 204 as well, but nothing that allows: the browser then refuses.
    fn preflight_headers(&self, asked: &HeaderMap, answer: &mut HeaderMap) {
        self.origin_headers(answer);
        for name in [
            "access-control-request-method",
            "access-control-request-headers",
        ] {
            answer.append(VARY, HeaderValue::from_static(name));
        }
        if self.allow_origin.is_none() {
            return;
        }
        let policy = &self.policy;
        let lists = [
            (
                ACCESS_CONTROL_ALLOW_METHODS,
                &policy.allow_methods,
                ACCESS_CONTROL_REQUEST_METHOD,
            ),
            (
                ACCESS_CONTROL_ALLOW_HEADERS,
                &policy.allow_headers,
                ACCESS_CONTROL_REQUEST_HEADERS,
            ),
        ];
        for (name, allow, request_name) in lists {
            let value = match allow {
                Allow::These(list) => Some(list.clone()),
                // An echo, as `*` would not cover `authorization`.
                Allow::Any => asked.get(request_name).cloned(),
            };
            if let Some(value) = value {
                answer.insert(name, value);
            }
        }
        if let Some(seconds) = policy.max_age {
            answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(seconds));
        }
    }

    fn origin_headers(&self, headers: &mut HeaderMap) {
        if self.policy.varies {
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        let Some(origin) = &self.allow_origin else {
            return;
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.policy.allow_credentials {
            headers.insert(
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
    }
}

#[cfg(test)]
mod tests;
