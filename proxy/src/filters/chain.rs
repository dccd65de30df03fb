//! The chain as compiled at load: plugins in order, and per hook the indexes of those that implement it.
//!
//! Not for running it: see [`super::Stream`].

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use sluice_config::bootstrap::{FailPolicy, FilterConfig};
use sluice_crds::networking::FilterOverride;

use super::{FilterError, Hooks, Plugin, Registry};

/// Hears of every failure of a filter, for metrics. Called on the request's path: it must not block.
pub trait FailureObserver: Send + Sync {
    /// The filter called `name` failed; `policy` says what that did to its request.
    fn filter_failed(&self, name: &str, error: &FilterError, policy: FailPolicy);
}

/// Filters in order, compiled. Immutable; one gateway-wide and one per route that overrides something.
pub struct Chain {
    pub(super) entries: Vec<Entry>,
    pub(super) lists: Lists,
    registry: Arc<Registry>,
    pub(super) observer: Option<Arc<dyn FailureObserver>>,
}

/// One place in the chain. Its index is the same in every chain derived from one base.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) name: Arc<str>,
    kind: Arc<str>,
    pub(super) fail_policy: FailPolicy,
    /// `None`: disabled.
    pub(super) plugin: Option<Arc<dyn Plugin>>,
}

/// Indexes into the entries, per hook; response hooks in reverse. The request-head phase visits every entry,
/// because that is where filters are opened.
#[derive(Default)]
pub(super) struct Lists {
    pub(super) request_body: Vec<usize>,
    pub(super) candidates: Vec<usize>,
    pub(super) attempt: Vec<usize>,
    pub(super) response_head: Vec<usize>,
    pub(super) response_chunk: Vec<usize>,
}

impl Chain {
    /// Builds every filter of the list, in order.
    ///
    /// # Errors
    /// The first filter that is refused, with why.
    pub fn compile(
        filters: &[FilterConfig],
        registry: Arc<Registry>,
    ) -> Result<Arc<Self>, ChainError> {
        Self::compile_observed(filters, registry, None)
    }

    /// As [`Self::compile`], with someone who hears of failures in this chain and those derived from it.
    ///
    /// # Errors
    /// As [`Self::compile`].
    pub fn compile_observed(
        filters: &[FilterConfig],
        registry: Arc<Registry>,
        observer: Option<Arc<dyn FailureObserver>>,
    ) -> Result<Arc<Self>, ChainError> {
        let mut names = HashSet::new();
        let mut entries = Vec::with_capacity(filters.len());
        for filter in filters {
            if !names.insert(filter.name.as_str()) {
                return Err(ChainError::DuplicateName(filter.name.clone()));
            }
            entries.push(Entry::build(filter, &registry)?);
        }
        Ok(Arc::new(Self::assemble(entries, registry, observer)))
    }

    /// A chain without filters.
    pub fn empty() -> Arc<Self> {
        Arc::new(Self::assemble(
            Vec::new(),
            Arc::new(Registry::builtin()),
            None,
        ))
    }

    /// The chain of a route: this one with some filters replaced, disabled, or (by a `config`) switched on. The
    /// same chain when nothing is overridden.
    ///
    /// # Errors
    /// When an override names no filter, contradicts itself, or its `config` is refused.
    pub fn with_overrides(
        self: &Arc<Self>,
        overrides: &BTreeMap<String, FilterOverride>,
    ) -> Result<Arc<Self>, ChainError> {
        if overrides.is_empty() {
            return Ok(Arc::clone(self));
        }
        let mut entries = self.entries.clone();
        for (name, change) in overrides {
            let entry = entries
                .iter_mut()
                .find(|entry| *entry.name == **name)
                .ok_or_else(|| self.unknown_filter(name))?;
            entry.change(change, &self.registry)?;
        }
        Ok(Arc::new(Self::assemble(
            entries,
            Arc::clone(&self.registry),
            self.observer.clone(),
        )))
    }

