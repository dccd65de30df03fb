use serde_json::json;
use sluice_config::Kind;

use super::super::condition::{ConditionType, Reason, Truth};
use super::super::programmed::Acknowledged;
use super::*;
use crate::index::{Index, Input, Object};
use crate::push::acks::{Finding, Programmed};

/// A route as the cluster shows it, with this generation and status.
fn facts(generation: i64, status: serde_json::Value) -> Arc<Facts> {
    let object = serde_json::from_value(json!({
        "metadata": { "name": "chat", "namespace": "models", "uid": "u", "generation": generation },
        "spec": {
            "modelName": "chat",
            "rules": [{ "targetModels": [{ "modelServerName": "gone" }] }],
        },
        "status": status,
    }));
    let document = crate::index::Document::of(Kind::ModelRoute, object.unwrap()).unwrap();
    let mut index = Index::default();
    index.apply(Input::Applied(Object::Document(document)));
    index.reconcile().facts.remove(0).1.unwrap()
}

fn good(connected: usize, acknowledged: usize) -> Acknowledged {
    let programmed = Programmed {
        connected,
        acknowledged,
        ..Programmed::default()
    };
    Acknowledged {
        programmed,
        unreachable: 0,
    }
}

struct Bed {
    queue: Queue,
    facts: Arc<Facts>,
    says: Acknowledged,
    now: Instant,
}

impl Bed {
    fn new(says: Acknowledged) -> Self {
        let mut this = Self {
            queue: Queue::default(),
            facts: facts(1, json!({})),
            says,
            now: Instant::now(),
        };
        this.show(facts(1, json!({})));
        this
    }

    fn show(&mut self, facts: Arc<Facts>) {
        self.facts = facts.clone();
        self.queue.learn(&facts.key, Some(facts.clone()));
        self.consider();
    }

    fn consider(&mut self) {
        let desired = Desired::of(&self.facts, &self.says);
        self.queue.consider(&self.facts.key, desired, self.now);
    }

    /// Time until the next write, if there is one planned.
    fn due(&self) -> Option<Duration> {
        self.queue
            .next_due()
            .map(|due| due.saturating_duration_since(self.now))
    }

    /// Lets time pass until the next write is due, and takes it.
    fn write(&mut self) -> Write {
        self.now = self.queue.next_due().unwrap().max(self.now);
        self.queue.take(self.now).unwrap().1
    }

    fn finish(&mut self, outcome: Outcome) {
        let key = self.facts.key.clone();
        self.queue.finish(&key, outcome, self.now);
        self.consider();
    }

    /// The cluster shows what was written.
    fn echo(&mut self, write: &Write) {
        let time = "2026-01-01T00:00:00Z".parse().unwrap();
        let status = write.desired.status(
            &self.facts.shown,
            &k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time),
        );
        let generation = write.desired.generation;
        self.show(facts(generation, serde_json::to_value(status).unwrap()));
    }
}

#[test]
fn a_new_document_is_written_once_and_then_left_alone() {
    let mut bed = Bed::new(good(1, 1));
    assert_eq!(bed.due(), Some(PROMPT));
    assert!(bed.queue.take(bed.now).is_none(), "not before it is due");
    let write = bed.write();
    bed.consider();
    assert_eq!(bed.due(), None, "a second write is under way");
    bed.finish(Outcome::Written);
    bed.echo(&write);
    assert_eq!(bed.due(), None);
}

#[test]
fn what_gateways_are_about_to_answer_waits_a_moment_and_is_written_once() {
    let mut bed = Bed::new(good(2, 0));
    assert_eq!(bed.due(), Some(SOON));
    bed.now += Duration::from_millis(10);
    bed.says = good(2, 2);
    bed.consider();
    assert_eq!(bed.due(), Some(PROMPT));
    let programmed = bed.write().desired;
    let programmed = programmed.verdict(ConditionType::Programmed).unwrap();
    assert_eq!(
        (programmed.truth, programmed.reason),
        (Truth::True, Reason::Programmed)
    );
}

#[test]
fn changes_on_changes_do_not_put_a_write_off() {
    let mut bed = Bed::new(good(2, 0));
    bed.now += Duration::from_millis(600);
    bed.says = good(2, 1);
    bed.consider();
    assert_eq!(bed.due(), Some(SOON - Duration::from_millis(600)));
}

#[test]
fn a_gateway_that_comes_or_goes_rewrites_nothing_for_a_while() {
    let mut bed = Bed::new(good(2, 2));
    let write = bed.write();
    bed.finish(Outcome::Written);
    bed.echo(&write);
    // One comes, has not answered yet, then has: only words differ in the end.
    bed.says = good(3, 2);
    bed.consider();
    assert_eq!(bed.due(), Some(PATIENT));
    bed.now += Duration::from_secs(1);
    bed.says = good(3, 3);
    bed.consider();
    assert_eq!(bed.due(), Some(PATIENT - Duration::from_secs(1)));
    // It goes again: there is nothing to say.
    bed.says = good(2, 2);
    bed.consider();
    assert_eq!(bed.due(), None);
}

