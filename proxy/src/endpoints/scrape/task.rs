//! Asks endpoints: one task each, started when a pool has the endpoint and ended when none has it any more.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::task::JoinHandle;

use super::adapters::ModelList;
use super::metrics::{EngineReport, PageReader};
use super::pacing;
use crate::endpoints::Endpoint;
use crate::endpoints::fetch::{self, FetchError};
use crate::forward::upstream::Connector;

const PATH: &str = "/metrics";
/// For one page.
const DEADLINE: Duration = Duration::from_secs(2);
const MAX_MODELS_BYTES: usize = 4 << 20;

/// The tasks of all endpoints. Dropping it ends them.
pub struct Scrapers {
    connector: Arc<Connector>,
    /// By the endpoint's place in memory, which the weak reference keeps from being used again.
    tasks: HashMap<usize, Scraper>,
}

struct Scraper {
    _endpoint: Weak<Endpoint>,
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

    /// Makes the tasks those of `endpoints`: starts what is missing, ends what is too much. To be called within a
    /// runtime, now and then.
    pub fn follow<'a>(&mut self, endpoints: impl Iterator<Item = &'a Arc<Endpoint>>) {
        let mut before = std::mem::take(&mut self.tasks);
        for endpoint in endpoints {
            let key = Arc::as_ptr(endpoint) as usize;
            if self.tasks.contains_key(&key) {
                continue;
            }
            let scraper = before.remove(&key).unwrap_or_else(|| self.start(endpoint));
            self.tasks.insert(key, scraper);
        }
    }

    /// Endpoints that are asked.
    pub fn count(&self) -> usize {
        self.tasks.len()
    }

    fn start(&self, endpoint: &Arc<Endpoint>) -> Scraper {
        let weak = Arc::downgrade(endpoint);
        let scrape = scrape(Arc::clone(&self.connector), weak.clone());
        Scraper {
            _endpoint: weak,
            task: tokio::spawn(scrape),
        }
    }
}

/// Asks until the endpoint is gone.
async fn scrape(connector: Arc<Connector>, endpoint: Weak<Endpoint>) {
    let mut random = SmallRng::from_rng(&mut rand::rng());
    let mut progress = Progress::default();
    // Many endpoints that appear together are not all asked at once.
    tokio::time::sleep(pacing::BUSY.mul_f64(rand::Rng::random(&mut random))).await;
    loop {
        let pause = {
            let Some(endpoint) = endpoint.upgrade() else {
                return;
            };
            ask(&connector, &endpoint, &mut progress, &mut random).await
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
    progress: &mut Progress,
    random: &mut SmallRng,
) -> Duration {
    let asked = metrics(connector, endpoint).await;
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

async fn metrics(connector: &Connector, endpoint: &Endpoint) -> Result<EngineReport, FetchError> {
    let mut reader = PageReader::new(endpoint.engine);
    let push = |piece: &[u8]| reader.push(piece);
    fetch::get_pieces(connector, &endpoint.link, PATH, DEADLINE, push).await?;
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
