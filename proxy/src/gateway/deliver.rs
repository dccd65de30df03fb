//! An engine's answer on its way to the client, and what is told of it afterwards.

use std::time::Instant;

use http::HeaderValue;
use http::header::{self, HeaderMap};

use super::request::Request;
use super::{Gateway, Halt};
use crate::cache::prompt::Prompt;
use crate::error::RequestError;
use crate::filters::{End, Hooks, LocalReply, ResponseFlow};
use crate::forward::attempts::Answer;
use crate::forward::exchange::Downstream;
use crate::forward::relay::{self, RelayEnd, RelayOptions, RelayReport};
use crate::http::ResponseHead;
use crate::http::identity::REQUEST_ID;
use crate::serving::Serving;

/// Sends the answer on: its head through the filters, then its body as it comes.
pub(super) async fn deliver<D: Downstream>(
    gateway: &Gateway,
    client: &mut D,
    request: &mut Request,
    serving: &Serving,
    mut answer: Box<Answer>,
    ask_usage: bool,
    prompt: &Prompt,
) -> Result<(), Halt> {
    let mut head = std::mem::replace(
        &mut answer.head,
        ResponseHead {
            status: http::StatusCode::OK,
            headers: HeaderMap::new(),
        },
    );
    let options = relay_options(gateway, request, serving, &answer, &head, ask_usage);
    if let Err(halt) = prepare(request, &mut head, options.events).await {
        answer.release(&gateway.connector).await;
        return Err(halt);
    }
    let dispatched = request.record.request_processing.unwrap_or_default();
    if client.start(head).await.is_err() {
        request.end = End::ClientGone;
        return Ok(());
    }
    let series = gateway.metrics.handles(
        request.record.route.as_deref(),
        request.record.server.as_deref(),
        request.record.model.as_deref(),
    );
    // An error teaches nothing of the engine's speed, in whatever form it comes.
    let refused = request.record.status >= 400;
    let Answer {
        upstream, flight, ..
    } = &mut *answer;
    let (end, report) = relay::relay(client, upstream, &mut request.filters, options, |beat| {
        if options.events && !refused {
            beat.gap.inspect(|gap| series.observe_gap(*gap));
            flight.streamed(beat.events, beat.at);
        } else {
            flight.prefilled();
        }
    })
    .await;
    note_report(request, &report, options.events, prompt.chain.length());
    note_quality(gateway, &answer, request.record.status, &end);
    if !refused {
        learn(
            gateway,
            request,
            serving,
            &mut answer,
            &end,
            &report,
            prompt,
        );
    }
    let processed = report.last_byte.map_or_else(
        || request.started.elapsed(),
        |at| at.saturating_duration_since(request.started),
    );
    request.record.upstream_processing = Some(processed.saturating_sub(dispatched));
    finish(client, request, end, &report, options.events).await;
    answer.release(&gateway.connector).await;
    request.record.response_processing = Some(request.started.elapsed().saturating_sub(processed));
    Ok(())
}

/// Shows the head to the filters, one of which may answer in the engine's place.
async fn prepare(request: &mut Request, head: &mut ResponseHead, events: bool) -> Result<(), Halt> {
    if let ResponseFlow::Replace(content) = request.filters.response_head(head).await {
        let reply = LocalReply {
            status: head.status,
            headers: std::mem::take(&mut head.headers),
            body: content,
        };
        return Err(Halt::Reply(reply.into()));
    }
    // A stream may end with an event of ours.
    if events || request.filters.wants(Hooks::RESPONSE_CHUNK) {
        head.headers.remove(header::CONTENT_LENGTH);
    }
    head.headers.insert(REQUEST_ID, request.id.clone());
    request.record.status = head.status.as_u16();
    Ok(())
}

