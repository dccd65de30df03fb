//! Whatever ends a request, its endpoint's counts go back to zero, and what failed is not thought to be cached.

use sluice_e2e::engine::{Fault, Profile};
use sluice_e2e::harness::client::{chat, http1, post, read};
use sluice_e2e::harness::wait_until;
use tokio::task::JoinSet;

use crate::bed::{Bed, engine, text, turns};

/// In flight, pending and context tokens of every endpoint.
fn loads(bed: &Bed) -> Vec<(u32, u64, u64)> {
    let serving = bed.gateway.running.gateway.serving.load();
    let members = serving.pools.iter().flat_map(|pool| pool.members.iter());
    let load = members.map(|member| member.endpoint.load.load());
    load.map(|load| (load.in_flight, load.pending_tokens, load.context_tokens))
        .collect()
}

async fn settled(bed: &Bed) {
    bed.gateway.settled().await;
    wait_until("no load is left", || async {
        loads(bed).iter().all(|&load| load == (0, 0, 0))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_streams_cancels_and_refusals_every_count_is_zero() {
    let paced = || {
        engine(|options| {
            options.event_interval = Some(std::time::Duration::from_millis(3));
        })
    };
    let bed = Bed::new(vec![paced(), paced(), paced()], "").await;
    bed.engines[2].set_fault(Some(Fault::Refuse));
    let faults = [
        None,
        Some("status:503"),
        Some("reset-mid-stream:3"),
        Some("close-mid-stream:2"),
        Some("early-close"),
        Some("garbage"),
        Some("no-usage"),
    ];
    let mut clients = JoinSet::new();
    for number in 0..84_usize {
        let url = bed.gateway.url("");
        let prompt = text(&format!("prompt {number}"), 1_000 + 100 * number);
        let body = chat("sim", &prompt, 20, number % 3 != 0);
        let fault = faults[number % faults.len()];
        clients.spawn(async move {
            let Ok(mut response) = post(&http1(), &url, "x", fault, &body).await else {
                return;
            };
            if number % 4 == 1 {
                // Gone in the middle, or before the first byte.
                if number % 8 == 1 {
                    response.chunk().await.ok();
                }
                return;
            }
            read(response).await;
        });
    }
    clients.join_all().await;
    settled(&bed).await;
    assert_eq!(loads(&bed), [(0, 0, 0); 3]);
    assert!(bed.received().iter().sum::<u64>() > 0);
}

/// Nothing tells when its prompt was prefilled: it is taken to be when that is due, long before the answer comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_prompt_of_an_answer_in_one_piece_is_not_pending_while_it_decodes() {
    let real = engine(|options| options.profile = Profile::H8B);
    let bed = Bed::new(vec![real], "").await;
    let (client, url) = (http1(), bed.gateway.url(""));
    let body = chat("sim", &text("whole", 4_000), 1_000, false);
    let answer = tokio::spawn(async move { post(&client, &url, "x", None, &body).await });
    wait_until("it decodes", || async {
        matches!(loads(&bed)[..], [(1, 0, context)] if context > 500)
    })
    .await;
    assert!(!answer.is_finished(), "a thousand tokens take nine seconds");
    answer.abort();
    settled(&bed).await;
}

#[tokio::test]
async fn what_failed_is_not_thought_to_be_cached() {
    let bed = Bed::new(vec![engine(|_| {}), engine(|_| {})], "").await;
    for (number, fault) in ["status:500", "early-close", "garbage"].iter().enumerate() {
        let body = turns(&[&text(&format!("failing {number}"), 8_000)]);
        let answer = post(&http1(), &bed.gateway.url(""), "x", Some(fault), &body).await;
        assert!(read(answer.unwrap()).await.status >= 500, "{fault}");
        settled(&bed).await;
        assert_eq!(bed.cached(&body).await, [0, 0], "{fault}");
    }
    for engine in &bed.engines {
        engine.set_fault(Some(Fault::Refuse));
    }
    let body = turns(&[&text("refused", 8_000)]);
    let answer = post(&http1(), &bed.gateway.url(""), "x", None, &body).await;
    assert!(read(answer.unwrap()).await.status >= 500);
    settled(&bed).await;
    assert_eq!(bed.cached(&body).await, [0, 0]);
}

#[tokio::test]
async fn a_prompt_is_not_thought_to_be_cached_when_its_client_left_before_the_first_token() {
    let bed = Bed::new(vec![engine(|_| {}), engine(|_| {})], "").await;
    let body = turns(&[&text("left", 8_000)]);
    let (client, url) = (http1(), bed.gateway.url(""));
    let asked = body.clone();
    let request = tokio::spawn(async move {
        post(&client, &url, "x", Some("hang-before-headers"), &asked)
            .await
            .ok();
    });
    wait_until("the engine has it", || async {
        bed.received().iter().sum::<u64>() == 1
    })
    .await;
    // While it runs, followers are to go there.
    assert!(bed.cached(&body).await.iter().any(|&cached| cached > 0));
    request.abort();
    settled(&bed).await;
    assert_eq!(bed.cached(&body).await, [0, 0]);
}
