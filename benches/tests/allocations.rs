//! Allocations per request, counted and held to a budget: counts are the same on every machine, times are not.
//!
//! The gateway's whole way of a request with routing on, a real engine over loopback, and the client's side in
//! memory, all on one thread that is counted. Pingora's reading of the client's head is not in it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, Method, Version};
use serde_json::json;
use sluice_config::bootstrap::{AccessLogConfig, Bootstrap};
use sluice_config::scheduling::SchedulingParams;
use sluice_config::{Catalog, FilterSet, LoadedDocuments};
use sluice_e2e::engine::{EngineOptions, EngineServer};
use sluice_e2e::harness::{model_route, model_server};
use sluice_proxy::auth::Authenticator;
use sluice_proxy::cache::budget::IndexBudget;
use sluice_proxy::drain::Drain;
use sluice_proxy::filters::Chain;
use sluice_proxy::forward::exchange::{Arrival, ClientError, Downstream};
use sluice_proxy::gateway::Gateway;
use sluice_proxy::http::{RequestHead, ResponseHead};
use sluice_proxy::serving::ServingStore;
use sluice_proxy::telemetry::{AccessLog, BuildInfo, Metrics};

/// Most allocations of one request: some 47 to serve it, the rest to know what endpoints hold of its prompt.
const MOST: u64 = 60;
/// Most bytes allocated for one request, besides its body. Of a long prompt block hashes are a third.
const MOST_BYTES: u64 = 30 << 10;

/// A client in memory.
struct Memory {
    body: Option<Bytes>,
    status: u16,
    received: usize,
}

impl Downstream for Memory {
    fn client(&self) -> Option<IpAddr> {
        None
    }
    async fn read_body(&mut self) -> Result<Option<Bytes>, ClientError> {
        Ok(self.body.take())
    }
    async fn send_continue(&mut self) -> Result<(), ClientError> {
        Ok(())
    }
    async fn gone(&mut self) {
        std::future::pending().await
    }
    async fn start(&mut self, head: ResponseHead) -> Result<(), ClientError> {
        self.status = head.status.as_u16();
        Ok(())
    }
    async fn write(&mut self, chunk: Bytes) -> Result<(), ClientError> {
        self.received += chunk.len();
        Ok(())
    }
    async fn finish(&mut self) -> Result<(), ClientError> {
        Ok(())
    }
    async fn abort(&mut self) {}
    fn close_after_response(&mut self) {}
}

fn gateway(engine: &EngineServer) -> Gateway {
    let build = BuildInfo {
        version: "test",
        revision: "test",
    };
    let metrics = Arc::new(Metrics::new(build, SystemTime::now()));
    let off = AccessLogConfig {
        enabled: false,
        ..AccessLogConfig::default()
    };
    let log = AccessLog::start(&off).expect("a log that is off");
    let serving = ServingStore::new(
        Chain::empty(),
        Arc::clone(&metrics),
        SchedulingParams::default(),
        IndexBudget::new(64 << 20),
    );
    let routes =
        model_server("sim", &[engine.addr()], "") + &model_route("sim", "sim", &[("sim", 100)]);
    let update =
        Catalog::new(FilterSet::unknown()).update(LoadedDocuments::from_text("r", &routes), 0);
    serving.install(update.snapshot);
    let auth = Authenticator::new(None, Arc::clone(&metrics));
    Gateway::new(
        Bootstrap::default(),
        serving,
        metrics,
        log,
        auth,
        Arc::new(Drain::default()),
    )
}

fn request(body: &Bytes) -> (Memory, Arrival) {
    let headers: HeaderMap = [
        ("host", "gateway".to_owned()),
        ("content-type", "application/json".to_owned()),
        ("content-length", body.len().to_string()),
        ("authorization", "Bearer key".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| {
        (
            name.parse().expect("a name"),
            value.parse().expect("a value"),
        )
    })
    .collect();
    let head = RequestHead {
        method: Method::POST,
        uri: http::Uri::from_static("/v1/chat/completions"),
        version: Version::HTTP_11,
        headers,
    };
    (
        Memory {
            body: Some(body.clone()),
            status: 0,
            received: 0,
        },
        Arrival::Request(head),
    )
}

#[test]
fn a_request_stays_within_its_allocation_budget() {
    let engine = EngineServer::start(EngineOptions::instant("sim")).expect("an engine");
    let gateway = gateway(&engine);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut figures = json!({});
    for kib in [1, 16, 128] {
        let content = "word "
            .repeat(kib << 10)
            .chars()
            .take((kib << 10) - 80)
            .collect::<String>();
        let body = json!({"messages": [{"role": "user", "content": content}], "max_tokens": 1, "model": "sim"});
        let body = Bytes::from(body.to_string());
        let once = || {
            let (mut client, arrival) = request(&body);
            runtime.block_on(gateway.serve(&mut client, arrival));
            assert_eq!(client.status, 200);
            assert!(client.received > 0);
        };
        // The first requests open the connection and fill caches.
        (0..3).for_each(|_| once());
        let counted = (0..5)
            .map(|_| allocation_counter::measure(once))
            .min_by_key(|info| info.count_total);
        let info = counted.expect("five runs");
        figures[format!("{kib}KiB")] =
            json!({"allocations": info.count_total, "bytes": info.bytes_total});
        assert!(
            info.count_total <= MOST,
            "{} allocations, the budget is {MOST}",
            info.count_total
        );
        assert!(
            info.bytes_total <= MOST_BYTES,
            "{} bytes, the budget is {MOST_BYTES}",
            info.bytes_total
        );
    }
    sluice_benches::write_figures("allocations", &figures).expect("target/bench is writable");
}
