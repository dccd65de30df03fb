//! Finds where endpoints publish KV events and keeps following them: one task per member of a pool.
//!
//! An engine is asked where it publishes unless the configuration says. Before its events are believed, it must
//! tokenise a text as the pool's tokenizer does: events of another vocabulary would never match, and nobody would
//! know why. Events speak of tokens: in a pool without a tokenizer engines tell those of prompts (`tokenize`), and
//! that they do not publish is no news unless they did, or should. Not for what events mean (`cache`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use sluice_config::snapshot::KvEvents;
use sluice_crds::networking::InferenceEngine;
use tokio::task::JoinHandle;

use super::fetch::{self, FetchError};
use super::{Endpoint, Member};
use crate::cache::event::KvEvent;
use crate::cache::members::MemberCache;
use crate::cache::sources::{self, EventSource, SourceError};
use crate::cache::subscribe::{EventSink, Followers, Subscription, SubscriptionState};
use crate::forward::upstream::Connector;
use crate::serving::Loading;
use crate::tokens::check::{self, Verdict};
use crate::tokens::{ApiKind, ModelTokenizer, Outcome, TokenPool};

/// For one question to an engine.
const DEADLINE: Duration = Duration::from_secs(2);
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// After an engine could not be asked, or its tokenizer is not loaded yet.
const SOON: Duration = Duration::from_secs(2);
/// After it said that it does not publish, and between looks at publishers that are followed.
const LATER: Duration = Duration::from_secs(30);
/// What both sides tokenise for comparison: words, digits, spaces, more than one script.
const SAMPLE: &str =
    "The 3 quick brown foxes,\n  jumping over 1234567890 lazy dogs: naïve? 你好 {\"a\": [1, 2]}";

/// A member to follow.
pub struct Followed<'a> {
    /// The member.
    pub member: &'a Member,
    /// Where it publishes.
    pub events: KvEvents,
    /// Its pool's tokenizer, if it has one.
    pub tokenizer: Option<&'a Arc<Loading>>,
}

/// The tasks of all members. Dropping it ends them.
pub struct Publishers {
    connector: Arc<Connector>,
    followers: Arc<Followers>,
    tokens: Arc<TokenPool>,
    /// By the cache's place in memory, which the weak reference keeps from being used again.
    tasks: HashMap<usize, Task>,
}

struct Task {
    _cache: Weak<MemberCache>,
    events: KvEvents,
    tokenizer: Option<Arc<Loading>>,
    handle: JoinHandle<()>,
}

impl Task {
    /// Nothing of what it was started with has changed.
    fn is_for(&self, followed: &Followed<'_>) -> bool {
        let tokenizer = self.tokenizer.as_ref().map(Arc::as_ptr);
        self.events == followed.events && tokenizer == followed.tokenizer.map(Arc::as_ptr)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Publishers {
    /// None yet.
    pub fn new(
        connector: Arc<Connector>,
        followers: Arc<Followers>,
        tokens: Arc<TokenPool>,
    ) -> Self {
        Self {
            connector,
            followers,
            tokens,
            tasks: HashMap::new(),
        }
    }

    /// Makes the tasks those of `members`: starts what is missing or configured anew, ends what is too much. To be
    /// called within a runtime, now and then.
    pub fn follow<'a>(&mut self, members: impl Iterator<Item = Followed<'a>>) {
        let mut before = std::mem::take(&mut self.tasks);
        for followed in members.filter(|followed| followed.events != KvEvents::Off) {
            let key = Arc::as_ptr(&followed.member.cache) as usize;
            let task = before
                .remove(&key)
                .filter(|task| task.is_for(&followed))
                .unwrap_or_else(|| self.start(&followed));
            self.tasks.insert(key, task);
        }
    }

    fn start(&self, followed: &Followed<'_>) -> Task {
        let publisher = Publisher {
            connector: Arc::clone(&self.connector),
            followers: Arc::clone(&self.followers),
            tokens: Arc::clone(&self.tokens),
            endpoint: Arc::clone(&followed.member.endpoint),
            cache: Arc::clone(&followed.member.cache),
            events: followed.events,
            tokenizer: followed.tokenizer.map(Arc::clone),
            was_followed: false,
            said: None,
        };
        Task {
            _cache: Arc::downgrade(&followed.member.cache),
            events: followed.events,
            tokenizer: followed.tokenizer.map(Arc::clone),
            handle: tokio::spawn(publisher.run()),
        }
    }
}

/// One member's task.
struct Publisher {
    connector: Arc<Connector>,
    followers: Arc<Followers>,
    tokens: Arc<TokenPool>,
    endpoint: Arc<Endpoint>,
    cache: Arc<MemberCache>,
    events: KvEvents,
    tokenizer: Option<Arc<Loading>>,
    /// Its events were followed at some time.
    was_followed: bool,
    /// What was logged last.
    said: Option<String>,
}

/// Why a member is not followed.
#[derive(Debug, thiserror::Error)]
enum NotFollowed {
    #[error("the pool's tokenizer is not loaded")]
    NoTokenizer,
    #[error("the engine cannot be asked: {0}")]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Sources(#[from] SourceError),
    #[error("{0}")]
    Address(#[from] crate::cache::subscribe::ZmtpError),
    #[error(
        "the engine tokenises a sample text differently from token {at} on: `spec.tokenizer.path` is another model's"
    )]
    OtherTokenizer { at: usize },
}

