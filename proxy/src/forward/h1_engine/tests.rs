use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use super::*;

/// What a whole response reads as, written in pieces of `step` bytes.
async fn read(raw: &[u8], step: usize) -> Result<(ResponseHead, Vec<u8>, bool), ReadError> {
    let (mut engine, stream) = duplex(1 << 20);
    let raw = raw.to_vec();
    let writer = tokio::spawn(async move {
        for piece in raw.chunks(step) {
            engine.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        engine
    });
    let mut reader = ResponseReader::new(stream);
    let head = reader.head().await?;
    // A connection that is over has been closed by the engine; one that is kept has not.
    let keep = writer.await.unwrap();
    if matches!(reader.framing, Framing::Close) {
        drop(keep);
    }
    let body = body(&mut reader).await?;
    Ok((head, body, reader.into_reusable().is_some()))
}

async fn body(reader: &mut ResponseReader<DuplexStream>) -> Result<Vec<u8>, ReadError> {
    let mut body = Vec::new();
    while let Some(chunk) = reader.chunk().await? {
        assert!(!chunk.is_empty());
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

async fn read_closed(raw: &[u8]) -> ReadError {
    let (mut engine, stream) = duplex(1 << 20);
    engine.write_all(raw).await.unwrap();
    drop(engine);
    let mut reader = ResponseReader::new(stream);
    match reader.head().await {
        Ok(_) => body(&mut reader).await.unwrap_err(),
        Err(error) => error,
    }
}

#[tokio::test]
async fn all_framings_read_the_same_however_they_are_cut() {
    let length = b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\nx-a: \r\n\r\nhello world".as_slice();
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nt: 1\r\n\r\n";
    let close = b"HTTP/1.1 200 OK\r\n\r\nhello world";
    for step in [1, 2, 3, 7, 1000] {
        for (raw, kept) in [(length, true), (chunked.as_slice(), true), (close, false)] {
            let (head, body, reusable) = read(raw, step).await.unwrap();
            assert_eq!(head.status, 200);
            assert_eq!(body, b"hello world", "in steps of {step}");
            assert_eq!(reusable, kept, "in steps of {step}");
        }
    }
}

#[tokio::test]
async fn chunks_that_are_there_come_as_one_piece() {
    let (mut engine, stream) = duplex(1 << 20);
    engine
        .write_all(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n3\r\nde",
        )
        .await
        .unwrap();
    let mut reader = ResponseReader::new(stream);
    reader.head().await.unwrap();
    assert_eq!(reader.chunk().await.unwrap().unwrap(), "abcde");
    engine.write_all(b"f\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(reader.chunk().await.unwrap().unwrap(), "f");
    assert_eq!(reader.chunk().await.unwrap(), None);
    assert!(reader.into_reusable().is_some());
}

#[tokio::test]
async fn interim_responses_are_skipped_and_204_has_no_body() {
    let raw = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
    let (head, body, reusable) = read(raw, 5).await.unwrap();
    assert_eq!((head.status.as_u16(), body.len(), reusable), (204, 0, true));
}

#[tokio::test]
async fn connections_are_reused_only_when_that_is_safe() {
    let cases: [(&[u8], bool); 6] = [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: Close\r\n\r\n",
            false,
        ),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", false),
        (
            b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n",
            true,
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200",
            false,
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            false,
        ),
    ];
    for (raw, kept) in cases {
        let (_, _, reusable) = read(raw, 1000).await.unwrap();
        assert_eq!(reusable, kept, "{}", String::from_utf8_lossy(raw));
    }
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    let bad: [&[u8]; 9] = [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\nabc\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1000000000000000\r\n",
        b"HTTP/1.1 200 OK\r\n bad\r\n\r\n",
    ];
    for raw in bad {
        let error = read_closed(raw).await;
        assert!(
            matches!(error, ReadError::Invalid(_)),
            "{} {error:?}",
            String::from_utf8_lossy(raw)
        );
    }
}

#[tokio::test]
async fn an_early_end_is_told_from_a_late_one() {
    assert!(matches!(read_closed(b"").await, ReadError::ClosedIdle));
    let middle: [&[u8]; 4] = [
        b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
    ];
    for raw in middle {
        assert!(matches!(read_closed(raw).await, ReadError::Closed));
    }
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let mut raw = b"HTTP/1.1 200 OK\r\n".to_vec();
    let field = format!("x-filler: {}\r\n", "a".repeat(1000));
    while raw.len() <= MAX_HEAD_BYTES + FIRST_READ {
        raw.extend_from_slice(field.as_bytes());
    }
    assert!(matches!(read_closed(&raw).await, ReadError::Invalid(_)));
}
