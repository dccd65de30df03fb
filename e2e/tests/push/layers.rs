//! Routes of a file beside pushed ones.

use sluice_config::push::ResourceType;
use sluice_e2e::harness::control::Pushed;
use sluice_e2e::harness::pushed::{Pod, route, server};
use sluice_e2e::harness::{model_route, model_server};

use crate::bed::{Bed, engine};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_go_before_what_is_pushed_and_may_point_at_it() {
    let (own, pushed) = (engine(|_| {}), engine(|_| {}));
    let file = model_server("own", &[own.addr()], "")
        + &model_route("file", "sim", &[("own", 1)])
        + &model_route("across", "sim", &[("pushed", 1)]);
    let mut bed = Bed::with(&file, |_| {}).await;
    assert_eq!(bed.readiness().await, 200, "the file is enough");
    bed.push([
        server("pushed"),
        server("own"),
        Pod::new("a", pushed.addr(), &["pushed"]).upsert(),
        route("sim", "sim", &[("pushed", 1)]),
    ])
    .await;
    for _ in 0..5 {
        assert_eq!(bed.ask("sim").await.status, 200);
    }
    assert_eq!(
        (own.requests().received, pushed.requests().received),
        (5, 0)
    );
    let shown = bed.debug("/debug/config").await;
    let names: Vec<&str> = shown["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| route["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["default/file", "default/across", "default/sim"]);
    let problems = shown["problems"].to_string();
    assert!(
        problems.contains("it is hidden by the document of the same name"),
        "{problems}"
    );
    // Without its first route, the file's other one takes the pushed pool.
    let rest =
        model_server("own", &[own.addr()], "") + &model_route("across", "sim", &[("pushed", 1)]);
    bed.gateway.replace_routes(&rest).await;
    assert_eq!(bed.ask("sim").await.status, 200);
    assert_eq!(pushed.requests().received, 1);
    bed.push_batch(Pushed::removal(ResourceType::ModelServer, "default/pushed"))
        .await;
    assert_eq!(bed.ask("sim").await.status, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_requires_pushed_state_is_not_ready_with_a_file() {
    let engine = engine(|_| {});
    let file =
        model_server("own", &[engine.addr()], "") + &model_route("sim", "sim", &[("own", 1)]);
    let mut bed = Bed::with(&file, |bootstrap| {
        bootstrap.source.push.as_mut().unwrap().required = true;
    })
    .await;
    assert_eq!(bed.readiness().await, 503);
    assert_eq!(bed.ask("sim").await.status, 200, "it serves whoever asks");
    bed.push([]).await;
    assert_eq!(bed.readiness().await, 200);
}
