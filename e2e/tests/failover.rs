//! Failover: which failures are tried again, where, how often, and what a client sees of it.

use std::time::Duration;

use sluice_e2e::engine::{EngineOptions, EngineServer, Fault};
use sluice_e2e::harness::client::{ask, chat, http1, sample};
use sluice_e2e::harness::{Gateway, GatewayBuilder, model_route, model_server, wait_until};

fn engine() -> EngineServer {
    EngineServer::start(EngineOptions::instant("sim")).expect("an engine starts")
}

fn pool(engines: &[&EngineServer], policy: &str) -> GatewayBuilder {
    let addresses: Vec<_> = engines.iter().map(|engine| engine.addr()).collect();
    Gateway::builder(
        model_server("sim", &addresses, policy) + &model_route("sim", "sim", &[("sim", 1)]),
    )
}

fn received(engines: &[&EngineServer]) -> Vec<u64> {
    engines
        .iter()
        .map(|engine| engine.requests().received)
        .collect()
}

#[tokio::test]
async fn a_refused_connection_goes_to_the_other_engine() {
    let (dead, alive) = (engine(), engine());
    dead.set_fault(Some(Fault::Refuse));
    let gateway = pool(&[&dead, &alive], "").start().await;
    let body = chat("sim", "hello", 1, false);
    let mut moved = 0;
    for number in 0..40 {
        let id = format!("refused-{number}");
        let answer = ask(&http1(), &gateway.url(""), &id, None, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let line = gateway.access_line(&id).await;
        assert_eq!(line["endpoint"], alive.addr().to_string());
        if line["first_endpoint"] != line["endpoint"] {
            assert_eq!(line["attempts"], 2, "{line}");
            moved += 1;
        }
    }
    // One to notice, then a probe after 0.5, 1, 2, 4, 8 and 10 seconds.
    assert!(
        (1..=6).contains(&moved),
        "{moved} of 40 began at the dead one"
    );
    assert_eq!(received(&[&dead, &alive]), [0, 40]);
    gateway.settled().await;
}

#[tokio::test]
async fn no_engine_is_tried_twice_while_another_is_left() {
    let engines = [engine(), engine(), engine()];
    let all: Vec<&EngineServer> = engines.iter().collect();
    for engine in &engines {
        engine.set_fault(Some(Fault::Status(503)));
    }
    let policy = "trafficPolicy:\n  retry:\n    attempts: 2\n    retryInterval: 1ms";
    let gateway = pool(&all, policy)
        .with(|bootstrap| bootstrap.retry.budget_floor = 1000)
        .start()
        .await;
    for number in 1..=20 {
        let body = chat("sim", "hello", 1, false);
        let answer = ask(&http1(), &gateway.url(""), "x", None, &body).await;
        assert_eq!(answer.status, 503);
        assert_eq!(
            answer.headers["retry-after"], "1",
            "the engine's own answer"
        );
        assert_eq!(received(&all), [number, number, number]);
    }
}

#[tokio::test]
async fn one_engine_that_answers_503_is_not_seen_by_clients_and_soon_left_alone() {
    let (bad, good) = (engine(), engine());
    bad.set_fault(Some(Fault::Status(503)));
    let gateway = pool(&[&bad, &good], "").start().await;
    let client = http1();
    for _ in 0..60 {
        let body = chat("sim", "hello", 1, false);
        let answer = ask(&client, &gateway.url(""), "x", None, &body).await;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(good.requests().received, 60);
    // Three to notice, then a probe now and then.
    let tries = bad.requests().received;
    assert!((3..=10).contains(&tries), "{tries} tries at the bad one");
    bad.set_fault(None);
    wait_until("it is found to serve again", || async {
        let body = chat("sim", "hello", 1, false);
        let answer = ask(&client, &gateway.url(""), "x", None, &body).await;
        assert_eq!(answer.status, 200);
        bad.requests().completed > tries + 10
    })
    .await;
    gateway.settled().await;
}

#[tokio::test]
async fn an_engine_that_answers_500_at_once_does_not_draw_the_traffic() {
    let (bad, good) = (engine(), engine());
    bad.set_fault(Some(Fault::Status(500)));
    let gateway = pool(&[&bad, &good], "").start().await;
    let client = http1();
    for _ in 0..60 {
        let body = chat("sim", "hello", 1, false);
        ask(&client, &gateway.url(""), "x", None, &body).await;
    }
    // Nothing is ever in flight at either: by load alone half would go there.
    let tries = bad.requests().received;
    assert!((1..=8).contains(&tries), "{tries} of 60");
    gateway.settled().await;
}

#[tokio::test]
async fn an_engines_4xx_and_500_are_one_attempt_and_pass_unchanged() {
    let engines = [engine(), engine()];
    let all: Vec<&EngineServer> = engines.iter().collect();
    let gateway = pool(&all, "").start().await;
    let body = chat("sim", "hello", 1, false);
    for status in [400, 404, 422, 429, 500] {
        let (id, fault) = (format!("s{status}"), format!("status:{status}"));
        let direct = ask(&http1(), &engines[0].url(), &id, Some(&fault), &body).await;
        let before: u64 = received(&all).iter().sum();
        let answer = ask(&http1(), &gateway.url(""), &id, Some(&fault), &body).await;
        assert_eq!(received(&all).iter().sum::<u64>() - before, 1, "{status}");
        assert_eq!(answer.status, status);
        assert_eq!(answer.text(), direct.text());
        assert_eq!(gateway.access_line(&id).await["attempts"], 1);
    }
}

#[tokio::test]
async fn a_429_goes_to_another_engine_where_that_is_configured() {
    let (busy, free) = (engine(), engine());
    busy.set_fault(Some(Fault::Status(429)));
    let gateway = pool(&[&busy, &free], "")
        .with(|bootstrap| {
            bootstrap.retry.on_429 = true;
            bootstrap.retry.budget_floor = 100;
        })
        .start()
        .await;
    for _ in 0..20 {
        let body = chat("sim", "hello", 1, false);
        let answer = ask(&http1(), &gateway.url(""), "x", None, &body).await;
        assert_eq!(answer.status, 200);
    }
    assert!(busy.requests().received > 0, "chance 1 in 2^20");
}

#[tokio::test]
async fn retries_of_a_failing_pool_stay_within_the_budget() {
    const REQUESTS: u64 = 300;
    let engines = [engine(), engine(), engine()];
    let all: Vec<&EngineServer> = engines.iter().collect();
    for engine in &engines {
        engine.set_fault(Some(Fault::Status(503)));
    }
    // A window longer than the test, so that one sum bounds it.
    let gateway = pool(
        &all,
        "trafficPolicy:\n  retry:\n    attempts: 5\n    retryInterval: 1ms",
    )
    .with(|bootstrap| bootstrap.retry.budget_window = Duration::from_secs(600).into())
    .start()
    .await;
    let client = http1();
    for _ in 0..REQUESTS {
        let body = chat("sim", "hello", 1, false);
        let answer = ask(&client, &gateway.url(""), "x", None, &body).await;
        assert_eq!(answer.status, 503);
    }
    let attempts: u64 = received(&all).iter().sum();
    let most = REQUESTS + REQUESTS / 5 + 10;
    assert!(attempts <= most, "{attempts} attempts, at most {most}");
    assert!(
        attempts > REQUESTS + REQUESTS / 10,
        "{attempts}: the budget is there to be used"
    );
    let metrics = gateway.metrics().await;
    let refused = sample(&metrics, "sluice_retry_budget_exhausted_total", &[]);
    assert!(refused > 0.0, "{metrics}");
}

#[tokio::test]
async fn the_policys_number_of_retries_is_kept() {
    for retries in [0, 1] {
        let engines = [engine(), engine(), engine()];
        let all: Vec<&EngineServer> = engines.iter().collect();
        for engine in &engines {
            engine.set_fault(Some(Fault::Status(503)));
        }
        let policy = format!("trafficPolicy:\n  retry:\n    attempts: {retries}");
        let gateway = pool(&all, &policy).start().await;
        let body = chat("sim", "hello", 1, false);
        ask(&http1(), &gateway.url(""), "x", None, &body).await;
        assert_eq!(received(&all).iter().sum::<u64>(), retries + 1);
    }
}

#[tokio::test]
async fn the_only_engine_is_tried_again_after_the_interval() {
    let only = engine();
    let policy = "trafficPolicy:\n  retry:\n    attempts: 1\n    retryInterval: 200ms";
    let gateway = pool(&[&only], policy).start().await;
    let body = chat("sim", "hello", 1, false);
    let fault = Some("status:503");
    let answer = ask(&http1(), &gateway.url(""), "again", fault, &body).await;
    assert_eq!(answer.status, 503);
    assert_eq!(only.requests().received, 2);
    let line = gateway.access_line("again").await;
    assert!(line["duration_total"].as_u64().unwrap() >= 200, "{line}");
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_costs_no_client_an_error() {
    let only = engine();
    let gateway = pool(&[&only], "trafficPolicy:\n  retry:\n    attempts: 0")
        .start()
        .await;
    let client = http1();
    for number in 0_u32..20 {
        let body = chat("sim", "hello", 1, number.is_multiple_of(2));
        let fault = Some("keepalive-close");
        let answer = ask(&client, &gateway.url(""), "x", fault, &body).await;
        assert_eq!((answer.status, answer.complete), (200, true), "{number}");
    }
}

#[tokio::test]
async fn a_target_without_a_usable_endpoint_leaves_its_share_to_the_others() {
    let (dead, alive) = (engine(), engine());
    dead.set_fault(Some(Fault::Refuse));
    let routes = model_server("canary", &[dead.addr()], "")
        + &model_server("stable", &[alive.addr()], "")
        + &model_route("sim", "sim", &[("canary", 60), ("stable", 40)]);
    let gateway = Gateway::builder(routes).start().await;
    let client = http1();
    for number in 0..60 {
        let body = chat("sim", "hello", 1, false);
        let answer = ask(&client, &gateway.url(""), "x", None, &body).await;
        assert_eq!(answer.status, 200, "{number}");
    }
    let metrics = gateway.metrics().await;
    let skipped = |server: &str| {
        let label = format!("server=\"default/{server}\"");
        sample(&metrics, "sluice_target_skipped_total", &[&label])
    };
    assert!(skipped("canary") >= 30.0, "{metrics}");
    assert_eq!(skipped("stable"), 0.0);
}

#[tokio::test]
async fn an_engine_that_comes_back_gets_traffic_again() {
    let first = engine();
    let (second, address) = (engine(), first.addr());
    let gateway = pool(&[&first, &second], "").start().await;
    first.stop();
    let client = http1();
    let request = || async {
        let body = chat("sim", "hello", 1, false);
        let answer = ask(&client, &gateway.url(""), "x", None, &body).await;
        assert_eq!(answer.status, 200);
    };
    for _ in 0..20 {
        request().await;
    }
    assert_eq!(second.requests().received, 20);
    let mut options = EngineOptions::instant("sim");
    options.listen = address;
    let first = EngineServer::start(options).expect("the port is free again");
    wait_until("the engine is found to be back", || async {
        request().await;
        first.requests().received > 0
    })
    .await;
    let (first_before, second_before) = (first.requests().received, second.requests().received);
    for _ in 0..40 {
        request().await;
    }
    let (first_share, second_share) = (
        first.requests().received - first_before,
        second.requests().received - second_before,
    );
    assert_eq!(first_share + second_share, 40);
    assert!(first_share >= 8, "{first_share} of 40: a full share again");
}
