//! The real server in a process of its own, which does what it is told line by line: so that its memory and CPU are its own.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use sluice_control::authenticate::Authenticator;
use sluice_control::grants::Grants;
use sluice_control::push::{Push, PushLimits, listener};
use sluice_control::state::{Change, PushState, Resource};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::cluster::Scale;
use crate::load::process;

/// Steps through the endpoints without meeting one twice soon.
const STRIDE: usize = 7919;

/// The process, and the way to tell it something. It ends with this.
#[derive(Debug)]
pub struct Server {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Where gateways connect.
    pub address: SocketAddr,
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
        Ok(Self {
            child,
            commands,
            answers,
            address,
        })
    }

    /// An endpoint begins to drain, or no longer does; returns the generation that holds it.
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
    state.apply(Change {
        upserts: scale.resources(),
        removals: Vec::new(),
        seen_at: SystemTime::now(),
    });
    state.mark_synced();
    let (_running, down) = watch::channel(false);
    let push = Push::new(
        Arc::clone(&state),
        Authenticator::insecure(),
        Grants::default(),
        PushLimits::default(),
        down,
    );
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    tokio::spawn(listener::serve(listener, push.clone(), None));
    tokio::task::spawn_blocking(move || obey(&state, &push, scale)).await?
}

/// Answers each line from the other process with a number.
fn obey(state: &PushState, push: &Push, scale: Scale) -> anyhow::Result<()> {
    let mut answers = std::io::stdout();
    let mut changes = 0;
    let mut draining = vec![false; scale.endpoints];
    for command in std::io::stdin().lines() {
        let answer = match command?.as_str() {
            "change" => {
                changes += 1;
                let at = changes * STRIDE % scale.endpoints;
                draining[at] = !draining[at];
                change(state, scale.endpoint(at, draining[at]))
            }
            "connected" => push.acks().connected() as u64,
            other => anyhow::bail!("nobody knows what {other:?} means"),
        };
        writeln!(answers, "{answer}")?;
    }
    Ok(())
}

fn change(state: &PushState, endpoint: Resource) -> u64 {
    state.apply(Change {
        upserts: vec![endpoint],
        removals: Vec::new(),
        seen_at: SystemTime::now(),
    })
}
