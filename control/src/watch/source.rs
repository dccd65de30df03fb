//! One watch: objects as they come, trimmed at once, into the channel.
//!
//! Watches that break are taken up where they were, and lists that expired are made anew, by kube's watcher; the waits
//! between attempts and the patience with a server that does not answer are here.

use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use k8s_openapi::api::core::v1;
use kube::api::{Api, DynamicObject, PartialObjectMeta};
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use sluice_config::Kind;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::backoff::Backoff;
use super::trouble;
use super::{CREDENTIAL_LABEL, PROXY_LABELS};
use crate::index::{
    Document, Namespace, Node, Object, ObjectKey, ObjectKind, Pod, PodObject, Secret,
};
use crate::status::api_resource;

/// The API server ends a watch after this time, and a connection on which nothing came for as long is given up: a
/// network that swallows packets is noticed within it.
const WATCH_SECONDS: u32 = 60;
/// Longest wait for the next page of a list.
const LIST_DEADLINE: Duration = Duration::from_secs(60);
/// Objects in a page of a list.
const PAGE: u32 = 500;

/// Tells watches apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SourceId(pub(super) u64);

/// What a watch looks at.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    pub(super) kind: ObjectKind,
    /// `None`: all of them, or the kind has none.
    pub(super) namespace: Option<Arc<str>>,
    pub(super) selector: Option<String>,
}

/// What a watch has to say.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) source: SourceId,
    pub(super) seen_at: SystemTime,
    pub(super) news: News,
}

#[derive(Debug)]
pub(super) enum News {
    /// A list begins, for the first time or again.
    Listing,
    /// All there is.
    Listed(Vec<Object>),
    Applied(Object),
    Deleted(ObjectKey),
    Failed(Failure),
}

#[derive(Debug)]
pub(super) struct Failure {
    pub(super) why: Arc<str>,
    pub(super) forbidden: bool,
    /// It lists again, as is usual now and then.
    pub(super) expired: bool,
}

/// A watch that runs until this is dropped.
#[derive(Debug)]
pub(super) struct Source(JoinHandle<()>);

impl Drop for Source {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Source {
    pub(super) fn start(
        client: &Client,
        id: SourceId,
        scope: Scope,
        sender: mpsc::Sender<Message>,
    ) -> Self {
        let outlet = Outlet { id, sender };
        let client = client.clone();
        Self(tokio::spawn(async move {
            match scope.kind {
                ObjectKind::Document(kind) => documents(client, kind, scope, outlet).await,
                ObjectKind::Pod => {
                    let trim = |pod| Pod::of(pod).map(Object::Pod);
                    follow(namespaced::<PodObject>(client, &scope), scope, trim, outlet).await;
                }
                ObjectKind::Proxy => {
                    let trim = |pod| Pod::of(pod).map(Object::Proxy);
                    follow(namespaced::<PodObject>(client, &scope), scope, trim, outlet).await;
                }
                ObjectKind::Secret => {
                    let trim = |secret| Secret::of(secret).map(Object::Secret);
                    follow(
                        namespaced::<v1::Secret>(client, &scope),
                        scope,
                        trim,
                        outlet,
                    )
                    .await;
                }
                ObjectKind::Namespace => {
                    let api: Api<PartialObjectMeta<v1::Namespace>> = Api::all(client);
                    let trim = |object| Namespace::of(&object).map(Object::Namespace);
                    follow(api, scope, trim, outlet).await;
                }
                ObjectKind::Node => {
                    let api: Api<PartialObjectMeta<v1::Node>> = Api::all(client);
                    let trim = |object| Node::of(&object).map(Object::Node);
                    follow(api, scope, trim, outlet).await;
                }
            }
        }))
    }
}

impl Scope {
    /// Of a kind that has one selector for good.
    pub(super) fn of(kind: ObjectKind, namespace: Option<Arc<str>>) -> Self {
        let selector = match kind {
            ObjectKind::Secret => Some(CREDENTIAL_LABEL.to_owned()),
            ObjectKind::Proxy => Some(PROXY_LABELS.to_owned()),
            _ => None,
        };
        Self {
            kind,
            namespace,
            selector,
        }
    }
}

struct Outlet {
    id: SourceId,
    sender: mpsc::Sender<Message>,
}

impl Outlet {
    /// False when nobody listens any more.
    async fn send(&self, news: News) -> bool {
        let message = Message {
            source: self.id,
            seen_at: SystemTime::now(),
            news,
        };
        self.sender.send(message).await.is_ok()
    }
}

fn namespaced<K>(client: Client, scope: &Scope) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match &scope.namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    }
}

