//! The routing simulator on the command line: one workload, or the whole suite, or the check of CI.
//!
//! Prints tables, writes JSON and pictures. What is simulated is in `sluice_benches::sim`.
#![expect(clippy::print_stdout, reason = "a program that prints tables")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use sluice_benches::sim::batch::{self, Report};
use sluice_benches::sim::check::{self, CHECKED, CHECKED_REQUESTS, CONTENDERS};
use sluice_benches::sim::workload::{NAMES, Options, Workload};
use sluice_benches::sim::{DEFAULT_POLICIES, IndexKind, Setup, plot, report};
use sluice_e2e::engine::Profile;

/// Simulates routing in virtual time.
#[derive(Parser)]
struct Arguments {
    /// Workload by name; see benches/README.md.
    #[arg(long, value_parser = NAMES, default_value = "A-long")]
    workload: String,
    /// A trace instead: mooncake:FILE or azure:FILE, plain or .xz.
    #[arg(long)]
    trace: Option<String>,
    /// Number of engines, if not the workload's own.
    #[arg(long)]
    engines: Option<usize>,
    /// Profile of all engines: K7B, H8B, Q32, A100-8B.
    #[arg(long, value_parser = |name: &str| Profile::named(name).ok_or("no such profile"))]
    profile: Option<Profile>,
    /// Requests come that many times as fast (B: 2 unless told).
    #[arg(long)]
    speed: Option<f64>,
    /// At most so many requests.
    #[arg(long)]
    limit: Option<usize>,
    /// Gateway replicas.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    replicas: u8,
    /// Decides chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Policies, with commas; `all` for the usual ones. `mtl:A/B/M` sets weights.
    #[arg(long, default_value = "all")]
    policies: String,
    /// What every router knows of caches, instead of what it is built for.
    #[arg(long)]
    index: Option<IndexKind>,
    /// Delay of KV events.
    #[arg(long, default_value_t = 0.0)]
    event_delay_ms: f64,
    /// Share of KV-event messages lost, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    event_loss: f64,
    /// Replicas tell each other their loads so often.
    #[arg(long)]
    exchange_ms: Option<f64>,
    /// The gateway believes D and Kd to be so many times what they are: 2,0.5.
    #[arg(long, value_parser = pair, default_value = "1,1")]
    wrong_constants: (f64, f64),
    /// The gateway learns engines' constants from answers.
    #[arg(long)]
    learn: bool,
    /// It learns, and begins with what it takes any engine for.
    #[arg(long)]
    cold: bool,
    /// Write the figures here.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write a picture per run into this folder.
    #[arg(long)]
    plots: Option<PathBuf>,
    /// Run all workloads and numbers of replicas that the README shows.
    #[arg(long)]
    suite: bool,
    /// Fail if MTL loses to the best policy or misses hits; takes less than a minute.
    #[arg(long)]
    check: bool,
}

fn pair(text: &str) -> Result<(f64, f64), String> {
    let (first, second) = text.split_once(',').ok_or("write two numbers, as 2,0.5")?;
    let number = |text: &str| text.parse::<f64>().map_err(|error| error.to_string());
    Ok((number(first)?, number(second)?))
}

