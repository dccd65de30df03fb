//! The ROUTER that repeats batches: it is asked with an empty frame and a number, and answers with every kept batch
//! from there on and a last message numbered with all ones.

use std::collections::VecDeque;
use std::net::TcpListener;

use bytes::Bytes;
use zeromq::{RouterSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

const END: [u8; 8] = [0xff; 8];

/// The socket, or none: then nobody ever asks.
pub(super) struct ReplaySocket(Option<RouterSocket>);

/// Who asked, and from which number on.
pub(super) struct Request {
    identity: Bytes,
    from: u64,
}

impl ReplaySocket {
    pub(super) async fn open(listener: Option<TcpListener>) -> zeromq::ZmqResult<Self> {
        let Some(listener) = listener else {
            return Ok(Self(None));
        };
        let mut socket = RouterSocket::new();
        socket.bind_listener(listener).await?;
        Ok(Self(Some(socket)))
    }

    /// The next request; one that is malformed is passed over, as vLLM does.
    pub(super) async fn request(&mut self) -> Request {
        let Some(socket) = &mut self.0 else {
            return std::future::pending().await;
        };
        loop {
            let frames = match socket.recv().await {
                Ok(message) => message.into_vec(),
                Err(_) => continue,
            };
            if let [identity, _, from] = frames.as_slice()
                && let Ok(from) = <[u8; 8]>::try_from(&from[..])
            {
                return Request {
                    identity: identity.clone(),
                    from: u64::from_be_bytes(from),
                };
            }
        }
    }

    pub(super) async fn answer(
        &mut self,
        request: Request,
        topic: &Bytes,
        kept: &VecDeque<(u64, Bytes)>,
    ) {
        let Some(socket) = &mut self.0 else { return };
        let batches = kept
            .iter()
            .filter(|(number, _)| *number >= request.from)
            .map(|(number, payload)| {
                let number = Bytes::copy_from_slice(&number.to_be_bytes());
                (topic.clone(), number, payload.clone())
            });
        let end = (Bytes::new(), Bytes::from_static(&END), Bytes::new());
        for (topic, number, payload) in batches.chain([end]) {
            let frames = vec![
                request.identity.clone(),
                Bytes::new(),
                topic,
                number,
                payload,
            ];
            let Ok(message) = ZmqMessage::try_from(frames) else {
                return;
            };
            if socket.send(message).await.is_err() {
                // Whoever asked is gone.
                return;
            }
        }
    }
}
