//! The one task that takes everything in: from watches into the index, and what comes of it to its outlet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kube::Client;
use sluice_config::Kind;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::metrics::WatchMetrics;
use super::plan::{Action, PodPlan};
use super::progress::Progress;
use super::source::{Failure, Message, News, Scope, Source, SourceId};
use super::{SecretReach, WatchSettings};
use crate::index::{DocumentKey, Facts, Index, Input, Object, ObjectKey, ObjectKind};
use crate::state::Change;

/// Changes that wait: more make watches wait, and in the end the API server.
const QUEUE: usize = 4096;
/// A burst is taken in for no longer than this before it is worked off.
const GATHER: Duration = Duration::from_millis(5);

/// Where it goes.
pub trait Outlet: Send {
    /// What gateways are to be told.
    fn change(&mut self, change: Change);

    /// What is known of documents, for their statuses; `None`: they are gone.
    fn facts(&mut self, facts: Vec<(DocumentKey, Option<Arc<Facts>>)>);

    /// The changes until now are the whole of the cluster: gateways may be told.
    fn synced(&mut self);
}

/// Follows the cluster.
pub struct Follower<O> {
    client: Client,
    outlet: O,
    metrics: WatchMetrics,
    progress: watch::Sender<Progress>,
    index: Index,
    plan: PodPlan,
    sources: BTreeMap<SourceId, Watched>,
    last_id: u64,
    sender: mpsc::Sender<Message>,
    /// When the oldest change was seen that has not been handed on.
    seen_at: Option<SystemTime>,
    synced: bool,
}

/// A watch and how it does.
struct Watched {
    scope: Scope,
    listed: bool,
    trouble: Option<Arc<str>>,
    _source: Source,
}

impl<O: Outlet> Follower<O> {
    /// Nothing is asked of the API server before [`run`](Self::run). The receiver tells how far it is.
    pub fn new(
        client: Client,
        outlet: O,
        metrics: WatchMetrics,
    ) -> (Self, watch::Receiver<Progress>) {
        let (progress, receiver) = watch::channel(Progress::default());
        // Replaced by the one whose other end `run` holds.
        let (sender, _) = mpsc::channel(1);
        let this = Self {
            client,
            outlet,
            metrics,
            progress,
            index: Index::default(),
            plan: PodPlan::default(),
            sources: BTreeMap::new(),
            last_id: 0,
            sender,
            seen_at: None,
            synced: false,
        };
        (this, receiver)
    }

    /// Follows until it is dropped.
    pub async fn run(mut self, settings: WatchSettings) {
        let (sender, mut receiver) = mpsc::channel(QUEUE);
        self.sender = sender;
        self.start_all(&settings);
        self.report();
        let mut messages = Vec::new();
        loop {
            let shrink = self.plan.next_shrink();
            let far = || Instant::now() + Duration::from_secs(3600);
            tokio::select! {
                _ = receiver.recv_many(&mut messages, QUEUE) => {}
                () = sleep_until(shrink.unwrap_or_else(far)), if shrink.is_some() => {
                    self.plan.touch_wide(Instant::now());
                }
            }
            let until = Instant::now() + GATHER;
            loop {
                messages.drain(..).for_each(|message| self.take(message));
                if Instant::now() >= until {
                    break;
                }
                match receiver.try_recv() {
                    Ok(message) => messages.push(message),
                    Err(_) => break,
                }
            }
            self.metrics.queue(receiver.len());
            self.settle();
            self.pass();
        }
    }

    /// The watches that there always are.
    fn start_all(&mut self, settings: &WatchSettings) {
        let everywhere = settings.namespaces.is_empty();
        let namespaces = match everywhere {
            true => vec![None],
            false => distinct(&settings.namespaces),
        };
        for namespace in &namespaces {
            for kind in Kind::ALL {
                self.start(Scope::of(ObjectKind::Document(kind), namespace.clone()));
            }
        }
        let secrets = match &settings.secrets {
            SecretReach::AsDocuments => namespaces,
            SecretReach::Only(only) => distinct(only),
        };
        for namespace in secrets {
            self.start(Scope::of(ObjectKind::Secret, namespace));
        }
        if let Some(own) = &settings.own_namespace {
            self.start(Scope::of(ObjectKind::Proxy, Some(own.clone())));
        }
        self.start(Scope::of(ObjectKind::Node, None));
        if everywhere {
            // Whoever may look into some namespaces only may seldom list them.
            self.start(Scope::of(ObjectKind::Namespace, None));
        }
    }

