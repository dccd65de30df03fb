use super::*;

#[test]
fn a_source_that_cannot_be_read_is_refused() {
    let followers = Followers::start(FollowParams::default()).unwrap();
    let source = EventSource {
        rank: None,
        endpoint: "inproc://x".to_owned(),
        replay: None,
        topic: String::new(),
        block_size: None,
        bind: false,
    };
    assert!(matches!(
        followers.follow(&source, Arc::new(Nobody)),
        Err(ZmtpError::Address(_))
    ));
}

#[test]
fn waits_double_up_to_a_bound() {
    let params = FollowParams::default();
    for failures in [0, 1, 7, 30, u32::MAX] {
        let wait = follower::backoff(&params, failures);
        assert!(wait >= params.min_backoff / 2 && wait <= params.max_backoff);
    }
    assert!(follower::backoff(&params, 30) >= params.max_backoff / 2);
}

struct Nobody;

impl EventSink for Nobody {
    fn apply(&self, _: Option<u32>, _: &KvEvent) {}
    fn clear(&self, _: Option<u32>) {}
    fn live(&self, _: bool) {}
}
