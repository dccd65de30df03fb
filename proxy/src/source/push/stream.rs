//! One stream from its connection to its end: requests out, responses into the [`Client`], batches into force.

use std::time::{Duration, Instant, SystemTime};

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};

use super::client::{Client, Collected, TooMuch};
use super::connect::{self, ConnectError, Connection, Target};
use super::{Loop, refused};
use crate::source::apply::{Applied, Ended};

/// Longest wait for the first batch: a control loop may have to look at a whole cluster first.
const FIRST_BATCH: Duration = Duration::from_secs(60);
/// Longest pause within a batch.
const WITHIN_BATCH: Duration = Duration::from_secs(30);
/// Longest time that the control loop may let answers lie.
const ANSWERS: Duration = Duration::from_secs(30);
/// A stream of this age that has brought a batch was a good one.
const LASTING: Duration = Duration::from_secs(10);
/// Largest message: values come in pieces of 256 KiB, and one alone may be larger.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// Requests on their way to the wire.
const QUEUE: usize = 64;

/// One attempt at one address.
pub(super) struct Session<'a> {
    follow: &'a Loop,
    target: &'a Target,
    /// When the first batch was in force.
    established: Option<Instant>,
}

/// Why it has ended.
pub(super) struct SessionEnd {
    pub(super) cause: EndCause,
    lasted: bool,
}

/// See [`SessionEnd`].
#[derive(Debug, Error)]
pub(super) enum EndCause {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{}", status(.0))]
    Status(#[from] tonic::Status),
    #[error("the control loop has ended the stream")]
    Closed,
    #[error("no {0} in time")]
    Silent(&'static str),
    #[error("the control loop has sent {0}")]
    TooMuch(#[from] TooMuch),
    #[error(transparent)]
    Ended(#[from] Ended),
}

impl SessionEnd {
    /// The gateway itself is ending.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.cause, EndCause::Ended(_))
    }

    /// It was a good stream until then.
    pub(super) fn lasted(&self) -> bool {
        self.lasted
    }
}

/// What is wrong in words of configuration, where the status tells.
fn status(status: &tonic::Status) -> String {
    let hint = match status.code() {
        tonic::Code::Unauthenticated => {
            "; check source.push.tokenFile (audience `sluice-control`) or certFile"
        }
        tonic::Code::PermissionDenied => "; grant the gateway's identity its namespaces",
        _ => "",
    };
    format!("{}: {}{hint}", status.code(), status.message())
}

impl<'a> Session<'a> {
    pub(super) fn new(follow: &'a Loop, target: &'a Target) -> Self {
        Self {
            follow,
            target,
            established: None,
        }
    }

    pub(super) async fn run(mut self) -> SessionEnd {
        let cause = match self.exchange().await {
            Ok(()) => EndCause::Closed,
            Err(cause) => cause,
        };
        let since = self.established;
        SessionEnd {
            cause,
            lasted: since.is_some_and(|since| since.elapsed() >= LASTING),
        }
    }

    async fn exchange(&mut self) -> Result<(), EndCause> {
        let follow = self.follow;
        let connection = connect::connect(self.target, &follow.credentials).await?;
        let known = follow.input.known().await?;
        let (mut client, first) = Client::start(&follow.node, &known);
        let (sender, requests) = mpsc::channel(QUEUE);
        for request in first {
            // There is room for all types.
            sender.try_send(request).ok();
        }
        let mut responses = open(connection, ReceiverStream::new(requests)).await?;
        let mut silence = FIRST_BATCH;
        loop {
            let next = match self.established.is_some() && !client.is_collecting() {
                // Pings tell whether the other side is there.
                true => responses.message().await,
                false => tokio::time::timeout(silence, responses.message())
                    .await
                    .map_err(|_| EndCause::Silent("batch"))?,
            };
            let Some(response) = next? else {
                return Ok(());
            };
            silence = WITHIN_BATCH;
            if let Some(collected) = client.take(response)? {
                let answers = self.put_in_force(&mut client, collected).await?;
                send(&sender, answers).await?;
            }
        }
    }

    /// Puts a batch into force, and gives what is to be answered.
    async fn put_in_force(
        &mut self,
        client: &mut Client,
        collected: Collected,
    ) -> Result<Vec<DeltaDiscoveryRequest>, EndCause> {
        let Collected {
            batch,
            end,
            receipts,
        } = collected;
        let Applied {
            batch,
            refusals,
            in_force,
        } = self.follow.input.batch(batch).await?;
        let wanted = &in_force.wanted_secrets;
        let answers = client.settle(receipts, &batch, &refusals, wanted);
        let nacks = answers
            .iter()
            .filter_map(|answer| answer.error_detail.as_ref());
        for nack in nacks {
            tracing::warn!(
                control = end.control,
                refused = nack.message,
                "told the control loop"
            );
        }
        if self.established.is_none() {
            self.established = Some(Instant::now());
            let (upserts, removals) = (batch.upserts.len(), batch.removals.len());
            tracing::info!(
                address = %self.target, control = end.control, generation = end.generation, upserts, removals,
                "following the control loop"
            );
        }
        self.follow
            .status
            .applied(self.target, &end, &in_force, SystemTime::now());
        if let Some(keeper) = &self.follow.keeper {
            keeper.note(batch, &refused(&refusals), &end);
        }
        Ok(answers)
    }
}

async fn open(
    connection: Connection,
    requests: ReceiverStream<DeltaDiscoveryRequest>,
) -> Result<Streaming<DeltaDiscoveryResponse>, EndCause> {
    let mut service = AggregatedDiscoveryServiceClient::new(connection.channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    let mut request = Request::new(requests);
    if let Some(authorization) = connection.authorization {
        request
            .metadata_mut()
            .insert("authorization", authorization);
    }
    let opening = service.delta_aggregated_resources(request);
    // Some servers send their head with the first message only.
    let opened = tokio::time::timeout(FIRST_BATCH, opening).await;
    let opened = opened.map_err(|_| EndCause::Silent("answer"))?;
    Ok(opened?.into_inner())
}

async fn send(
    sender: &mpsc::Sender<DeltaDiscoveryRequest>,
    answers: Vec<DeltaDiscoveryRequest>,
) -> Result<(), EndCause> {
    let sending = async {
        for answer in answers {
            sender.send(answer).await.map_err(|_| EndCause::Closed)?;
        }
        Ok(())
    };
    let sent = tokio::time::timeout(ANSWERS, sending).await;
    sent.unwrap_or(Err(EndCause::Silent("taking of answers")))
}
