//! Rules of a scheduling block that its schema cannot say.

use sluice_crds::networking::{PolicyName, SchedulingConfig, SessionConfig};

use super::kthena::{self, KthenaParams};
use super::{LeastLatencyParams, MtlParams, PolicyParams, SchedulingParams, SessionParams};
use crate::path::Place;
use crate::problem::Finding;

/// Above this a weight is a slip.
const MAX_WEIGHT: f64 = 1000.0;

/// What `config` means and what is wrong with it. With an error among the findings, the meaning must not be used.
pub(crate) fn check(config: &SchedulingConfig, at: Place<'_>) -> (SchedulingParams, Vec<Finding>) {
    let mut findings = Vec::new();
    let mtl = mtl(config, at, &mut findings);
    let least_latency = least_latency(config, at, &mut findings);
    let session = (config.session.as_ref()).map_or_else(SessionParams::default, |session| {
        check_session(session, at.key("session"), &mut findings)
    });
    let kthena = match &config.scheduler {
        Some(scheduler) => kthena::check(scheduler, at.key("scheduler"), &mut findings),
        None => KthenaParams::default(),
    };
    idle_blocks(config, at, &mut findings);
    let policy = match config.policy {
        PolicyName::Mtl => PolicyParams::Mtl(mtl),
        PolicyName::Lmetric => PolicyParams::Lmetric,
        PolicyName::LeastRequest => PolicyParams::LeastRequest,
        PolicyName::LeastLatency => PolicyParams::LeastLatency(least_latency),
        PolicyName::GpuUsage => PolicyParams::GpuUsage,
        PolicyName::PrefixCache => PolicyParams::PrefixCache,
        PolicyName::KvcacheAware => PolicyParams::KvcacheAware,
        PolicyName::LoraAffinity => PolicyParams::LoraAffinity,
        PolicyName::Random => PolicyParams::Random,
        PolicyName::RoundRobin => PolicyParams::RoundRobin,
        PolicyName::Session => PolicyParams::Session,
        PolicyName::BoundedHash => PolicyParams::BoundedHash,
        PolicyName::Sticky => PolicyParams::Sticky,
        PolicyName::Kthena => PolicyParams::Kthena(kthena),
    };
    (SchedulingParams { policy, session }, findings)
}

fn mtl(config: &SchedulingConfig, at: Place<'_>, findings: &mut Vec<Finding>) -> MtlParams {
    let default = MtlParams::default();
    let Some(written) = &config.mtl else {
        return default;
    };
    let place = at.key("mtl");
    let mut weight = |key: &str, written: Option<f64>, default: f64| {
        number(place.key(key), written, default, MAX_WEIGHT, findings)
    };
    MtlParams {
        inflicted: weight("inflicted", written.inflicted, default.inflicted),
        decode: weight("decode", written.decode, default.decode),
        price: weight("price", written.price, default.price),
    }
}

fn least_latency(
    config: &SchedulingConfig,
    at: Place<'_>,
    findings: &mut Vec<Finding>,
) -> LeastLatencyParams {
    let default = LeastLatencyParams::default();
    let Some(written) = &config.least_latency else {
        return default;
    };
    let place = at.key("leastLatency");
    let place = place.key("firstTokenWeight");
    let (written, default) = (written.first_token_weight, default.first_token_weight);
    LeastLatencyParams {
        first_token_weight: number(place, written, default, 1.0, findings),
    }
}

/// A number from 0 to `most`.
pub(super) fn number(
    at: Place<'_>,
    written: Option<f64>,
    default: f64,
    most: f64,
    findings: &mut Vec<Finding>,
) -> f64 {
    let Some(written) = written else {
        return default;
    };
    if (0.0..=most).contains(&written) {
        return written;
    }
    let remedy = format!("write a number from 0 to {most}; the default is {default}");
    findings.push(Finding::error(
        at,
        format!("{written} is out of range"),
        remedy,
    ));
    default
}

fn check_session(
    session: &SessionConfig,
    at: Place<'_>,
    findings: &mut Vec<Finding>,
) -> SessionParams {
    let default = SessionParams::default();
    let mut name = |key: &str, what: &str, written: &Option<String>| {
        let written = written.as_ref()?;
        if is_token(written) {
            return Some(written.clone());
        }
        let message = format!("{written:?} is no name of a {what}");
        let remedy = "use letters, digits, `-` and `_`, at most 128";
        findings.push(Finding::error(at.key(key), message, remedy));
        None
    };
    SessionParams {
        header: name("header", "header field", &session.header)
            .map_or(default.header, |header| header.to_ascii_lowercase()),
        cookie: name("cookie", "cookie", &session.cookie),
    }
}

/// `token` of RFC 9110, which header fields and cookies are named by.
fn is_token(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && (name.bytes()).all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Blocks that the chosen policy does not read.
fn idle_blocks(config: &SchedulingConfig, at: Place<'_>, findings: &mut Vec<Finding>) {
    let chosen = config.policy;
    let written = [
        ("mtl", PolicyName::Mtl, config.mtl.is_some()),
        (
            "leastLatency",
            PolicyName::LeastLatency,
            config.least_latency.is_some(),
        ),
    ];
    for (key, policy, there) in written {
        if there && policy != chosen {
            let message = format!("`{key}` has no effect with policy {}", chosen.as_str());
            let remedy = format!("write `policy: {}`, or remove it", policy.as_str());
            findings.push(Finding::warning(at.key(key), message, remedy));
        }
    }
    if config.scheduler.is_some() && chosen != PolicyName::Kthena {
        let message = format!(
            "Kthena's plug-ins are configured, but the policy is {}",
            chosen.as_str()
        );
        let remedy = "write `policy: kthena` beside it, or remove it";
        findings.push(Finding::error(at.key("scheduler"), message, remedy));
    }
}