/// Workloads of the suite, then those that are run with several replicas.
const SUITE: [&str; 12] = [
    "A-long",
    "A-long-2k",
    "A-8k-2k",
    "B",
    "C",
    "D",
    "E",
    "G",
    "ladder",
    "hot-prefix",
    "mixed",
    "churn",
];
const REPLICATED: [&str; 2] = ["C-light", "B"];
const REPLICATED_POLICIES: [&str; 5] = [
    "kthena-kvcache",
    "llmd-322-approx",
    "lpwl",
    "lmetric",
    "mtl",
];

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let (reports, failures) = match (arguments.suite, arguments.check) {
        (_, true) => checked(&arguments)?,
        (true, false) => (suite(&arguments)?, Vec::new()),
        (false, false) => {
            let workload = arguments.workload()?;
            (
                vec![shown(
                    &workload,
                    &arguments.setup()?,
                    &arguments.policies(),
                )?],
                Vec::new(),
            )
        }
    };
    if let Some(path) = &arguments.json {
        write_json(path, &reports)?;
    }
    if let Some(folder) = &arguments.plots {
        write_plots(folder, &reports)?;
    }
    for failure in &failures {
        println!("FAILED {failure}");
    }
    Ok(match failures.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

impl Arguments {
    fn workload(&self) -> anyhow::Result<Workload> {
        let options = Options {
            engines: self.engines,
            profile: self.profile.clone(),
            speed: self.speed,
            limit: self.limit,
        };
        Ok(match &self.trace {
            Some(source) => Workload::of_trace(source, self.seed, &options)?,
            None => Workload::named(&self.workload, self.seed, &options)?,
        })
    }

    fn setup(&self) -> anyhow::Result<Setup> {
        let millis = |millis: f64| {
            Duration::try_from_secs_f64(millis / 1e3).context("a time must be a positive number")
        };
        anyhow::ensure!(
            (0.0..=1.0).contains(&self.event_loss),
            "--event-loss is a share, 0 to 1"
        );
        Ok(Setup {
            replicas: self.replicas.into(),
            seed: self.seed,
            index: self.index,
            event_delay: millis(self.event_delay_ms)?,
            event_loss: self.event_loss,
            exchange: self.exchange_ms.map(millis).transpose()?,
            constants_wrong_by: self.wrong_constants,
            learn: self.learn || self.cold,
            cold: self.cold,
        })
    }

    fn policies(&self) -> Vec<String> {
        match self.policies.as_str() {
            "all" => owned(&DEFAULT_POLICIES),
            names => names.split(',').map(str::to_owned).collect(),
        }
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// Runs and prints one table.
fn shown(workload: &Workload, setup: &Setup, policies: &[String]) -> anyhow::Result<Report> {
    let report = batch::run(workload, setup, policies)?;
    println!(
        "\n{}: {} requests, {} engines, {} replicas, seed {}",
        report.workload, report.requests, report.engines, report.replicas, report.seed
    );
    print!("{}", report::table(&report.results));
    Ok(report)
}

fn suite(arguments: &Arguments) -> anyhow::Result<Vec<Report>> {
    let (seed, setup) = (arguments.seed, arguments.setup()?);
    let mut reports = Vec::new();
    for name in SUITE {
        let workload = Workload::named(name, seed, &Options::default())?;
        reports.push(shown(&workload, &setup, &arguments.policies())?);
    }
    for name in REPLICATED {
        let workload = Workload::named(name, seed, &Options::default())?;
        for replicas in [1, 2, 4, 8] {
            let setup = Setup {
                replicas,
                ..setup.clone()
            };
            reports.push(shown(&workload, &setup, &owned(&REPLICATED_POLICIES))?);
        }
    }
    Ok(reports)
}

fn checked(arguments: &Arguments) -> anyhow::Result<(Vec<Report>, Vec<String>)> {
    let (mut reports, mut failures) = (Vec::new(), Vec::new());
    let options = Options {
        limit: Some(CHECKED_REQUESTS),
        ..Options::default()
    };
    for name in CHECKED {
        let workload = Workload::named(name, arguments.seed, &options)?;
        let report = shown(&workload, &arguments.setup()?, &owned(&CONTENDERS))?;
        failures.extend(check::failures(name, workload.fits_memory, &report.results));
        reports.push(report);
    }
    Ok((reports, failures))
}

/// One report as it is, several as a list under `runs`.
fn write_json(path: &Path, reports: &[Report]) -> anyhow::Result<()> {
    let json = match reports {
        [report] => serde_json::to_value(report)?,
        reports => serde_json::json!({
            "time": reports.first().map(|report| report.time),
            "runs": reports,
        }),
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, format!("{json:#}\n"))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn write_plots(folder: &Path, reports: &[Report]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    for report in reports {
        let title = format!(
            "{}, {} engines, {} replicas, seed {}",
            report.workload, report.engines, report.replicas, report.seed
        );
        let name = report.workload.replace(['/', ':'], "-");
        let file = folder.join(format!("{name}-{}.svg", report.replicas));
        std::fs::write(&file, plot::svg(&title, &report.results))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
