//! What may be tried again, and what a client is told when nothing may.

use std::time::SystemTime;

use sluice_config::bootstrap::UpstreamConfig;
use sluice_config::snapshot::ModelServer;

use super::*;
use crate::endpoints::Registry;
use crate::telemetry::BuildInfo;

const HEALTHY: Choice = Choice {
    server: 0,
    member: 0,
    healthy: true,
};

/// Calls `test` with attempts whose budget is `floor` retries.
fn with(floor: u32, on_429: bool, test: impl FnOnce(&Attempts<'_>)) {
    let build = BuildInfo {
        version: "test",
        revision: "test",
    };
    let connector = Connector::new(&UpstreamConfig::default(), Duration::from_secs(1));
    test(&Attempts {
        connector: &connector,
        budget: &RetryBudget::new(0, floor, Duration::from_secs(10)),
        retry: &RetryConfig {
            attempts: 2,
            on_429,
            ..RetryConfig::default()
        },
        first_byte: Duration::from_secs(1),
        origin: Instant::now(),
        metrics: &Metrics::new(build, SystemTime::UNIX_EPOCH),
    });
}

fn refused() -> Failure {
    Failure::Engine(EngineError::Connect("refused".into()))
}

fn late() -> Failure {
    Failure::Timeout(Duration::from_secs(1))
}

#[test]
fn only_statuses_that_ask_for_another_engine_are_tried_again() {
    with(0, false, |attempts| {
        let again: Vec<u16> = (100..600)
            .filter(|status| attempts.asks_for_another(*status))
            .collect();
        assert_eq!(again, [502, 503, 504]);
    });
    with(0, true, |attempts| assert!(attempts.asks_for_another(429)));
}

#[test]
fn the_pools_number_of_retries_goes_before_the_gateways() {
    let policy = |retries| TrafficPolicy {
        retry_attempts: retries,
        ..TrafficPolicy::default()
    };
    with(100, false, |attempts| {
        let may = |made, retries| attempts.may_retry(&late(), &HEALTHY, &policy(retries), made);
        assert_eq!((may(2, None), may(3, None)), (true, false));
        assert_eq!((may(1, Some(0)), may(1, Some(1))), (false, true));
        assert_eq!((may(5, Some(5)), may(6, Some(5))), (true, false));
    });
}

#[test]
fn a_broken_connection_costs_no_budget_where_a_healthy_engine_is_left() {
    let policy = TrafficPolicy::default();
    with(1, false, |attempts| {
        for _ in 0..10 {
            assert!(attempts.may_retry(&refused(), &HEALTHY, &policy, 1));
        }
        assert!(attempts.may_retry(&late(), &HEALTHY, &policy, 1));
        assert!(!attempts.may_retry(&late(), &HEALTHY, &policy, 1));
        assert_eq!(attempts.metrics.retry_budget_exhausted.get(), 1);
        let unhealthy = Choice {
            healthy: false,
            ..HEALTHY
        };
        assert!(!attempts.may_retry(&refused(), &unhealthy, &policy, 1));
        assert_eq!(attempts.metrics.retry_budget_exhausted.get(), 2);
    });
}

#[test]
fn each_failure_has_its_reason_and_its_status() {
    let cases = [
        (refused(), AttemptReason::Connect, 502, "engine_unreachable"),
        (late(), AttemptReason::Timeout, 504, "engine_timeout"),
        (
            Failure::Engine(EngineError::Lost("reset".into())),
            AttemptReason::Reset,
            502,
            "engine_broken",
        ),
        (
            Failure::Engine(EngineError::Stale("closed".into())),
            AttemptReason::Stale,
            502,
            "engine_broken",
        ),
        (
            Failure::Engine(EngineError::Invalid("not HTTP".into())),
            AttemptReason::Protocol,
            502,
            "engine_broken",
        ),
        (
            Failure::Engine(EngineError::Request("too long".into())),
            AttemptReason::Protocol,
            502,
            "engine_broken",
        ),
    ];
    for (failure, reason, status, kind) in cases {
        assert_eq!(failure.reason(), reason);
        match failure.conclude(3) {
            Err(NoAnswer::Error(error)) => {
                assert_eq!((error.status().as_u16(), error.reason()), (status, kind));
            }
            _ => panic!("{reason:?}: an error was expected"),
        }
    }
}

#[test]
fn an_endpoint_is_late_only_where_it_had_its_whole_time() {
    let policy = |first_byte_timeout| TrafficPolicy {
        first_byte_timeout,
        ..TrafficPolicy::default()
    };
    let second = Duration::from_secs(1);
    with(0, false, |attempts| {
        let patience = |own, left| attempts.patience(&policy(own), left);
        assert_eq!(patience(None, 5 * second), (second, true));
        assert_eq!(patience(Some(3 * second), 3 * second), (3 * second, true));
        assert_eq!(patience(None, second / 2), (second / 2, false));
    });
}

#[test]
fn an_answer_that_is_not_http_is_a_failure_and_a_request_that_is_not_is_none() {
    let server = ModelServer::of("s", &["a:1"]);
    let cases = [
        (EngineError::Invalid("not HTTP".into()), true),
        (EngineError::Request("too long".into()), false),
    ];
    with(0, false, |attempts| {
        for (error, fails) in cases {
            let endpoint = Registry::default().endpoint(&server, &server.endpoints[0]);
            attempts.note_error(&endpoint, &error, Duration::ZERO);
            let price = endpoint.failing.price_ms(attempts.origin.elapsed());
            assert_eq!(price > 0.0, fails, "{error}");
        }
    });
}
