//! Endpoints of ZeroMQ as written, and the sockets behind them.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::{Io, ZmtpError};

/// A peer that vanished without a word is noticed after 30 s: an idle publisher says nothing, so silence alone tells
/// nothing, and heartbeats would need ZMTP 3.1 on the other side.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

/// Where a socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cache) enum Address {
    /// Host or address, without brackets; `*` to listen everywhere.
    Tcp(String, u16),
    /// A Unix socket.
    Ipc(PathBuf),
}

impl FromStr for Address {
    type Err = ZmtpError;

    fn from_str(text: &str) -> Result<Self, ZmtpError> {
        let invalid = || ZmtpError::Address(text.to_owned());
        if let Some(path) = text.strip_prefix("ipc://").filter(|path| !path.is_empty()) {
            return Ok(Self::Ipc(path.into()));
        }
        let address = text.strip_prefix("tcp://").ok_or_else(invalid)?;
        let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        match (host.is_empty(), port.parse()) {
            (false, Ok(port)) => Ok(Self::Tcp(host.to_owned(), port)),
            _ => Err(invalid()),
        }
    }
}

impl Address {
    pub(super) async fn connect(&self) -> Result<Box<dyn Io>, ZmtpError> {
        Ok(match self {
            Self::Tcp(host, port) => {
                Box::new(watched(TcpStream::connect((host.as_str(), *port)).await?)?)
            }
            Self::Ipc(path) => Box::new(UnixStream::connect(path).await?),
        })
    }
}

/// A bound endpoint.
#[derive(Debug)]
pub(in crate::cache) enum Listener {
    Tcp(TcpListener),
    Ipc(UnixListener),
}

impl Listener {
    pub(in crate::cache) async fn bind(address: &Address) -> Result<Self, ZmtpError> {
        Ok(match address {
            Address::Tcp(host, port) => {
                let host = if host == "*" {
                    "0.0.0.0"
                } else {
                    host.as_str()
                };
                Self::Tcp(TcpListener::bind((host, *port)).await?)
            }
            Address::Ipc(path) => {
                // As libzmq does: the socket of a process that ended is in the way.
                if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
                {
                    std::fs::remove_file(path)?;
                }
                Self::Ipc(UnixListener::bind(path)?)
            }
        })
    }

    pub(super) async fn accept(&self) -> Result<Box<dyn Io>, ZmtpError> {
        Ok(match self {
            Self::Tcp(listener) => Box::new(watched(listener.accept().await?.0)?),
            Self::Ipc(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

fn watched(stream: TcpStream) -> io::Result<TcpStream> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
