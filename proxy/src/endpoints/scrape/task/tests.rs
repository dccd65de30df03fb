use std::net::SocketAddr;

use sluice_config::bootstrap::UpstreamConfig;
use sluice_config::snapshot;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::endpoints::Registry;
use crate::schedule::Adapter;

const METRICS: &str = "vllm:num_requests_waiting{engine=\"0\"} 8\nvllm:kv_cache_usage_perc 0.5\n\
    vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"100\"} 1\n";
const MODELS: &str = r#"{"data":[{"id":"m","max_model_len":2048},{"id":"a","parent":"m"}]}"#;

/// Answers every request by its path, one per connection.
async fn engine() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let page = if request[..length].starts_with(b"GET /metrics ") {
                METRICS
            } else {
                MODELS
            };
            let length = page.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{page}"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    address
}

fn endpoint(address: SocketAddr) -> Arc<Endpoint> {
    let server = snapshot::ModelServer::of("s", &[&address.to_string()]);
    Registry::default().endpoint(&server, &server.endpoints[0])
}

fn page() -> Page {
    Page {
        link: None,
        path: "/metrics".into(),
    }
}

fn connector() -> Arc<Connector> {
    let config = UpstreamConfig::default();
    Arc::new(Connector::new(&config, Duration::from_secs(5)))
}

#[tokio::test]
async fn an_answer_is_kept_and_a_failure_changes_nothing() {
    let endpoint = endpoint(engine().await);
    let (connector, mut progress) = (connector(), Progress::default());
    let mut random = SmallRng::seed_from_u64(1);
    let pause = ask(&connector, &endpoint, &page(), &mut progress, &mut random).await;
    assert!(pause > 5 * pacing::BUSY, "nothing is in flight");
    let now = Instant::now();
    let reported = endpoint.reported.load(now);
    assert_eq!(
        (reported.waiting, reported.kv_usage),
        (Some(8.0), Some(0.5))
    );
    assert_eq!(reported.running, None, "not told is not zero");
    assert_eq!(endpoint.constants().kv_tokens, 1600.0);
    assert_eq!(endpoint.reported.adapter("a", now), Adapter::Loaded);
    assert_eq!(endpoint.reported.max_model_len(now), Some(2048));
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_asked_ever_more_rarely() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = endpoint(listener.local_addr().unwrap());
    drop(listener);
    let (connector, mut progress) = (connector(), Progress::default());
    let mut random = SmallRng::seed_from_u64(1);
    let mut pauses = Vec::new();
    for _ in 0..3 {
        pauses.push(ask(&connector, &endpoint, &page(), &mut progress, &mut random).await);
    }
    assert!(pauses.is_sorted(), "{pauses:?}");
    assert_eq!((progress.failures, progress.works), (3, Some(false)));
    let unknown = crate::schedule::Reported::default();
    assert_eq!(endpoint.reported.load(Instant::now()), unknown);
}

#[tokio::test]
async fn tasks_come_and_go_with_the_pools() {
    let (one, other) = (endpoint(engine().await), endpoint(engine().await));
    let mut scrapers = Scrapers::new(connector());
    let metrics = EngineMetrics::default();
    let asked = |endpoint| Asked {
        endpoint,
        metrics: &metrics,
    };
    scrapers.follow([&one, &other, &one].map(asked).into_iter());
    assert_eq!(scrapers.count(), 2);
    let kept = scrapers.tasks[&(Arc::as_ptr(&one) as usize)].task.id();
    scrapers.follow([&one].map(asked).into_iter());
    assert_eq!(scrapers.count(), 1);
    assert_eq!(
        scrapers.tasks[&(Arc::as_ptr(&one) as usize)].task.id(),
        kept
    );
}
