//! The part of ZMTP 3 (ZeroMQ's wire protocol, rfc.zeromq.org/spec/23) that following a publisher takes: one
//! connection, as a SUB that wants every topic or as a DEALER, without security, and with bounds.
//!
//! Not the `zeromq` crate: its decoder (0.7.0) reserves whatever length a frame claims, up to 2^63 bytes, and keeps
//! the frames of a message without end, so nine bytes from whoever answers at an engine's port could end the proxy.
//! Here a frame's memory grows as its bytes arrive, and what is too long is read and thrown away. Nothing is queued:
//! what is not read yet waits in the socket, and what does not fit there the publisher drops, which its numbering
//! shows.

mod address;
#[cfg(test)]
mod tests;

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::time::timeout;

pub(super) use address::{Address, Listener};

/// Frames of one message: topic, number and payload, and the empty one of a replay.
const MAX_PARTS: usize = 8;
/// Longest command; real ones have some forty bytes.
const MAX_COMMAND_BYTES: u64 = 4096;
/// Longest wait for a greeting and what follows it.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// Longest wait for the rest of a message that has begun: nobody may hold memory by stopping half-way.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(30);
/// Of a frame, reserved before its bytes arrive.
const FIRST_RESERVE: u64 = 64 << 10;

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// Why a connection cannot be made, or not be used any longer.
#[derive(Debug, thiserror::Error)]
pub enum ZmtpError {
    /// The endpoint's text.
    #[error("`{0}` is neither tcp://HOST:PORT nor ipc://PATH")]
    Address(String),
    /// The system refused, or the peer closed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// Nothing came in time.
    #[error("no {0} in time, is the peer a ZeroMQ socket?")]
    Late(&'static str),
    /// Bytes that are not ZMTP, or another socket type than wanted.
    #[error("the peer {0}")]
    Protocol(&'static str),
}

/// What we are to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Subscribed to every topic.
    Subscriber,
    /// Asks a ROUTER.
    Dealer,
}

impl Role {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Subscriber => b"SUB",
            Self::Dealer => b"DEALER",
        }
    }

    fn fits(self, peer: &[u8]) -> bool {
        match self {
            Self::Subscriber => matches!(peer, b"PUB" | b"XPUB"),
            Self::Dealer => matches!(peer, b"ROUTER" | b"REP" | b"DEALER"),
        }
    }
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// The frames of one message.
    Message(Vec<Vec<u8>>),
    /// A message of too many or too long frames, thrown away.
    Oversize,
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// One connection after its handshake.
pub(super) struct Connection {
    stream: BufStream<Box<dyn Io>>,
    max_bytes: u64,
}

impl Connection {
    /// Connects and shakes hands; messages of more than `max_bytes` are not kept.
    pub(super) async fn connect(
        address: &Address,
        role: Role,
        max_bytes: usize,
    ) -> Result<Self, ZmtpError> {
        let stream = timeout(HANDSHAKE_DEADLINE, address.connect())
            .await
            .map_err(|_| ZmtpError::Late("connection"))??;
        Self::shake_hands(stream, role, max_bytes).await
    }

    /// Waits for a peer that connects, and shakes hands.
    pub(super) async fn accept(
        listener: &Listener,
        role: Role,
        max_bytes: usize,
    ) -> Result<Self, ZmtpError> {
        Self::shake_hands(listener.accept().await?, role, max_bytes).await
    }

    async fn shake_hands(
        stream: Box<dyn Io>,
        role: Role,
        max_bytes: usize,
    ) -> Result<Self, ZmtpError> {
        let mut connection = Self {
            stream: BufStream::with_capacity(FIRST_RESERVE as usize, 512, stream),
            max_bytes: max_bytes as u64,
        };
        timeout(HANDSHAKE_DEADLINE, connection.greet(role))
            .await
            .map_err(|_| ZmtpError::Late("greeting"))??;
        Ok(connection)
    }

    async fn greet(&mut self, role: Role) -> Result<(), ZmtpError> {
        // Signature, version 3.0, mechanism, as-server, filler.
        let mut greeting = [0; 64];
        greeting[0] = 0xff;
        greeting[9] = 0x7f;
        greeting[10] = 3;
        greeting[12..16].copy_from_slice(b"NULL");
        self.stream.write_all(&greeting).await?;
        self.stream.flush().await?;
        let mut theirs = [0; 64];
        self.stream.read_exact(&mut theirs).await?;
        if theirs[0] != 0xff || theirs[9] & 1 == 0 {
            return Err(ZmtpError::Protocol("does not speak ZeroMQ"));
        }
        if theirs[10] < 3 {
            return Err(ZmtpError::Protocol("speaks ZMTP older than 3.0"));
        }
        if &theirs[12..17] != b"NULL\0" {
            return Err(ZmtpError::Protocol(
                "demands a security mechanism, only NULL is spoken",
            ));
        }
        self.exchange_ready(role).await?;
        if role == Role::Subscriber {
            self.send(&[&[1]]).await?;
        }
        Ok(())
    }

