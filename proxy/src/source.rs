//! Where resources come from, and how a change takes effect: a watched file or folder, a control loop's push stream, or
//! both. They feed one owner of the catalog ([`apply`]), so that no request ever waits for a change.
//!
//! Not for what documents mean: `sluice-config` compiles them and keeps what was last good.

mod apply;
pub mod push;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::Context;
use arc_swap::ArcSwap;
use sluice_config::{FileSource, Problem};

use self::apply::{Applier, Feed};
use self::push::{Follower, PushStatus};
use crate::gateway::Gateway;

fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The source of a gateway's routes.
pub struct Source {
    problems: Arc<ArcSwap<Vec<Problem>>>,
    push: Option<Arc<PushStatus>>,
    running: Mutex<Running>,
}

/// What ends with the source, in this order: first those who feed, then the owner of the catalog.
#[derive(Default)]
struct Running {
    files: Option<FileSource>,
    push: Option<Follower>,
    feed: Option<Feed>,
}

impl Source {
    /// Loads the last pushed state and the routes, and follows both from now on. The first loads are done when this
    /// returns.
    pub fn start(gateway: Arc<Gateway>) -> anyhow::Result<Arc<Self>> {
        let config = gateway.config.source.clone();
        if config.routes.is_none() && config.push.is_none() {
            tracing::warn!(
                "no source of routes: give --routes or --control, or source.routes or source.push in the bootstrap file"
            );
        }
        let problems = Arc::<ArcSwap<Vec<Problem>>>::default();
        let applier = Applier::new(Arc::clone(&gateway), Arc::clone(&problems));
        let mut running = Running::default();
        let push = match config.push {
            None => {
                running.feed = Some(applier.start()?);
                None
            }
            Some(config) => {
                let (follower, feed) = Follower::start(&config, applier)?;
                let status = Arc::clone(follower.status());
                (running.push, running.feed) = (Some(follower), Some(feed));
                Some(status)
            }
        };
        if let (Some(path), Some(feed)) = (config.routes, &running.feed) {
            let input = feed.input();
            let files = FileSource::start(&path, config.debounce.into(), move |loaded| {
                input.files(loaded);
            })
            .with_context(|| format!("cannot watch {}", path.display()))?;
            running.files = Some(files);
        }
        Ok(Arc::new(Self {
            problems,
            push,
            running: Mutex::new(running),
        }))
    }

    /// Problems of what is in force, and of what was refused.
    pub fn problems(&self) -> Arc<Vec<Problem>> {
        self.problems.load_full()
    }

    /// How the push stream stands, if one is followed.
    pub fn push(&self) -> Option<&Arc<PushStatus>> {
        self.push.as_ref()
    }

    /// Follows nothing any more; what is to be kept on disk is there when this returns.
    pub fn stop(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Running { files, push, feed } = std::mem::take(&mut *running);
        drop(files);
        drop(push);
        drop(feed);
    }
}
