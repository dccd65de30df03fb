//! Which filters a route may override, and whom to ask if a filter's configuration is right.
//!
//! Not the filters: the proxy owns them, and answers through [`FilterCheck`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::bootstrap::FilterConfig;

/// Judges the configuration of a filter. Every matching closure is one.
pub trait FilterCheck: Send + Sync {
    /// Is `config` right for a filter of type `kind`? The error says what is wrong with it.
    fn check(&self, kind: &str, config: &Value) -> Result<(), String>;

    /// The types that exist, for "did you mean". `None`: only [`check`](Self::check) knows.
    fn kinds(&self) -> Option<Vec<&str>> {
        None
    }
}

impl<F> FilterCheck for F
where
    F: Fn(&str, &Value) -> Result<(), String> + Send + Sync,
{
    fn check(&self, kind: &str, config: &Value) -> Result<(), String> {
        self(kind, config)
    }
}

/// Takes every type and every configuration, for tools that have no filters at hand.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnyFilter;

impl FilterCheck for AnyFilter {
    fn check(&self, _: &str, _: &Value) -> Result<(), String> {
        Ok(())
    }
}

/// The filters of the bootstrap file as far as routes need them: name to type. Clones are cheap.
#[derive(Clone)]
pub struct FilterSet {
    /// Name to type; `None`: the bootstrap file is not known, so every name will do.
    names: Option<Arc<BTreeMap<String, String>>>,
    check: Arc<dyn FilterCheck>,
}

impl FilterSet {
    /// The filters of a bootstrap file.
    pub fn new(filters: &[FilterConfig], check: Arc<dyn FilterCheck>) -> Self {
        let names = filters
            .iter()
            .map(|f| (f.name.clone(), f.kind.clone()))
            .collect();
        Self {
            names: Some(Arc::new(names)),
            check,
        }
    }

    /// Accepts every filter name and configuration: resource files checked without a bootstrap file.
    pub fn unknown() -> Self {
        Self {
            names: None,
            check: Arc::new(AnyFilter),
        }
    }

    /// Type of the filter called `name`; the error lists the names there are.
    pub(crate) fn kind(&self, name: &str) -> Result<Option<&str>, Vec<&str>> {
        let Some(names) = &self.names else {
            return Ok(None);
        };
        match names.get(name) {
            Some(kind) => Ok(Some(kind)),
            None => Err(names.keys().map(String::as_str).collect()),
        }
    }

    pub(crate) fn check(&self, kind: &str, config: &Value) -> Result<(), String> {
        self.check.check(kind, config)
    }
}

impl fmt::Debug for FilterSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilterSet")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}
