//! A push server on a free port, and the state that it serves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use sluice_config::push::ResourceType;
use sluice_control::authenticate::Authenticator;
use sluice_control::grants::Grants;
use sluice_control::push::acks::Programmed;
use sluice_control::push::listener::{self, TlsSettings};
use sluice_control::push::{Push, PushLimits};
use sluice_control::state::{Change, PushState, Resource};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::gateway::Gateway;

/// Far beyond what anything here takes: whoever waits so long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) struct Options {
    pub(crate) limits: PushLimits,
    pub(crate) authenticator: Authenticator,
    pub(crate) grants: Grants,
    pub(crate) tls: Option<TlsSettings>,
    pub(crate) log_capacity: usize,
    pub(crate) synced: bool,
}

pub(crate) struct Bed {
    pub(crate) state: Arc<PushState>,
    pub(crate) push: Push,
    pub(crate) address: SocketAddr,
    shutdown: watch::Sender<bool>,
    served: JoinHandle<()>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: PushLimits::default(),
            authenticator: Authenticator::insecure(),
            grants: Grants::default(),
            tls: None,
            log_capacity: 1000,
            synced: true,
        }
    }
}

impl Bed {
    pub(crate) async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn limited(limits: PushLimits) -> Self {
        let options = Options::default();
        Self::with(Options { limits, ..options }).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let state = PushState::with_log_capacity("control-0".into(), options.log_capacity);
        let state = Arc::new(state);
        if options.synced {
            state.mark_synced();
        }
        let (shutdown, down) = watch::channel(false);
        let push = Push::new(
            Arc::clone(&state),
            options.authenticator,
            options.grants,
            options.limits,
            down,
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(listener::serve(listener, push.clone(), options.tls));
        Self {
            state,
            push,
            address,
            shutdown,
            served,
        }
    }

    /// A gateway whose stream is open and that has subscribed to nothing.
    pub(crate) async fn gateway(&self, name: &str) -> Gateway {
        Gateway::connect(self.address, name).await.unwrap()
    }

    /// One that has subscribed to everything and has it.
    pub(crate) async fn synced_gateway(&self, name: &str) -> Gateway {
        let mut gateway = self.gateway(name).await;
        gateway.subscribe_to_all().await;
        gateway.follow().await;
        gateway
    }

    pub(crate) fn apply(&self, upserts: &[(ResourceType, &str, &str)]) -> u64 {
        self.state.apply(change(upserts, &[]))
    }

    pub(crate) fn remove(&self, removals: &[(ResourceType, &str)]) -> u64 {
        self.state.apply(change(&[], removals))
    }

    pub(crate) fn version(&self, kind: ResourceType, name: &str) -> String {
        let entry = self.state.get(kind, name).unwrap();
        entry.resource.version.to_string()
    }

    pub(crate) fn programmed(&self, kind: ResourceType, name: &str) -> Programmed {
        let version = self.version(kind, name);
        self.push.acks().programmed(kind, name, &version)
    }

    /// Until what is acknowledged is so.
    pub(crate) async fn until(&self, mut so: impl FnMut(&Self) -> bool) {
        let mut changed = self.push.acks().changed();
        let wait = async {
            while !so(self) {
                changed.changed().await.unwrap();
            }
        };
        timeout(LONG, wait).await.unwrap();
    }

    pub(crate) fn shut_down(&self) {
        self.shutdown.send_replace(true);
    }

    /// Until the listener has ended.
    pub(crate) async fn ended(self) {
        timeout(LONG, self.served).await.unwrap().unwrap();
    }
}

/// When every change here is seen.
pub(crate) const SEEN_AT_MICROSECONDS: u64 = 1_700_000_000_000_000;

pub(crate) fn change(
    upserts: &[(ResourceType, &str, &str)],
    removals: &[(ResourceType, &str)],
) -> Change {
    Change {
        upserts: upserts
            .iter()
            .map(|&(kind, name, value)| resource(kind, name, value.as_bytes()))
            .collect(),
        removals: removals
            .iter()
            .map(|&(kind, name)| (kind, name.into()))
            .collect(),
        seen_at: seen_at(),
    }
}

pub(crate) fn seen_at() -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(SEEN_AT_MICROSECONDS)
}

pub(crate) fn resource(kind: ResourceType, name: &str, value: &[u8]) -> Resource {
    let (namespace, _) = name.split_once('/').unwrap();
    Resource::new(kind, name, namespace, Bytes::copy_from_slice(value))
}
