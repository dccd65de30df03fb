//! Which filter types exist, and how each is built from its `config`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use sluice_config::FilterCheck;

use super::{Plugin, canary, cors, headers, prompt_guard};

/// Builds a plugin from the filter's `config`, or says which field is wrong and why.
pub type Builder = Box<dyn Fn(&Value) -> Result<Arc<dyn Plugin>, String> + Send + Sync>;

/// Type reserved for Proxy-Wasm modules.
const WASM: &str = "wasm";

/// Filter types by name.
#[derive(Default)]
pub struct Registry {
    builders: BTreeMap<&'static str, Builder>,
}

impl Registry {
    /// A registry without any type.
    pub fn new() -> Self {
        Self::default()
    }

    /// The types that come with the gateway.
    pub fn builtin() -> Self {
        let mut registry = Self::new();
        registry.register(canary::KIND, canary::build);
        registry.register(cors::KIND, cors::build);
        registry.register(headers::KIND, headers::build);
        registry.register(prompt_guard::KIND, prompt_guard::build);
        registry
    }

    /// Adds a type, or replaces it.
    pub fn register<F>(&mut self, kind: &'static str, builder: F)
    where
        F: Fn(&Value) -> Result<Arc<dyn Plugin>, String> + Send + Sync + 'static,
    {
        self.builders.insert(kind, Box::new(builder));
    }

    /// Names of all types, sorted.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.builders.keys().copied()
    }

    /// Builds the plugin of a type.
    ///
    /// # Errors
    /// For an unknown type, with the known ones; for a bad `config`, naming the field.
    pub fn build(&self, kind: &str, config: &Value) -> Result<Arc<dyn Plugin>, String> {
        match self.builders.get(kind) {
            Some(builder) => builder(config),
            None => Err(self.unknown(kind)),
        }
    }

    /// Checks that the type exists.
    ///
    /// # Errors
    /// As [`Self::build`], for an unknown type.
    pub fn check_kind(&self, kind: &str) -> Result<(), String> {
        if self.builders.contains_key(kind) {
            return Ok(());
        }
        Err(self.unknown(kind))
    }

    fn unknown(&self, kind: &str) -> String {
        if kind == WASM {
            return "filter type `wasm` is reserved, not available in this build".into();
        }
        let known: Vec<_> = self.kinds().collect();
        format!(
            "unknown filter type `{kind}`, use one of: {}",
            known.join(", ")
        )
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.builders.keys()).finish()
    }
}

/// The built-in types, for validation of configuration at load.
#[derive(Debug)]
pub struct BuiltinFilters(Registry);

impl Default for BuiltinFilters {
    fn default() -> Self {
        Self(Registry::builtin())
    }
}

impl FilterCheck for BuiltinFilters {
    fn check(&self, kind: &str, config: &Value) -> Result<(), String> {
        self.0.build(kind, config).map(drop)
    }

    fn kinds(&self) -> Option<Vec<&str>> {
        Some(self.0.kinds().collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_unknown_type_is_answered_with_the_known_ones() {
        let error = BuiltinFilters::default()
            .check("header", &json!({}))
            .unwrap_err();
        assert_eq!(
            error,
            "unknown filter type `header`, use one of: canary, cors, headers, promptGuard"
        );
    }

    #[test]
    fn wasm_is_reserved() {
        let error = BuiltinFilters::default()
            .check("wasm", &json!({}))
            .unwrap_err();
        assert_eq!(
            error,
            "filter type `wasm` is reserved, not available in this build"
        );
    }

    #[test]
    fn a_good_configuration_passes_and_a_bad_one_names_the_field() {
        BuiltinFilters::default()
            .check("headers", &json!({"request": {"set": {"x-a": "1"}}}))
            .unwrap();
        let error = BuiltinFilters::default()
            .check("headers", &json!({"requests": {}}))
            .unwrap_err();
        assert!(error.contains("`requests`"), "{error}");
    }
}
