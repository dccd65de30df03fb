//! Keeps one object of the cluster as it should be: applied by the leader, watched, and put back when someone
//! changes what is ours of it.
//!
//! For objects made from our certificates: the published bundle and the webhook's registration.
//! Not for statuses.

use std::time::Duration;

use futures::StreamExt;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::FIELD_MANAGER;
use crate::api_error::explain;
use crate::certificates::Trust;
use crate::leader::Leadership;

/// After a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Longest wait for the API server.
const PATIENCE: Duration = Duration::from_secs(15);

/// A watch that says nothing is believed for this long.
const RESYNC: Duration = Duration::from_secs(10 * 60);

/// Between two writes, should two of us want different things.
const PAUSE: Duration = Duration::from_secs(1);

/// What we have to say of the object, given whom clients must trust and the object as it is; `None`: nothing.
pub(crate) type Wanted = Box<dyn Fn(Option<&Trust>, Option<&Value>) -> Option<Value> + Send + Sync>;

/// Did we make it? Else we say of it no more than we must: it belongs to a release of the chart, say.
pub(crate) fn is_ours(object: &Value) -> bool {
    const LABEL: &str = "app.kubernetes.io/managed-by";
    object["metadata"]["labels"][LABEL] == crate::own_labels()[LABEL]
}

/// One object.
pub(crate) struct Upkeep {
    pub(crate) api: Api<DynamicObject>,
    pub(crate) name: String,
    pub(crate) wanted: Wanted,
    /// Is it no matter if it cannot be done?
    pub(crate) optional: bool,
    pub(crate) trust: watch::Receiver<Option<Trust>>,
    pub(crate) leadership: Leadership,
}

impl Upkeep {
    /// Runs until dropped.
    pub(crate) async fn run(mut self) {
        let mut changes =
            std::pin::pin!(watcher::watch_object(self.api.clone(), &self.name).default_backoff());
        let mut failing = false;
        loop {
            let pass = timeout(PATIENCE, self.pass()).await;
            let wait = match pass.unwrap_or_else(|_| Err(silent())) {
                Ok(true) => {
                    tokio::time::sleep(PAUSE).await;
                    RESYNC
                }
                Ok(false) => RESYNC,
                Err(error) => {
                    if !failing && !self.optional {
                        let (error, name) = (explain(&error), &self.name);
                        tracing::warn!(error, name, "cannot keep this object as it should be");
                    }
                    failing = true;
                    RETRY
                }
            };
            failing &= wait == RETRY;
            tokio::select! {
                _ = changes.next() => {}
                // Ends only with the process.
                Ok(()) = self.trust.changed() => {}
                () = self.leadership.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Answers whether it wrote.
    pub(crate) async fn pass(&mut self) -> kube::Result<bool> {
        if !self.leadership.is_leader() {
            return Ok(false);
        }
        let trust = self.trust.borrow_and_update().clone();
        let object = self.api.get_opt(&self.name).await?;
        let object = object.and_then(|object| serde_json::to_value(object).ok());
        let Some(wanted) = (self.wanted)(trust.as_ref(), object.as_ref()) else {
            return Ok(false);
        };
        let is_so = object.is_some_and(|object| is_in(&wanted, &object));
        if is_so || !self.leadership.is_leader() {
            return Ok(false);
        }
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        self.api
            .patch(&self.name, &parameters, &Patch::Apply(&wanted))
            .await?;
        tracing::info!(name = self.name, "applied");
        Ok(true)
    }
}

fn silent() -> kube::Error {
    kube::Error::Service("the API server does not answer".into())
}

/// Does `object` say all that `wanted` says? What defaulting and others added does not matter, except in lists.
fn is_in(wanted: &Value, object: &Value) -> bool {
    match (wanted, object) {
        (Value::Object(wanted), Value::Object(object)) => wanted
            .iter()
            .all(|(key, value)| is_in(value, object.get(key).unwrap_or(&Value::Null))),
        (Value::Array(wanted), Value::Array(object)) => {
            wanted.len() == object.len()
                && wanted
                    .iter()
                    .zip(object)
                    .all(|(wanted, object)| is_in(wanted, object))
        }
        // The API server leaves out what is empty.
        (Value::Array(wanted), Value::Null) => wanted.is_empty(),
        (Value::Object(wanted), Value::Null) => wanted.is_empty(),
        (wanted, object) => wanted == object,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ApiResource;
    use serde_json::json;

    use super::*;
    use crate::testing::ApiServer;

    const PATH: &str = "/api/v1/namespaces/sluice/configmaps/trust";

    fn upkeep(server: &ApiServer) -> (Upkeep, watch::Sender<Option<Trust>>) {
        let (sender, trust) = watch::channel(None);
        let resource = ApiResource::erase::<ConfigMap>(&());
        let upkeep = Upkeep {
            api: Api::namespaced_with(server.client(), "sluice", &resource),
            name: "trust".into(),
            wanted: Box::new(|trust, _| {
                Some(json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "trust" },
                    "data": { "ca.crt": trust?.bundle },
                }))
            }),
            optional: false,
            trust,
            leadership: Leadership::always(),
        };
        (upkeep, sender)
    }

    #[tokio::test]
    async fn an_object_is_made_once_there_is_something_to_say_and_put_back_when_changed() {
        let server = ApiServer::new();
        let (mut upkeep, trust) = upkeep(&server);
        assert!(!upkeep.pass().await.unwrap());
        trust.send_replace(Some(Trust {
            bundle: "one".into(),
        }));
        assert!(upkeep.pass().await.unwrap());
        assert!(!upkeep.pass().await.unwrap(), "nothing was changed");

        let mut object = server.object(PATH).unwrap();
        object["data"]["ca.crt"] = "overwritten".into();
        object["data"]["theirs"] = "kept".into();
        server.put_at(PATH, object);
        assert!(upkeep.pass().await.unwrap());
        let data = server.object(PATH).unwrap()["data"].clone();
        assert_eq!(data, json!({ "ca.crt": "one", "theirs": "kept" }));
    }

    #[tokio::test]
    async fn only_the_leader_writes() {
        let server = ApiServer::new();
        let (mut upkeep, trust) = upkeep(&server);
        trust.send_replace(Some(Trust {
            bundle: "one".into(),
        }));
        let (_, follower) = crate::leader::Elector::new(
            server.client(),
            "sluice",
            "sluice-control",
            "follower".into(),
            Default::default(),
        );
        upkeep.leadership = follower;
        assert!(!upkeep.pass().await.unwrap());
        assert_eq!(server.writes(), 0);
    }

    #[test]
    fn defaults_of_others_do_not_matter_but_items_of_lists_do() {
        let wanted = json!({ "a": [{ "name": "x" }], "empty": [], "none": {} });
        assert!(is_in(
            &wanted,
            &json!({ "a": [{ "name": "x", "added": 1 }], "b": 2 })
        ));
        assert!(!is_in(
            &wanted,
            &json!({ "a": [{ "name": "x" }, { "name": "y" }] })
        ));
        assert!(!is_in(&wanted, &json!({ "a": [{ "name": "y" }] })));
        assert!(!is_in(&json!({ "empty": [] }), &json!({ "empty": [1] })));
    }
}
