//! The parts of the snapshot in force, each with what it was compiled from: a change compiles what it touches, and the
//! rest is shared with the snapshot before.
//!
//! Not for which documents are in force, nor for what is wrong with them: see `catalog`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use sluice_crds::networking::{ModelRouteSpec, ModelServerSpec};

use crate::compile;
use crate::document::{Document, Identity, Resource};
use crate::snapshot::{Endpoint, ModelServer, Route, Snapshot, Target};
use crate::validate::Regexes;

/// A document in force.
#[derive(Clone)]
pub(crate) struct Standing<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) document: &'a Arc<Document>,
    pub(crate) resource: &'a Arc<Resource>,
    /// Unix seconds.
    pub(crate) created: u64,
}

/// Pushed endpoints of each pool (`namespace/name`), by their names.
pub(crate) type PoolEndpoints = HashMap<String, BTreeMap<Arc<str>, Arc<Endpoint>>>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Live {
    servers: HashMap<String, LiveServer>,
    routes: HashMap<String, LiveRoute>,
}

#[derive(Debug)]
struct LiveServer {
    resource: Arc<Resource>,
    /// With the endpoints that the document lists, and no other.
    written: ModelServer,
    server: Arc<ModelServer>,
    position: usize,
}

#[derive(Debug)]
struct LiveRoute {
    resource: Arc<Resource>,
    created: u64,
    /// What each target that names a ModelServer was resolved to.
    resolved: Vec<Option<usize>>,
    route: Arc<Route>,
}