fn relay_options(
    gateway: &Gateway,
    request: &Request,
    serving: &Serving,
    answer: &Answer,
    head: &ResponseHead,
    ask_usage: bool,
) -> RelayOptions {
    let events = is_event_stream(&head.headers);
    let policy = &serving.snapshot.servers[answer.server].policy;
    let total = policy.total_timeout.map(|total| request.started + total);
    RelayOptions {
        idle_timeout: policy
            .stream_idle_timeout
            .unwrap_or(gateway.config.timeouts.stream_idle.into()),
        deadline: total.map_or(request.deadline, |total| total.min(request.deadline)),
        events,
        withhold_usage: ask_usage && events,
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .map(HeaderValue::as_bytes)
        .is_some_and(|kind| {
            kind.len() >= 17 && kind[..17].eq_ignore_ascii_case(b"text/event-stream")
        })
}

/// Tokens as the engine told them, else estimated: four bytes of prompt a token, one token an event.
fn note_report(request: &mut Request, report: &RelayReport, events: bool, prompt_bytes: u32) {
    let record = &mut request.record;
    record.response_bytes = report.bytes;
    record.gaps = report.gaps;
    let first = report
        .first_byte
        .map(|at: Instant| at.saturating_duration_since(request.started));
    record.ttft = first.filter(|_| events);
    if let Some(usage) = &report.usage {
        record.input_tokens = Some(usage.prompt_tokens);
        record.output_tokens = Some(usage.completion_tokens);
        record.cached_tokens = usage.cached_tokens;
    } else if record.status < 400 {
        record.tokens_estimated = true;
        record.input_tokens = Some(u64::from(prompt_bytes.div_ceil(4)));
        // Of an answer in one piece nothing is known.
        record.output_tokens = events.then_some(report.events);
    }
}

/// What an answer tells of its endpoint.
#[derive(Debug, PartialEq, Eq)]
enum Quality {
    Good,
    Failed,
    /// It broke off: so did others, if the engine crashed.
    Broken,
}

/// What the answer tells, if anything: a client's mistake, departure or patience says nothing (501: the model lacks
/// what it asked for), and what cannot be served at all is `health`'s, which also notices when that is over.
fn quality(status: u16, end: &RelayEnd) -> Option<Quality> {
    match (status, end) {
        (501..=504, _) => None,
        (500.., _) | (_, RelayEnd::Timeout(_)) => Some(Quality::Failed),
        (_, RelayEnd::Broken(_)) => Some(Quality::Broken),
        (..400, RelayEnd::Complete) => Some(Quality::Good),
        _ => None,
    }
}

fn note_quality(gateway: &Gateway, answer: &Answer, status: u16, end: &RelayEnd) {
    let (failing, now) = (&answer.flight.endpoint().failing, gateway.now());
    match quality(status, end) {
        Some(Quality::Good) => failing.answered(false, now),
        Some(Quality::Failed) => failing.answered(true, now),
        Some(Quality::Broken) => failing.broke(answer.since, now),
        None => {}
    }
}

/// What a good answer teaches: how fast its endpoint is, how prompts become tokens, how long answers are.
fn learn(
    gateway: &Gateway,
    request: &Request,
    serving: &Serving,
    answer: &mut Answer,
    end: &RelayEnd,
    report: &RelayReport,
    prompt: &Prompt,
) {
    let usage = report.usage.as_ref();
    let tokens = usage.map(|usage| usage.completion_tokens);
    if let Some(at) = report.last_byte {
        answer.flight.finished(tokens, at);
    }
    if let Some(usage) = usage {
        let cache = &serving.pools[answer.server].cache;
        cache.counted(prompt, usage.prompt_tokens);
    }
    // One that was cut off says nothing of its length.
    if let (RelayEnd::Complete, Some(tokens), Some(model)) = (end, tokens, &request.record.model) {
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        gateway.outputs.finished(model, tokens);
    }
}

/// Whole answers end by themselves. A broken stream ends with an error event, any other broken answer visibly.
async fn finish<D: Downstream>(
    client: &mut D,
    request: &mut Request,
    end: RelayEnd,
    report: &RelayReport,
    events: bool,
) {
    let attempts = request.record.attempts;
    let error = match end {
        RelayEnd::Complete => {
            request.end = End::Completed;
            return;
        }
        RelayEnd::ClientGone | RelayEnd::ClientSlow => {
            request.end = End::ClientGone;
            request.record.error_origin = Some("client");
            client.abort().await;
            return;
        }
        RelayEnd::Broken(error) => RequestError::EngineBroken {
            attempts,
            cause: error.to_string(),
        },
        RelayEnd::Timeout(timeout) | RelayEnd::Deadline(timeout) => {
            RequestError::EngineTimeout { timeout }
        }
        RelayEnd::Filter => RequestError::Internal("a filter stopped the answer".into()),
    };
    request.end = End::EngineFailed;
    request.note(&error);
    if !events {
        client.abort().await;
        return;
    }
    let mut event = if report.between_events {
        Vec::new()
    } else {
        b"\n\n".to_vec()
    };
    event.extend_from_slice(&error.sse_event());
    let told = client.write(event.into()).await;
    if told.is_err() || client.finish().await.is_err() {
        client.abort().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::forward::exchange::EngineError;

    #[test]
    fn an_endpoint_answers_for_what_it_did_itself() {
        let silent = || RelayEnd::Timeout(Duration::from_secs(1));
        let late = || RelayEnd::Deadline(Duration::ZERO);
        let broken = || RelayEnd::Broken(EngineError::Lost("reset".into()));
        let cases = [
            (200, RelayEnd::Complete, Some(Quality::Good)),
            (500, RelayEnd::Complete, Some(Quality::Failed)),
            (200, silent(), Some(Quality::Failed)),
            (200, broken(), Some(Quality::Broken)),
            (404, broken(), Some(Quality::Broken)),
            // The client's doing, or nobody's.
            (200, late(), None),
            (200, RelayEnd::ClientSlow, None),
            (200, RelayEnd::ClientGone, None),
            (200, RelayEnd::Filter, None),
            (400, RelayEnd::Complete, None),
            (501, RelayEnd::Complete, None),
            // For `health`.
            (503, RelayEnd::Complete, None),
            (503, broken(), None),
        ];
        for (status, end, told) in cases {
            assert_eq!(quality(status, &end), told, "{status}, {end:?}");
        }
    }
}
