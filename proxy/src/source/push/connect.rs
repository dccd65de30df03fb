//! From the addresses of a control loop to a channel: names looked up, one IP address after another in random order,
//! credentials read anew each time, since they are rotated.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::Rng;
use rand::seq::SliceRandom;
use sluice_config::bootstrap::{ControlAddress, PushConfig};
use sluice_config::snapshot::authority;
use thiserror::Error;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// For the look-up of a name, and for TCP and TLS.
const PATIENCE: Duration = Duration::from_secs(5);
/// HTTP/2 pings: a network that was cut is noticed after the sum of both.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_PATIENCE: Duration = Duration::from_secs(10);
/// Flow control: what may be on its way unread.
const WINDOW: u32 = 4 << 20;
/// Largest credential file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// One IP address of a control loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) control: ControlAddress,
    /// `None`: its name cannot be looked up, which the attempt will say.
    pub(super) address: Option<SocketAddr>,
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub(super) enum ConnectError {
    /// The name has no address.
    #[error("the name {0} cannot be looked up")]
    LookUp(String),
    /// A credential cannot be read.
    #[error("{what} {path} cannot be read: {source}")]
    Credential {
        what: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
    /// The token is not one line of visible text.
    #[error("tokenFile {0} does not hold a token")]
    Token(String),
    /// TCP, TLS or HTTP/2 failed.
    #[error("cannot connect: {}", causes(.0))]
    Transport(#[from] tonic::transport::Error),
}

/// Where credentials are.
#[derive(Debug, Clone)]
pub(super) struct Credentials {
    authorities: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    token: Option<PathBuf>,
}

/// A connection, and what the gateway shows on it.
pub(super) struct Connection {
    pub(super) channel: Channel,
    pub(super) authorization: Option<MetadataValue<Ascii>>,
}

impl std::fmt::Display for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ControlAddress { host, port, .. } = &self.control;
        formatter.write_str(&authority(host, *port))?;
        match self.address {
            Some(address) if address.ip().to_string() != *host => {
                write!(formatter, " ({})", address.ip())
            }
            _ => Ok(()),
        }
    }
}

/// Every IP address of every control address, in random order.
pub(super) async fn targets(addresses: &[ControlAddress], random: &mut impl Rng) -> Vec<Target> {
    let mut targets = Vec::new();
    for control in addresses {
        let found = look_up(control).await;
        let target = |address| Target {
            control: control.clone(),
            address,
        };
        match found.is_empty() {
            true => targets.push(target(None)),
            false => targets.extend(found.into_iter().map(Some).map(target)),
        }
    }
    targets.shuffle(random);
    targets
}

async fn look_up(control: &ControlAddress) -> Vec<SocketAddr> {
    let look_up = tokio::net::lookup_host((control.host.as_str(), control.port));
    let found = tokio::time::timeout(PATIENCE, look_up).await;
    let mut found: Vec<SocketAddr> = match found {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    };
    found.sort_unstable();
    found.dedup();
    found
}

impl Credentials {
    pub(super) fn of(config: &PushConfig) -> Self {
        Self {
            authorities: config.ca_file.clone(),
            identity: config.cert_file.clone().zip(config.key_file.clone()),
            token: config.token_file.clone(),
        }
    }

    fn tls(&self, host: &str) -> Result<ClientTlsConfig, ConnectError> {
        let mut tls = ClientTlsConfig::new().domain_name(host);
        if let Some(file) = &self.authorities {
            tls = tls.ca_certificate(Certificate::from_pem(read("caFile", file)?));
        }
        if let Some((cert, key)) = &self.identity {
            let (cert, key) = (read("certFile", cert)?, read("keyFile", key)?);
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        Ok(tls)
    }

    fn authorization(&self) -> Result<Option<MetadataValue<Ascii>>, ConnectError> {
        let Some(file) = &self.token else {
            return Ok(None);
        };
        let wrong = || ConnectError::Token(file.display().to_string());
        let token = String::from_utf8(read("tokenFile", file)?).map_err(|_| wrong())?;
        let token = token.trim();
        if token.is_empty() {
            return Err(wrong());
        }
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {token}").parse().map_err(|_| wrong())?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, ConnectError> {
    let read = || {
        use std::io::Read;
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path)?;
        file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| ConnectError::Credential {
        what,
        path: path.display().to_string(),
        source,
    })
}

/// Connects to one IP address, in the name of its host.
pub(super) async fn connect(
    target: &Target,
    credentials: &Credentials,
) -> Result<Connection, ConnectError> {
    let ControlAddress { tls, host, port } = &target.control;
    let Some(address) = target.address else {
        return Err(ConnectError::LookUp(host.clone()));
    };
    let scheme = if *tls { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?
        .connect_timeout(PATIENCE)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_PATIENCE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    if let Ok(origin) = format!("{scheme}://{}", authority(host, *port)).parse() {
        endpoint = endpoint.origin(origin);
    }
    if *tls {
        endpoint = endpoint.tls_config(credentials.tls(host)?)?;
    }
    let authorization = credentials.authorization()?;
    let channel = endpoint.connect().await?;
    Ok(Connection {
        channel,
        authorization,
    })
}

/// An error with what is behind it: tonic says "transport error" alone.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn control(url: &str) -> ControlAddress {
        ControlAddress::parse(url).unwrap()
    }

    #[tokio::test]
    async fn every_address_is_a_target_in_changing_order() {
        let urls = ["http://127.0.0.1:1", "http://127.0.0.2:1", "http://[::1]:1"];
        let addresses: Vec<_> = urls.iter().map(|url| control(url)).collect();
        let mut random = SmallRng::seed_from_u64(1);
        let mut firsts = std::collections::HashSet::new();
        for _ in 0..40 {
            let targets = targets(&addresses, &mut random).await;
            assert_eq!(targets.len(), 3);
            firsts.insert(targets[0].to_string());
        }
        assert_eq!(firsts.len(), 3, "{firsts:?}");
        assert!(firsts.contains("[::1]:1"));
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_said() {
        let mut random = SmallRng::seed_from_u64(1);
        let targets = targets(&[control("http://no.such.host.invalid:1")], &mut random).await;
        let credentials = Credentials::of(&PushConfig::default());
        let error = connect(&targets[0], &credentials).await.err().unwrap();
        assert_eq!(
            error.to_string(),
            "the name no.such.host.invalid cannot be looked up"
        );
    }

    #[test]
    fn a_token_is_read_anew_and_must_be_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let credentials = Credentials::of(&PushConfig {
            token_file: Some(file.clone()),
            ..PushConfig::default()
        });
        assert!(
            credentials
                .authorization()
                .unwrap_err()
                .to_string()
                .starts_with("tokenFile ")
        );
        for token in ["one", "two\n"] {
            std::fs::write(&file, token).unwrap();
            let value = credentials.authorization().unwrap().unwrap();
            assert_eq!(value.to_str().unwrap(), format!("Bearer {}", token.trim()));
            assert!(!format!("{value:?}").contains(token.trim()));
        }
        for wrong in ["", "a\nb"] {
            std::fs::write(&file, wrong).unwrap();
            assert!(credentials.authorization().is_err());
        }
    }
}
