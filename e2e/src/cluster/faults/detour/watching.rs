//! One watch on its way through the detour: its events, and its end when it is disturbed.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use kube::client::Body;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Gone, Switches, answer};

/// A watch in progress.
pub(super) struct Watching {
    /// None: a server that is behind has nothing to say.
    upstream: Option<Body>,
    switches: watch::Receiver<Switches>,
    began: Instant,
    /// Between two events; nothing of ours goes into the middle of one.
    between: bool,
    ended: bool,
}

enum Step {
    Chunk(Option<Bytes>),
    Look,
}

impl Watching {
    pub(super) fn of(upstream: Body, switches: watch::Receiver<Switches>) -> Self {
        Self {
            upstream: Some(upstream),
            switches,
            began: Instant::now(),
            between: true,
            ended: false,
        }
    }

    /// Silent for as long as the server is behind, and then at an end.
    pub(super) fn silent(switches: watch::Receiver<Switches>) -> Self {
        Self {
            upstream: None,
            ..Self::of(Body::empty(), switches)
        }
    }

    /// What comes next; none at its end.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.ended {
                return None;
            }
            let now = *self.switches.borrow_and_update();
            let left = now.watch_limit.map(|limit| self.began + limit);
            if self.between {
                let over = left.is_some_and(|until| Instant::now() >= until);
                let behind = now.behind && self.upstream.is_some();
                let caught_up = !now.behind && self.upstream.is_none();
                if behind || now.gone == Some(Gone::Event) {
                    self.ended = true;
                    return Some(answer::gone_event());
                }
                if over || caught_up || now.gone == Some(Gone::Status) {
                    return None;
                }
            }
            let step = {
                let Self {
                    upstream, switches, ..
                } = self;
                tokio::select! {
                    chunk = chunk(upstream) => Step::Chunk(chunk),
                    changed = switches.changed() => {
                        changed.ok()?;
                        Step::Look
                    }
                    () = until(left), if self.between => Step::Look,
                }
            };
            if let Step::Chunk(chunk) = step {
                let chunk = chunk?;
                self.between = chunk.last() == Some(&b'\n');
                return Some(chunk);
            }
        }
    }
}

async fn chunk(upstream: &mut Option<Body>) -> Option<Bytes> {
    let Some(upstream) = upstream else {
        return std::future::pending().await;
    };
    loop {
        let frame = upstream.frame().await?.ok()?;
        if let Ok(data) = frame.into_data()
            && !data.is_empty()
        {
            return Some(data);
        }
    }
}

fn until(time: Option<Instant>) -> impl Future<Output = ()> {
    // Far away where there is none; the branch is then as good as not there.
    let far = || Instant::now() + Duration::from_secs(3600);
    tokio::time::sleep_until(time.unwrap_or_else(far))
}
