//! Gateways that are slow, silent, too many or wrong, and a control process that comes and goes.

use std::time::{Duration, Instant};

use sluice_config::push::ResourceType;
use sluice_control::push::PushLimits;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::Endpoint as Channel;

use crate::bed::{Bed, LONG, Options, resource, seen_at};
use crate::gateway::Gateway;

use ResourceType::{Endpoint, ModelRoute};

/// Long enough to be told from at once, short enough to be waited for.
const SHORT: Duration = Duration::from_millis(150);

#[tokio::test]
async fn before_the_cluster_is_read_a_gateway_keeps_what_it_has() {
    let options = Options {
        synced: false,
        ..Options::default()
    };
    let bed = Bed::with(options).await;
    let refused = Gateway::connect(bed.address, "one").await.err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("not synced yet"), "{refused}");
    bed.state.mark_synced();
    bed.synced_gateway("one").await;
}

#[tokio::test]
async fn a_gateway_that_never_answers_is_disconnected_with_words() {
    let limits = PushLimits {
        answer_timeout: SHORT,
        ..PushLimits::default()
    };
    let bed = Bed::limited(limits).await;
    let mut gateway = bed.gateway("one").await;
    gateway.subscribe_to_all().await;
    gateway.collect().await;
    let end = gateway.end().await;
    assert_eq!(end.code(), Code::DeadlineExceeded);
    assert!(end.message().contains("not answered for 0.15 s"), "{end}");
    bed.until(|bed| bed.push.acks().connected() == 0).await;
}

#[tokio::test]
async fn a_gateway_that_does_not_read_is_disconnected_too() {
    let limits = PushLimits {
        answer_timeout: SHORT,
        ..PushLimits::default()
    };
    let bed = Bed::limited(limits).await;
    let upserts = (0..400).map(|number| {
        let name = format!("a/p{number}:1");
        resource(Endpoint, &name, &[b'x'; 50_000])
    });
    bed.state.apply(sluice_control::state::Change {
        upserts: upserts.collect(),
        removals: vec![],
        seen_at: seen_at(),
    });
    let mut gateway = bed.gateway("one").await;
    gateway.subscribe_to_all().await;
    bed.until(|bed| bed.push.acks().connected() == 1).await;
    bed.until(|bed| bed.push.acks().connected() == 0).await;
    // 20 MB were never all in the air.
    let mut received = 0;
    while let Ok(Some(response)) = gateway.response().await {
        received += response.resources.len();
    }
    assert!(received < 400, "{received}");
}

#[tokio::test]
async fn a_stream_whose_subscriptions_do_not_end_is_told_nothing_and_ended() {
    let limits = PushLimits {
        opening_timeout: SHORT,
        ..PushLimits::default()
    };
    let bed = Bed::limited(limits).await;
    bed.apply(&[(ModelRoute, "a/1", "x")]);
    let mut silent = bed.gateway("one").await;
    let mut endless = bed.gateway("two").await;
    endless.subscribe(ModelRoute, &[]).await;
    for gateway in [&mut silent, &mut endless] {
        let end = gateway.response().await.unwrap_err();
        assert_eq!(end.code(), Code::DeadlineExceeded);
        assert!(end.message().contains("push.v1.Batch last"), "{end}");
    }
}

