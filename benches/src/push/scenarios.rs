//! What is measured: one change to many gateways, first pushes, reconnect storms.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::cluster::Scale;
use super::gateway::{Gateway, Opening, Received, Versions};
use super::report::{Changes, FirstPush, Storm};
use super::server::Server;
use crate::load::summary::quantile;

/// Nothing here takes so long unless it is broken.
const LONG: Duration = Duration::from_secs(120);

/// Between two changes: the answers to the first are through by then.
const PAUSE: Duration = Duration::from_millis(20);

/// How long nothing happens, to see what that costs.
const IDLE: Duration = Duration::from_secs(3);

/// What one gateway saw of one change.
type Seen = Received;

/// Connects gateways all at once; each receives the whole state.
///
/// # Errors
/// When one of them does not receive it.
pub async fn first_push(
    server: &Server,
    gateways: usize,
    scale: Scale,
) -> anyhow::Result<(FirstPush, Vec<Gateway>)> {
    let opening = Opening::with(&Versions::default());
    let cpu = server.cpu_time();
    let (took, received, gateways) = connect(server.address, gateways, &opening).await?;
    for received in &received {
        anyhow::ensure!(
            received.upserts == scale.total(),
            "incomplete: {received:?}"
        );
    }
    let figures = FirstPush {
        gateways: gateways.len(),
        seconds: took.as_secs_f64(),
        bytes_each: received[0].bytes,
        cpu_s: (server.cpu_time() - cpu).as_secs_f64(),
        memory_mib: server.memory_mib(),
        peak_mib: server.peak_mib(),
    };
    Ok((figures, gateways))
}

/// One pod's readiness changes at a time, and all gateways follow.
///
/// # Errors
/// When one of them stops following.
pub async fn changes(
    server: &mut Server,
    gateways: Vec<Gateway>,
    changes: usize,
) -> anyhow::Result<Changes> {
    let number = gateways.len();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for gateway in gateways {
        tasks.spawn(follow(gateway, sender.clone()));
    }
    drop(sender);
    let cpu = server.cpu_time();
    let (mut all, mut each, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..changes {
        let generation = server.change()?;
        let seen = timeout(LONG, of_generation(&mut seen, generation, number)).await??;
        let lags: Vec<f64> = seen
            .iter()
            .filter_map(|seen| Some(seen.lag?.as_secs_f64()))
            .collect();
        anyhow::ensure!(lags.len() == number, "a change without a time");
        all.push(lags.iter().copied().fold(0.0, f64::max));
        each.extend(lags);
        bytes += seen.iter().map(|seen| seen.bytes).sum::<usize>();
        sleep(PAUSE).await;
    }
    let cpu = server.cpu_time() - cpu;
    let idle_cpu = server.cpu_time();
    sleep(IDLE).await;
    let idle_cpu = server.cpu_time() - idle_cpu;
    all.sort_by(f64::total_cmp);
    each.sort_by(f64::total_cmp);
    let milliseconds = |values: &[f64], part| quantile(values, part) * 1e3;
    tasks.abort_all();
    Ok(Changes {
        gateways: number,
        changes,
        all_p50_ms: milliseconds(&all, 0.5),
        all_p99_ms: milliseconds(&all, 0.99),
        all_max_ms: milliseconds(&all, 1.0),
        each_p50_ms: milliseconds(&each, 0.5),
        each_p99_ms: milliseconds(&each, 0.99),
        bytes_per_gateway: bytes as f64 / (changes * number) as f64,
        cpu_ms_per_change: cpu.as_secs_f64() * 1e3 / changes as f64,
        idle_cores: idle_cpu.as_secs_f64() / IDLE.as_secs_f64(),
        memory_mib: server.memory_mib(),
        peak_mib: server.peak_mib(),
    })
}

async fn follow(mut gateway: Gateway, seen: mpsc::UnboundedSender<Seen>) -> anyhow::Result<()> {
    loop {
        seen.send(gateway.follow().await?)?;
    }
}

async fn of_generation(
    seen: &mut mpsc::UnboundedReceiver<Seen>,
    generation: u64,
    number: usize,
) -> anyhow::Result<Vec<Seen>> {
    let mut of_generation = Vec::with_capacity(number);
    while of_generation.len() < number {
        let seen = seen
            .recv()
            .await
            .context("a gateway has stopped following")?;
        anyhow::ensure!(seen.generation == generation, "out of order: {seen:?}");
        of_generation.push(seen);
    }
    Ok(of_generation)
}

/// Many gateways connect at the same moment, as after a restart of the control loop: with what they have, or without.
///
/// # Errors
/// When one of them is not served.
pub async fn storm(
    server: &mut Server,
    gateways: usize,
    scale: Scale,
    with_versions: bool,
) -> anyhow::Result<Storm> {
    let nothing = Opening::with(&Versions::default());
    let mut opening = nothing.clone();
    let mut expected = scale.total();
    if with_versions {
        let mut first = Gateway::connect(server.address, "first".into(), &nothing).await?;
        opening = Opening::with(&first.versions().await?);
        server.change()?;
        expected = 1;
    }
    let cpu = server.cpu_time();
    let (took, received, gateways) = connect(server.address, gateways, &opening).await?;
    for received in &received {
        anyhow::ensure!(
            received.upserts + received.removals == expected,
            "not the difference: {received:?}"
        );
    }
    let figures = Storm {
        gateways: gateways.len(),
        with_versions,
        seconds: took.as_secs_f64(),
        bytes_each: received[0].bytes,
        cpu_s: (server.cpu_time() - cpu).as_secs_f64(),
        memory_mib: server.memory_mib(),
        peak_mib: server.peak_mib(),
    };
    drop(gateways);
    let gone = async {
        while server.connected()? > 0 {
            sleep(PAUSE).await;
        }
        anyhow::Ok(())
    };
    timeout(LONG, gone).await??;
    Ok(figures)
}

/// Until every gateway has its first batch.
async fn connect(
    address: SocketAddr,
    gateways: usize,
    opening: &Opening,
) -> anyhow::Result<(Duration, Vec<Received>, Vec<Gateway>)> {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..gateways {
        let opening = opening.clone();
        tasks.spawn(async move {
            let name = format!("gateway-{number}");
            let mut gateway = Gateway::connect(address, name, &opening).await?;
            let received = gateway.follow().await?;
            anyhow::Ok((received, gateway))
        });
    }
    let served = timeout(LONG, tasks.join_all()).await?;
    let took = started.elapsed();
    let served: Vec<_> = served.into_iter().collect::<anyhow::Result<_>>()?;
    let (received, gateways) = served.into_iter().unzip();
    Ok((took, received, gateways))
}
