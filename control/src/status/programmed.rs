//! What gateways have acknowledged, as a condition.

use std::collections::BTreeSet;

use sluice_config::push::ResourceType;
use tokio::sync::watch;

use super::condition::{ConditionType, Reason, Truth, Verdict};

/// What the gateways that are connected say to one version of one resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// How many are connected and are sent it.
    pub connected: usize,
    /// How many have this version in force.
    pub acknowledged: usize,
    /// What others have against it.
    pub rejections: Vec<Rejection>,
    /// Replicas of the control loop whose gateways are not among these: what they have is not known.
    pub unreachable: usize,
}

/// What a gateway has against a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The gateway.
    pub proxy: String,
    /// Path of the field; empty for the whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
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
        connected,
        acknowledged: good,
        rejections,
        unreachable,
    } = acknowledged;
    let of = format!("of {connected} connected {}", proxies(*connected));
    let unknown = match unreachable {
        0 => String::new(),
        1 => "; another control replica cannot be reached, and its proxies are not counted".into(),
        more => format!(
            "; {more} other control replicas cannot be reached, and their proxies are not counted"
        ),
    };
    if !rejections.is_empty() {
        let refusing: BTreeSet<&str> = rejections.iter().map(|r| r.proxy.as_str()).collect();
        let message = format!(
            "refused by {} {of}, which keep the last good version: {}{unknown}",
            refusing.len(),
            findings(rejections)
        );
        return verdict(Truth::False, Reason::Rejected, message);
    }
    if *connected == 0 {
        let message =
            format!("no proxy is connected: look at the proxies' readiness and logs{unknown}");
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

/// Each finding once, whoever has it.
fn findings(rejections: &[Rejection]) -> String {
    let line = |rejection: &Rejection| {
        let path = Some(&rejection.path).filter(|path| !path.is_empty());
        let mut line = path.map(|path| format!("{path}: ")).unwrap_or_default();
        line.push_str(&rejection.message);
        if !rejection.remedy.is_empty() {
            line = format!("{line} ({})", rejection.remedy);
        }
        line
    };
    let all: BTreeSet<String> = rejections.iter().map(line).collect();
    join(all.into_iter(), MAX_FINDINGS)
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

    fn rejection(proxy: &str, message: &str) -> Rejection {
        Rejection {
            proxy: proxy.into(),
            path: "spec.filters.guard".into(),
            message: message.into(),
            remedy: "remove it".into(),
        }
    }

    fn of(connected: usize, good: usize, rejections: Vec<Rejection>) -> (Truth, Reason, String) {
        with_lost(connected, good, rejections, 0)
    }

    fn with_lost(
        connected: usize,
        good: usize,
        rejections: Vec<Rejection>,
        unreachable: usize,
    ) -> (Truth, Reason, String) {
        let verdict = programmed(&Acknowledged {
            connected,
            acknowledged: good,
            rejections,
            unreachable,
        });
        (verdict.truth, verdict.reason, verdict.message)
    }

    #[test]
    fn it_is_true_when_every_proxy_has_acknowledged() {
        let message = "acknowledged by 2 of 2 connected proxies".to_owned();
        assert_eq!(of(2, 2, vec![]), (Truth::True, Reason::Programmed, message));
    }

    #[test]
    fn it_is_unknown_while_some_have_not_answered_or_none_is_there() {
        let message = "acknowledged by 0 of 1 connected proxy".to_owned();
        assert_eq!(of(1, 0, vec![]), (Truth::Unknown, Reason::Pending, message));
        let (truth, reason, _) = of(0, 0, vec![]);
        assert_eq!((truth, reason), (Truth::Unknown, Reason::NoProxies));
    }

    #[test]
    fn it_is_not_true_while_proxies_of_another_replica_are_not_known() {
        let (truth, reason, message) = with_lost(2, 2, vec![], 1);
        assert_eq!((truth, reason), (Truth::Unknown, Reason::Pending));
        assert_eq!(
            message,
            "acknowledged by 2 of 2 connected proxies; another control replica cannot be reached, and its proxies are \
             not counted"
        );
        let (truth, reason, message) = with_lost(1, 0, vec![rejection("a", "no")], 2);
        assert_eq!((truth, reason), (Truth::False, Reason::Rejected));
        assert!(message.ends_with(
            "2 other control replicas cannot be reached, and their proxies are not counted"
        ));
    }

    #[test]
    fn it_is_false_with_each_finding_once_when_one_refuses() {
        let rejections = vec![
            rejection("a", "no such filter"),
            rejection("b", "no such filter"),
        ];
        let message = "refused by 2 of 3 connected proxies, which keep the last good version: \
                       spec.filters.guard: no such filter (remove it)";
        assert_eq!(
            of(3, 1, rejections),
            (Truth::False, Reason::Rejected, message.to_owned())
        );
        let many = (0..5).map(|n| rejection("a", &format!("finding {n}")));
        let (_, _, message) = of(1, 0, many.collect());
        assert!(message.ends_with("; and 2 more"), "{message}");
    }
}