impl Live {
    /// The next snapshot for these documents, in order of precedence; `None` if it would be the same as `last`. The
    /// endpoints of pools that are not among `touched` are as they were.
    pub(crate) fn rebuild(
        &mut self,
        last: &Snapshot,
        servers: &[Standing<'_>],
        routes: &[Standing<'_>],
        (pushed, touched): (&PoolEndpoints, &BTreeSet<String>),
        regexes: &mut Regexes,
    ) -> Option<Snapshot> {
        let written = routes.iter().chain(servers);
        let documents = (last.documents).next(written.map(|one| (one.identity, one.resource)));
        let servers = self.rebuild_servers(servers, pushed, touched);
        let routes = self.rebuild_routes(routes, regexes);
        let same_routes = same(&routes, &last.routes);
        if same_routes && same(&servers, &last.servers) && documents.is(&last.documents) {
            return None;
        }
        let mut next = following(last);
        next.documents = documents;
        next.servers = servers;
        if !same_routes {
            index(&mut next, routes);
        }
        Some(next)
    }

    /// As [`Self::rebuild`], when no document has changed.
    pub(crate) fn touch(
        &mut self,
        last: &Snapshot,
        pushed: &PoolEndpoints,
        touched: &BTreeSet<String>,
    ) -> Option<Snapshot> {
        let mut next: Option<Snapshot> = None;
        for name in touched {
            let Some(known) = self.servers.get_mut(name) else {
                continue;
            };
            let server = with_endpoints(&known.written, pushed.get(name));
            if *known.server == server {
                continue;
            }
            known.server = Arc::new(server);
            let next = next.get_or_insert_with(|| following(last));
            next.servers[known.position] = Arc::clone(&known.server);
        }
        next
    }

    fn rebuild_servers(
        &mut self,
        standing: &[Standing<'_>],
        pushed: &PoolEndpoints,
        touched: &BTreeSet<String>,
    ) -> Vec<Arc<ModelServer>> {
        let mut before = std::mem::take(&mut self.servers);
        let mut servers = Vec::with_capacity(standing.len());
        for one in standing {
            let Resource::Server(document) = &**one.resource else {
                continue;
            };
            let name = one.identity.qualified();
            let known = before.remove(&name);
            let mut live = match known {
                Some(known)
                    if Arc::ptr_eq(&known.resource, one.resource) && !touched.contains(&name) =>
                {
                    known
                }
                known => {
                    let spec = &document.spec;
                    server(one, spec, pushed.get(&name), known)
                }
            };
            live.position = servers.len();
            servers.push(Arc::clone(&live.server));
            self.servers.insert(name, live);
        }
        servers
    }

    fn rebuild_routes(
        &mut self,
        standing: &[Standing<'_>],
        regexes: &mut Regexes,
    ) -> Vec<Arc<Route>> {
        let mut before = std::mem::take(&mut self.routes);
        let mut routes = Vec::with_capacity(standing.len());
        for one in standing {
            let Resource::Route(document) = &**one.resource else {
                continue;
            };
            let name = one.identity.qualified();
            let live = self.route(one, &document.spec, before.remove(&name), regexes);
            routes.push(Arc::clone(&live.route));
            self.routes.insert(name, live);
        }
        routes
    }

    fn route(
        &self,
        standing: &Standing<'_>,
        spec: &ModelRouteSpec,
        known: Option<LiveRoute>,
        regexes: &mut Regexes,
    ) -> LiveRoute {
        let namespace = &standing.identity.namespace;
        let position = |name: &str| {
            let server = self.servers.get(&format!("{namespace}/{name}"))?;
            Some(server.position)
        };
        let resolve = |name: &str| match position(name) {
            Some(position) => Target::Server(position),
            None => Target::Missing(format!("{namespace}/{name}")),
        };
        let resolved: Vec<_> = compile::server_names(spec).map(position).collect();
        let route = match known {
            Some(known) if known.created == standing.created && known.says(spec) => {
                match known.resolved == resolved {
                    true => known.route,
                    false => Arc::new(compile::retarget(&known.route, spec, &resolve)),
                }
            }
            _ => {
                let (identity, created) = (standing.identity, standing.created);
                Arc::new(compile::route(identity, spec, created, &resolve, regexes))
            }
        };
        LiveRoute {
            resource: Arc::clone(standing.resource),
            created: standing.created,
            resolved,
            route,
        }
    }
}

impl LiveRoute {
    /// Is it compiled from a document that says this?
    fn says(&self, spec: &ModelRouteSpec) -> bool {
        matches!(&*self.resource, Resource::Route(route) if std::ptr::eq(&route.spec, spec) || route.spec == *spec)
    }
}

/// A ModelServer compiled; the one there was if nothing that counts is different.
fn server(
    standing: &Standing<'_>,
    spec: &ModelServerSpec,
    pushed: Option<&BTreeMap<Arc<str>, Arc<Endpoint>>>,
    known: Option<LiveServer>,
) -> LiveServer {
    let written = compile::model_server(standing.identity, spec);
    let server = with_endpoints(&written, pushed);
    let known = known.map(|known| known.server);
    LiveServer {
        resource: Arc::clone(standing.resource),
        server: known
            .filter(|known| **known == server)
            .unwrap_or_else(|| Arc::new(server)),
        written,
        position: 0,
    }
}

/// Endpoints that are written down go first, and before pushed ones at the same address.
fn with_endpoints(
    written: &ModelServer,
    pushed: Option<&BTreeMap<Arc<str>, Arc<Endpoint>>>,
) -> ModelServer {
    let mut server = written.clone();
    let listed = written.endpoints.iter();
    let listed: HashSet<&str> = listed.map(|one| one.address.as_str()).collect();
    let is_new = |endpoint: &&Arc<Endpoint>| !listed.contains(endpoint.address.as_str());
    let pushed = pushed.into_iter().flat_map(BTreeMap::values);
    server.endpoints.extend(pushed.filter(is_new).cloned());
    server
}

fn same<T>(one: &[Arc<T>], other: &[Arc<T>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| Arc::ptr_eq(a, b))
}

/// The next generation, all of it shared with the one before.
pub(crate) fn following(last: &Snapshot) -> Snapshot {
    Snapshot {
        generation: last.generation + 1,
        ..last.clone()
    }
}

/// Puts routes in, and the names by which they are found.
fn index(snapshot: &mut Snapshot, routes: Vec<Arc<Route>>) {
    let mut by_model: HashMap<String, Vec<usize>> = HashMap::new();
    let mut by_lora: HashMap<String, Vec<usize>> = HashMap::new();
    for (position, route) in routes.iter().enumerate() {
        if !route.model_name.is_empty() {
            let name = route.model_name.clone();
            by_model.entry(name).or_default().push(position);
        }
        for adapter in &route.lora_adapters {
            let positions = by_lora.entry(adapter.clone()).or_default();
            if positions.last() != Some(&position) {
                positions.push(position);
            }
        }
    }
    snapshot.routes = Arc::new(routes);
    snapshot.by_model = Arc::new(by_model);
    snapshot.by_lora = Arc::new(by_lora);
}
