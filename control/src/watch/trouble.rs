//! Why a watch does not get anywhere, said so that it can be mended.

use std::error::Error as _;

use kube::runtime::watcher;
use sluice_crds::networking::{GROUP, VERSION};

use crate::index::ObjectKind;

/// The API server's answer inside an error, if there is one: its code and its words.
fn answer(error: &watcher::Error) -> Option<(u16, &str)> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => {
            Some((status.code, &status.message))
        }
        watcher::Error::WatchError(status) => Some((status.code, &status.message)),
        _ => None,
    }
}

/// May it not look?
pub(super) fn is_forbidden(error: &watcher::Error) -> bool {
    answer(error).is_some_and(|(code, _)| code == 403)
}

/// Has the server forgotten where the watch was? It lists again, and all is well.
pub(super) fn is_expired(error: &watcher::Error) -> bool {
    answer(error).is_some_and(|(code, _)| code == 410)
}

/// One line.
pub(super) fn explain(kind: ObjectKind, error: &watcher::Error) -> String {
    match (answer(error), kind) {
        (Some((404, _)), ObjectKind::Document(kind)) => format!(
            "the cluster does not know {} of {GROUP}/{VERSION}: install the CRDs with `sluice-control crds | kubectl \
             apply -f -`",
            kind.name()
        ),
        (Some((403, words)), _) => {
            format!("{words}: grant list and watch to this process's service account")
        }
        (Some((_, words)), _) if !words.is_empty() => words.to_owned(),
        (Some((code, _)), _) => format!("the API server answers {code}"),
        (None, _) => innermost(error),
    }
}

/// The source that says `connection refused` and the like.
fn innermost(error: &watcher::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = inner.source();
    }
    text
}
