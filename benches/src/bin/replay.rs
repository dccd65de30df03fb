//! Sends one workload to one router in real time, and prints one JSON object with what it saw.
//!
//! `make bench-routing` starts routers and engines and runs this for each; by hand it takes any that are running.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use serde_json::json;
use sluice_benches::load::client::Client;
use sluice_benches::load::engines::{self, Counts};
use sluice_benches::load::lag::LagMeter;
use sluice_benches::load::process::cpu_time;
use sluice_benches::load::replay::Replay;
use sluice_benches::load::summary::{Summary, quantile};
use sluice_benches::load::workload::{Chats, Session, Text, Turn};
use sluice_benches::sim::workload::{Options, Workload};

/// Replays a workload of chats against a router in front of simulated engines.
#[derive(Debug, Parser)]
struct Flags {
    /// The router.
    #[arg(long)]
    router: SocketAddr,
    /// An engine behind it, whose metrics are read; repeatable, all of them.
    #[arg(long = "engine", required = true)]
    engines: Vec<SocketAddr>,
    /// One of the simulator's: A-long, A-long-2k, A-8k-2k, C and others. Where requests come at their own times, their
    /// rate follows the number of engines.
    #[arg(long)]
    workload: String,
    /// Only the first requests of the workload. Default: all.
    #[arg(long)]
    requests: Option<usize>,
    /// Callers of a closed workload, in place of its own number.
    #[arg(long)]
    callers: Option<usize>,
    /// Decides all texts, lengths and times.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Engine seconds in one second of the wall clock, as the engines were started with.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Tokens in the engines' blocks, for the ideal hit rate.
    #[arg(long)]
    block_tokens: usize,
    /// Model name in the requests.
    #[arg(long, default_value = "tiny")]
    model: String,
    /// Requests before the clock starts, with prompts of their own: they open connections, and warm code, not caches.
    #[arg(long, default_value_t = 16)]
    warm_up: u64,
    /// Longest time of one request, in engine seconds.
    #[arg(long, default_value_t = 900.0)]
    timeout: f64,
}

impl Flags {
    fn client(&self) -> Client {
        Client::new(
            self.router,
            Duration::from_secs_f64(self.timeout / self.speed),
        )
    }

    /// Short prompts that share nothing with the workload's.
    fn warm_up(&self) -> Chats {
        let text = |number| Text {
            parts: vec![(u64::MAX - number, 16)],
        };
        let turn = |number| Turn {
            user: text(number),
            output_tokens: 4,
            ..Turn::default()
        };
        let session = |number| Session {
            turns: vec![turn(number)],
            ..Session::default()
        };
        Chats {
            sessions: (0..self.warm_up).map(session).collect(),
            callers: Some(4),
        }
    }

    fn chats(&self) -> anyhow::Result<Chats> {
        let options = Options {
            limit: self.requests,
            ..Options::default()
        };
        let mut workload = Workload::named(&self.workload, self.seed, &options)?;
        let part = self.engines.len() as f64 / workload.engines.len() as f64;
        if workload.callers.is_none() && part != 1.0 {
            let options = Options {
                speed: Some(part),
                ..options
            };
            workload = Workload::named(&self.workload, self.seed, &options)?;
        }
        workload.callers = workload
            .callers
            .map(|callers| self.callers.unwrap_or(callers));
        Ok(Chats::of(&workload)?)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    anyhow::ensure!(flags.speed > 0.0, "--speed must be above 0");
    let replay = |chats| Replay::new(flags.client(), &flags.model, chats, flags.speed).run();
    let (_, warm) = replay(flags.warm_up()).await;
    if let Some(failure) = warm
        .iter()
        .find_map(|outcome| outcome.answer.as_ref().err())
    {
        anyhow::bail!("the warm-up failed: {failure}; is the router ready?");
    }
    let counts = || async {
        engines::counts(&flags.engines)
            .await
            .context("cannot read an engine's metrics")
    };
    let before = counts().await?;
    let chats = flags.chats()?;
    let lag = LagMeter::start();
    let (started, cpu) = (Instant::now(), cpu_time());
    let (chats, outcomes) = replay(chats).await;
    let (wall, cpu) = (started.elapsed(), cpu_time() - cpu);
    let after = counts().await?;
    let counted: Vec<Counts> = after
        .iter()
        .zip(before)
        .map(|(&after, before)| after.since(before))
        .collect();
    let summary = Summary::new(&chats, &outcomes, &counted, flags.speed, flags.block_tokens);
    let mut figures = serde_json::to_value(&summary)?;
    let lag = lag.finish();
    figures["client"] = json!({
        "wall_s": wall.as_secs_f64(),
        "cpu_s": cpu.as_secs_f64(),
        "lag_p50_ms": quantile(&lag, 0.5) * 1e3,
        "lag_p99_ms": quantile(&lag, 0.99) * 1e3,
    });
    writeln!(std::io::stdout(), "{figures}")?;
    Ok(())
}