    fn start(&mut self, scope: Scope) {
        let id = self.new_id();
        self.start_as(id, scope);
    }

    fn start_as(&mut self, id: SourceId, scope: Scope) {
        debug!(
            kind = scope.kind.name(),
            namespace = scope.namespace.as_deref(),
            selector = scope.selector,
            "watching"
        );
        let source = Source::start(&self.client, id, scope.clone(), self.sender.clone());
        let watched = Watched {
            scope,
            listed: false,
            trouble: None,
            _source: source,
        };
        self.sources.insert(id, watched);
    }

    fn new_id(&mut self) -> SourceId {
        self.last_id += 1;
        SourceId(self.last_id)
    }

    fn take(&mut self, message: Message) {
        // Of a watch that has been stopped.
        let Some(watched) = self.sources.get_mut(&message.source) else {
            return;
        };
        let kind = watched.scope.kind;
        let namespace = watched.scope.namespace.clone();
        match message.news {
            News::Listing => return self.metrics.listing(kind),
            News::Failed(failure) => return self.failed(message.source, failure),
            News::Listed(_) => {
                watched.listed = true;
                if watched.trouble.take().is_some() {
                    info!(
                        kind = kind.name(),
                        namespace = namespace.as_deref(),
                        "watching again"
                    );
                }
            }
            News::Applied(_) | News::Deleted(_) => {
                watched.trouble = None;
                self.metrics.event(kind);
            }
        }
        self.seen_at.get_or_insert(message.seen_at);
        let mut actions = Vec::new();
        match kind {
            ObjectKind::Pod => {
                let namespace = namespace.expect("pods are watched by namespace");
                self.take_pods(&namespace, message.source, message.news, &mut actions);
            }
            ObjectKind::Document(Kind::ModelServer) => {
                take_servers(
                    &mut self.plan,
                    namespace.as_deref(),
                    message.news,
                    &mut actions,
                );
            }
            _ => actions.extend(input(kind, namespace, message.news).map(Action::Pass)),
        }
        self.act(actions);
    }

    fn take_pods(
        &mut self,
        namespace: &Arc<str>,
        source: SourceId,
        news: News,
        actions: &mut Vec<Action>,
    ) {
        if let News::Listed(objects) = news {
            self.plan.pods_listed(namespace, source, objects, actions);
        } else if self.plan.is_current(namespace, source) {
            let scope = Some(namespace.clone());
            actions.extend(input(ObjectKind::Pod, scope, news).map(Action::Pass));
        }
    }

    fn failed(&mut self, id: SourceId, failure: Failure) {
        let Some(watched) = self.sources.get_mut(&id) else {
            return;
        };
        let scope = &watched.scope;
        if failure.expired {
            debug!(
                kind = scope.kind.name(),
                namespace = scope.namespace.as_deref(),
                "listing again"
            );
            return;
        }
        self.metrics.error(scope.kind);
        if watched.trouble.as_ref() != Some(&failure.why) {
            warn!(
                kind = scope.kind.name(),
                namespace = scope.namespace.as_deref(),
                "cannot watch: {}",
                failure.why
            );
            watched.trouble = Some(failure.why.clone());
        }
        // Zones and peers make things better; nothing depends on them.
        watched.listed |= failure.forbidden && is_optional(scope.kind);
        if let (ObjectKind::Pod, Some(namespace)) = (scope.kind, scope.namespace.clone()) {
            self.plan.pods_failed(&namespace, id, &failure.why);
        }
    }

