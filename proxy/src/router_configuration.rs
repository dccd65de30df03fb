//! Defaults of what the bootstrap file does not say: Kthena's router configuration, read at the start and again
//! whenever it changes.
//!
//! At the start a bad file stops the process: without its `auth` it would be open. Later a bad edit is refused and the
//! last good version stays in force. The bootstrap file goes before it, block by block.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use arc_swap::ArcSwap;
use serde_json::{Value, json};
use sluice_config::auth::JwtParams;
use sluice_config::scheduling::SchedulingParams;
use sluice_config::watch::{Fingerprint, Watcher};
use sluice_config::{Bootstrap, Problem, Report, RouterConfiguration, Severity, Topic};

use crate::gateway::Gateway;
use crate::telemetry::metrics::ProblemSource;

/// What both files say, at the start.
pub struct Written {
    /// The bootstrap file's part, which goes before.
    own: Own,
    file: Option<ReadFile>,
}

/// What the bootstrap file says.
#[derive(Clone)]
struct Own {
    scheduling: Option<SchedulingParams>,
    jwt: Option<JwtParams>,
}

struct ReadFile {
    path: PathBuf,
    /// Taken before it was read: what changes after that is seen.
    seen: Fingerprint,
    configuration: RouterConfiguration,
    warnings: Vec<Problem>,
}

impl Written {
    /// Reads the router configuration, if there is one.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(config: &Bootstrap) -> anyhow::Result<Self> {
        let own = Own {
            scheduling: config.scheduling.as_ref().map(SchedulingParams::of),
            jwt: config.jwt()?,
        };
        let Some(path) = config.source.router_configuration.clone() else {
            return Ok(Self { own, file: None });
        };
        let seen = Fingerprint::of(&path);
        let (configuration, warnings) = RouterConfiguration::load(&path)?;
        let file = ReadFile {
            path,
            seen,
            configuration,
            warnings,
        };
        Ok(Self {
            own,
            file: Some(file),
        })
    }

    /// How endpoints are chosen where a ModelServer does not say.
    pub fn scheduling(&self) -> SchedulingParams {
        let file = self.file.as_ref();
        self.own.scheduling(file.map(|file| &file.configuration))
    }

    /// Who may ask.
    pub fn jwt(&self) -> Option<JwtParams> {
        let file = self.file.as_ref();
        self.own.jwt(file.map(|file| &file.configuration))
    }
}

impl Own {
    fn scheduling(&self, other: Option<&RouterConfiguration>) -> SchedulingParams {
        let other = || other.and_then(|other| other.scheduling.clone());
        self.scheduling.clone().or_else(other).unwrap_or_default()
    }

    fn jwt(&self, other: Option<&RouterConfiguration>) -> Option<JwtParams> {
        let other = || other.and_then(|other| other.jwt.clone());
        self.jwt.clone().or_else(other)
    }

    /// Parts of the file that have no effect.
    fn overruled(&self, file: &str, other: &RouterConfiguration) -> Vec<Problem> {
        let scheduler = self.scheduling.is_some() && other.scheduling.is_some();
        let auth = self.jwt.is_some() && other.jwt.is_some();
        let parts = [
            (scheduler, "scheduler", "scheduling"),
            (auth, "auth", "auth.jwt"),
        ];
        let overruled = parts.into_iter().filter(|(both, ..)| *both);
        overruled
            .map(|(_, path, before)| Problem {
                severity: Severity::Warning,
                file: file.to_owned(),
                line: 0,
                document: None,
                path: path.to_owned(),
                message: format!(
                    "it has no effect: the bootstrap file's `{before}` goes before it"
                ),
                remedy: format!("remove `{before}` there, or this"),
                topic: Topic::General,
            })
            .collect()
    }
}

/// The defaults in force, and where they come from.
pub struct Defaults {
    own: Own,
    file: Option<PathBuf>,
    problems: ArcSwap<Vec<Problem>>,
    /// Dropping it ends the watch.
    watch: Mutex<Option<Watcher>>,
    gateway: Arc<Gateway>,
}

impl Defaults {
    /// Watches the file that `written` was read from.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(written: Written, gateway: Arc<Gateway>) -> anyhow::Result<Arc<Self>> {
        let debounce = gateway.config.source.debounce.into();
        let defaults = Arc::new(Self {
            own: written.own,
            file: written.file.as_ref().map(|file| file.path.clone()),
            problems: ArcSwap::default(),
            watch: Mutex::default(),
            gateway,
        });
        let Some(file) = written.file else {
            return Ok(defaults);
        };
        defaults.take(file.configuration, file.warnings);
        let (applier, path) = (Arc::downgrade(&defaults), file.path.clone());
        let on_change = move || {
            if let Some(defaults) = applier.upgrade() {
                match RouterConfiguration::load(&path) {
                    Ok((configuration, warnings)) => defaults.take(configuration, warnings),
                    Err(report) => defaults.refuse(report),
                }
            }
        };
        let watcher = Watcher::since(file.seen, &file.path, debounce, on_change)
            .with_context(|| format!("cannot watch {}", file.path.display()))?;
        *defaults
            .watch
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(watcher);
        Ok(defaults)
    }

    /// Problems of the last reading.
    pub fn problems(&self) -> Arc<Vec<Problem>> {
        self.problems.load_full()
    }

    /// Ends the watch.
    pub fn stop(&self) {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        drop(watch.take());
    }

    /// For `/debug/config`.
    pub fn describe(&self) -> Value {
        let scheduling = self.gateway.serving.scheduling();
        json!({
            "routerConfiguration": self.file,
            "scheduling": format!("{:?}", scheduling.policy),
        })
    }

    fn take(&self, configuration: RouterConfiguration, mut problems: Vec<Problem>) {
        let file = self.file.as_ref().map(|file| file.display().to_string());
        let overruled = self
            .own
            .overruled(&file.unwrap_or_default(), &configuration);
        problems.extend(overruled);
        for problem in &problems {
            tracing::warn!(%problem, "accepted with a warning");
        }
        self.tell(problems);
        let other = Some(&configuration);
        // First: a window in which everybody may ask would be worse than one of the old scheduling.
        self.gateway.auth.set(self.own.jwt(other));
        self.gateway
            .serving
            .set_scheduling(self.own.scheduling(other));
        tracing::info!("router configuration in force");
    }

    fn refuse(&self, report: Report) {
        for problem in &report.problems {
            tracing::error!(%problem, "refused: the last good router configuration stays in force");
        }
        self.gateway.metrics.config_rejects.inc();
        self.tell(report.problems);
    }

    fn tell(&self, problems: Vec<Problem>) {
        let errors = problems.iter().filter(|one| one.is_error()).count();
        let warnings = problems.len() - errors;
        let source = ProblemSource::RouterConfiguration;
        let metrics = &self.gateway.metrics;
        metrics.set_config_problems(source, errors, warnings);
        self.problems.store(Arc::new(problems));
    }
}
