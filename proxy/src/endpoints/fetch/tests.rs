use std::net::SocketAddr;

use sluice_config::bootstrap::UpstreamConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn connector() -> Connector {
    Connector::new(&UpstreamConfig::default(), PATIENCE)
}

fn link(address: SocketAddr) -> Link {
    Link::new(
        "127.0.0.1",
        address.port(),
        &address.to_string(),
        false,
        false,
    )
}

/// Answers one request per connection with fixed bytes, then closes; tells what was asked.
async fn engine(
    answers: Vec<&'static str>,
) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, requests) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            request.truncate(length);
            asked.send(String::from_utf8(request).unwrap()).unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (address, requests)
}

#[tokio::test]
async fn a_page_is_fetched_and_a_closed_connection_replaced() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
    let (address, mut requests) = engine(vec![answer, answer]).await;
    let (connector, link) = (connector(), link(address));
    for _ in 0..2 {
        let page = get(&connector, &link, "/metrics", 5, PATIENCE).await;
        assert_eq!(page.unwrap(), "hello");
        let request = requests.recv().await.unwrap();
        assert!(
            request.starts_with("GET /metrics HTTP/1.1\r\n"),
            "{request}"
        );
    }
}

#[tokio::test]
async fn json_is_posted() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
    let (address, mut requests) = engine(vec![answer]).await;
    let body = Bytes::from_static(b"{\"prompt\":\"\"}");
    let page = post_json(
        &connector(),
        &link(address),
        "/tokenize",
        body,
        100,
        PATIENCE,
    )
    .await;
    assert_eq!(page.unwrap(), "{}");
    let request = requests.recv().await.unwrap();
    assert!(
        request.contains("content-type: application/json\r\n"),
        "{request}"
    );
    assert!(request.ends_with("{\"prompt\":\"\"}"), "{request}");
}

#[tokio::test]
async fn what_is_too_long_or_not_there_is_an_error() {
    let long = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
    let missing = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
    let (address, _requests) = engine(vec![long, missing]).await;
    let (connector, link) = (connector(), link(address));
    let error = get(&connector, &link, "/a", 4, PATIENCE).await.unwrap_err();
    assert!(
        matches!(error, FetchError::TooLarge { limit: 4 }),
        "{error}"
    );
    let error = get(&connector, &link, "/a", 4, PATIENCE).await.unwrap_err();
    assert!(
        matches!(error, FetchError::Status(StatusCode::NOT_FOUND)),
        "{error}"
    );
    let error = get(&connector, &link, "no path", 4, PATIENCE)
        .await
        .unwrap_err();
    assert!(matches!(error, FetchError::Path(_)), "{error}");
}

#[tokio::test]
async fn a_silent_engine_costs_the_deadline_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = link(listener.local_addr().unwrap());
    let deadline = Duration::from_millis(20);
    let error = get(&connector(), &link, "/a", 4, deadline)
        .await
        .unwrap_err();
    assert!(matches!(error, FetchError::Deadline(_)), "{error}");
}
