//! What a pass over the index brings out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use sluice_config::push::ResourceType;

use super::facts::Facts;
use super::object::DocumentKey;
use crate::state::{Change, Resource};

/// What became different since the last pass.
#[derive(Debug, Default)]
pub struct Output {
    /// Resources that are new or have another version, in the order of their types and names.
    pub upserts: Vec<Resource>,
    /// Resources that are gone, in the same order; none of them is also in `upserts`.
    pub removals: Vec<(ResourceType, Arc<str>)>,
    /// Documents of which something else is known than before; `None`: they are gone.
    pub facts: Vec<(DocumentKey, Option<Arc<Facts>>)>,
}

impl Output {
    /// The part that gateways are told; `None` when there is nothing.
    pub fn change(&mut self, seen_at: SystemTime) -> Option<Change> {
        if self.upserts.is_empty() && self.removals.is_empty() {
            return None;
        }
        Some(Change {
            upserts: std::mem::take(&mut self.upserts),
            removals: std::mem::take(&mut self.removals),
            seen_at,
        })
    }

    pub(super) fn remove(&mut self, kind: ResourceType, name: Arc<str>) {
        self.removals.push((kind, name));
    }

    pub(super) fn sort(&mut self) {
        self.upserts
            .sort_unstable_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        self.removals.sort_unstable();
        self.facts.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    }
}

/// Versions of the resources that were given out, except endpoints.
#[derive(Debug, Default)]
pub(super) struct GivenOut(HashMap<(ResourceType, Arc<str>), Arc<str>>);

impl GivenOut {
    /// Brings what is out to what is to be: to `resource`, or to nothing.
    pub(super) fn settle(
        &mut self,
        kind: ResourceType,
        name: Arc<str>,
        resource: Option<Resource>,
        output: &mut Output,
    ) {
        let key = (kind, name);
        let Some(resource) = resource else {
            if self.0.remove(&key).is_some() {
                output.remove(key.0, key.1);
            }
            return;
        };
        if self.0.get(&key) != Some(&resource.version) {
            self.0.insert(key, resource.version.clone());
            output.upserts.push(resource);
        }
    }
}
