//! What one replica tells another: who may hear it, and that it is what gateways have said.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sluice_config::bootstrap::ControlAddress;
use sluice_config::push::ResourceType;
use sluice_control::authenticate::Authenticator;
use sluice_control::grants::Grants;
use sluice_control::leader::Leadership;
use sluice_control::replicas::{Book, Replicas, ReplicasParams};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::bed::{Bed, Options};
use crate::security::reviewer;

use ResourceType::ModelRoute;

/// A leader, and its listening to all of `beds`, which may be one of them itself.
struct Leader {
    book: Arc<Book>,
    _listening: JoinSet<()>,
}

impl Leader {
    fn start(own: &Bed, beds: &[&Bed], token_file: Option<PathBuf>) -> Self {
        let address = |bed: &&Bed| ControlAddress::parse(&format!("http://{}", bed.address));
        let addresses: Result<_, _> = beds.iter().map(address).collect();
        let book = Arc::new(Book::new(own.push.instance(), own.push.acks().clone()));
        let params = ReplicasParams {
            addresses: addresses.unwrap(),
            token_file,
            trust: watch::channel(None).1,
        };
        let replicas = Replicas::new(params, Leadership::always(), book.clone());
        let mut listening = JoinSet::new();
        listening.spawn(replicas.run());
        Self {
            book,
            _listening: listening,
        }
    }

    async fn until(&self, what: &str, so: impl Fn(&Book) -> bool) {
        let mut changed = self.book.changed();
        let waiting = async {
            while !so(&self.book) {
                changed.changed().await.unwrap();
            }
        };
        let waited = timeout(Duration::from_secs(20), waiting).await;
        assert!(waited.is_ok(), "waited in vain until {what}");
    }

    /// Gateways elsewhere that are sent this version of the route, and those that have it.
    fn says(book: &Book, version: &str) -> (usize, usize) {
        let programmed = book.programmed(ModelRoute, "a/r", version).programmed;
        (programmed.connected, programmed.acknowledged)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_knows_what_gateways_of_other_replicas_have_and_counts_its_own_once() {
    let (own, other) = (Bed::start().await, Bed::start().await);
    for bed in [&own, &other] {
        bed.apply(&[(ModelRoute, "a/r", "x")]);
    }
    let version = own.version(ModelRoute, "a/r");
    let _here = own.synced_gateway("here").await;
    let mut there = other.synced_gateway("there").await;
    let leader = Leader::start(&own, &[&own, &other], None);
    // In any order: the other replica is heard before this one or after it, and before or after its gateway's answer.
    leader.until("all are heard", Book::is_settled).await;
    let has = |book: &Book| Leader::says(book, &version) == (1, 1);
    leader.until("the other gateway is known", has).await;
    assert_eq!(
        leader.book.counts(),
        [("followed", 1), ("unreachable", 0)],
        "itself is none of the others"
    );

    // A version that is new here is not there before it is there, too.
    own.apply(&[(ModelRoute, "a/r", "y")]);
    let newer = own.version(ModelRoute, "a/r");
    assert_eq!(Leader::says(&leader.book, &newer), (1, 0));
    other.apply(&[(ModelRoute, "a/r", "y")]);
    there.follow().await;
    let has = |book: &Book| Leader::says(book, &newer) == (1, 1);
    leader.until("the other gateway has it, too", has).await;

    drop(there);
    let gone = |book: &Book| Leader::says(book, &newer) == (0, 0);
    leader.until("the other gateway is gone", gone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_replicas_hear_what_gateways_have_acknowledged() {
    let options = Options {
        authenticator: Authenticator::new(Some(reviewer())),
        grants: Grants::parse(&["gateway=*".into()], "sluice-system").unwrap(),
        ..Options::default()
    };
    let (own, other) = (Bed::start().await, Bed::with(options).await);
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    // One that may see every resource is no replica for that.
    std::fs::write(&token, "token-of-gateway").unwrap();
    let leader = Leader::start(&own, &[&other], Some(token.clone()));
    leader.until("it was refused", Book::is_settled).await;
    assert_eq!(leader.book.counts()[0], ("followed", 0));

    let replica = "token-of-system:serviceaccount:sluice-system:sluice-control\n";
    std::fs::write(&token, replica).unwrap();
    let followed = |book: &Book| book.counts()[0] == ("followed", 1);
    leader.until("the new token is good", followed).await;
}