impl NotFollowed {
    /// Nothing will change soon.
    fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::Fetch(FetchError::Status(_)) | Self::Sources(_) | Self::OtherTokenizer { .. }
        )
    }
}

/// Ended by the configuration, too: what events said ages from now on.
impl Drop for Publisher {
    fn drop(&mut self) {
        self.cache.set_live(false);
        self.cache.following().end(None);
    }
}

impl Publisher {
    async fn run(mut self) {
        loop {
            let pause = match self.subscribe().await {
                Ok(subscriptions) => {
                    self.was_followed = true;
                    self.say(None);
                    let views = subscriptions.iter().map(Subscription::view);
                    self.cache.following().begin(views.collect());
                    watch(&subscriptions).await;
                    SOON
                }
                Err(error) => {
                    let trouble = error.to_string();
                    self.cache.following().end(Some(trouble.clone()));
                    // Of a tokenizer its loader speaks.
                    if !matches!(error, NotFollowed::NoTokenizer) {
                        self.say(Some(trouble));
                    }
                    if error.is_lasting() { LATER } else { SOON }
                }
            };
            self.cache.set_live(false);
            tokio::time::sleep(pause).await;
        }
    }

    async fn subscribe(&self) -> Result<Vec<Subscription>, NotFollowed> {
        let tokenizer = match &self.tokenizer {
            Some(tokenizer) => Some(tokenizer.get().ok_or(NotFollowed::NoTokenizer)?),
            None => None,
        };
        let sources = self.sources().await?;
        if let Some(tokenizer) = tokenizer {
            self.compare(&tokenizer).await?;
        }
        let live = Live::new(&self.cache, sources.len());
        let follow = |(number, source): (usize, &EventSource)| {
            let sink = Sink {
                live: Arc::clone(&live),
                number,
                rank: source.rank,
            };
            Ok(self.followers.follow(source, Arc::new(sink))?)
        };
        sources.iter().enumerate().map(follow).collect()
    }

    async fn sources(&self) -> Result<Vec<EventSource>, NotFollowed> {
        let host = self.endpoint.link.host();
        if let KvEvents::Ports {
            publisher,
            replay,
            ranks,
        } = self.events
        {
            let ranked = |rank| configured(host, publisher, replay, rank, ranks);
            return Ok((0..ranks).map(ranked).collect::<Result<_, _>>()?);
        }
        Ok(match self.endpoint.engine {
            InferenceEngine::SgLang => {
                sources::sglang_sources(&self.get("/server_info").await?, host)?
            }
            _ => sources::vllm_sources(&self.get("/kv_event_sources").await?, host)?,
        })
    }

    async fn get(&self, path: &str) -> Result<Bytes, FetchError> {
        let link = &self.endpoint.link;
        fetch::get(&self.connector, link, path, MAX_ANSWER_BYTES, DEADLINE).await
    }