    async fn exchange_ready(&mut self, role: Role) -> Result<(), ZmtpError> {
        let mut ready = b"\x05READY".to_vec();
        put_property(&mut ready, b"Socket-Type", role.name());
        put_property(&mut ready, b"Identity", b"");
        self.write_frame(COMMAND, &ready).await?;
        self.stream.flush().await?;
        let flags = self.stream.read_u8().await?;
        let length = self.length(flags).await?;
        if flags & COMMAND == 0 {
            return Err(ZmtpError::Protocol("sent a message before it was ready"));
        }
        let theirs = self.command(length).await?;
        match theirs
            .strip_prefix(b"\x05READY")
            .and_then(|properties| property(properties, b"Socket-Type"))
        {
            Some(peer) if role.fits(peer) => Ok(()),
            Some(_) => Err(ZmtpError::Protocol(
                "is a socket of another type than wanted, are the publisher's and the replay's port exchanged?",
            )),
            None => Err(ZmtpError::Protocol("refused the connection")),
        }
    }

    /// The next message. Waits for its beginning as long as it takes.
    pub(super) async fn receive(&mut self) -> Result<Received, ZmtpError> {
        loop {
            let flags = self.stream.read_u8().await?;
            let received = timeout(MESSAGE_DEADLINE, self.rest(flags))
                .await
                .map_err(|_| ZmtpError::Late("rest of a message"))??;
            if let Some(received) = received {
                return Ok(received);
            }
        }
    }

    /// The rest of what begins with these flags; none of a command.
    async fn rest(&mut self, mut flags: u8) -> Result<Option<Received>, ZmtpError> {
        let mut parts = Vec::with_capacity(4);
        let mut room = self.max_bytes;
        let mut oversize = false;
        loop {
            let length = self.length(flags).await?;
            if flags & COMMAND != 0 {
                self.answer(length).await?;
                return Ok(None);
            }
            oversize |= length > room || parts.len() == MAX_PARTS;
            if oversize {
                parts.clear();
                self.discard(length).await?;
            } else {
                room -= length;
                parts.push(self.body(length).await?);
            }
            if flags & MORE == 0 {
                return Ok(Some(match oversize {
                    true => Received::Oversize,
                    false => Received::Message(parts),
                }));
            }
            flags = self.stream.read_u8().await?;
        }
    }

    async fn length(&mut self, flags: u8) -> Result<u64, ZmtpError> {
        match flags {
            flags if flags & !(MORE | LONG | COMMAND) != 0 => {
                Err(ZmtpError::Protocol("sent a frame with unknown flags"))
            }
            flags if flags & LONG != 0 => Ok(self.stream.read_u64().await?),
            _ => Ok(self.stream.read_u8().await?.into()),
        }
    }

    async fn body(&mut self, length: u64) -> Result<Vec<u8>, ZmtpError> {
        let mut body = Vec::with_capacity(length.min(FIRST_RESERVE) as usize);
        (&mut self.stream)
            .take(length)
            .read_to_end(&mut body)
            .await?;
        match body.len() as u64 == length {
            true => Ok(body),
            false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }

    async fn discard(&mut self, length: u64) -> Result<(), ZmtpError> {
        let mut frame = (&mut self.stream).take(length);
        match tokio::io::copy_buf(&mut frame, &mut tokio::io::sink()).await? == length {
            true => Ok(()),
            false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }

    async fn command(&mut self, length: u64) -> Result<Vec<u8>, ZmtpError> {
        match length > MAX_COMMAND_BYTES {
            true => Err(ZmtpError::Protocol("sent a command of unheard-of length")),
            false => self.body(length).await,
        }
    }

    /// A PING gets its PONG with the context it carries; other commands say nothing to us.
    async fn answer(&mut self, length: u64) -> Result<(), ZmtpError> {
        let command = self.command(length).await?;
        if let Some(ping) = command.strip_prefix(b"\x04PING") {
            let context = ping.get(2..).unwrap_or_default();
            let pong = [b"\x04PONG", &context[..context.len().min(16)]].concat();
            self.write_frame(COMMAND, &pong).await?;
            self.stream.flush().await?;
        }
        Ok(())
    }

    /// Sends one message.
    pub(super) async fn send(&mut self, parts: &[&[u8]]) -> Result<(), ZmtpError> {
        for (index, part) in parts.iter().enumerate() {
            let more = if index + 1 < parts.len() { MORE } else { 0 };
            self.write_frame(more, part).await?;
        }
        Ok(self.stream.flush().await?)
    }

    async fn write_frame(&mut self, flags: u8, body: &[u8]) -> Result<(), ZmtpError> {
        match u8::try_from(body.len()) {
            Ok(length) => self.stream.write_all(&[flags, length]).await?,
            Err(_) => {
                self.stream.write_u8(flags | LONG).await?;
                self.stream.write_u64(body.len() as u64).await?;
            }
        }
        Ok(self.stream.write_all(body).await?)
    }
}

/// Name and value of a property are length-prefixed, with one byte and with four.
fn put_property(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(name.len() as u8);
    out.extend(name);
    out.extend((value.len() as u32).to_be_bytes());
    out.extend(value);
}

fn property<'a>(mut properties: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    loop {
        let (&length, rest) = properties.split_first()?;
        let (name, rest) = rest.split_at_checked(length.into())?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        properties = rest;
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Connection").finish_non_exhaustive()
    }
}
