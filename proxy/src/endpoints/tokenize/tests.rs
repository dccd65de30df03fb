//! What an endpoint is asked, and when it is left alone.

use sluice_config::bootstrap::UpstreamConfig;
use sluice_config::snapshot;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::endpoints::Registry;

const NOW: Duration = Duration::from_secs(100);
const TOLD: (u16, &str) = (200, r#"{"tokens":[1,2]}"#);

/// A status and what comes with it.
type Page = (u16, &'static str);

/// An engine that answers one request per connection, by its path, and tells the paths.
async fn engine(render: Page, tokenize: Page) -> (Arc<Endpoint>, UnboundedReceiver<&'static str>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (asked, paths) = unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let (path, (status, page)) = match request[..length].starts_with(b"POST /tokenize ") {
                true => (TOKENIZE, tokenize),
                false => (RENDER, render),
            };
            asked.send(path).ok();
            let length = page.len();
            let answer = format!(
                "HTTP/1.1 {status} Said\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{page}"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (endpoint(&address), paths)
}

fn endpoint(address: &str) -> Arc<Endpoint> {
    let server = snapshot::ModelServer::of("s", &[address]);
    Registry::default().endpoint(&server, &server.endpoints[0])
}

async fn ask(endpoint: &Arc<Endpoint>) -> Result<Vec<u32>, NotTold> {
    let connector = Connector::new(&UpstreamConfig::default(), Duration::from_secs(10));
    let turn = Turn::take(endpoint, NOW).expect("nobody else asks");
    let body = Bytes::from_static(b"{}");
    turn.ask(&connector, ApiKind::Chat, body).await
}

/// Why there is no turn so many seconds after [`NOW`].
fn obstacle(endpoint: &Arc<Endpoint>, seconds: u64) -> Option<EngineOutcome> {
    Turn::take(endpoint, NOW + Duration::from_secs(seconds)).err()
}

#[tokio::test]
async fn where_rendering_is_not_served_the_tokenizer_is_asked_from_then_on() {
    for status in [401, 403, 404, 405, 501] {
        let (endpoint, mut paths) = engine((status, ""), TOLD).await;
        for wanted in [vec![RENDER, TOKENIZE], vec![TOKENIZE]] {
            assert_eq!(ask(&endpoint).await.unwrap(), [1, 2], "{status}");
            let came: Vec<_> = std::iter::from_fn(|| paths.try_recv().ok()).collect();
            assert_eq!(came, wanted, "{status}");
        }
        assert_eq!(obstacle(&endpoint, 0), None);
    }
}

#[tokio::test]
async fn one_that_refuses_is_left_alone_for_a_while() {
    let refusals = [
        ((400, ""), TOLD),
        ((404, ""), (404, "")),
        ((403, ""), (200, "<html>")),
    ];
    for (render, tokenize) in refusals {
        let (endpoint, _paths) = engine(render, tokenize).await;
        assert!(ask(&endpoint).await.is_err());
        assert_eq!(obstacle(&endpoint, 29), Some(EngineOutcome::Failed));
        assert_eq!(obstacle(&endpoint, 30), None);
    }
}

#[tokio::test]
async fn one_that_cannot_be_reached_has_refused_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = endpoint(&listener.local_addr().unwrap().to_string());
    drop(listener);
    assert!(ask(&endpoint).await.is_err());
    assert_eq!(obstacle(&endpoint, 0), None);
}

#[test]
fn one_prompt_is_asked_for_at_a_time() {
    let endpoint = endpoint("a:1");
    let turn = Turn::take(&endpoint, NOW);
    assert_eq!(obstacle(&endpoint, 0), Some(EngineOutcome::Busy));
    drop(turn);
    assert_eq!(obstacle(&endpoint, 0), None);
}
