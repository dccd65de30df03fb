//! The keys in use, and when newer ones are asked for. Requests read them without a lock; the last good ones stay,
//! whatever becomes of their source.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use serde_json::{Value, json};
use sluice_config::auth::{KeySource, KeyUri};
use sluice_config::bootstrap::UpstreamConfig;
use sluice_config::watch::{Fingerprint, Watcher};
use tokio::sync::{Notify, watch};

use super::keys::Keys;
use crate::endpoints::fetch::{self, FetchError};
use crate::forward::link::Link;
use crate::forward::upstream::Connector;
use crate::telemetry::Metrics;

/// Largest set of keys, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// Longest wait for the issuer's answer.
const FETCH_DEADLINE: Duration = Duration::from_secs(10);
/// Longest time to connect to the issuer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time that a request waits for newer keys.
const PATIENCE: Duration = Duration::from_secs(3);
/// Least time between two fetches that requests ask for: whoever makes up keys shall not make load at the issuer.
const LEAST_PAUSE: Duration = Duration::from_secs(10);
/// First pause after a failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Quiet time after a change of a file of keys.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// The keys of one source.
pub struct Keyring {
    source: KeySource,
    /// How the issuer is reached, if the keys are not in a file.
    issuer: Option<(Connector, Link)>,
    keys: ArcSwapOption<Keys>,
    state: Mutex<State>,
    /// Wakes whoever fetches.
    asked: Notify,
    /// Fetches that have ended.
    fetches: watch::Sender<u64>,
    /// Dropping it ends the watch of a file.
    watch: Mutex<Option<Watcher>>,
    metrics: Arc<Metrics>,
}

/// What became of fetches. Locked for a few lines, never over an await.
#[derive(Default)]
struct State {
    /// One is under way, or about to begin.
    under_way: bool,
    /// When a request last was reason for one.
    asked: Option<Instant>,
    /// Failures since the last success.
    failures: u32,
    /// When the keys in use came.
    succeeded: Option<Instant>,
    trouble: Option<String>,
}

impl Keyring {
    /// Without keys, unless they are in a file.
    pub(super) fn new(source: KeySource, metrics: Arc<Metrics>) -> Arc<Self> {
        let issuer = match &source {
            KeySource::Uri(uri) => Some(issuer(uri)),
            KeySource::File(_) => None,
        };
        let keyring = Arc::new(Self {
            source,
            issuer,
            keys: ArcSwapOption::empty(),
            state: Mutex::default(),
            asked: Notify::new(),
            fetches: watch::Sender::new(0),
            watch: Mutex::default(),
            metrics,
        });
        if let KeySource::File(file) = &keyring.source {
            keyring.follow(file);
        }
        keyring
    }

    /// Reads a file of keys now and after each change.
    fn follow(self: &Arc<Self>, file: &Path) {
        let seen = Fingerprint::of(file);
        self.read_file(file);
        let (keyring, path) = (Arc::downgrade(self), file.to_owned());
        let on_change = move || {
            if let Some(keyring) = keyring.upgrade() {
                keyring.read_file(&path);
            }
        };
        match Watcher::since(seen, file, DEBOUNCE, on_change) {
            Ok(watcher) => {
                *self.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(watcher);
            }
            Err(error) => tracing::error!(%error, "keys in a file are not watched"),
        }
    }

    /// Where the keys come from.
    pub fn source(&self) -> &KeySource {
        &self.source
    }

    /// Have there ever been keys?
    pub fn is_known(&self) -> bool {
        self.keys.load().is_some()
    }

    pub(super) fn keys(&self) -> Option<Arc<Keys>> {
        self.keys.load_full()
    }

    /// Asks for newer keys and waits until they are there. False when it is too soon since the last time, or when they
    /// do not come in time.
    pub(super) async fn ask_for_newer(&self) -> bool {
        let mut fetches = self.fetches.subscribe();
        if self.issuer.is_none() || !self.fetch_comes() {
            return false;
        }
        let ended = tokio::time::timeout(PATIENCE, fetches.changed()).await;
        ended.is_ok()
    }

    /// Is a fetch under way? If not, one begins, unless it is too soon.
    fn fetch_comes(&self) -> bool {
        let mut state = self.lock();
        if state.under_way {
            return true;
        }
        let soon = |asked: Instant| asked.elapsed() < LEAST_PAUSE;
        if state.asked.is_some_and(soon) {
            return false;
        }
        state.asked = Some(Instant::now());
        state.under_way = true;
        self.asked.notify_one();
        true
    }

