//! The routing simulator on the command line.
use std::time::Instant;
use sluice_benches::sim::{self, Setup, report::{Row, table}, workload::{Options, Workload}};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let seed: u64 = args.get(3).map_or(1, |s| s.parse().unwrap());
    for name in args[1].split(',') {
    let workload = Workload::named(name, seed, &Options::default())?;
    let t = Instant::now();
    let ideal = sim::ideal_hit_rate(&workload);
    println!("{name} {} requests, ideal {ideal:.3} in {:?}", workload.requests.len(), t.elapsed());
    let mut rows = vec![];
    let names: Vec<&str> = if args[2] == "all" { sim::DEFAULT_POLICIES.to_vec() } else { args[2].split(',').collect() };
    for policy in names {
        let start = Instant::now();
        let outcome = sim::run(&workload, &Setup { seed, ..Setup::default() }, &|| sim::policy(policy).unwrap());
        rows.push(Row::of(policy, &outcome, ideal, start.elapsed()));
    }
    println!("{}", table(&rows));
    println!("{}", rows.iter().map(|r| format!("{} {:.2}s ", r.policy, r.wall_s)).collect::<String>());
    }
    Ok(())
}