async fn documents(client: Client, kind: Kind, scope: Scope, outlet: Outlet) {
    let resource = api_resource(kind);
    let api: Api<DynamicObject> = match &scope.namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    let trim = move |object| Document::of(kind, object).map(Object::Document);
    follow(api, scope, trim, outlet).await;
}

/// Follows one watch until nobody listens any more.
async fn follow<K>(api: Api<K>, scope: Scope, trim: impl Fn(K) -> Option<Object>, outlet: Outlet)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config {
        label_selector: scope.selector.clone(),
        timeout: Some(WATCH_SECONDS),
        page_size: Some(PAGE),
        ..watcher::Config::default()
    };
    let mut backoff = Backoff::default();
    // A list that hangs is begun again with a new watcher.
    loop {
        let mut events = pin!(watcher(api.clone(), config.clone()));
        let mut listing: Option<Vec<Object>> = None;
        loop {
            let event = match listing.is_some() {
                true => timeout(LIST_DEADLINE, events.next()).await,
                false => Ok(events.next().await),
            };
            let news = match event {
                Err(_) => None,
                Ok(None) => break,
                Ok(Some(Ok(event))) => match take(event, &mut listing, &trim) {
                    Some(news) => Some(Ok(news)),
                    None => continue,
                },
                Ok(Some(Err(error))) => {
                    listing = None;
                    debug!(kind = scope.kind.name(), %error, "a watch failed");
                    Some(Err(failure(scope.kind, &error)))
                }
            };
            let hangs = news.is_none();
            let news = match news {
                Some(Ok(news)) => {
                    if !matches!(news, News::Listing) {
                        backoff.reset();
                    }
                    news
                }
                Some(Err(failure)) => News::Failed(failure),
                None => News::Failed(Failure {
                    why: format!("no answer for {LIST_DEADLINE:?}").into(),
                    forbidden: false,
                    expired: false,
                }),
            };
            let failed = matches!(&news, News::Failed(_));
            if !outlet.send(news).await {
                return;
            }
            if failed {
                sleep(backoff.next()).await;
            }
            if hangs {
                break;
            }
        }
    }
}

/// What an event amounts to; objects of a list are gathered until it is complete.
fn take<K: Resource>(
    event: Event<K>,
    listing: &mut Option<Vec<Object>>,
    trim: &impl Fn(K) -> Option<Object>,
) -> Option<News> {
    match event {
        Event::Init => {
            *listing = Some(Vec::new());
            Some(News::Listing)
        }
        Event::InitApply(object) => {
            listing.get_or_insert_default().extend(trim(object));
            None
        }
        Event::InitDone => Some(News::Listed(listing.take().unwrap_or_default())),
        Event::Apply(object) => trim(object).map(News::Applied),
        Event::Delete(object) => {
            let namespace = object.namespace().unwrap_or_default();
            Some(News::Deleted(ObjectKey::new(namespace, object.name_any())))
        }
    }
}

fn failure(kind: ObjectKind, error: &watcher::Error) -> Failure {
    Failure {
        why: trouble::explain(kind, error).into(),
        forbidden: trouble::is_forbidden(error),
        expired: trouble::is_expired(error),
    }
}