#[test]
fn a_refusal_is_written_at_once() {
    let mut bed = Bed::new(good(2, 2));
    let write = bed.write();
    bed.finish(Outcome::Written);
    bed.echo(&write);
    bed.now += INTERVAL;
    bed.says.programmed.refuse([&Finding {
        path: String::new(),
        message: "no".into(),
        remedy: String::new(),
    }]);
    bed.consider();
    assert_eq!(bed.due(), Some(PROMPT));
    let news = bed.write().news;
    assert_eq!(
        news.iter().map(|v| v.reason).collect::<Vec<_>>(),
        [Reason::Rejected]
    );
}

#[test]
fn an_object_is_written_at_most_once_a_second() {
    let mut bed = Bed::new(good(1, 1));
    let write = bed.write();
    bed.finish(Outcome::Written);
    bed.echo(&write);
    bed.show(facts(2, json!({})));
    assert_eq!(bed.due(), Some(INTERVAL));
}

#[test]
fn a_failed_write_is_tried_again_ever_more_seldom() {
    let mut bed = Bed::new(good(1, 1));
    for wait in [RETRY, 2 * RETRY, 4 * RETRY] {
        bed.write();
        bed.finish(Outcome::Failed);
        assert_eq!(bed.due(), Some(wait));
    }
    // Other words are no reason to ask a server that fails sooner.
    bed.show(facts(2, json!({})));
    assert_eq!(bed.due(), Some(4 * RETRY));
    // The news have not been told yet.
    assert!(!bed.write().news.is_empty());
    for _ in 0..20 {
        bed.finish(Outcome::Failed);
        bed.write();
    }
    bed.finish(Outcome::Failed);
    assert_eq!(bed.due(), Some(LONGEST));
}

#[test]
fn a_status_that_is_not_shown_is_never_written_in_a_circle() {
    let mut bed = Bed::new(good(1, 1));
    let first = bed.write();
    assert!(!first.news.is_empty());
    bed.finish(Outcome::Written);
    assert_eq!(bed.due(), Some(ECHO));
    // Someone else takes it away each time.
    let again = bed.write();
    assert!(again.news.is_empty(), "it has been told");
    bed.finish(Outcome::Written);
    assert_eq!(bed.due(), Some(2 * ECHO));
    bed.show(facts(1, json!({ "observedGeneration": 0 })));
    assert_eq!(bed.due(), Some(2 * ECHO));
}

#[test]
fn a_crd_that_drops_statuses_is_asked_again_once_a_minute_and_then_less() {
    let mut bed = Bed::new(good(1, 1));
    bed.write();
    bed.finish(Outcome::Dropped);
    assert_eq!(bed.due(), Some(DROPPED));
    bed.show(facts(2, json!({})));
    assert_eq!(bed.due(), Some(DROPPED), "whatever changes");
    bed.write();
    bed.finish(Outcome::Dropped);
    assert_eq!(bed.due(), Some(2 * DROPPED));
}

#[test]
fn writes_that_were_dropped_with_the_leadership_are_planned_anew() {
    let mut bed = Bed::new(good(1, 1));
    bed.write();
    bed.queue.abandon();
    bed.consider();
    assert_eq!(bed.due(), Some(PROMPT));
}

#[test]
fn a_document_that_is_gone_has_nothing_to_write() {
    let mut bed = Bed::new(good(1, 1));
    let key = bed.facts.key.clone();
    bed.queue.learn(&key, None);
    assert_eq!(bed.due(), None);
    bed.consider();
    assert_eq!(bed.due(), None);
}

#[test]
fn only_what_is_wrong_and_what_gateways_have_is_news_of_a_new_document() {
    let mut bed = Bed::new(good(1, 1));
    let news = bed.write().news;
    let reasons: Vec<_> = news.iter().map(|verdict| verdict.reason).collect();
    assert_eq!(reasons, [Reason::TargetNotFound, Reason::Programmed]);
}

#[test]
fn the_time_of_a_condition_stays_while_its_status_does() {
    let time =
        |text: &str| k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(text.parse().unwrap());
    let desired = Desired::of(&facts(1, json!({})), &good(1, 1));
    let first = desired.status(&facts(1, json!({})).shown, &time("2026-01-01T00:00:00Z"));
    let desired = Desired::of(&facts(2, json!({})), &good(1, 0));
    let second = desired.status(&first, &time("2026-01-02T00:00:00Z"));
    let since = |kind: &str| {
        let mut conditions = second.conditions.iter();
        let condition = conditions
            .find(|condition| condition.type_ == kind)
            .unwrap();
        condition.last_transition_time.clone()
    };
    assert_eq!(since("Accepted"), time("2026-01-01T00:00:00Z"));
    assert_eq!(since("Programmed"), time("2026-01-02T00:00:00Z"));
}
