//! Which adapters an endpoint serves: its `/v1/models` list joined with what its metrics say of them.

use std::collections::HashSet;

use serde::Deserialize;

use super::metrics::LoraReport;
use crate::schedule::Adapter;

/// Entries of a list that are kept.
const MAX_MODELS: usize = 4096;

/// An engine's `/v1/models`, as far as it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelList {
    /// Names of models that are no adapters.
    pub models: Vec<Box<str>>,
    /// Names of adapters: entries with a parent.
    pub adapters: HashSet<Box<str>>,
    /// Longest sequence in tokens that every base model takes.
    pub max_model_len: Option<u32>,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    data: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    id: Box<str>,
    #[serde(default)]
    parent: Option<Box<str>>,
    /// Read leniently: a list is not refused for one odd field.
    #[serde(default)]
    max_model_len: serde_json::Value,
}

impl ModelList {
    /// Reads a page; `None` when it is not such a list.
    pub fn parse(page: &[u8]) -> Option<Self> {
        let page: Page = serde_json::from_slice(page).ok()?;
        let mut list = Self::default();
        for entry in page.data.into_iter().take(MAX_MODELS) {
            let length = entry.max_model_len.as_u64().filter(|length| *length > 0);
            match entry.parent {
                Some(_) => {
                    list.adapters.insert(entry.id);
                }
                None => {
                    list.models.push(entry.id);
                    let length = length.map(|length| u32::try_from(length).unwrap_or(u32::MAX));
                    list.max_model_len = match (list.max_model_len, length) {
                        (Some(one), Some(other)) => Some(one.min(other)),
                        (one, other) => one.or(other),
                    };
                }
            }
        }
        Some(list)
    }
}

/// The endpoint's state towards `adapter`, by the last list and the last word of its metrics, each if known.
///
/// An adapter that is not listed is [`Adapter::Loadable`] unless all places are known to be taken: the engine's own
/// answer is better than a guess.
pub fn state(adapter: &str, list: Option<&ModelList>, loras: Option<&LoraReport>) -> Adapter {
    let active = |loras: &LoraReport| {
        let mut names = loras.running.iter().chain(&loras.waiting);
        names.any(|name| **name == *adapter)
    };
    if list.is_some_and(|list| list.adapters.contains(adapter)) || loras.is_some_and(active) {
        return Adapter::Loaded;
    }
    let full = loras.is_some_and(|loras| {
        let used = loras.used.unwrap_or(loras.running.len() as f64);
        loras.max.is_some_and(|max| used >= max)
    });
    match (
        full,
        list.is_some() || loras.is_some_and(|loras| loras.max.is_some()),
    ) {
        (true, _) => Adapter::Full,
        (false, true) => Adapter::Loadable,
        (false, false) => Adapter::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VLLM: &str = r#"{"object":"list","data":[
        {"id":"tiny","object":"model","root":"./model","parent":null,"max_model_len":2048},
        {"id":"lora-a","object":"model","root":"./lora","parent":"tiny","max_model_len":null}]}"#;

    fn loras(running: &[&str], max: Option<f64>) -> LoraReport {
        LoraReport {
            running: running.iter().map(|name| Box::from(*name)).collect(),
            max,
            ..LoraReport::default()
        }
    }

    #[test]
    fn a_list_tells_adapters_from_models() {
        let list = ModelList::parse(VLLM.as_bytes()).unwrap();
        assert_eq!(list.models, [Box::from("tiny")]);
        assert!(list.adapters.contains("lora-a"));
        assert_eq!(list.max_model_len, Some(2048));
        assert_eq!(ModelList::parse(b"<html>"), None);
        let odd = br#"{"data":[{"id":"m","max_model_len":"long"}],"models":[]}"#;
        assert_eq!(ModelList::parse(odd).unwrap().max_model_len, None);
    }

    #[test]
    fn an_adapter_is_loaded_loadable_or_has_no_room() {
        let list = ModelList::parse(VLLM.as_bytes()).unwrap();
        assert_eq!(state("lora-a", None, None), Adapter::Unknown);
        assert_eq!(state("lora-a", Some(&list), None), Adapter::Loaded);
        assert_eq!(state("lora-b", Some(&list), None), Adapter::Loadable);
        let one = loras(&["lora-c"], Some(1.0));
        assert_eq!(state("lora-b", Some(&list), Some(&one)), Adapter::Full);
        assert_eq!(state("lora-c", Some(&list), Some(&one)), Adapter::Loaded);
        let room = loras(&["lora-c"], Some(2.0));
        assert_eq!(state("lora-b", None, Some(&room)), Adapter::Loadable);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(page in proptest::collection::vec(any::<u8>(), 0..300)) {
            ModelList::parse(&page);
        }
    }
}
