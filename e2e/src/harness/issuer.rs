//! An issuer of tokens on loopback: it signs, publishes its keys, changes them, and fails on request.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// What the issuer calls itself.
pub const ISSUER: &str = "https://issuer.test";

/// The issuer; dropping it stops it.
pub struct Issuer {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    task: Option<JoinHandle<()>>,
    tls: Option<Tls>,
}

/// A certificate for `localhost` that signs itself.
struct Tls {
    acceptor: TlsAcceptor,
    pem: String,
}

#[derive(Default)]
struct Shared {
    keys: Vec<(String, Arc<SigningKey>)>,
    broken: bool,
    fetches: usize,
}

/// A private key (ES256), made anew.
pub struct SigningKey(EcdsaKeyPair);

impl Issuer {
    /// Starts one with a first key, called `1`.
    ///
    /// # Panics
    /// When there is no port.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// The same by TLS, at `localhost`, with a certificate that nobody has signed but itself.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub async fn start_tls() -> Self {
        Self::start_with(Some(Tls::new())).await
    }

    async fn start_with(tls: Option<Tls>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let shared = Arc::<Mutex<Shared>>::default();
        let mut issuer = Self {
            address: listener.local_addr().expect("it is bound"),
            shared,
            task: None,
            tls,
        };
        issuer.rotate("1");
        issuer.serve(listener);
        issuer
    }

    fn serve(&mut self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        let acceptor = self.tls.as_ref().map(|tls| tls.acceptor.clone());
        self.task = Some(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => answer(stream, &shared).await,
                        Some(acceptor) => {
                            // Who does not trust the certificate is gone here.
                            if let Ok(stream) = acceptor.accept(stream).await {
                                answer(stream, &shared).await;
                            }
                        }
                    }
                });
            }
        }));
    }

    /// Where its keys are.
    pub fn uri(&self) -> String {
        match self.tls {
            None => format!("http://{}/keys?v=1", self.address),
            Some(_) => format!("https://localhost:{}/keys", self.address.port()),
        }
    }

    /// Its certificate as PEM; empty without TLS.
    pub fn certificate(&self) -> &str {
        self.tls.as_ref().map_or("", |tls| &tls.pem)
    }

    /// Signs and publishes with a new key from now on; the old ones are gone.
    pub fn rotate(&self, id: &str) {
        self.lock().keys = vec![(id.to_owned(), Arc::new(SigningKey::new()))];
    }

    /// Answers with 500 from now on, or properly again.
    pub fn set_broken(&self, broken: bool) {
        self.lock().broken = broken;
    }

    /// Nobody listens any more.
    pub async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            task.await.ok();
        }
    }

    /// Listens again, at the same address.
    ///
    /// # Panics
    /// When the port is taken.
    pub async fn start_again(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("its port");
        self.serve(listener);
    }

    /// How often its keys were asked for.
    pub fn fetches(&self) -> usize {
        self.lock().fetches
    }

    /// A good token for a user and the audience `sluice`.
    pub fn token(&self, user: &str) -> String {
        self.sign(&claims(user))
    }

    /// A token with these claims, by its newest key.
    ///
    /// # Panics
    /// When it has no key.
    pub fn sign(&self, claims: &Value) -> String {
        let (id, key) = self.lock().keys.last().cloned().expect("it has a key");
        key.token(&json!({"alg": "ES256", "typ": "JWT", "kid": id}), claims)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// What a good token says.
pub fn claims(user: &str) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    json!({"iss": ISSUER, "aud": "sluice", "sub": user, "iat": now, "exp": now + 300})
}

impl Tls {
    fn new() -> Self {
        let names = vec!["localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("its key");
        let chain = vec![made.cert.der().clone()];
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows them")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("they belong together");
        Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            pem: made.cert.pem(),
        }
    }
}

impl Default for SigningKey {
    fn default() -> Self {
        Self::new()
    }
}

impl SigningKey {
    /// A key that nobody publishes yet.
    ///
    /// # Panics
    /// Without random numbers.
    pub fn new() -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("random numbers");
        Self(EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref(), &random).expect("made just now"))
    }

    /// A token with this head and these claims.
    ///
    /// # Panics
    /// Without random numbers.
    pub fn token(&self, head: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", part(head), part(claims));
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes());
        let signature = signature.expect("random numbers");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    fn public(&self, id: &str) -> Value {
        let point = &self.0.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        let text = |bytes| URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": id, "x": text(x), "y": text(y)})
    }
}

/// One part of a token.
pub fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn page(shared: &Mutex<Shared>) -> String {
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    shared.fetches += 1;
    let (status, body) = match shared.broken {
        true => ("500 Internal Server Error", "broken".to_owned()),
        false => {
            let keys: Vec<Value> = shared.keys.iter().map(|(id, key)| key.public(id)).collect();
            ("200 OK", json!({"keys": keys}).to_string())
        }
    };
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Mutex<Shared>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        if !matches!(stream.read_buf(&mut head).await, Ok(count) if count > 0) {
            return;
        }
    }
    let page = page(shared);
    stream.write_all(page.as_bytes()).await.ok();
    stream.shutdown().await.ok();
}
