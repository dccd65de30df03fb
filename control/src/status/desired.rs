//! From what is known of a document to the status that it should have.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use sluice_config::Problem;
use sluice_crds::networking::EndpointCounts;

use crate::index::{Detail, Facts, Shown};

use super::condition::{ConditionType, Reason, Truth, Verdict};
use super::programmed::{Acknowledged, join, programmed};
use super::{provider, route, server};

/// Most errors or warnings that a message repeats.
const MAX_PROBLEMS: usize = 3;

/// A status without times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// Generation that it speaks of.
    pub generation: i64,
    /// Its conditions, in an order that never changes.
    pub verdicts: Vec<Verdict>,
    /// Of a ModelServer.
    pub endpoints: Option<Endpoints>,
}

/// Endpoints of a ModelServer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoints {
    /// All of them.
    pub all: EndpointCounts,
    /// Those that prefill and those that decode, where the pool has roles.
    pub roles: Option<(EndpointCounts, EndpointCounts)>,
}

impl Desired {
    /// The status of a document of which these facts are known, and to which gateways say this.
    pub fn of(facts: &Facts, acknowledged: &Acknowledged) -> Self {
        let mut verdicts = vec![accepted(facts)];
        let mut endpoints = None;
        verdicts.extend(match &facts.detail {
            Detail::Route(route) => route::verdicts(facts, route),
            Detail::Server(server) => {
                let counts = &server.counts;
                endpoints = Some(Endpoints {
                    all: server::all_endpoints(server),
                    roles: server.has_roles.then_some((counts.prefill, counts.decode)),
                });
                server::verdicts(facts, server)
            }
            Detail::Provider(credential) => provider::verdicts(facts, credential),
        });
        verdicts.push(programmed(acknowledged));
        Self {
            generation: facts.generation,
            verdicts,
            endpoints,
        }
    }

    /// One of its conditions.
    pub fn verdict(&self, kind: ConditionType) -> Option<&Verdict> {
        self.verdicts.iter().find(|verdict| verdict.kind == kind)
    }

    /// As the API has it. A condition that says what it said keeps the time since which it does.
    pub fn status(&self, shown: &Shown, now: &Time) -> Shown {
        let condition = |verdict: &Verdict| {
            let last = shown
                .conditions
                .iter()
                .find(|c| c.type_ == verdict.kind.name());
            let since = last.filter(|last| last.status == verdict.truth.name());
            Condition {
                type_: verdict.kind.name().into(),
                status: verdict.truth.name().into(),
                reason: verdict.reason.name().into(),
                message: verdict.message.clone(),
                observed_generation: Some(self.generation),
                last_transition_time: since.map_or(now, |last| &last.last_transition_time).clone(),
            }
        };
        let (all, roles) = match self.endpoints {
            Some(endpoints) => (Some(endpoints.all), endpoints.roles),
            None => (None, None),
        };
        Shown {
            observed_generation: Some(self.generation),
            conditions: self.verdicts.iter().map(condition).collect(),
            endpoints: all.map(|all| all.endpoints),
            ready: all.map(|all| all.ready),
            draining: all.map(|all| all.draining),
            prefill: roles.map(|(prefill, _)| prefill),
            decode: roles.map(|(_, decode)| decode),
        }
    }
}

fn accepted(facts: &Facts) -> Verdict {
    let kind = ConditionType::Accepted;
    let problems = join(facts.problems.iter().map(line), MAX_PROBLEMS);
    match (facts.accepted, problems.is_empty()) {
        (true, true) => Verdict::new(kind, Truth::True, Reason::Accepted, "the document is right"),
        (true, false) => {
            let message = format!("accepted with warnings: {problems}");
            Verdict::new(kind, Truth::True, Reason::Accepted, message)
        }
        // Of no kind of ours, or without a name: the API server lets neither through.
        (false, true) => Verdict::new(
            kind,
            Truth::False,
            Reason::Invalid,
            "the document cannot be read",
        ),
        (false, false) => Verdict::new(kind, Truth::False, Reason::Invalid, problems),
    }
}

/// Without the source, which is the cluster.
fn line(problem: &Problem) -> String {
    let mut line = String::new();
    if !problem.path.is_empty() {
        line = format!("{}: ", problem.path);
    }
    line.push_str(&problem.message);
    if !problem.remedy.is_empty() {
        line = format!("{line} ({})", problem.remedy);
    }
    line
}

/// A condition that cannot be judged yet.
pub(super) fn not_accepted(kind: ConditionType) -> Verdict {
    let message = "judged once the document is accepted";
    Verdict::new(kind, Truth::Unknown, Reason::NotAccepted, message)
}
