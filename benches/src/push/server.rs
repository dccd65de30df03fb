//! The real index and server in a process of their own, which does what it is told line by line: so that its memory and CPU
//! are its own. Only the API server is missing: objects come from this program.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use sluice_control::authenticate::Authenticator;
use sluice_control::grants::Grants;
use sluice_control::index::{Index, Input};
use sluice_control::push::{Push, PushLimits, listener};
use sluice_control::state::PushState;
use tokio::sync::watch;

use super::cluster::Scale;
use crate::load::process;

/// Steps through the pods without meeting one twice soon.
const STRIDE: usize = 7919;

/// The process, and the way to tell it something. It ends with this.
#[derive(Debug)]
pub struct Server {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Where gateways connect.
    pub address: SocketAddr,
    /// From all lists to all resources.
    pub index_time: Duration,
}

impl Server {
    /// Starts this very program with the flag `--serve` and what else it was given.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(flags: &[String]) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--serve")
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the server")?;
        let commands = child.stdin.take().context("no stdin")?;
        let mut answers = BufReader::new(child.stdout.take().context("no stdout")?);
        let address = line(&mut answers)?.parse()?;
        let index_time = Duration::from_micros(line(&mut answers)?.parse()?);
        Ok(Self {
            child,
            commands,
            answers,
            address,
            index_time,
        })
    }

    /// A pod is no longer ready, or is again; returns the generation that holds it.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn change(&mut self) -> anyhow::Result<u64> {
        self.tell("change")
    }

    /// How many gateways are connected.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn connected(&mut self) -> anyhow::Result<u64> {
        self.tell("connected")
    }

    fn tell(&mut self, command: &str) -> anyhow::Result<u64> {
        writeln!(self.commands, "{command}")?;
        Ok(line(&mut self.answers)?.parse()?)
    }

    /// CPU that it has used.
    pub fn cpu_time(&self) -> Duration {
        process::cpu_time_of(&self.child.id().to_string())
    }

    /// Its memory now, in MiB.
    pub fn memory_mib(&self) -> f64 {
        process::memory_mib(&self.child.id().to_string(), "VmRSS")
    }

    /// The most memory that it has had, in MiB.
    pub fn peak_mib(&self) -> f64 {
        process::memory_mib(&self.child.id().to_string(), "VmHWM")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line(from: &mut impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    anyhow::ensure!(!line.is_empty(), "the server has ended");
    Ok(line.trim().to_owned())
}

/// What runs in that process: serves a whole cluster, until nobody tells it anything any more.
///
/// # Errors
/// When no port can be had, or the other process is gone.
pub async fn serve(scale: Scale) -> anyhow::Result<()> {
    let state = Arc::new(PushState::new("bench".into()));
    let mut index = Index::default();
    let listed = scale.listed()?;
    let start = Instant::now();
    listed.into_iter().for_each(|input| index.apply(input));
    reconcile(&mut index, &state)?;
    let index_time = start.elapsed();
    state.mark_synced();
    let (_running, down) = watch::channel(false);
    let push = Push::new(
        Arc::clone(&state),
        Authenticator::insecure(),
        Grants::default(),
        PushLimits::default(),
        down,
    );
    let listener = listener::bind(([127, 0, 0, 1], 0).into())?;
    let address = listener.local_addr()?;
    writeln!(std::io::stdout(), "{address}\n{}", index_time.as_micros())?;
    tokio::spawn(listener::serve(listener, push.clone(), None));
    tokio::task::spawn_blocking(move || obey(index, &state, &push, scale)).await?
}

/// Answers each line from the other process with a number.
fn obey(mut index: Index, state: &PushState, push: &Push, scale: Scale) -> anyhow::Result<()> {
    let mut answers = std::io::stdout();
    let mut changes = 0;
    let mut ready = vec![true; scale.endpoints];
    for command in std::io::stdin().lines() {
        let answer = match command?.as_str() {
            "change" => {
                changes += 1;
                let at = changes * STRIDE % scale.endpoints;
                ready[at] = !ready[at];
                index.apply(Input::Applied(scale.pod(at, ready[at])?));
                reconcile(&mut index, state)?
            }
            "connected" => push.acks().connected() as u64,
            other => anyhow::bail!("nobody knows what {other:?} means"),
        };
        writeln!(answers, "{answer}")?;
    }
    Ok(())
}

/// Works off what has been touched; returns the generation that holds it.
fn reconcile(index: &mut Index, state: &PushState) -> anyhow::Result<u64> {
    let seen_at = SystemTime::now();
    let change = index.reconcile().change(seen_at);
    Ok(state.apply(change.context("nothing has changed")?))
}
