//! Asks endpoints: one task each, started when a pool has the endpoint and ended when none has it any more.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use sluice_config::snapshot::{EngineMetrics, authority};
use tokio::task::JoinHandle;

use super::adapters::ModelList;
use super::metrics::{EngineReport, PageReader};
use super::pacing;
use crate::endpoints::Endpoint;
use crate::endpoints::fetch::{self, FetchError};
use crate::forward::link::Link;
use crate::forward::upstream::Connector;

/// For one page.
const DEADLINE: Duration = Duration::from_secs(2);
const MAX_MODELS_BYTES: usize = 4 << 20;

/// An endpoint to ask.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The endpoint.
    pub endpoint: &'a Arc<Endpoint>,
    /// Where its metrics are.
    pub metrics: &'a EngineMetrics,
}

/// The tasks of all endpoints. Dropping it ends them.
pub struct Scrapers {
    connector: Arc<Connector>,
    /// By the endpoint's place in memory, which the weak reference keeps from being used again.
    tasks: HashMap<usize, Scraper>,
}

struct Scraper {
    _endpoint: Weak<Endpoint>,
    metrics: EngineMetrics,
    task: JoinHandle<()>,
}

impl Drop for Scraper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scrapers {
    /// None yet.
    pub fn new(connector: Arc<Connector>) -> Self {
        Self {
            connector,
            tasks: HashMap::new(),
        }
    }

    /// Makes the tasks those of `endpoints`: starts what is missing or configured anew, ends what is too much. Of an
    /// endpoint in several pools the first one's word counts. To be called within a runtime, now and then.
    pub fn follow<'a>(&mut self, endpoints: impl Iterator<Item = Asked<'a>>) {
        let mut before = std::mem::take(&mut self.tasks);
        for asked in endpoints {
            let key = Arc::as_ptr(asked.endpoint) as usize;
            if self.tasks.contains_key(&key) {
                continue;
            }
            let scraper = before
                .remove(&key)
                .filter(|scraper| scraper.metrics == *asked.metrics)
                .unwrap_or_else(|| self.start(asked));
            self.tasks.insert(key, scraper);
        }
    }

    /// Endpoints that are asked.
    pub fn count(&self) -> usize {
        self.tasks.len()
    }

    fn start(&self, asked: Asked<'_>) -> Scraper {
        let weak = Arc::downgrade(asked.endpoint);
        let page = Page::of(asked);
        let scrape = scrape(Arc::clone(&self.connector), weak.clone(), page);
        Scraper {
            _endpoint: weak,
            metrics: asked.metrics.clone(),
            task: tokio::spawn(scrape),
        }
    }
}

/// Where an endpoint's metrics are.
struct Page {
    /// `None`: where it serves.
    link: Option<Link>,
    path: String,
}

impl Page {
    fn of(asked: Asked<'_>) -> Self {
        let link = |port| {
            let host = asked.endpoint.link.host();
            Link::new(host, port, &authority(host, port), false, false)
        };
        Self {
            link: asked.metrics.port.map(link),
            path: asked.metrics.path.clone(),
        }
    }
}

/// Asks until the endpoint is gone.
async fn scrape(connector: Arc<Connector>, endpoint: Weak<Endpoint>, page: Page) {
    let mut random = SmallRng::from_rng(&mut rand::rng());
    let mut progress = Progress::default();
    // Many endpoints that appear together are not all asked at once.
    tokio::time::sleep(pacing::BUSY.mul_f64(rand::Rng::random(&mut random))).await;
    loop {
        let pause = {
            let Some(endpoint) = endpoint.upgrade() else {
                return;
            };
            ask(&connector, &endpoint, &page, &mut progress, &mut random).await
        };
        tokio::time::sleep(pause).await;
    }
}

/// What one task remembers.
#[derive(Default)]
struct Progress {
    failures: u32,
    works: Option<bool>,
    models_at: Option<Instant>,
}

/// Asks once, and says how long to wait until the next time.
async fn ask(
    connector: &Connector,
    endpoint: &Endpoint,
    page: &Page,
    progress: &mut Progress,
    random: &mut SmallRng,
) -> Duration {
    let asked = metrics(connector, endpoint, page).await;
    progress.failures = match asked {
        Ok(_) => 0,
        Err(_) => progress.failures.saturating_add(1),
    };
    progress.log(endpoint, asked.as_ref().err());
    let pause = pacing::pause(endpoint.load.load().in_flight, progress.failures, random);
    if let Ok(report) = asked {
        let oldest = pacing::oldest(pause);
        endpoint
            .reported
            .set_metrics(report, Instant::now(), oldest);
    }
    if progress.models_due(Instant::now()) {
        models(connector, endpoint).await;
    }
    pause
}

async fn metrics(
    connector: &Connector,
    endpoint: &Endpoint,
    page: &Page,
) -> Result<EngineReport, FetchError> {
    let link = page.link.as_ref().unwrap_or(&endpoint.link);
    let mut reader = PageReader::new(endpoint.engine);
    let push = |piece: &[u8]| reader.push(piece);
    fetch::get_pieces(connector, link, &page.path, DEADLINE, push).await?;
    Ok(reader.finish())
}

/// An engine without the list is no news: its adapters stay unknown.
async fn models(connector: &Connector, endpoint: &Endpoint) {
    let link = &endpoint.link;
    let page = fetch::get(connector, link, "/v1/models", MAX_MODELS_BYTES, DEADLINE).await;
    if let Some(list) = page.ok().and_then(|page| ModelList::parse(&page)) {
        endpoint.reported.set_models(list, Instant::now());
    }
}

impl Progress {
    fn models_due(&mut self, now: Instant) -> bool {
        let due = self.models_at.is_none_or(|at| now >= at + pacing::MODELS);
        if due {
            self.models_at = Some(now);
        }
        due
    }

    /// One line per change.
    fn log(&mut self, endpoint: &Endpoint, error: Option<&FetchError>) {
        if self.works.replace(error.is_none()) == Some(error.is_none()) {
            return;
        }
        let address = &*endpoint.address;
        match error {
            None => tracing::info!(endpoint = address, "engine metrics are read"),
            Some(error) => tracing::warn!(
                endpoint = address,
                %error,
                "engine metrics cannot be read: routing goes by the gateway's own counts"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