    /// An engine that cannot be asked to tokenise is believed.
    async fn compare(&self, tokenizer: &Arc<ModelTokenizer>) -> Result<(), NotFollowed> {
        let body: Bytes = serde_json::json!({"prompt": SAMPLE}).to_string().into();
        let tokens = &self.tokens;
        let ours = match tokens
            .tokenize(tokenizer, ApiKind::Completions, body.clone())
            .await
        {
            Outcome::Tokens(ids) => Ok(ids),
            Outcome::Late(late) => late.ids().await,
            Outcome::Unavailable(reason) => Err(reason),
        };
        let link = &self.endpoint.link;
        let asked = fetch::post_json(
            &self.connector,
            link,
            "/tokenize",
            body,
            MAX_ANSWER_BYTES,
            DEADLINE,
        );
        let theirs = asked.await.ok();
        let theirs = theirs.and_then(|page| check::tokenize_answer(&page).ok());
        match (ours, theirs) {
            (Ok(ours), Some(theirs)) => match check::compare(&ours, &theirs) {
                Verdict::Different { at } => Err(NotFollowed::OtherTokenizer { at }),
                Verdict::Matching => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// One line per change.
    fn say(&mut self, trouble: Option<String>) {
        let endpoint = &*self.endpoint.address;
        if self.said.is_some() && self.said == trouble {
            return;
        }
        match &trouble {
            None => tracing::info!(endpoint, "KV events are followed"),
            Some(why) if is_news(self.tokenizer.is_some(), self.was_followed, self.events) => {
                tracing::warn!(endpoint, why, "no KV events: what it holds is estimated");
            }
            Some(why) => tracing::debug!(endpoint, why, "no KV events: what it holds is estimated"),
        }
        self.said = trouble;
    }
}

/// Whether somebody misses a member's events: whoever gave its pool a tokenizer, said where they are, or had them before.
fn is_news(tokenizer: bool, was_followed: bool, events: KvEvents) -> bool {
    tokenizer || was_followed || matches!(events, KvEvents::Ports { .. })
}

fn configured(
    host: &str,
    publisher: u16,
    replay: Option<u16>,
    rank: u16,
    ranks: u16,
) -> Result<EventSource, SourceError> {
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let at = |port: u16| format!("tcp://{host}:{}", port.saturating_add(rank));
    let source = sources::configured_source(&at(publisher), replay.map(at).as_deref())?;
    Ok(EventSource {
        rank: (ranks > 1).then_some(u32::from(rank)),
        ..source
    })
}

/// Returns when a publisher is lost: then the engine is asked anew, it may have moved.
async fn watch(subscriptions: &[Subscription]) {
    loop {
        tokio::time::sleep(SOON).await;
        let lost = |subscription: &Subscription| subscription.state() == SubscriptionState::Lost;
        if subscriptions.iter().any(lost) {
            return;
        }
    }
}

/// A member's events are live when those of all its ranks are.
struct Live {
    cache: Arc<MemberCache>,
    ranks: Vec<AtomicBool>,
}

impl Live {
    fn new(cache: &Arc<MemberCache>, ranks: usize) -> Arc<Self> {
        Arc::new(Self {
            cache: Arc::clone(cache),
            ranks: (0..ranks).map(|_| AtomicBool::new(false)).collect(),
        })
    }
}

/// Where one publisher's events go.
struct Sink {
    live: Arc<Live>,
    number: usize,
    rank: Option<u32>,
}

impl EventSink for Sink {
    fn apply(&self, rank: Option<u32>, event: &KvEvent) {
        self.live.cache.apply(rank.or(self.rank), event);
    }

    fn clear(&self, rank: Option<u32>) {
        self.live.cache.clear(rank.or(self.rank));
    }

    fn live(&self, live: bool) {
        self.live.ranks[self.number].store(live, Ordering::Relaxed);
        let all = self
            .live
            .ranks
            .iter()
            .all(|rank| rank.load(Ordering::Relaxed));
        self.live.cache.set_live(all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_there_are_no_events_is_news_where_somebody_misses_them() {
        let ports = KvEvents::Ports {
            publisher: 5557,
            replay: None,
            ranks: 1,
        };
        assert!(!is_news(false, false, KvEvents::Discover));
        assert!(is_news(false, false, ports));
        assert!(is_news(false, true, KvEvents::Discover));
        assert!(is_news(true, false, KvEvents::Discover));
    }
}
