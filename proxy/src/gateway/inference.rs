//! An inference request: body, route, attempts, and the answer back.

use std::sync::Arc;

use bytes::Bytes;
use http::header::HeaderMap;
use sluice_config::scheduling::SessionParams;
use sluice_config::snapshot::{Rule, Target, WeightedTarget};

use super::body::{self, Body, ReadError};
use super::request::{Request, flow};
use super::{Gateway, Halt, deliver, remember, session, surface, tokenize};
use crate::cache::prompt::Prompt;
use crate::endpoints::InFlightGuard;
use crate::error::RequestError;
use crate::filters::{BodyView, Hooks};
use crate::forward::attempts::{Answer, AttemptLog, Job, NoAnswer};
use crate::forward::exchange::Downstream;
use crate::forward::plan::{Ask, Plan};
use crate::limits::ByteGuard;
use crate::route::{self, Matched};
use crate::serving::Serving;
use crate::telemetry::metrics::KthenaRequest;

/// Serves one inference request.
pub(super) async fn serve<D: Downstream>(
    gateway: &Gateway,
    client: &mut D,
    request: &mut Request,
) -> Result<(), Halt> {
    let (body, held) = Box::pin(read_body(gateway, client, request)).await?;
    // The request's own reference, so that what is borrowed from it outlives changes to `request`.
    let serving = Arc::clone(&request.serving);
    let (body, matched) = Box::pin(route_request(request, &serving, body)).await?;
    let _route = note_route(request, &serving, &matched);
    let ask_usage = asks_usage(request, &body);
    // Boxed: the state of connecting and retrying would else be held as long as the stream lasts.
    let routed = Routed::new(&serving, &matched, &body);
    let dispatched = dispatch(gateway, client, request, &routed, ask_usage);
    let (answer, log) = Box::pin(dispatched).await?;
    if answer.head.status.is_success() {
        let sent = || routed.body_for(answer.server, ask_usage);
        let (path, endpoint) = (request.head.uri.path(), answer.flight.endpoint());
        remember::remember(gateway, &routed, path, answer.server, endpoint, sent);
    }
    let prompt = routed.prompt;
    // The body is with the engine: what it holds of the budget is free again.
    drop((body, held));
    // Nor is the head needed, whose values hold on to the buffer it came in.
    request.head.headers = HeaderMap::new();
    note_attempts(request, &serving, &log);
    deliver::deliver(
        gateway, client, request, &serving, answer, ask_usage, &prompt,
    )
    .await
}

/// What routing made of a request.
pub(super) struct Routed<'a> {
    /// Configuration in force for it.
    pub(super) serving: &'a Serving,
    /// Its rule.
    pub(super) matched: &'a Matched<'a>,
    /// What it sent, as filters left it.
    pub(super) body: &'a Body,
    /// Its prompt, for what caches hold of it. A form has none that is looked at.
    pub(super) prompt: Arc<Prompt>,
}

impl<'a> Routed<'a> {
    pub(super) fn new(serving: &'a Serving, matched: &'a Matched<'a>, body: &'a Body) -> Self {
        let adapter = matched.lora.then_some(body.model.as_str());
        let prompt = body.facts().map_or_else(Prompt::default, |facts| {
            Prompt::of(&body.bytes, facts, adapter)
        });
        Self {
            serving,
            matched,
            body,
            prompt: Arc::new(prompt),
        }
    }

    /// The name that a server's engines know the model by, if the client used another.
    fn renamed(&self, server: usize) -> Option<&'a str> {
        let model = self.serving.snapshot.servers[server].model.as_deref();
        model.filter(|model| !self.matched.lora && *model != self.body.model)
    }

    /// The body as a server's engines are to get it.
    fn body_for(&self, server: usize, ask_usage: bool) -> Bytes {
        self.body.edited(self.renamed(server), ask_usage)
    }
}

async fn read_body<D: Downstream>(
    gateway: &Gateway,
    client: &mut D,
    request: &mut Request,
) -> Result<(Body, ByteGuard), Halt> {
    let limit = gateway.config.limits.body_bytes;
    let patience = gateway.config.timeouts.client_read.into();
    let read = body::read(
        client,
        &request.head.headers,
        limit,
        &gateway.bodies,
        patience,
    )
    .await;
    let (bytes, held) = read.map_err(|error| match error {
        ReadError::Refused(error) => Halt::Error(error),
        ReadError::Gone => Halt::ClientGone,
    })?;
    request.body_read = true;
    request.record.request_bytes = bytes.len() as u64;
    let body = Body::parse(&request.head.headers, bytes)?;
    request.record.stream = body.stream();
    request.record.model = Some(body.model.clone());
    request.kthena = (gateway.metrics.kthena()).map(|kthena| {
        let known = request.snapshot().knows(&body.model);
        kthena.request(known.then_some(&body.model))
    });
    Ok((body, held))
}

