use tokio::io::duplex;

use super::*;

/// A peer's end of a connection whose handshake is done, and ours.
async fn connected(max_bytes: usize) -> (tokio::io::DuplexStream, Connection) {
    let (mut peer, ours) = duplex(1 << 20);
    let theirs = async {
        peer.write_all(&greeting(b"NULL")).await.unwrap();
        peer.write_all(&frame(COMMAND, b"\x05READY\x0bSocket-Type\0\0\0\x03PUB"))
            .await
            .unwrap();
        // Greeting, READY with two properties, and the subscription.
        let mut sent = vec![0; 64 + 2 + 6 + 19 + 13 + 3];
        peer.read_exact(&mut sent).await.unwrap();
        assert_eq!(sent[sent.len() - 3..], [0, 1, 1], "every topic");
        peer
    };
    let ours = Connection::shake_hands(Box::new(ours), Role::Subscriber, max_bytes);
    let (peer, connection) = tokio::join!(theirs, ours);
    (peer, connection.unwrap())
}

fn greeting(mechanism: &[u8]) -> [u8; 64] {
    let mut greeting = [0; 64];
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    greeting[10] = 3;
    greeting[12..12 + mechanism.len()].copy_from_slice(mechanism);
    greeting
}

fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    [&[flags, body.len() as u8], body].concat()
}

#[tokio::test]
async fn frames_of_a_message_arrive_in_both_lengths() {
    let (mut peer, mut connection) = connected(1000).await;
    peer.write_all(&frame(MORE, b"topic")).await.unwrap();
    peer.write_all(&[LONG, 0, 0, 0, 0, 0, 0, 0, 3])
        .await
        .unwrap();
    peer.write_all(b"abc").await.unwrap();
    assert_eq!(
        connection.receive().await.unwrap(),
        Received::Message(vec![b"topic".to_vec(), b"abc".to_vec()])
    );
}

#[tokio::test]
async fn a_message_too_long_is_passed_over_and_the_next_one_read() {
    let (mut peer, mut connection) = connected(10).await;
    for body in [&[7; 11][..], b"next"] {
        peer.write_all(&frame(0, body)).await.unwrap();
    }
    // Each frame fits, all of them do not.
    for flags in [MORE, MORE, 0] {
        peer.write_all(&frame(flags, b"four")).await.unwrap();
    }
    for index in 0..=MAX_PARTS {
        let more = if index < MAX_PARTS { MORE } else { 0 };
        peer.write_all(&frame(more, b"")).await.unwrap();
    }
    assert_eq!(connection.receive().await.unwrap(), Received::Oversize);
    assert_eq!(
        connection.receive().await.unwrap(),
        Received::Message(vec![b"next".to_vec()])
    );
    assert_eq!(connection.receive().await.unwrap(), Received::Oversize);
    assert_eq!(connection.receive().await.unwrap(), Received::Oversize);
}

#[tokio::test]
async fn a_claimed_length_reserves_nothing() {
    let (mut peer, mut connection) = connected(usize::MAX).await;
    peer.write_all(&[LONG, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])
        .await
        .unwrap();
    drop(peer);
    assert!(matches!(connection.receive().await, Err(ZmtpError::Io(_))));
}

#[tokio::test]
async fn a_ping_is_answered_with_its_context() {
    let (mut peer, mut connection) = connected(100).await;
    peer.write_all(&frame(COMMAND, b"\x04PING\0\x0ahere"))
        .await
        .unwrap();
    peer.write_all(&frame(0, b"m")).await.unwrap();
    connection.receive().await.unwrap();
    let mut pong = [0; 11];
    peer.read_exact(&mut pong).await.unwrap();
    assert_eq!(pong[..], frame(COMMAND, b"\x04PONGhere"));
}

#[tokio::test]
async fn flags_that_mean_nothing_end_the_connection() {
    let (mut peer, mut connection) = connected(100).await;
    peer.write_all(b"HTTP/1.1 400 Bad Request").await.unwrap();
    assert!(matches!(
        connection.receive().await,
        Err(ZmtpError::Protocol(_))
    ));
}

#[tokio::test]
async fn peers_that_are_something_else_are_refused_in_words() {
    let replies: [(Vec<u8>, &str); 4] = [
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n".repeat(4),
            "does not speak ZeroMQ",
        ),
        (greeting(b"CURVE").to_vec(), "demands a security mechanism"),
        (
            [
                &greeting(b"NULL")[..],
                &frame(COMMAND, b"\x05READY\x0bSocket-Type\0\0\0\x06ROUTER"),
            ]
            .concat(),
            "another type",
        ),
        (
            [&greeting(b"NULL")[..], &frame(COMMAND, b"\x05ERROR\x00")].concat(),
            "refused the connection",
        ),
    ];
    for (reply, reason) in replies {
        let (mut peer, ours) = duplex(4096);
        peer.write_all(&reply).await.unwrap();
        let error = Connection::shake_hands(Box::new(ours), Role::Subscriber, 10)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn properties_of_any_length_are_read_without_harm() {
    assert_eq!(
        property(b"\x01a\0\0\0\x01x\x01b\0\0\0\x01y", b"B"),
        Some(&b"y"[..])
    );
    assert_eq!(property(b"\x01a\xff\xff\xff\xffx", b"a"), None);
    assert_eq!(property(b"\xffa", b"a"), None);
}

#[test]
fn addresses_are_read_with_and_without_brackets() {
    let tcp = |host: &str, port| Address::Tcp(host.to_owned(), port);
    assert_eq!("tcp://a.b:1".parse::<Address>().unwrap(), tcp("a.b", 1));
    assert_eq!("tcp://[::1]:2".parse::<Address>().unwrap(), tcp("::1", 2));
    assert_eq!(
        "ipc://x".parse::<Address>().unwrap(),
        Address::Ipc("x".into())
    );
    for wrong in [
        "tcp://a",
        "tcp://:1",
        "tcp://a:x",
        "http://a:1",
        "ipc://",
        "",
    ] {
        assert!(wrong.parse::<Address>().is_err(), "{wrong}");
    }
}
