//! What lists last said, for times when the detour stays behind.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Response};
use serde_json::Value;

use super::answer::{Body, whole};

/// Answers to lists, by what was asked.
#[derive(Default)]
pub(super) struct Record(Mutex<State>);

#[derive(Default)]
struct State {
    frozen: bool,
    answers: HashMap<String, (HeaderMap, Bytes)>,
}

impl Record {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is there, or goes on with what comes.
    pub(super) fn freeze(&self, frozen: bool) {
        self.lock().frozen = frozen;
    }

    /// Takes note of an answer, if it is a list.
    pub(super) fn keep(&self, target: &str, parts: &http::response::Parts, body: &Bytes) {
        let value = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let list = value["kind"]
            .as_str()
            .is_some_and(|kind| kind.ends_with("List"));
        let mut state = self.lock();
        if list && !state.frozen {
            let answer = (parts.headers.clone(), body.clone());
            state.answers.insert(key(target), answer);
        }
    }

    /// What the list last said.
    pub(super) fn answer(&self, target: &str) -> Option<Response<Body>> {
        let (headers, body) = self.lock().answers.get(&key(target)).cloned()?;
        let mut answer = Response::new(whole(body));
        *answer.headers_mut() = headers;
        Some(answer)
    }
}

/// Whatever version is asked for, the server is behind.
fn key(target: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut pairs: Vec<_> = query
        .split('&')
        .filter(|pair| !pair.starts_with("resourceVersion") && !pair.is_empty())
        .collect();
    pairs.sort_unstable();
    format!("{path}?{}", pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use super::key;

    #[test]
    fn a_list_is_known_whatever_version_it_asks_for() {
        let first = key("/api/v1/pods?limit=500&resourceVersion=0&labelSelector=a");
        assert_eq!(first, key("/api/v1/pods?labelSelector=a&limit=500"));
        assert_ne!(first, key("/api/v1/pods?limit=500"));
    }
}
