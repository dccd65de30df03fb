//! An inference request: body, route, attempts, and the answer back.

use std::sync::Arc;

use http::header::HeaderMap;
use sluice_config::snapshot::Target;

use super::body::{self, Body, ReadError};
use super::request::{Request, flow};
use super::{Gateway, Halt, deliver, surface};
use crate::endpoints::InFlightGuard;
use crate::error::RequestError;
use crate::filters::{BodyView, Hooks};
use crate::forward::attempts::{Answer, AttemptLog, Job, NoAnswer};
use crate::forward::exchange::Downstream;
use crate::forward::plan::Plan;
use crate::limits::ByteGuard;
use crate::route::{self, Matched};
use crate::schedule::RequestView;
use crate::serving::Serving;

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
    let dispatched = dispatch(
        gateway, client, request, &serving, &matched, &body, ask_usage,
    );
    let (answer, log) = Box::pin(dispatched).await?;
    // The body is with the engine: what it holds of the budget is free again.
    let prompt_bytes = body.facts().map_or(0, |facts| facts.prompt_bytes);
    drop((body, held));
    // Nor is the head needed, whose values hold on to the buffer it came in.
    request.head.headers = HeaderMap::new();
    note_attempts(request, &serving, &log);
    deliver::deliver(
        gateway,
        client,
        request,
        &serving,
        answer,
        ask_usage,
        prompt_bytes,
    )
    .await
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
    serving: &Serving,
    matched: &Matched<'_>,
    body: &Body,
    ask_usage: bool,
) -> Result<(Box<Answer>, AttemptLog), Halt> {
    let mut plan = plan(request, serving, matched)?;
    for server in plan.skipped(gateway.now()) {
        serving.pools[server].metrics.skip();
    }
    request.record.request_processing = Some(request.started.elapsed());
    let rename = |server: usize| {
        let model = serving.snapshot.servers[server].model.as_deref();
        model.filter(|model| !matched.lora && *model != body.model)
    };
    let edited = |server: usize| body.edited(rename(server), ask_usage);
    let mut job = Job {
        serving,
        head: &request.head,
        view: request_view(body),
        started: request.started,
        deadline: request.deadline,
        filters: &mut request.filters,
        body: &edited,
    };
    let attempts = gateway.attempts();
    let mut log = AttemptLog::default();
    let answered = tokio::select! {
        biased;
        answered = attempts.run(&mut job, &mut plan, &mut log, &mut request.random) => Some(answered),
        () = client.gone() => None,
    };
    request.record.upstream_model = log
        .server
        .map(|server| rename(server).unwrap_or(&body.model).to_owned());
    let failed = match answered {
        Some(Ok(answer)) => return Ok((answer, log)),
        Some(Err(NoAnswer::Error(error))) => Halt::Error(error),
        Some(Err(NoAnswer::Reply(reply))) => Halt::Reply(reply),
        None => Halt::ClientGone,
    };
    note_attempts(request, serving, &log);
    Err(failed)
}

/// What the scheduler may know of a request.
pub(super) fn request_view(body: &Body) -> RequestView<'_> {
    let facts = body.facts();
    RequestView {
        model: &body.model,
        // Four bytes a token until something better is known.
        prompt_tokens: facts.map_or(0, |facts| facts.prompt_bytes.div_ceil(4) as u32),
        ..RequestView::default()
    }
}

/// The rule's targets and endpoints, as filters leave them. Counts nothing: `/debug/explain` asks for it too.
pub(super) fn plan<'a>(
    request: &mut Request,
    serving: &'a Serving,
    matched: &Matched<'_>,
) -> Result<Plan<'a>, Halt> {
    let servers = matched
        .rule
        .targets
        .iter()
        .filter_map(|weighted| match weighted.target {
            Target::Server(server) => Some((server, weighted.weight)),
            Target::External(_) => None,
        });
    let mut plan = Plan::new(serving, servers);
    if plan.is_empty() {
        let model = request.record.model.clone().unwrap_or_default();
        return Err(RequestError::ExternalTarget { model }.into());
    }
    if request.filters.wants(Hooks::CANDIDATES) {
        let mut candidates = plan.candidates();
        flow(request.filters.candidates(&request.head, &mut candidates))?;
        plan.apply(candidates);
    }
    Ok(plan)
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
