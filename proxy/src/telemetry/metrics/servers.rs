//! Families about pools: attempts, connections, requests in flight.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::GaugeGuard;
use super::cache::HandleCache;
use super::family::Family;
use super::labels::{AttemptLabels, ConnectionLabels, Name, ServerLabels, UNKNOWN};

/// How one attempt at an endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptReason {
    /// An answer that was passed on, an engine's 4xx included.
    Ok,
    /// No connection: refused, unreachable, TLS.
    Connect,
    /// A pooled connection turned out to be closed by the engine.
    Stale,
    /// No response head, or no next byte, in time.
    Timeout,
    /// Reset or closed in the middle of an answer.
    Reset,
    /// Not HTTP as we know it.
    Protocol,
    /// A 5xx that asks for another endpoint.
    Status5xx,
    /// A 429 that asks for another endpoint.
    Status429,
    /// The client went away.
    Cancelled,
}

impl AttemptReason {
    /// Every reason, in declaration order.
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::Connect,
        Self::Stale,
        Self::Timeout,
        Self::Reset,
        Self::Protocol,
        Self::Status5xx,
        Self::Status429,
        Self::Cancelled,
    ];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Connect => "connect",
            Self::Stale => "stale",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
            Self::Status5xx => "status_5xx",
            Self::Status429 => "status_429",
            Self::Cancelled => "cancelled",
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Families {
    attempts: Family<AttemptLabels, Counter>,
    in_flight: Family<ServerLabels, Gauge>,
    connections: Family<ConnectionLabels, Counter>,
    skipped: Family<ServerLabels, Counter>,
}

#[derive(Debug)]
pub(super) struct ServerSeries {
    families: Families,
    handles: HandleCache<ServerMetrics>,
    /// Where everything goes that found the cache full.
    overflow: Arc<ServerMetrics>,
}

/// Resolved metrics of one ModelServer: updating them allocates nothing and takes no lock.
#[derive(Debug)]
pub struct ServerMetrics {
    server: Name,
    attempts: [Counter; AttemptReason::ALL.len()],
    in_flight: Gauge,
    connections_new: Counter,
    connections_reused: Counter,
    skipped: Counter,
}

impl ServerSeries {
    pub(super) fn register(registry: &mut Registry, max_handles: usize) -> Self {
        let families = Families::default();
        let sluice = registry.sub_registry_with_prefix("sluice");
        sluice.register(
            "attempts",
            "Attempts at endpoints by how they ended",
            families.attempts.clone(),
        );
        sluice.register(
            "in_flight",
            "Requests at endpoints now",
            families.in_flight.clone(),
        );
        sluice.register(
            "pool_connections",
            "Connections taken for attempts: new, or reused from the pool",
            families.connections.clone(),
        );
        sluice.register(
            "target_skipped",
            "Weighted targets passed over because their pool had no usable endpoint",
            families.skipped.clone(),
        );
        let overflow = Arc::new(ServerMetrics::resolve(&families, UNKNOWN));
        Self {
            families,
            handles: HandleCache::new(max_handles),
            overflow,
        }
    }

    pub(super) fn handles(&self, server: &str) -> Arc<ServerMetrics> {
        self.handles
            .find(server, |_| true)
            .or_else(|| {
                self.handles.add(
                    server,
                    |_| true,
                    || ServerMetrics::resolve(&self.families, server),
                )
            })
            .unwrap_or_else(|| Arc::clone(&self.overflow))
    }

    /// Drops series and handles of servers that are gone.
    pub(super) fn retain(&self, server: impl Fn(&str) -> bool) {
        self.handles.retain(|metrics| server(&metrics.server.0));
        self.families
            .attempts
            .retain(|labels| server(&labels.server.0));
        self.families
            .in_flight
            .retain(|labels| server(&labels.server.0));
        self.families
            .connections
            .retain(|labels| server(&labels.server.0));
        self.families
            .skipped
            .retain(|labels| server(&labels.server.0));
    }
}

impl ServerMetrics {
    fn resolve(families: &Families, server: &str) -> Self {
        let server = Name(Arc::from(server));
        let connections = |kind| {
            families.connections.child(&ConnectionLabels {
                server: server.clone(),
                kind,
            })
        };
        let labels = ServerLabels {
            server: server.clone(),
        };
        Self {
            attempts: AttemptReason::ALL.map(|reason| {
                families.attempts.child(&AttemptLabels {
                    server: server.clone(),
                    reason: reason.as_str(),
                })
            }),
            in_flight: families.in_flight.child(&labels),
            connections_new: connections("new"),
            connections_reused: connections("reused"),
            skipped: families.skipped.child(&labels),
            server,
        }
    }

    /// Counts an attempt that ended.
    pub fn attempt(&self, reason: AttemptReason) {
        self.attempts[reason as usize].inc();
    }

    /// Counts a connection taken for an attempt.
    pub fn connection(&self, reused: bool) {
        if reused {
            self.connections_reused.inc()
        } else {
            self.connections_new.inc()
        };
    }

    /// Counts a target passed over because this pool had no usable endpoint.
    pub fn skip(&self) {
        self.skipped.inc();
    }

    /// One more request at this pool's endpoints until the guard drops.
    pub fn in_flight(&self) -> GaugeGuard {
        GaugeGuard::new(&self.in_flight)
    }
}
