//! A second way to the API server, through this process, where answers can be disturbed.
//!
//! It ends TLS with a certificate of the cluster's authority and passes requests on with their own credentials, so users
//! need tokens: a client certificate cannot pass. Not for upgraded connections (exec, port-forward) and not for lists by
//! watch (`sendInitialEvents`), which pass but are never behind.

mod answer;
mod record;
mod watching;

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use kube::Client;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::Link;
use crate::cluster::ControlPlane;
use crate::cluster::client::Access;
use crate::cluster::keys::Certificate;
use answer::Body;
use record::Record;
use watching::Watching;

/// A way to the API server that can be disturbed. Dropping it cuts everything.
pub struct Detour {
    link: Link,
    access: Access,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    upstream: Client,
    switches: watch::Sender<Switches>,
    record: Record,
    /// Short sections without waiting.
    requests: Mutex<Vec<Request>>,
}

/// How a watch is told that what it asks for is no longer known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// By an event of type ERROR in a stream that began well.
    Event,
    /// By the status of the answer.
    Status,
}

/// One request that was answered, or passed on.
#[derive(Clone, Debug)]
pub struct Request {
    /// When it came.
    pub at: Instant,
    /// Its method.
    pub method: http::Method,
    /// Its path and query.
    pub target: String,
    /// Status of the answer.
    pub status: u16,
}

impl Request {
    /// Whether it is a watch.
    pub fn watches(&self) -> bool {
        watches(&self.target)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Switches {
    delay: Duration,
    overrun: Option<Duration>,
    gone: Option<Gone>,
    watch_limit: Option<Duration>,
    behind: bool,
}

impl Detour {
    /// A way to the API server of this control plane.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(plane: &ControlPlane) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let link = Link::to(listener.local_addr()?).await?;
        let host = link.address().ip().to_string();
        let tls = acceptor(&plane.authority().server(&[&host])?)?;
        let (switches, _) = watch::channel(Switches::default());
        let shared = Arc::new(Shared {
            upstream: plane.access().stranger().await?,
            switches,
            record: Record::default(),
            requests: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, tls, shared.clone()));
        Ok(Self {
            access: Access {
                server: format!("https://{}", link.address()),
                authority: plane.access().authority.clone(),
            },
            link,
            shared,
            _tasks: tasks,
        })
    }

    /// How clients find it.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The connections to it.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Every answer begins this much later. [`Duration::ZERO`] ends that.
    pub fn delay(&self, by: Duration) {
        self.set(|switches| switches.delay = by);
    }

    /// Every request is answered with 429 and this Retry-After, in whole seconds; `None` ends that.
    pub fn overrun(&self, retry_after: Option<Duration>) {
        self.set(|switches| switches.overrun = retry_after);
    }

    /// Open and new watches are told that their version is gone; `None` ends that.
    pub fn forget(&self, how: Option<Gone>) {
        self.set(|switches| switches.gone = how);
    }

    /// Watches end, without an error, after this time; `None` ends that.
    pub fn limit_watches(&self, after: Option<Duration>) {
        self.set(|switches| switches.watch_limit = after);
    }

    /// Lists are answered as they last were, and watches are silent. Open watches are told to list again.
    pub fn stay_behind(&self, behind: bool) {
        self.shared.record.freeze(behind);
        self.set(|switches| switches.behind = behind);
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.log().clone()
    }

    fn set(&self, change: impl FnOnce(&mut Switches)) {
        self.shared.switches.send_modify(change);
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(serve(stream, tls.clone(), shared.clone()));
    }
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, shared: Arc<Shared>) {
    let Ok(stream) = tls.accept(stream).await else {
        return;
    };
    let service = service_fn(|request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(shared.answer(request).await) }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    server
        .serve_connection(TokioIo::new(stream), service)
        .await
        .ok();
}

impl Shared {
    fn log(&self) -> std::sync::MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: http::Request<Incoming>) -> Response<Body> {
        let at = Instant::now();
        let method = request.method().clone();
        let target = request.uri().path_and_query();
        let target = target.map(ToString::to_string).unwrap_or_default();
        let answer = self.disturbed(request, &target).await;
        self.log().push(Request {
            at,
            method,
            target,
            status: answer.status().as_u16(),
        });
        answer
    }

    async fn disturbed(&self, request: http::Request<Incoming>, target: &str) -> Response<Body> {
        let now = *self.switches.borrow();
        if !now.delay.is_zero() {
            tokio::time::sleep(now.delay).await;
        }
        if let Some(retry_after) = now.overrun {
            return answer::overrun(retry_after);
        }
        if watches(target) {
            if now.gone == Some(Gone::Status) {
                return answer::gone();
            }
            if now.behind {
                return answer::stream(Watching::silent(self.switches.subscribe()));
            }
        } else if now.behind
            && let Some(answer) = self.record.answer(target)
        {
            return answer;
        }
        match self.pass_on(request, target).await {
            Ok(answer) => answer,
            Err(error) => answer::unreachable(&error),
        }
    }

    async fn pass_on(
        &self,
        request: http::Request<Incoming>,
        target: &str,
    ) -> anyhow::Result<Response<Body>> {
        let (mut parts, body) = request.into_parts();
        let lists = parts.method == http::Method::GET && !watches(target);
        let body = body.collect().await?.to_bytes();
        // The client underneath finds the server itself, and says what it was told.
        parts.uri = target.parse()?;
        parts.version = http::Version::HTTP_11;
        parts.headers.remove(http::header::HOST);
        let request = http::Request::from_parts(parts, body.into());
        let answer = self.upstream.send(request).await?;
        let (parts, body) = answer.into_parts();
        if watches(target) && parts.status.is_success() {
            let watching = Watching::of(body, self.switches.subscribe());
            return Ok(Response::from_parts(parts, answer::streamed(watching)));
        }
        let body = body.collect_bytes().await?;
        if lists && parts.status.is_success() {
            self.record.keep(target, &parts, &body);
        }
        Ok(Response::from_parts(parts, answer::whole(body)))
    }
}

fn watches(target: &str) -> bool {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    query
        .split('&')
        .any(|pair| matches!(pair, "watch=true" | "watch=1"))
}

fn acceptor(certificate: &Certificate) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::from_pem_slice(certificate.certificate.as_bytes())
        .context("its own certificate is none")?;
    let key =
        PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).context("its own key is none")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
