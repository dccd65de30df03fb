//! `canary`: chooses the target of a rule by a header, or by who asks, so that one user stays on one variant.
//!
//! Not for the shares themselves: weights are the route's. Where neither says anything, the choice is left to
//! the router's weighted random.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::HeaderName;
use serde::Deserialize;
use serde_json::Value;

use super::{
    BodyView, Candidates, FilterError, Hooks, Plugin, Step, StreamFilter, StreamView, TargetView,
    config,
};
use crate::http::RequestHead;

mod hash;

/// The configuration's `type`.
pub(super) const KIND: &str = "canary";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CanaryConfig {
    /// Header whose value names the target ModelServer.
    header: Option<String>,
    /// From the header's value to a ModelServer; when given, other values choose nothing.
    #[serde(default)]
    values: BTreeMap<String, String>,
    /// `user`, `session` or `header:NAME`: equal values get the same target.
    sticky_by: Option<String>,
}

/// A checked [`CanaryConfig`].
struct Rules {
    header: Option<HeaderName>,
    values: BTreeMap<String, String>,
    sticky_by: Option<StickyBy>,
}

#[derive(Debug, PartialEq, Eq)]
enum StickyBy {
    User,
    Session,
    Header(HeaderName),
}

struct Canary(Arc<Rules>);

struct CanaryStream {
    rules: Arc<Rules>,
    /// Hash of the user or session, once the body told it.
    key: Option<u64>,
}

/// Builds the plugin, or says which field is wrong.
pub(super) fn build(value: &Value) -> Result<Arc<dyn Plugin>, String> {
    let parsed: CanaryConfig = config::parse(value)?;
    if parsed.header.is_none() && parsed.sticky_by.is_none() {
        return Err("nothing to do: give `header` or `stickyBy`".into());
    }
    if parsed.header.is_none() && !parsed.values.is_empty() {
        return Err("values: has no effect without `header`, name the header".into());
    }
    let header = parsed.header.map(|text| header_name("header", &text));
    let sticky_by = parsed.sticky_by.map(|text| StickyBy::parse(&text));
    Ok(Arc::new(Canary(Arc::new(Rules {
        header: header.transpose()?,
        values: parsed.values,
        sticky_by: sticky_by.transpose()?,
    }))))
}

impl Plugin for Canary {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn hooks(&self) -> Hooks {
        match self.0.sticky_by {
            Some(StickyBy::User | StickyBy::Session) => Hooks::REQUEST_BODY | Hooks::CANDIDATES,
            _ => Hooks::CANDIDATES,
        }
    }

    fn open(&self, _head: &RequestHead) -> Option<Box<dyn StreamFilter>> {
        Some(Box::new(CanaryStream {
            rules: Arc::clone(&self.0),
            key: None,
        }))
    }
}

impl StreamFilter for CanaryStream {
    fn on_request_body(
        &mut self,
        _cx: &mut StreamView<'_>,
        _head: &mut RequestHead,
        body: &BodyView<'_>,
    ) -> Result<Step, FilterError> {
        let text = match self.rules.sticky_by {
            Some(StickyBy::User) => body.user,
            Some(StickyBy::Session) => body.session,
            _ => None,
        };
        self.key = text.map(|text| hash::of(text.as_bytes()));
        Ok(Step::Next)
    }

    fn on_candidates(
        &mut self,
        _cx: &mut StreamView<'_>,
        head: &RequestHead,
        candidates: &mut Candidates,
    ) -> Result<(), FilterError> {
        if let Some(target) = self.rules.named_target(head, &candidates.targets) {
            return candidates.choose_target(target, "header");
        }
        let key = self.key.or_else(|| self.rules.header_key(head));
        match key.and_then(|key| sticky_target(key, &candidates.targets)) {
            Some(target) => candidates.choose_target(target, "sticky"),
            None => Ok(()),
        }
    }
}

impl Rules {
    /// The target that the request's header names.
    fn named_target(&self, head: &RequestHead, targets: &[TargetView]) -> Option<usize> {
        let value = head.headers.get(self.header.as_ref()?)?.to_str().ok()?;
        let server = if self.values.is_empty() {
            value
        } else {
            self.values.get(value)?
        };
        // A rule's targets are of one namespace: their names alone tell them apart.
        targets.iter().position(|target| {
            let name = target.server.rsplit('/').next();
            *target.server == *server || name == Some(server)
        })
    }

    /// Hash of the header that the choice sticks to.
    fn header_key(&self, head: &RequestHead) -> Option<u64> {
        let Some(StickyBy::Header(name)) = &self.sticky_by else {
            return None;
        };
        let value = head.headers.get(name)?.as_bytes();
        (!value.is_empty()).then(|| hash::of(value))
    }
}

/// Weighted rendezvous choice: each target draws from the key and its own name, and the best draw wins. Shares
/// are the weights', and a change of weights moves only as many keys as it must, to any number of targets.
fn sticky_target(key: u64, targets: &[TargetView]) -> Option<usize> {
    let cost = |target: &TargetView| {
        let draw = hash::unit(hash::mix(key ^ hash::of(target.server.as_bytes())));
        -draw.ln() / f64::from(target.weight)
    };
    let weighted = targets
        .iter()
        .enumerate()
        .filter(|(_, target)| target.weight > 0)
        .map(|(index, target)| (index, cost(target)));
    weighted
        .min_by(|(_, one), (_, other)| one.total_cmp(other))
        .map(|(index, _)| index)
}

impl StickyBy {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "user" => Ok(Self::User),
            "session" => Ok(Self::Session),
            _ => match text.strip_prefix("header:") {
                Some(name) => header_name("stickyBy", name).map(Self::Header),
                None => Err(format!(
                    "stickyBy: `{text}` is unknown, use `user`, `session` or `header:NAME`"
                )),
            },
        }
    }
}

fn header_name(path: &str, text: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| format!("{path}: `{text}` is not a header name"))
}

#[cfg(test)]
mod tests;
