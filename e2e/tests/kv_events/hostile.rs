//! Publishers that are broken, too fast, or no publishers at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use bytes::Bytes;
use sluice_e2e::harness::{free_port, wait_until};
use sluice_proxy::cache::subscribe::SubscriptionState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use zeromq::{PubSocket, Socket, SocketSend, ZmqMessage};

use super::model::{Followed, follow, followers, source};

/// A batch of one `AllBlocksCleared` and so many bytes of an unknown event.
fn batch(padding: usize) -> Vec<u8> {
    let mut payload = vec![0x93, 0x00, 0x92, 0x91, 0xb0];
    payload.extend(b"AllBlocksCleared");
    payload.extend([0x92, 0xa1, b'x', 0xc6]);
    payload.extend((padding as u32).to_be_bytes());
    payload.resize(payload.len() + padding, 7);
    payload.push(0);
    payload
}

fn message(frames: &[&[u8]]) -> ZmqMessage {
    let frames: Vec<Bytes> = frames.iter().map(|frame| frame.to_vec().into()).collect();
    frames.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_between_batches_is_counted_and_passed_over() {
    let port = free_port();
    let mut publisher = PubSocket::new();
    publisher
        .bind(&format!("tcp://127.0.0.1:{port}"))
        .await
        .unwrap();
    let followed = follow(&followers(), &source(&format!("tcp://127.0.0.1:{port}")));
    followed.is_live().await;
    let topic = "a hostile topic\n\0\u{7f} ".repeat(100_000).into_bytes();
    let sent = AtomicU64::new(0);
    // Again and again, since a subscription takes a moment to arrive.
    let publisher = tokio::sync::Mutex::new(publisher);
    wait_until("a batch is seen", || async {
        let number = sent.fetch_add(1, SeqCst).to_be_bytes();
        let message = message(&[b"", &number, &batch(1)]);
        publisher.lock().await.send(message).await.unwrap();
        followed.subscription.counts().batches > 0
    })
    .await;
    let mut publisher = publisher.into_inner();
    let number = sent.into_inner();
    let garbage: [&[&[u8]]; 6] = [
        &[b"alone"],
        &[b"", b"short", b"x"],
        &[b"", &[0xff; 8], b""],
        &[b"", b"", b"", b"", b"", b"", b"", b"", b"", b"", b""],
        &[&topic, &number.to_be_bytes(), b"x"],
        &[b"", &number.to_be_bytes(), b"no msgpack"],
    ];
    for frames in garbage {
        publisher.send(message(frames)).await.unwrap();
    }
    let batch = batch(1);
    publisher
        .send(message(&[b"", &(number + 1).to_be_bytes(), &batch]))
        .await
        .unwrap();
    wait_until("the batch behind the garbage arrives", || async {
        followed.subscription.counts().decode_errors >= 1
            && followed.subscription.state() == SubscriptionState::Live
    })
    .await;
    let counts = followed.subscription.counts();
    assert_eq!(counts.connections, 1);
    assert!(counts.dropped >= 4, "{counts:?}");
}

/// Accepts a follower as a PUB socket would, by hand.
async fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut greeting = [0; 64];
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    greeting[10] = 3;
    greeting[12..16].copy_from_slice(b"NULL");
    stream.write_all(&greeting).await.unwrap();
    stream
        .write_all(b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03PUB")
        .await
        .unwrap();
    // Greeting, READY and subscription: then the follower is connected.
    stream.read_exact(&mut [0; 107]).await.unwrap();
    stream
}

fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![flags | 2];
    frame.extend((body.len() as u64).to_be_bytes());
    frame.extend(body);
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_waits_in_the_sockets() {
    const MESSAGES: u64 = 500;
    const PADDING: usize = 100_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let followed = follow(&followers(), &source(&endpoint));
    let model = followed.model.clone();
    model.set_gate(false);
    let sent = Arc::new(AtomicU64::new(0));
    let flood = tokio::spawn({
        let sent = sent.clone();
        async move {
            let mut stream = accept(&listener).await;
            let batch = batch(PADDING);
            for number in 0..MESSAGES {
                let number = frame(1, &number.to_be_bytes());
                let message = [frame(1, b""), number, frame(0, &batch)].concat();
                stream.write_all(&message).await.unwrap();
                sent.fetch_add(1, SeqCst);
            }
            stream
        }
    });
    stands_still(&followed, &sent).await;
    let held = sent.load(SeqCst) * PADDING as u64;
    assert!(
        held < 25_000_000,
        "{held} bytes were taken from the publisher"
    );
    model.set_gate(true);
    wait_until("every batch is applied", || async {
        followed.subscription.counts().batches == MESSAGES
    })
    .await;
    assert_eq!(followed.subscription.counts().gaps, 0);
    drop(flood.await.unwrap());
}

/// Waits until the sink was reached and the publisher has not got rid of anything for many looks.
async fn stands_still(followed: &Followed, sent: &AtomicU64) {
    let mut last = (0, 0);
    wait_until("the flood stands still", || {
        let now = sent.load(SeqCst);
        last = if now == last.0 {
            (now, last.1 + 1)
        } else {
            (now, 0)
        };
        let still = last.1 > 50 && followed.model.events.load(SeqCst) == 1;
        async move { still }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_on_the_port_are_left_for_a_publisher() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let followed = follow(&followers(), &source(&endpoint));
    // A web server; a peer that claims a frame of 2^63 - 1 bytes; a publisher.
    let (mut web, _) = listener.accept().await.unwrap();
    web.write_all(&b"HTTP/1.1 400 Bad Request\r\n".repeat(4))
        .await
        .unwrap();
    drop(web);
    let mut liar = accept(&listener).await;
    liar.write_all(&[2, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])
        .await
        .unwrap();
    drop(liar);
    let mut publisher = accept(&listener).await;
    let message = [frame(1, b""), frame(1, &[0; 8]), frame(0, &batch(1))].concat();
    publisher.write_all(&message).await.unwrap();
    wait_until("the publisher is followed", || async {
        followed.subscription.counts().batches == 1
    })
    .await;
    assert_eq!(followed.subscription.counts().connections, 2);
    assert_eq!(followed.subscription.state(), SubscriptionState::Live);
}
