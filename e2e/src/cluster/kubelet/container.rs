//! Runs one container of a pod as a process: start, probes, restarts, and its end in the order that Kubernetes gives.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::jiff::Timestamp;
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::time::Instant;

use super::action::Target;
use super::board::{State, Termination};
use super::launch::Launch;
use super::pod::PodContext;
use super::probes::Probes;
use crate::cluster::process::Process;

/// Until when a container may take to end, once it is to end.
pub(super) type Stop = watch::Receiver<Option<Instant>>;

/// When a container is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    Always,
    OnFailure,
    Never,
}

impl Restart {
    pub(super) fn of(policy: Option<&str>) -> Self {
        match policy {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    fn applies(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// First restart at once, then ever later; forgotten after a run of this length. A real kubelet begins with ten
/// seconds and forgets after ten minutes, which no test would wait for.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_LONGEST: Duration = Duration::from_secs(8);
const BACKOFF_FORGOTTEN: Duration = Duration::from_secs(10);

/// Time that a process is left after a preStop hook that used up all of it.
const LEFT_AFTER_HOOK: Duration = Duration::from_secs(2);

/// Runs a container of a pod until it has ended for good.
pub(super) struct Runner {
    pub(super) pod: Arc<PodContext>,
    pub(super) container: Container,
    pub(super) restart: Restart,
}

/// How one run ended.
struct Ended {
    code: i32,
    lasted: Duration,
    /// It was to end.
    stopped: bool,
}

impl Runner {
    /// Returns when the container has ended and is not to be started again.
    pub(super) async fn run(self, mut stop: Stop) {
        let mut backoff = Duration::ZERO;
        loop {
            let Some(ended) = self.once(&mut stop).await else {
                break;
            };
            if ended.stopped || !self.restart.applies(ended.code) {
                break;
            }
            if ended.lasted > BACKOFF_FORGOTTEN {
                backoff = Duration::ZERO;
            }
            if !self.wait(backoff, &mut stop).await {
                break;
            }
            backoff = (backoff * 2).clamp(BACKOFF_FIRST, BACKOFF_LONGEST);
            self.update(|view| view.restarts += 1);
        }
        self.update(|view| {
            view.finished = true;
            view.ready = false;
        });
    }

    /// Waits before a restart; false when it is not to come.
    async fn wait(&self, backoff: Duration, stop: &mut Stop) -> bool {
        if !backoff.is_zero() {
            self.update(|view| {
                view.go_on(State::Waiting {
                    reason: "CrashLoopBackOff",
                    message: format!("restarts in {backoff:?}"),
                });
            });
        }
        tokio::select! {
            () = tokio::time::sleep(backoff) => true,
            () = to_end(stop) => {
                // The end of its last run is what remains to be said.
                self.update(|view| {
                    if let Some(last) = view.last.take() {
                        view.state = State::Terminated(last);
                    }
                });
                false
            }
        }
    }

    /// One run; none when it was stopped before it began.
    async fn once(&self, stop: &mut Stop) -> Option<Ended> {
        let (launch, mut process) = self.start(stop).await?;
        let (since, began) = (Timestamp::now(), Instant::now());
        self.update(|view| {
            view.go_on(State::Running { since });
            view.started = self.container.startup_probe.is_none();
            view.ready = view.started && self.container.readiness_probe.is_none();
            view.process = Some(process.handle());
        });
        let target = Target {
            container: &self.container,
            address: self.pod.facts.ip,
            process: process.handle(),
            variables: &launch.variables,
        };
        let (status, stopped) = self.live(&mut process, target, stop).await;
        let code = exit_code(status.ok());
        let until = Timestamp::now();
        self.update(|view| {
            view.go_on(State::Terminated(Termination { code, since, until }));
            view.ready = false;
            view.started = false;
            view.process = None;
        });
        Some(Ended {
            code,
            lasted: began.elapsed(),
            stopped,
        })
    }

    /// From its start to its end: how it ended, and whether it was to end.
    async fn live(
        &self,
        process: &mut Process,
        target: Target<'_>,
        stop: &mut Stop,
    ) -> (std::io::Result<ExitStatus>, bool) {
        self.after_start(&target).await;
        let probes = Probes {
            board: &self.pod.board,
            target: target.clone(),
        };
        let why = tokio::select! {
            status = process.ended() => return (status, false),
            why = probes.watch() => Some(why),
            () = to_end(stop) => None,
        };
        if let Some(why) = why {
            tracing::info!(pod = %self.pod.name, container = %self.container.name, %why, "restarts");
            let (_keep, ends) = watch::channel(Some(Instant::now() + self.grace()));
            return (self.end(process, &target, ends).await, false);
        }
        // Readiness goes on: who drains looks at it.
        let ends = stop.clone();
        tokio::select! {
            status = self.end(process, &target, ends) => (status, true),
            () = probes.readiness() => unreachable!("it never ends"),
        }
    }

    /// Starts the process; tries again while something is missing.
    async fn start(&self, stop: &mut Stop) -> Option<(Launch, Process)> {
        loop {
            let (reason, message) = match self.try_start().await {
                Ok(started) => return Some(started),
                Err((reason, error)) => (reason, format!("{error:#}")),
            };
            tracing::debug!(pod = %self.pod.name, reason, %message, "container not started");
            self.update(|view| view.go_on(State::Waiting { reason, message }));
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
                () = to_end(stop) => return None,
            }
        }
    }

    async fn try_start(&self) -> Result<(Launch, Process), (&'static str, anyhow::Error)> {
        let images = &self.pod.node.images;
        let reference = self.container.image.as_deref().unwrap_or_default();
        let (name, image) = images
            .find(reference)
            .with_context(|| format!("image {reference} is not in this kubelet's table"))
            .map_err(|error| ("ErrImagePull", error))?;
        let run = async {
            let launch = Launch::prepare(&self.pod, &self.container, name, image).await?;
            let mut command = launch.command()?;
            let log = self.pod.log(&self.container.name);
            let mut process = Process::start(&self.container.name, &mut command, &log)?;
            tokio::select! {
                () = launch.begun() => {}
                // It could not even be laid out; its log says why, and it counts as a crash.
                _ = process.ended() => {}
            }
            anyhow::Ok((launch, process))
        };
        run.await
            .map_err(|error| ("CreateContainerConfigError", error))
    }

    async fn after_start(&self, target: &Target<'_>) {
        let lifecycle = self.container.lifecycle.as_ref();
        if let Some(hook) = lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref())
            && let Err(error) = target.hook(hook).await
        {
            tracing::warn!(pod = %self.pod.name, error = format!("{error:#}"), "postStart hook failed");
        }
    }

    /// preStop, SIGTERM, patience, SIGKILL.
    async fn end(
        &self,
        process: &mut Process,
        target: &Target<'_>,
        mut stop: Stop,
    ) -> std::io::Result<ExitStatus> {
        let lifecycle = self.container.lifecycle.as_ref();
        let hook = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        let mut left = Duration::ZERO;
        if let Some(hook) = hook {
            tokio::select! {
                outcome = target.hook(hook) => {
                    if let Err(error) = outcome {
                        tracing::warn!(pod = %self.pod.name, error = format!("{error:#}"), "preStop hook failed");
                    }
                }
                // A process that ends by itself needs no more patience with its hook.
                status = process.ended() => return status,
                () = deadline(&mut stop) => left = LEFT_AFTER_HOOK,
            }
        }
        target.process.signal(Signal::TERM);
        tokio::select! {
            status = process.ended() => status,
            () = async { deadline(&mut stop).await; tokio::time::sleep(left).await } => {
                process.kill().await;
                process.ended().await
            }
        }
    }

    fn grace(&self) -> Duration {
        let probe = self.container.liveness_probe.as_ref();
        let probe = probe.and_then(|probe| probe.termination_grace_period_seconds);
        let seconds = probe.unwrap_or_else(|| self.pod.grace_seconds());
        Duration::from_secs(seconds.unsigned_abs())
    }

    fn update(&self, change: impl FnOnce(&mut super::board::View)) {
        self.pod.board.update(&self.container.name, change);
    }
}

/// Returns when the container is to end.
pub(super) async fn to_end(stop: &mut Stop) {
    if stop.wait_for(Option::is_some).await.is_err() {
        // Nobody is left to say so; then the task itself is ended.
        std::future::pending().await
    }
}

/// Returns when the time is over; it may be shortened meanwhile.
async fn deadline(stop: &mut Stop) {
    loop {
        let until = *stop.borrow_and_update();
        let Some(until) = until else {
            if stop.changed().await.is_err() {
                return std::future::pending().await;
            }
            continue;
        };
        tokio::select! {
            () = tokio::time::sleep_until(until) => return,
            Ok(()) = stop.changed() => {}
        }
    }
}

fn exit_code(status: Option<ExitStatus>) -> i32 {
    let signal = || status.and_then(|status| status.signal());
    let code = status.and_then(|status| status.code());
    code.unwrap_or_else(|| signal().map_or(-1, |signal| 128 + signal))
}