#[tokio::test]
async fn a_connection_without_a_stream_is_closed() {
    let limits = PushLimits {
        idle_timeout: SHORT,
        ..PushLimits::default()
    };
    let bed = Bed::limited(limits).await;
    let mut stream = TcpStream::connect(bed.address).await.unwrap();
    let mut read = Vec::new();
    timeout(LONG, stream.read_to_end(&mut read))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_stream_that_is_old_is_ended_so_that_its_credentials_are_seen_again() {
    let limits = PushLimits {
        max_age: SHORT,
        ..PushLimits::default()
    };
    let bed = Bed::limited(limits).await;
    let mut gateway = bed.gateway("one").await;
    gateway.subscribe_to_all().await;
    // How far it comes until then is left open.
    let end = gateway.end().await;
    assert_eq!(end.code(), Code::Unavailable);
    assert!(end.message().contains("authenticated anew"), "{end}");
}

#[tokio::test]
async fn whoever_falls_behind_the_log_comes_back_with_its_versions() {
    let options = Options {
        log_capacity: 2,
        ..Options::default()
    };
    let bed = Bed::with(options).await;
    bed.apply(&[(ModelRoute, "a/1", "0"), (ModelRoute, "a/2", "0")]);
    let mut gateway = bed.synced_gateway("one").await;
    bed.apply(&[(ModelRoute, "a/1", "1")]);
    let batch = gateway.collect().await;
    gateway.apply(&batch);
    for value in ["2", "3", "4"] {
        bed.apply(&[(ModelRoute, "a/1", value)]);
    }
    gateway.accept(&batch).await;
    let end = gateway.end().await;
    assert_eq!(end.code(), Code::Aborted);
    assert!(end.message().contains("too far behind"), "{end}");
    let has = gateway.disconnect();
    let mut gateway = bed.gateway("one").await;
    gateway.has = has;
    gateway.subscribe_to_all().await;
    let batch = gateway.follow().await;
    assert_eq!(batch.values(), [("a/1".to_owned(), "4".to_owned())]);
}

#[tokio::test]
async fn one_gateway_too_many_is_told_so_until_another_leaves() {
    let limits = PushLimits {
        max_proxies: 1,
        ..PushLimits::default()
    };
    let bed = Bed::limited(limits).await;
    let first = bed.synced_gateway("one").await;
    let refused = Gateway::connect(bed.address, "two").await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(first);
    bed.until(|bed| bed.push.acks().connected() == 0).await;
    let deadline = Instant::now() + LONG;
    while Gateway::connect(bed.address, "two").await.is_err() {
        assert!(Instant::now() < deadline, "the place stays taken");
    }
}

#[tokio::test]
async fn a_first_sync_that_is_not_answered_holds_up_others_for_its_turn_only() {
    let limits = PushLimits {
        max_first_syncs: 1,
        first_sync_turn: SHORT,
        ..PushLimits::default()
    };
    let bed = Bed::limited(limits).await;
    // The turn begins no earlier, however long what follows takes.
    let started = Instant::now();
    let mut first = bed.gateway("one").await;
    first.subscribe_to_all().await;
    first.collect().await;
    bed.synced_gateway("two").await;
    assert!(started.elapsed() >= SHORT, "{:?}", started.elapsed());
    // Its own stream goes on.
    assert_eq!(bed.push.acks().connected(), 2);
}

#[tokio::test]
async fn at_shutdown_gateways_are_sent_elsewhere_and_the_listener_ends() {
    let bed = Bed::start().await;
    let mut gateway = bed.synced_gateway("one").await;
    let mut late = bed.gateway("two").await;
    bed.shut_down();
    for gateway in [&mut gateway, &mut late] {
        let end = gateway.end().await;
        assert_eq!(end.code(), Code::Unavailable);
        assert!(end.message().contains("connect to another one"), "{end}");
    }
    let address = bed.address;
    bed.ended().await;
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    assert!(channel.connect().await.is_err());
}

#[tokio::test]
async fn a_gateway_without_a_name_or_with_too_many_wishes_is_told_what_is_wrong() {
    let limits = PushLimits {
        max_names: 2,
        ..PushLimits::default()
    };
    let bed = Bed::limited(limits).await;
    let mut nameless = bed.gateway("").await;
    nameless.subscribe_to_all().await;
    let end = nameless.end().await;
    assert_eq!(end.code(), Code::InvalidArgument);
    assert!(end.message().contains("node.id"), "{end}");
    let mut greedy = bed.gateway("two").await;
    greedy
        .subscribe(ResourceType::Secret, &["a/1", "a/2", "a/3"])
        .await;
    let end = greedy.end().await;
    assert_eq!(end.code(), Code::InvalidArgument);
    assert!(end.message().contains("more than 2 names"), "{end}");
}

#[tokio::test]
async fn a_request_that_is_too_large_ends_its_stream_alone() {
    let limits = PushLimits {
        max_request_bytes: 1000,
        ..PushLimits::default()
    };
    let bed = Bed::limited(limits).await;
    let mut other = bed.synced_gateway("one").await;
    let mut large = bed.gateway("two").await;
    large
        .subscribe(ResourceType::Secret, &["a".repeat(2000).as_str()])
        .await;
    assert_eq!(large.end().await.code(), Code::OutOfRange);
    bed.apply(&[(ModelRoute, "a/1", "x")]);
    assert_eq!(other.follow().await.upserts().len(), 1);
}