    /// Number of places, disabled ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Is there no filter at all?
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn assemble(
        entries: Vec<Entry>,
        registry: Arc<Registry>,
        observer: Option<Arc<dyn FailureObserver>>,
    ) -> Self {
        let lists = Lists::of(&entries);
        Self {
            entries,
            lists,
            registry,
            observer,
        }
    }

    fn unknown_filter(&self, name: &str) -> ChainError {
        let known: Vec<_> = self.entries.iter().map(|entry| &*entry.name).collect();
        ChainError::UnknownFilter {
            name: name.to_owned(),
            known: known.join(", "),
        }
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.entries.iter().map(|entry| {
            let hooks = entry.plugin.as_ref().map(|plugin| plugin.hooks());
            (&entry.name, &entry.kind, hooks)
        });
        f.debug_list().entries(entries).finish()
    }
}

impl Entry {
    fn build(filter: &FilterConfig, registry: &Registry) -> Result<Self, ChainError> {
        let refused = |reason| ChainError::Refused {
            name: filter.name.clone(),
            reason,
        };
        registry.check_kind(&filter.kind).map_err(refused)?;
        // A filter that routes switch on needs no config of its own; one that is there is checked all the same.
        let plugin = if filter.disabled && filter.config == Value::Null {
            None
        } else {
            let built = registry
                .build(&filter.kind, &filter.config)
                .map_err(refused)?;
            (!filter.disabled).then_some(built)
        };
        Ok(Self {
            name: filter.name.as_str().into(),
            kind: filter.kind.as_str().into(),
            fail_policy: filter.fail_policy,
            plugin,
        })
    }

    fn change(&mut self, change: &FilterOverride, registry: &Registry) -> Result<(), ChainError> {
        match (change.disabled, &change.config) {
            (true, Some(_)) => return Err(ChainError::Contradiction(self.name.to_string())),
            (true, None) => self.plugin = None,
            (false, Some(config)) => {
                let built =
                    registry
                        .build(&self.kind, config)
                        .map_err(|reason| ChainError::Refused {
                            name: self.name.to_string(),
                            reason,
                        })?;
                self.plugin = Some(built);
            }
            (false, None) => {}
        }
        Ok(())
    }

    pub(super) fn hooks(&self) -> Hooks {
        self.plugin
            .as_ref()
            .map_or(Hooks::NONE, |plugin| plugin.hooks())
    }
}

impl Lists {
    fn of(entries: &[Entry]) -> Self {
        let with = |hook| {
            entries
                .iter()
                .enumerate()
                .filter(move |(_, entry)| entry.hooks().contains(hook))
                .map(|(index, _)| index)
        };
        Self {
            request_body: with(Hooks::REQUEST_BODY).collect(),
            candidates: with(Hooks::CANDIDATES).collect(),
            attempt: with(Hooks::ATTEMPT).collect(),
            response_head: with(Hooks::RESPONSE_HEAD).rev().collect(),
            response_chunk: with(Hooks::RESPONSE_CHUNK).rev().collect(),
        }
    }
}

/// Why a list of filters, or a route's overrides, cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Two filters have one name, which overrides could not tell apart.
    #[error("two filters are called `{0}`, rename one")]
    DuplicateName(String),
    /// Unknown type or bad configuration.
    #[error("filter `{name}`: {reason}")]
    Refused {
        /// The filter's name.
        name: String,
        /// Which field and why.
        reason: String,
    },
    /// An override for a filter that is not in the list.
    #[error("no filter is called `{name}`, use one of: {known}")]
    UnknownFilter {
        /// The name given.
        name: String,
        /// Names in the list.
        known: String,
    },
    /// An override that both disables a filter and configures it.
    #[error("filter `{0}`: `disabled` and `config` exclude each other, remove one")]
    Contradiction(String),
}

#[cfg(test)]
mod tests;