/// Finds the rule, and lets the route's filters see the body. A body they replaced is read and routed anew.
async fn route_request<'a>(
    request: &mut Request,
    serving: &'a Serving,
    mut body: Body,
) -> Result<(Body, Matched<'a>), Halt> {
    let mut matched = resolve(request, serving, &body)?;
    let chain = &serving.routes[matched.route_index].chain;
    flow(request.filters.enter_route(chain, &mut request.head).await)?;
    flow(
        request
            .filters
            .request_body(&mut request.head, &view(&body))
            .await,
    )?;
    let edits = request.filters.take_edits();
    if let Some(bytes) = edits.body {
        body = Body::parse(&request.head.headers, bytes)?;
        matched = resolve(request, serving, &body)?;
    }
    if let Some(limit) = edits.max_tokens {
        let bytes = body.clamped(request.head.uri.path(), limit);
        body = Body::parse(&request.head.headers, bytes)?;
    }
    Ok((body, matched))
}

fn resolve<'a>(
    request: &mut Request,
    serving: &'a Serving,
    body: &Body,
) -> Result<Matched<'a>, RequestError> {
    let path = request.head.uri.path();
    route::resolve(&serving.snapshot, &body.model, path, &request.head.headers).ok_or_else(|| {
        RequestError::RouteNotFound {
            model: body.model.clone(),
        }
    })
}

fn view(body: &Body) -> BodyView<'_> {
    let facts = body.facts();
    BodyView {
        bytes: &body.bytes,
        model: &body.model,
        prompt_bytes: facts.map_or(0, |facts| facts.prompt_bytes),
        max_tokens: body.max_tokens(),
        stream: body.stream(),
        user: facts.and_then(|facts| facts.user.as_deref()),
        session: facts.and_then(|facts| facts.session.as_deref()),
    }
}

/// Usage is needed of every stream; where the client did not ask, the gateway does, and keeps the answer.
fn asks_usage(request: &Request, body: &Body) -> bool {
    body.stream()
        && surface::knows_stream_options(request.head.uri.path())
        && body.facts().is_some_and(|facts| !facts.includes_usage())
}

fn note_route(request: &mut Request, serving: &Serving, matched: &Matched<'_>) -> InFlightGuard {
    let route = &serving.routes[matched.route_index];
    request.record.known_model = true;
    request.record.route = Some(route.name.clone());
    route.reserve()
}

fn note_attempts(request: &mut Request, serving: &Serving, log: &AttemptLog) {
    let record = &mut request.record;
    record.attempts = log.count;
    record.first_endpoint.clone_from(&log.first);
    record.endpoint.clone_from(&log.last);
    record.upstream_status = log.status;
    record.server = log.server.map(|server| serving.pools[server].name.clone());
}

/// Gets an engine's answer, or says why there is none. A client that leaves meanwhile ends it at once.
async fn dispatch<D: Downstream>(
    gateway: &Gateway,
    client: &mut D,
    request: &mut Request,
    routed: &Routed<'_>,
    ask_usage: bool,
) -> Result<(Box<Answer>, AttemptLog), Halt> {
    let mut plan = plan(gateway, request, routed)?;
    let kthena = gateway.metrics.kthena();
    if kthena.is_some() {
        plan.time_plugins();
    }
    tokenize::tokenize(gateway, routed, request.head.uri.path(), &mut plan).await;
    let Routed {
        serving,
        matched,
        body,
        ..
    } = *routed;
    for server in plan.skipped(gateway.now()) {
        serving.pools[server].metrics.skip();
    }
    request.record.request_processing = Some(request.started.elapsed());
    let edited = |server: usize| routed.body_for(server, ask_usage);
    let active = |server: usize| {
        let route = &serving.routes[matched.route_index].name;
        let upstream_model = routed.renamed(server).unwrap_or(&body.model);
        kthena?.upstream(route, &serving.pools[server].name, upstream_model)
    };
    let mut job = Job {
        serving,
        head: &request.head,
        model: &body.model,
        started: request.started,
        deadline: request.deadline,
        filters: &mut request.filters,
        body: &edited,
        whole: !body.stream(),
        active: &active,
    };
    let attempts = gateway.attempts();
    let mut log = AttemptLog::default();
    let answered = tokio::select! {
        biased;
        answered = attempts.run(&mut job, &mut plan, &mut log, &mut request.random) => Some(answered),
        () = client.gone() => None,
    };
    if let Some(told) = &request.kthena {
        note_schedule(told, &plan);
    }
    request.record.upstream_model = log
        .server
        .map(|server| routed.renamed(server).unwrap_or(&body.model).to_owned());
    let failed = match answered {
        Some(Ok(answer)) => return Ok((answer, log)),
        Some(Err(NoAnswer::Error(RequestError::NoEndpoint { model, reason }))) => {
            let missing = missing_server(matched.rule, &model);
            Halt::Error(missing.unwrap_or(RequestError::NoEndpoint { model, reason }))
        }
        Some(Err(NoAnswer::Error(error))) => Halt::Error(error),
        Some(Err(NoAnswer::Reply(reply))) => Halt::Reply(reply),
        None => Halt::ClientGone,
    };
    note_attempts(request, serving, &log);
    Err(failed)
}