    /// Waits until somebody asks for newer keys.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Fetches the keys once; gives the pause until the next time. Nothing to do, ever, with a file.
    pub(super) async fn fetch(&self) -> Duration {
        let (KeySource::Uri(uri), Some((connector, link))) = (&self.source, &self.issuer) else {
            return Duration::MAX;
        };
        self.lock().under_way = true;
        let _under_way = UnderWay(self);
        let page = fetch::get(connector, link, &uri.path, MAX_BYTES, FETCH_DEADLINE).await;
        let taken = match page {
            Ok(page) => self.take(&page),
            Err(error) => Err(in_words(&error)),
        };
        let failures = self.note(taken, &uri.uri);
        match failures {
            0 => uri.refresh,
            failures => uri.refresh.min(LONGEST_PAUSE).min(pause(failures)),
        }
    }

    fn read_file(&self, file: &Path) {
        let page = std::fs::read(file).map_err(|error| error.to_string());
        let taken = page.and_then(|page| match page.len() {
            0..=MAX_BYTES => self.take(&page),
            _ => Err(format!("it is larger than {MAX_BYTES} bytes")),
        });
        self.note(taken, &file.display().to_string());
    }

    /// Puts the keys of a page into use.
    fn take(&self, page: &[u8]) -> Result<usize, String> {
        let keys = Keys::parse(page).map_err(|error| error.to_string())?;
        let count = keys.len();
        let before = self.keys.load().as_ref().map(|keys| keys.describe());
        let described = keys.describe();
        if before.as_ref() != Some(&described) {
            tracing::info!(keys = described.join("; "), "keys to check tokens with");
        }
        self.keys.store(Some(Arc::new(keys)));
        Ok(count)
    }

    /// Notes how a fetch ended; gives the number of failures since the last success.
    fn note(&self, taken: Result<usize, String>, source: &str) -> u32 {
        let mut state = self.lock();
        self.metrics.auth.fetched(taken.as_ref().ok().copied());
        match taken {
            Ok(_) => {
                state.failures = 0;
                state.succeeded = Some(Instant::now());
                state.trouble = None;
            }
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                let kept = match self.is_known() {
                    true => "the last ones stay in use",
                    false => "nobody is let in until they come",
                };
                tracing::error!(
                    source,
                    error,
                    "keys to check tokens with did not come: {kept}"
                );
                state.trouble = Some(error);
            }
        }
        state.failures
    }

    /// For `/debug/config`.
    pub(super) fn describe(&self) -> Value {
        let keys = self.keys.load();
        let state = self.lock();
        json!({
            "known": keys.as_ref().map(|keys| keys.describe()),
            "ageSeconds": state.succeeded.map(|at| at.elapsed().as_secs_f64()),
            "failures": state.failures,
            "trouble": state.trouble,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a fetch, whichever way it ends.
struct UnderWay<'a>(&'a Keyring);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.lock().under_way = false;
        self.0.fetches.send_modify(|count| *count += 1);
    }
}

/// Not the engines' connections: their authorities, or none at all, are not good enough for keys.
fn issuer(uri: &KeyUri) -> (Connector, Link) {
    let config = UpstreamConfig {
        max_idle: 1,
        ca_file: uri.ca_file.clone(),
        insecure_skip_verify: false,
        ..UpstreamConfig::default()
    };
    let link = Link::new(&uri.host, uri.port, &uri.authority, uri.tls, false);
    (Connector::new(&config, CONNECT_TIMEOUT), link)
}

/// An issuer is no engine.
fn in_words(error: &FetchError) -> String {
    match error {
        FetchError::Status(status) if status.is_redirection() => {
            format!("the issuer answered {status}, which is not followed: name the last address")
        }
        FetchError::Status(status) => format!("the issuer answered {status}"),
        FetchError::Deadline(time) => format!("the issuer gave no whole answer within {time:?}"),
        FetchError::Engine(error) => format!("the issuer cannot be asked: {error}"),
        other => other.to_string(),
    }
}

fn pause(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    // Several gateways shall not ask at one time.
    let jitter = rand::random_range(0.75..1.25);
    doubled.min(LONGEST_PAUSE).mul_f64(jitter)
}
