//! A process of the test run: its output goes to a file, it has a process group of its own, and it does not outlive
//! its owner.
//!
//! Not a container (`kubelet/container.rs` runs those, on top of this), and not a supervisor: nothing is restarted.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};

/// Lines of a log that are shown when its process fails.
const TAIL_LINES: usize = 30;

/// A running process; dropping it kills its whole group.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    handle: ProcessHandle,
    log: PathBuf,
}

/// Sends signals to a process that another task waits for. A cheap copy.
///
/// Only to be used while its owner still waits: later the number may be another's. The kubelet forgets it on exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessHandle(Pid);

impl Process {
    /// Starts a command with both outputs appended to `log`.
    ///
    /// # Errors
    /// When the log cannot be written or the program cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        if let Some(folder) = log.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let number = child.id().and_then(|id| i32::try_from(id).ok());
        let pid = number.and_then(Pid::from_raw).context("it has a number")?;
        Ok(Self {
            name: name.to_owned(),
            child,
            handle: ProcessHandle(pid),
            log: log.to_owned(),
        })
    }

    /// For signals.
    pub fn handle(&self) -> ProcessHandle {
        self.handle
    }

    /// Its number.
    pub fn id(&self) -> i32 {
        self.handle.id()
    }

    /// Waits until it has ended. May be cancelled and called again.
    ///
    /// # Errors
    /// When the operating system cannot tell.
    pub async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// How it ended, if it has.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Kills the whole group and waits for the process.
    pub async fn kill(&mut self) {
        if self.status().is_none() {
            self.handle.signal_group(Signal::KILL);
            self.child.wait().await.ok();
        }
    }

    /// Where its output is.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its name and its last words, for messages of failure.
    pub fn last_words(&self) -> String {
        format!("{}:\n{}", self.name, tail(&self.log))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Also when the leader has ended: its children share the group, and the leader is not reaped yet
        // or its number is still the group's.
        self.handle.signal_group(Signal::KILL);
    }
}

impl ProcessHandle {
    /// Its number.
    pub fn id(self) -> i32 {
        self.0.as_raw_pid()
    }

    /// Signals the process alone, as a container runtime does on a stop. A process that is gone is no error.
    pub fn signal(self, signal: Signal) {
        kill_process(self.0, signal).ok();
    }

    /// Whether every thread of the process stands still: a stop takes its time to reach them all.
    pub fn stands_still(self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.id()));
        let stopped = |state: &str| state.starts_with("State:\tT");
        threads.into_iter().flatten().flatten().all(|thread| {
            let status = std::fs::read_to_string(thread.path().join("status"));
            status.is_ok_and(|status| status.lines().any(stopped))
        })
    }

    /// Signals the whole group.
    pub fn signal_group(self, signal: Signal) {
        kill_process_group(self.0, signal).ok();
    }
}

/// The last lines of a log.
pub(super) fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let first = lines.len().saturating_sub(TAIL_LINES);
    lines[first..].join("\n")
}
