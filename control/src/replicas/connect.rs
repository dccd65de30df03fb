//! One replica's stream: the connection, who this process is on it, and what comes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use http::uri::PathAndQuery;
use sluice_config::bootstrap::ControlAddress;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Streaming;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::{Book, ReplicasParams};
use crate::certificates::Trust;
use crate::push::summary::{METHOD, SummaryCodec, SummaryMessage};

/// For the look-up of a name, and for TCP and TLS.
const PATIENCE: Duration = Duration::from_secs(5);

/// HTTP/2 pings: a network that was cut is noticed after the sum of both.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_PATIENCE: Duration = Duration::from_secs(5);

/// Largest part of a summary: some hundred documents, each refused by many gateways.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// What this process shows of itself.
pub(super) struct Caller {
    token_file: Option<PathBuf>,
    trust: watch::Receiver<Option<Trust>>,
}

/// Why a stream is over.
pub(super) enum Ended {
    /// It is this process that answered.
    OwnAddress,
    /// Nothing has come.
    Unheard(String),
    /// Something has.
    Heard(String),
}

/// What names stand for now.
#[derive(Default)]
pub(super) struct Found {
    /// Every address, with what it was found by.
    pub(super) addresses: HashMap<SocketAddr, ControlAddress>,
    /// Hosts that could not be looked up, and why.
    pub(super) unresolved: Vec<(String, String)>,
}

/// Looks up every name.
pub(super) async fn look_up(addresses: &[ControlAddress]) -> Found {
    let mut all = Found::default();
    for control in addresses {
        let found = tokio::net::lookup_host((control.host.as_str(), control.port));
        let error = match timeout(PATIENCE, found).await {
            Ok(Ok(found)) => {
                let found = found.map(|address| (address, control.clone()));
                all.addresses.extend(found);
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        all.unresolved.push((control.host.clone(), error));
    }
    all
}

impl Caller {
    pub(super) fn new(params: &ReplicasParams) -> Self {
        Self {
            token_file: params.token_file.clone(),
            trust: params.trust.clone(),
        }
    }

    /// Listens to one address until that ends.
    pub(super) async fn listen(
        &self,
        control: &ControlAddress,
        address: SocketAddr,
        book: &Book,
    ) -> Ended {
        let mut summaries = match self.call(control, address).await {
            Ok(summaries) => summaries,
            Err(error) => return Ended::Unheard(format!("{error:#}")),
        };
        book.begin(address);
        let mut ended: fn(String) -> Ended = Ended::Unheard;
        loop {
            match summaries.message().await {
                Ok(Some(message)) => {
                    ended = Ended::Heard;
                    if !book.take(address, message) {
                        return Ended::OwnAddress;
                    }
                }
                Ok(None) => return ended("the stream has ended".into()),
                Err(status) => return ended(format!("{:#}", in_words(status))),
            }
        }
    }

    async fn call(
        &self,
        control: &ControlAddress,
        address: SocketAddr,
    ) -> anyhow::Result<Streaming<SummaryMessage>> {
        let channel = self.connect(control, address).await?;
        let mut request = tonic::Request::new(SummaryMessage::default());
        if let Some(token) = self.authorization()? {
            request.metadata_mut().insert("authorization", token);
        }
        let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        grpc.ready().await?;
        let path = PathAndQuery::from_static(METHOD);
        let codec = SummaryCodec::default();
        let answer = grpc.server_streaming(request, path, codec).await;
        Ok(answer.map_err(in_words)?.into_inner())
    }

    async fn connect(
        &self,
        control: &ControlAddress,
        address: SocketAddr,
    ) -> anyhow::Result<Channel> {
        let scheme = if control.tls { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?
            .connect_timeout(PATIENCE)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_PATIENCE)
            .keep_alive_while_idle(true);
        if control.tls {
            let trust = self.trust.borrow().clone();
            let trust = trust.context("whose certificates are right is not known yet")?;
            let tls = ClientTlsConfig::new()
                .timeout(PATIENCE)
                .domain_name(&control.host)
                .ca_certificate(Certificate::from_pem(trust.bundle));
            endpoint = endpoint.tls_config(tls)?;
        }
        Ok(endpoint.connect().await?)
    }

    fn authorization(&self) -> anyhow::Result<Option<MetadataValue<Ascii>>> {
        let Some(file) = &self.token_file else {
            return Ok(None);
        };
        let named = || format!("--replica-token-file {}", file.display());
        let token = std::fs::read_to_string(file).with_context(named)?;
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim())
            .parse()
            .with_context(named)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// A status as people read it: tonic's own text shows its insides.
fn in_words(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{:?}: {}", status.code(), status.message())
}
