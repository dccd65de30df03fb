use http::HeaderMap;
use tokio::io::{DuplexStream, duplex};

use super::*;

const LIMITS: HeadLimits = HeadLimits {
    bytes: 4096,
    count: 32,
};
const TIMEOUTS: ClientTimeouts = ClientTimeouts {
    idle: Duration::from_secs(60),
    read: Duration::from_secs(10),
    write: Duration::from_secs(10),
};

fn connection() -> (DuplexStream, H1Client<DuplexStream>) {
    let (client, stream) = duplex(1 << 20);
    (
        client,
        H1Client::new(stream, None, TIMEOUTS, BytesMut::new()),
    )
}

/// What a connection that received `raw` says of its first request, and of its body.
async fn receive(
    raw: &[u8],
    step: usize,
) -> (Arrival, Vec<u8>, H1Client<DuplexStream>, DuplexStream) {
    let (mut client, mut connection) = connection();
    let raw = raw.to_vec();
    let writer = tokio::spawn(async move {
        for piece in raw.chunks(step) {
            client.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        client
    });
    let arrival = connection.next(&LIMITS).await;
    let client = writer.await.unwrap();
    let mut body = Vec::new();
    if matches!(arrival, Arrival::Request(_)) {
        while let Ok(Some(chunk)) = connection.read_body().await {
            body.extend_from_slice(&chunk);
        }
    }
    (arrival, body, connection, client)
}

async fn refusal(raw: &[u8]) -> RequestError {
    match receive(raw, 1000).await.0 {
        Arrival::Refused(error, _) => error,
        _ => panic!("taken: {}", String::from_utf8_lossy(raw)),
    }
}

fn head(fields: &[(&'static str, &'static str)]) -> ResponseHead {
    let mut headers = HeaderMap::new();
    headers.insert(header::DATE, HeaderValue::from_static("now"));
    for (name, value) in fields {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    ResponseHead {
        status: StatusCode::OK,
        headers,
    }
}

/// What has been written to the client so far.
async fn written(client: &mut DuplexStream) -> String {
    let mut buffer = vec![0; 1 << 16];
    let count = client.read(&mut buffer).await.unwrap();
    String::from_utf8(buffer[..count].to_vec()).unwrap()
}

#[tokio::test]
async fn heads_and_bodies_read_the_same_however_they_are_cut() {
    let length = b"POST /v1/x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nx-empty:\r\n\r\nhello"
        .as_slice();
    let chunked = b"POST /v1/x?y HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;e=1\r\nllo\r\n0\r\nt: 1\r\n\r\n";
    for step in [1, 2, 3, 7, 1000] {
        for raw in [length, chunked.as_slice()] {
            let (arrival, body, connection, _client) = receive(raw, step).await;
            let Arrival::Request(head) = arrival else {
                panic!("refused in steps of {step}")
            };
            assert_eq!(head.uri, "/v1/x?y");
            assert_eq!(head.headers["host"], "a");
            assert_eq!(body, b"hello", "in steps of {step}");
            assert!(connection.received.is_empty());
        }
    }
}

#[tokio::test]
async fn what_smuggles_is_refused() {
    let refused: [&[u8]; 12] = [
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3,3\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n",
        b"POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\nx-a : b\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\nx-a: b\r\n c\r\n\r\n",
        b"POST / HTTP/1.1\nhost: a\n\n",
        b"POST / HTTP/1.1\r\nhost: a\r\nx-a: b\0c\r\n\r\n",
        b"POST / HTTP/1.1\r\n\r\n",
    ];
    for raw in refused {
        let error = refusal(raw).await;
        assert_eq!(
            error.status(),
            400,
            "{} {error}",
            String::from_utf8_lossy(raw)
        );
    }
}

#[tokio::test]
async fn large_heads_are_431() {
    let many: String = (0..300).map(|n| format!("x-{n}: a\r\n")).collect();
    let raw = format!("POST / HTTP/1.1\r\nhost: a\r\n{many}\r\n");
    assert_eq!(refusal(raw.as_bytes()).await.status(), 431);
    let endless = format!(
        "POST / HTTP/1.1\r\nhost: a\r\nx-a: {}",
        "b".repeat(3 * LIMITS.bytes)
    );
    assert_eq!(refusal(endless.as_bytes()).await.status(), 431);
}

#[tokio::test]
async fn a_bad_chunk_size_is_told_from_a_gone_client() {
    let (mut client, mut connection) = connection();
    client
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
        .await
        .unwrap();
    connection.next(&LIMITS).await;
    assert!(matches!(
        connection.read_body().await,
        Err(ClientError::Malformed(_))
    ));
    let (mut client, mut connection) = self::connection();
    client
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc")
        .await
        .unwrap();
    drop(client);
    connection.next(&LIMITS).await;
    connection.gather_body();
    assert!(matches!(
        connection.read_body().await,
        Err(ClientError::Gone)
    ));
}

#[tokio::test]
async fn an_answer_of_known_length_leaves_as_one_write() {
    let (_, _, mut connection, mut client) =
        receive(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", 1000).await;
    connection
        .start(head(&[("content-length", "2")]))
        .await
        .unwrap();
    connection.write(Bytes::from_static(b"ok")).await.unwrap();
    connection.finish().await.unwrap();
    let expected =
        "HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok";
    assert_eq!(written(&mut client).await, expected);
    assert!(connection.can_serve_on());
}

#[tokio::test]
async fn an_answer_without_length_is_chunked_and_its_head_does_not_wait() {
    let (_, _, mut connection, mut client) =
        receive(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", 1000).await;
    connection.start(head(&[])).await.unwrap();
    assert_eq!(
        written(&mut client).await,
        "HTTP/1.1 200 OK\r\ndate: now\r\ntransfer-encoding: chunked\r\nconnection: keep-alive\r\n\r\n"
    );
    connection
        .write(Bytes::from_static(b"hello"))
        .await
        .unwrap();
    assert_eq!(written(&mut client).await, "5\r\nhello\r\n");
    let large = vec![b'x'; COPY_BYTES + 1];
    connection.write(Bytes::from(large.clone())).await.unwrap();
    connection.finish().await.unwrap();
    let expected = format!("2001\r\n{}\r\n0\r\n\r\n", String::from_utf8(large).unwrap());
    assert_eq!(written(&mut client).await, expected);
    assert!(connection.can_serve_on());
}

#[tokio::test]
async fn old_clients_get_an_open_end_and_head_gets_no_body() {
    let (_, _, mut connection, mut client) =
        receive(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n", 1000).await;
    connection.start(head(&[])).await.unwrap();
    connection
        .write(Bytes::from_static(b"hello"))
        .await
        .unwrap();
    connection.finish().await.unwrap();
    assert!(!connection.can_serve_on());
    connection.close().await;
    let mut all = String::new();
    client.read_to_string(&mut all).await.unwrap();
    assert_eq!(
        all,
        "HTTP/1.1 200 OK\r\ndate: now\r\nconnection: close\r\n\r\nhello"
    );

    let (_, _, mut connection, mut client) =
        receive(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n", 1000).await;
    connection
        .start(head(&[("content-length", "2")]))
        .await
        .unwrap();
    connection.write(Bytes::from_static(b"ok")).await.unwrap();
    connection.finish().await.unwrap();
    assert!(
        written(&mut client)
            .await
            .ends_with("content-length: 2\r\nconnection: keep-alive\r\n\r\n")
    );
    assert!(connection.can_serve_on());
}

#[tokio::test]
async fn pipelined_requests_are_served_in_order() {
    let raw = b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\n";
    let (arrival, _, mut connection, mut client) = receive(raw, 1000).await;
    let Arrival::Request(first) = arrival else {
        panic!("refused")
    };
    assert_eq!(first.uri, "/1");
    connection
        .start(head(&[("content-length", "0")]))
        .await
        .unwrap();
    connection.finish().await.unwrap();
    assert!(connection.can_serve_on());
    let Arrival::Request(second) = connection.next(&LIMITS).await else {
        panic!("refused")
    };
    assert_eq!(second.uri, "/2");
    drop(written(&mut client).await);
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_and_one_that_pipelines_is_not_taken_for_it() {
    let (_, _, mut connection, mut client) =
        receive(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", 1000).await;
    client.write_all(b"GET /2").await.unwrap();
    assert!(futures::FutureExt::now_or_never(connection.gone()).is_none());
    drop(client);
    connection.gone().await;
    assert_eq!(&connection.received[..], b"GET /2");
    assert!(!connection.can_serve_on());
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_is_refused_in_time() {
    let (mut client, mut connection) = connection();
    let trickle = tokio::spawn(async move {
        for byte in b"POST / HTTP/1.1\r\nhost: a\r\n".iter().cycle() {
            if client.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(900)).await;
        }
    });
    let arrival = connection.next(&LIMITS).await;
    assert!(matches!(
        arrival,
        Arrival::Refused(RequestError::ClientTooSlow(_), None)
    ));
    trickle.abort();
}

#[tokio::test]
async fn an_unread_body_ends_the_connection() {
    let (mut client, mut connection) = connection();
    client
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n")
        .await
        .unwrap();
    connection.next(&LIMITS).await;
    connection
        .start(head(&[("content-length", "0")]))
        .await
        .unwrap();
    connection.finish().await.unwrap();
    assert!(written(&mut client).await.contains("connection: close"));
    assert!(!connection.can_serve_on());
}

#[tokio::test]
async fn a_claimed_length_reserves_nothing_until_the_body_may_be_held() {
    let (mut client, mut connection) = connection();
    client
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 999999999999999999\r\n\r\nabc")
        .await
        .unwrap();
    connection.next(&LIMITS).await;
    assert_eq!(connection.read_body().await.unwrap().unwrap(), "abc");
    client.write_all(b"defg").await.unwrap();
    assert_eq!(connection.read_body().await.unwrap().unwrap(), "defg");
    assert!(connection.received.capacity() <= 2 * PIECE);
}

#[tokio::test]
async fn a_gathered_body_comes_as_one_piece() {
    let (mut client, mut connection) = connection();
    client
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 7\r\n\r\nabc")
        .await
        .unwrap();
    connection.next(&LIMITS).await;
    connection.gather_body();
    let (body, ()) = tokio::join!(connection.read_body(), async {
        client.write_all(b"defg").await.unwrap();
    });
    assert_eq!(body.unwrap().unwrap(), "abcdefg");
}