    /// Starts and stops watches of pods.
    fn settle(&mut self) {
        let mut actions = Vec::new();
        let last_id = &mut self.last_id;
        let new_id = || {
            *last_id += 1;
            SourceId(*last_id)
        };
        self.plan.settle(Instant::now(), new_id, &mut actions);
        self.act(actions);
        let pods = self
            .sources
            .values()
            .filter(|watched| watched.scope.kind == ObjectKind::Pod);
        self.metrics.pod_watches(pods.count());
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Pass(input) => self.index.apply(input),
                Action::Stop(id) => _ = self.sources.remove(&id),
                Action::Start {
                    id,
                    namespace,
                    selector,
                } => self.start_as(
                    id,
                    Scope {
                        kind: ObjectKind::Pod,
                        namespace: Some(namespace),
                        selector,
                    },
                ),
            }
        }
    }

    /// Works off what has been taken in, once everything is there.
    fn pass(&mut self) {
        if !self.synced {
            let waiting = self.waiting();
            if !waiting.is_empty() {
                return self.report();
            }
        }
        let started = std::time::Instant::now();
        let mut output = self.index.reconcile();
        self.metrics.pass(started.elapsed(), &self.index);
        let seen_at = self.seen_at.take().unwrap_or_else(SystemTime::now);
        if let Some(change) = output.change(seen_at) {
            self.outlet.change(change);
        }
        if !output.facts.is_empty() {
            self.outlet.facts(output.facts);
        }
        if !std::mem::replace(&mut self.synced, true) {
            info!("every first list is in");
            self.outlet.synced();
            self.report();
        }
    }

    /// What is missing before anything may be pushed.
    fn waiting(&self) -> Vec<String> {
        let missing = self.sources.values().filter(|watched| !watched.listed);
        // Those of pods are spoken of below, if they matter.
        let missing = missing.filter(|watched| watched.scope.kind != ObjectKind::Pod);
        let mut waiting: Vec<_> = missing
            .map(|watched| {
                let scope = &watched.scope;
                line(
                    scope.kind.name(),
                    scope.namespace.as_deref(),
                    watched.trouble.as_deref(),
                )
            })
            .collect();
        let pods = self.plan.awaiting();
        waiting.extend(
            pods.map(|(namespace, why)| line("Pod", Some(namespace), why.map(|why| &**why))),
        );
        waiting
    }

    fn report(&self) {
        let progress = Progress {
            synced: self.synced,
            waiting: if self.synced {
                Vec::new()
            } else {
                self.waiting()
            },
        };
        self.progress.send_if_modified(|last| {
            let changed = *last != progress;
            *last = progress;
            changed
        });
    }
}

fn distinct(namespaces: &[Arc<str>]) -> Vec<Option<Arc<str>>> {
    let distinct: BTreeSet<_> = namespaces.iter().cloned().collect();
    distinct.into_iter().map(Some).collect()
}

/// May it be missing, where this process may not look?
fn is_optional(kind: ObjectKind) -> bool {
    matches!(
        kind,
        ObjectKind::Node | ObjectKind::Namespace | ObjectKind::Proxy
    )
}

fn line(kind: &str, namespace: Option<&str>, trouble: Option<&str>) -> String {
    let place = namespace.map(|namespace| format!(" in namespace {namespace}"));
    let trouble = trouble.map(|trouble| format!(": {trouble}"));
    format!(
        "{kind}{}{}",
        place.unwrap_or_default(),
        trouble.unwrap_or_default()
    )
}

/// A change of a kind that goes straight into the index.
fn input(kind: ObjectKind, namespace: Option<Arc<str>>, news: News) -> Option<Input> {
    match news {
        News::Listed(objects) => Some(Input::Restarted {
            kind,
            namespace,
            objects,
        }),
        News::Applied(object) => Some(Input::Applied(object)),
        News::Deleted(key) => Some(Input::Deleted(kind, key)),
        News::Listing | News::Failed(_) => None,
    }
}

/// ModelServers go by the plan, which knows whether their pods are there.
fn take_servers(
    plan: &mut PodPlan,
    namespace: Option<&str>,
    news: News,
    actions: &mut Vec<Action>,
) {
    let document = |object| match object {
        Object::Document(document) => Some(document),
        _ => None,
    };
    match news {
        News::Listed(objects) => {
            let documents = objects.into_iter().filter_map(document).collect();
            plan.listed(namespace, documents, actions);
        }
        News::Applied(object) => {
            if let Some(document) = document(object) {
                plan.applied(document, actions);
            }
        }
        News::Deleted(key) => {
            let server: ObjectKey = key;
            plan.deleted(&server, actions);
        }
        News::Listing | News::Failed(_) => {}
    }
}

#[cfg(test)]
mod tests;
