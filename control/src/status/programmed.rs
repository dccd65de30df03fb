//! What gateways have acknowledged, as a condition.

use sluice_config::push::ResourceType;
use tokio::sync::watch;

use super::condition::{ConditionType, Reason, Truth, Verdict};
use crate::push::acks::{Finding, Programmed};

/// What the gateways that are connected to any replica say to one version of one resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// Sums over those that are known.
    pub programmed: Programmed,
    /// Replicas of the control loop whose gateways are not among these: what they have is not known.
    pub unreachable: usize,
}

/// Where acknowledgements come from.
pub trait Acknowledgements: Send + Sync + 'static {
    /// What gateways say to a version of a resource.
    fn programmed(&self, kind: ResourceType, name: &str, version: &str) -> Acknowledged;

    /// Wakes when any answer may be another one.
    fn changed(&self) -> watch::Receiver<u64>;
}

/// Most findings that a message repeats.
const MAX_FINDINGS: usize = 3;

/// The condition `Programmed`: it speaks of every gateway that is connected to any replica of the control loop. While one
/// of those cannot be reached it cannot be true, and says so.
pub(super) fn programmed(acknowledged: &Acknowledged) -> Verdict {
    let verdict = |truth, reason, message: String| {
        Verdict::new(ConditionType::Programmed, truth, reason, message)
    };
    let Acknowledged {
        programmed,
        unreachable,
    } = acknowledged;
    let (connected, good) = (programmed.connected, programmed.acknowledged);
    let of = format!("of {connected} connected {}", proxies(connected));
    let unknown = match unreachable {
        0 => String::new(),
        1 => "; another control replica cannot be reached, and its proxies are not counted".into(),
        more => format!(
            "; {more} other control replicas cannot be reached, and their proxies are not counted"
        ),
    };
    if programmed.refusing > 0 {
        let message = format!(
            "refused by {} {of}, which keep the last good version: {}{unknown}",
            programmed.refusing,
            join(programmed.findings.iter().map(line), MAX_FINDINGS)
        );
        return verdict(Truth::False, Reason::Rejected, message);
    }
    if connected == 0 && *unreachable == 0 {
        let message = "no proxy is connected: look at the proxies' readiness and logs".to_owned();
        return verdict(Truth::Unknown, Reason::NoProxies, message);
    }
    let message = format!("acknowledged by {good} {of}{unknown}");
    if good < connected || *unreachable > 0 {
        return verdict(Truth::Unknown, Reason::Pending, message);
    }
    verdict(Truth::True, Reason::Programmed, message)
}

fn proxies(count: usize) -> &'static str {
    if count == 1 { "proxy" } else { "proxies" }
}

fn line(finding: &Finding) -> String {
    let path = Some(&finding.path).filter(|path| !path.is_empty());
    let mut line = path.map(|path| format!("{path}: ")).unwrap_or_default();
    line.push_str(&finding.message);
    if !finding.remedy.is_empty() {
        line = format!("{line} ({})", finding.remedy);
    }
    line
}

/// The first few, and how many more there are.
pub(super) fn join(lines: impl ExactSizeIterator<Item = String>, most: usize) -> String {
    let more = lines.len().saturating_sub(most);
    let mut text = lines.take(most).collect::<Vec<_>>().join("; ");
    if more > 0 {
        text = format!("{text}; and {more} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(message: &str) -> Finding {
        Finding {
            path: "spec.filters.guard".into(),
            message: message.into(),
            remedy: "remove it".into(),
        }
    }

    /// Each of `refusals` is one gateway's.
    fn of(connected: usize, good: usize, refusals: &[Finding]) -> (Truth, Reason, String) {
        with_lost(connected, good, refusals, 0)
    }

    fn with_lost(
        connected: usize,
        acknowledged: usize,
        refusals: &[Finding],
        unreachable: usize,
    ) -> (Truth, Reason, String) {
        let mut sums = Programmed {
            connected,
            acknowledged,
            ..Programmed::default()
        };
        for finding in refusals {
            sums.refuse([finding]);
        }
        let verdict = programmed(&Acknowledged {
            programmed: sums,
            unreachable,
        });
        (verdict.truth, verdict.reason, verdict.message)
    }

    #[test]
    fn it_is_true_when_every_proxy_has_acknowledged() {
        let message = "acknowledged by 2 of 2 connected proxies".to_owned();
        assert_eq!(of(2, 2, &[]), (Truth::True, Reason::Programmed, message));
    }

    #[test]
    fn it_is_unknown_while_some_have_not_answered_or_none_is_there() {
        let message = "acknowledged by 0 of 1 connected proxy".to_owned();
        assert_eq!(of(1, 0, &[]), (Truth::Unknown, Reason::Pending, message));
        let (truth, reason, _) = of(0, 0, &[]);
        assert_eq!((truth, reason), (Truth::Unknown, Reason::NoProxies));
    }

    #[test]
    fn it_is_not_true_while_proxies_of_another_replica_are_not_known() {
        let (truth, reason, message) = with_lost(2, 2, &[], 1);
        assert_eq!((truth, reason), (Truth::Unknown, Reason::Pending));
        assert_eq!(
            message,
            "acknowledged by 2 of 2 connected proxies; another control replica cannot be reached, and its proxies are \
             not counted"
        );
        let (truth, reason, message) = with_lost(1, 0, &[finding("no")], 2);
        assert_eq!((truth, reason), (Truth::False, Reason::Rejected));
        assert!(message.ends_with(
            "2 other control replicas cannot be reached, and their proxies are not counted"
        ));
        let (truth, reason, _) = with_lost(0, 0, &[], 1);
        let all_may_be_there = (Truth::Unknown, Reason::Pending);
        assert_eq!((truth, reason), all_may_be_there);
    }

    #[test]
    fn it_is_false_with_each_finding_once_when_one_refuses() {
        let refusals = [finding("no such filter"), finding("no such filter")];
        let message = "refused by 2 of 3 connected proxies, which keep the last good version: \
                       spec.filters.guard: no such filter (remove it)";
        assert_eq!(
            of(3, 1, &refusals),
            (Truth::False, Reason::Rejected, message.to_owned())
        );
        let many: Vec<_> = (0..5).map(|n| finding(&format!("finding {n}"))).collect();
        let (_, _, message) = of(5, 0, &many);
        assert!(message.ends_with("; and 2 more"), "{message}");
    }
}