/// What Kthena's metrics tell of how the endpoint was chosen.
fn note_schedule(told: &KthenaRequest, plan: &Plan<'_>) {
    for &(plugin, took) in plan.timings() {
        told.model().plugin(plugin, took);
    }
    if let Some((by_events, share)) = plan.best_share() {
        told.model().matched(by_events, share);
    }
}

/// The rule's targets and endpoints, as filters leave them. Counts nothing: `/debug/explain` asks for it too.
pub(super) fn plan<'a>(
    gateway: &Gateway,
    request: &mut Request,
    routed: &Routed<'a>,
) -> Result<Plan<'a>, Halt> {
    let Routed {
        serving,
        matched,
        body,
        prompt,
    } = routed;
    let servers = matched
        .rule
        .targets
        .iter()
        .filter_map(|weighted| match weighted.target {
            Target::Server(server) => Some((server, weighted.weight)),
            Target::Missing(_) | Target::External(_) => None,
        });
    let limit = body
        .max_tokens()
        .map(|limit| u32::try_from(limit).unwrap_or(u32::MAX));
    let ask = Ask {
        model: &body.model,
        prompt: Arc::clone(prompt),
        output_tokens: gateway.outputs.expected(&body.model, limit),
        lora: matched.lora,
    };
    let session =
        |params: &SessionParams| session::key(params, &request.head.headers, body.facts());
    let mut plan = Plan::new(serving, servers, ask, session);
    if plan.is_empty() {
        let model = request.record.model.clone().unwrap_or_default();
        let missing = missing_server(matched.rule, &model);
        return Err(missing
            .unwrap_or(RequestError::ExternalTarget { model })
            .into());
    }
    if request.filters.wants(Hooks::CANDIDATES) {
        let mut candidates = plan.candidates();
        flow(request.filters.candidates(&request.head, &mut candidates))?;
        plan.apply(candidates);
    }
    Ok(plan)
}

/// Why there is no endpoint, where all that would take traffic are ModelServers that do not exist.
pub(super) fn missing_server(rule: &Rule, model: &str) -> Option<RequestError> {
    let mut weighted = rule.targets.iter().filter(|target| target.weight > 0);
    let missing = |target: &WeightedTarget| match &target.target {
        Target::Missing(server) => Some(server.clone()),
        Target::Server(_) | Target::External(_) => None,
    };
    let first = weighted.next().and_then(missing)?;
    let all = weighted.all(|target| missing(target).is_some());
    all.then(|| RequestError::ServerMissing {
        model: model.to_owned(),
        server: first,
    })
}

/// Also for `/debug/explain`, which has no client.
pub(super) async fn route_for_explain<'a>(
    request: &mut Request,
    serving: &'a Serving,
    body: Body,
) -> Result<(Body, Matched<'a>), Halt> {
    request.record.model = Some(body.model.clone());
    request.enter_filters().await?;
    route_request(request, serving, body).await
}

/// A halt in words, for `/debug/explain`.
pub(super) fn halt_in_words(halt: &Halt) -> String {
    match halt {
        Halt::Error(error) => error.to_string(),
        Halt::Reply(reply) => format!("a filter answers with status {}", reply.status),
        Halt::ClientGone => "the client is gone".into(),
    }
}
