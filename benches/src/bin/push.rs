//! `make bench-push`: what the push from the control loop to gateways costs.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use sluice_benches::push::cluster::Scale;
use sluice_benches::push::report::Report;
use sluice_benches::push::scenarios::{changes, first_push, storm};
use sluice_benches::push::server::{Server, serve};
use sluice_benches::write_figures;

/// As in `sluice-control`: its memory is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Pushes the state of a large cluster to simulated gateways over loopback.
#[derive(Debug, Parser)]
struct Flags {
    /// ModelRoutes.
    #[arg(long, default_value_t = 1000)]
    routes: usize,
    /// ModelServers.
    #[arg(long, default_value_t = 200)]
    servers: usize,
    /// Pods, each an endpoint.
    #[arg(long, default_value_t = 10_000)]
    endpoints: usize,
    /// Gateways that follow changes.
    #[arg(long, default_value_t = 100)]
    gateways: usize,
    /// Changes that they follow.
    #[arg(long, default_value_t = 300)]
    changes: usize,
    /// Gateways of a storm.
    #[arg(long, default_value_t = 500)]
    storm: usize,
    /// Be the server; what the bench starts.
    #[arg(long, hide = true)]
    serve: bool,
}

impl Flags {
    fn scale(&self) -> Scale {
        Scale {
            routes: self.routes,
            servers: self.servers,
            endpoints: self.endpoints,
        }
    }

    /// A server of that scale.
    fn server(&self) -> anyhow::Result<Server> {
        let flags = [
            ("--routes", self.routes),
            ("--servers", self.servers),
            ("--endpoints", self.endpoints),
        ];
        Server::start(&flags.map(|(flag, value)| format!("{flag}={value}")))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let scale = flags.scale();
    if flags.serve {
        return serve(scale).await;
    }
    let mut server = flags.server()?;
    let index_s = server.index_time.as_secs_f64();
    let (to_one, gateways) = first_push(&server, 1, scale).await?;
    drop(gateways);
    let (to_all, gateways) = first_push(&server, flags.gateways, scale).await?;
    let changes = changes(&mut server, gateways, flags.changes).await?;
    let mut storms = Vec::new();
    for with_versions in [true, false] {
        // A server of its own each: the most memory so far is then this storm's.
        let mut server = flags.server()?;
        storms.push(storm(&mut server, flags.storm, scale, with_versions).await?);
    }
    let time = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let report = Report::new(time, scale, index_s, vec![to_one, to_all], changes, storms);
    write_figures("push", &serde_json::to_value(&report)?)?;
    write!(std::io::stdout(), "{}", report.table())?;
    let failures = report.failures();
    anyhow::ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}
