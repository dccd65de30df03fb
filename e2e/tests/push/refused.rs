//! What is wrong on the stream: a NACK that says what, while all that is right is in force.

use sluice_config::push::{DocumentMessage, ResourceType};
use sluice_e2e::harness::client::sample;
use sluice_e2e::harness::control::{end, resource, response};
use sluice_e2e::harness::pushed::{self, Pod, route, server};

use crate::bed::{Bed, engine};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nack_names_the_resource_the_field_and_the_remedy_and_the_last_good_stays() {
    let engine = engine(|_| {});
    let mut bed = Bed::new().await;
    bed.push([
        server("pool"),
        Pod::new("a", engine.addr(), &["pool"]).upsert(),
        route("sim", "sim", &[("pool", 1)]),
    ])
    .await;
    let answers = bed
        .push([
            route("sim", "sim", &[("pool", 0)]),
            Pod::new("b", engine.addr(), &["pool"])
                .with(|message| message.host = "nowhere".into())
                .upsert(),
            route("more", "more", &[("pool", 1)]),
        ])
        .await;
    let mut told: Vec<_> = answers
        .rejections
        .iter()
        .map(|one| (&*one.name, &*one.path, &*one.message))
        .collect();
    told.sort_unstable();
    let pod = format!("default/b:{}", engine.addr().port());
    assert_eq!(
        told,
        [
            (pod.as_str(), "host", "\"nowhere\" is not an IP address"),
            (
                "default/sim",
                "spec.rules[0].targetModels",
                "the weights of the targets add up to zero"
            ),
        ]
    );
    assert!(answers.rejections.iter().all(|one| !one.remedy.is_empty()));
    assert_eq!(
        bed.ask("sim").await.status,
        200,
        "the last good version serves"
    );
    let models = bed
        .client
        .get(bed.gateway.url("/v1/models"))
        .send()
        .await
        .unwrap();
    assert!(
        models.text().await.unwrap().contains("more"),
        "the rest is in force"
    );
    let push = &bed.debug("/debug/config").await["push"];
    assert_eq!(push["refused"].as_array().unwrap().len(), 2, "{push}");
    assert_eq!(
        sample(&bed.gateway.metrics().await, "sluice_push_rejected", &[]),
        2.0
    );
    let answers = bed.push([route("sim", "sim", &[("pool", 7)])]).await;
    assert!(answers.rejections.is_empty());
    assert_eq!(
        sample(&bed.gateway.metrics().await, "sluice_push_rejected", &[]),
        1.0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_answered_and_the_stream_goes_on() {
    let mut bed = Bed::new().await;
    let mut broken = resource(&server("broken"));
    broken.resource.as_mut().unwrap().value = vec![0xff; 50];
    let good = resource(&server("good"));
    let mut unnamed = good.clone();
    unnamed.name = "default/other".into();
    let text = DocumentMessage {
        json: "[".repeat(100_000),
    };
    let deep = resource(&pushed::resource(
        ResourceType::ModelServer,
        "default/deep",
        &text,
    ));
    let servers = vec![broken, good.clone(), good, unnamed, deep];
    let mut unknown = response(ResourceType::Peer, Vec::new());
    unknown.type_url = "type.googleapis.com/of.the.Future".into();
    let nonces = vec![
        bed.stream
            .send(response(ResourceType::ModelServer, servers))
            .await,
        bed.stream.send(unknown).await,
        bed.stream.send(end(1)).await,
    ];
    let answers = bed.stream.answers(nonces).await;
    let names: Vec<&str> = answers.rejections.iter().map(|one| &*one.name).collect();
    assert_eq!(
        names,
        [
            "default/good",
            "default/broken",
            "default/other",
            "default/deep",
            ""
        ],
        "{answers:#?}"
    );
    let shown = bed.debug("/debug/config").await;
    assert_eq!(shown["servers"].as_array().unwrap().len(), 1);
    assert_eq!(shown["servers"][0]["name"], "default/good");
    // An end that cannot be read ends a batch all the same.
    let wrong = response(ResourceType::Batch, Vec::new());
    let nonces = vec![bed.stream.send(wrong).await];
    assert_eq!(bed.stream.answers(nonces).await.rejections.len(), 1);
    assert!(bed.push([server("next")]).await.rejections.is_empty());
}
