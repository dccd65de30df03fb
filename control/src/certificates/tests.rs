//! Issue, renewal and overlap by an injected clock; handshakes for real, over loopback.

use std::sync::Mutex;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::leader::{Elector, Leadership, Terms};
use crate::testing::{ApiServer, Mode};

const SECRET: &str = "/api/v1/namespaces/sluice/secrets/sluice-control-ca";
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A clock to be set.
#[derive(Clone)]
struct TestClock(Arc<Mutex<SystemTime>>);

impl TestClock {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(SystemTime::now())))
    }

    fn clock(&self) -> Clock {
        let time = self.0.clone();
        Arc::new(move || *time.lock().unwrap())
    }

    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }

    fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

fn names() -> Names {
    let mut names = Names::of_service("sluice-control", "sluice", "cluster.local");
    names.add("127.0.0.1");
    names
}

/// A replica's certificates.
struct Replica {
    managed: SelfManaged,
    resolver: Arc<Resolver>,
    trust: watch::Receiver<Option<Trust>>,
}

impl Replica {
    fn new(server: &ApiServer, clock: &TestClock, leadership: Leadership) -> Self {
        let resolver = Arc::new(Resolver::default());
        let (managed, trust) = SelfManaged::new(
            SecretStore::new(server.client(), "sluice", "sluice-control-ca"),
            leadership,
            names(),
            Lifetimes::default(),
            clock.clock(),
            resolver.clone(),
        );
        Self {
            managed,
            resolver,
            trust,
        }
    }

    fn leader(server: &ApiServer, clock: &TestClock) -> Self {
        Self::new(server, clock, Leadership::always())
    }

    fn follower(server: &ApiServer, clock: &TestClock) -> Self {
        let (_, leadership) = Elector::new(
            server.client(),
            "sluice",
            "lease",
            "follower".into(),
            Terms::default(),
        );
        Self::new(server, clock, leadership)
    }

    fn bundle(&self) -> String {
        let trust = self.trust.borrow();
        trust.as_ref().expect("a bundle").bundle.clone()
    }

    fn serving(&self) -> Validity {
        self.resolver.validity().borrow().expect("a certificate")
    }

    /// Can a client that trusts `bundle` connect by `name` at the time of `clock`?
    async fn accepts(&self, bundle: &str, name: &'static str, clock: &TestClock) -> bool {
        let config = server_config(self.resolver.clone(), None, &["h2", "http/1.1"]).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            acceptor.accept(stream).await
        };
        let connector = TlsConnector::from(Arc::new(client(bundle, clock)));
        let name = ServerName::try_from(name).unwrap();
        let client = async {
            let stream = TcpStream::connect(address).await.unwrap();
            connector.connect(name, stream).await
        };
        let (server, client) = tokio::join!(server, client);
        server.is_ok() && client.is_ok()
    }
}

/// Verifies by a clock of ours.
#[derive(Debug)]
struct At(SystemTime);

impl rustls::time_provider::TimeProvider for At {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(rustls::pki_types::UnixTime::since_unix_epoch(since))
    }
}

fn client(bundle: &str, clock: &TestClock) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_details(provider, Arc::new(At(clock.now())))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn count(bundle: &str) -> usize {
    bundle.matches("BEGIN CERTIFICATE").count()
}

#[tokio::test]
async fn the_leader_makes_an_authority_and_every_replica_serves_by_it() {
    let (server, clock) = (ApiServer::new(), TestClock::new());
    let mut follower = Replica::follower(&server, &clock);
    follower.managed.turn().await;
    assert!(follower.trust.borrow().is_none(), "followers only read");
    assert_eq!(server.writes(), 0);

    let mut leader = Replica::leader(&server, &clock);
    leader.managed.turn().await;
    follower.managed.turn().await;
    assert_eq!(leader.bundle(), follower.bundle());
    for replica in [&leader, &follower] {
        for name in [
            "sluice-control.sluice.svc",
            "sluice-control.sluice",
            "127.0.0.1",
        ] {
            assert!(
                replica.accepts(&leader.bundle(), name, &clock).await,
                "{name}"
            );
        }
        assert!(!replica.accepts(&leader.bundle(), "other.svc", &clock).await);
    }
    let other = Authority::generate(clock.now(), DAY).unwrap();
    assert!(
        !leader
            .accepts(other.certificate(), "127.0.0.1", &clock)
            .await
    );
}

#[tokio::test]
async fn a_serving_certificate_is_renewed_at_two_thirds_of_its_life() {
    let (server, clock) = (ApiServer::new(), TestClock::new());
    let mut leader = Replica::leader(&server, &clock);
    let wait = leader.managed.turn().await;
    assert!(wait <= Duration::from_secs(600));
    let first = leader.serving();
    clock.advance(15 * HOUR);
    leader.managed.turn().await;
    assert_eq!(leader.serving(), first);
    clock.advance(HOUR);
    leader.managed.turn().await;
    assert!(leader.serving().until > first.until);
    assert_eq!(server.writes(), 1, "the authority stays");
}

#[tokio::test]
async fn a_new_authority_is_trusted_before_it_signs_and_the_old_one_for_as_long_as_it_is_good() {
    let (server, clock) = (ApiServer::new(), TestClock::new());
    let mut leader = Replica::leader(&server, &clock);
    leader.managed.turn().await;
    let old = leader.bundle();
    clock.advance(60 * DAY);
    leader.managed.turn().await;
    let both = leader.bundle();
    assert_eq!((count(&old), count(&both)), (1, 2));
    assert!(both.contains(&old));

    // Clients that have not seen the new bundle yet go on.
    assert!(leader.accepts(&old, "127.0.0.1", &clock).await);
    clock.advance(HOUR);
    leader.managed.turn().await;
    assert!(!leader.accepts(&old, "127.0.0.1", &clock).await);
    assert!(leader.accepts(&both, "127.0.0.1", &clock).await);

    clock.advance(30 * DAY);
    leader.managed.turn().await;
    assert_eq!(count(&leader.bundle()), 1);
    assert!(!leader.bundle().contains(&old));
    let data = server.object(SECRET).unwrap()["data"].clone();
    assert!(data.get("previous.crt").is_none() && data.get("tls.key").is_some());
}

#[tokio::test]
async fn rotation_goes_on_for_years_and_a_fresh_client_always_connects() {
    let (server, clock) = (ApiServer::new(), TestClock::new());
    let mut leader = Replica::leader(&server, &clock);
    let mut follower = Replica::follower(&server, &clock);
    for hour in 0..(24 * 365) {
        if hour % 8 == 0 {
            leader.managed.turn().await;
            follower.managed.turn().await;
        }
        if hour % (24 * 7) == 0 {
            let bundle = leader.bundle();
            assert!(count(&bundle) <= 2);
            assert!(
                follower.accepts(&bundle, "127.0.0.1", &clock).await,
                "{hour} h"
            );
        }
        clock.advance(HOUR);
    }
    // 365 days, one each 60, and one write each to forget the one before.
    assert!((7..=14).contains(&server.writes()), "{}", server.writes());
}

#[tokio::test]
async fn a_secret_that_is_deleted_or_damaged_gets_a_successor_that_clients_of_the_old_one_know() {
    let (server, clock) = (ApiServer::new(), TestClock::new());
    let mut leader = Replica::leader(&server, &clock);
    leader.managed.turn().await;
    let first = leader.bundle();
    server.delete_at(SECRET);
    leader.managed.turn().await;
    let second = leader.bundle();
    assert!(second.contains(&first) && count(&second) == 2);

    let mut secret = server.object(SECRET).unwrap();
    secret["data"]["tls.key"] = "bm90IGEga2V5".into();
    server.put_at(SECRET, secret);
    leader.managed.turn().await;
    assert_eq!(count(&leader.bundle()), 2);
    assert!(leader.accepts(&second, "127.0.0.1", &clock).await);

    // One that has just started has nothing to remember; the chart makes the Secret empty.
    server.put_at(
        SECRET,
        serde_json::json!({ "metadata": { "name": "sluice-control-ca", "labels": { "a": "b" } } }),
    );
    let mut next = Replica::leader(&server, &clock);
    next.managed.turn().await;
    assert_eq!(count(&next.bundle()), 1);
    assert_eq!(
        server.object(SECRET).unwrap()["metadata"]["labels"]["a"],
        "b"
    );
}

#[tokio::test]
async fn of_two_that_write_at_once_one_wins_and_both_end_with_the_same() {
    let (server, clock) = (ApiServer::new(), TestClock::new());
    let mut one = Replica::leader(&server, &clock);
    let mut two = Replica::leader(&server, &clock);
    tokio::join!(one.managed.turn(), two.managed.turn());
    one.managed.turn().await;
    two.managed.turn().await;
    assert_eq!(one.bundle(), two.bundle());
    assert_eq!(server.writes(), 1);
}

#[tokio::test]
async fn without_the_api_server_the_known_authority_goes_on_signing() {
    let (server, clock) = (ApiServer::new(), TestClock::new());
    let mut replica = Replica::follower(&server, &clock);
    Replica::leader(&server, &clock).managed.turn().await;
    replica.managed.turn().await;
    let first = replica.serving();
    server.set(Mode::Failing(503));
    clock.advance(20 * HOUR);
    replica.managed.turn().await;
    assert!(replica.serving().until > first.until);
    assert!(
        replica
            .accepts(&replica.bundle(), "127.0.0.1", &clock)
            .await
    );
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_says_nothing_is_not_waited_for_for_ever() {
    let (server, clock) = (ApiServer::new(), TestClock::new());
    let mut leader = Replica::leader(&server, &clock);
    leader.managed.turn().await;
    let first = leader.serving();
    server.set(Mode::Silent);
    clock.advance(20 * HOUR);
    leader.managed.turn().await;
    assert!(leader.serving().until > first.until);
}

#[test]
fn an_authority_whose_key_is_another_s_is_refused() {
    let now = SystemTime::now();
    let (one, two) = (
        Authority::generate(now, DAY).unwrap(),
        Authority::generate(now, DAY).unwrap(),
    );
    let mixed = Authority::from_pem(one.certificate(), two.key());
    assert!(matches!(mixed, Err(CertificateError::Mismatch)));
    assert!(Authority::from_pem("", one.key()).is_err());
    assert!(Authority::from_pem(one.certificate(), "").is_err());
    let debug = format!("{one:?}");
    assert!(!debug.contains("PRIVATE"), "{debug}");
}

#[tokio::test]
async fn files_are_read_again_when_they_change_and_bad_ones_leave_the_last_good() {
    let clock = TestClock::new();
    let folder = tempfile::tempdir().unwrap();
    let files = CertificateFiles {
        certificate: folder.path().join("tls.crt"),
        key: folder.path().join("tls.key"),
        authority: Some(folder.path().join("ca.crt")),
    };
    let resolver = Arc::new(Resolver::default());
    let (mut reader, trust) = FileCertificates::new(files.clone(), clock.clock(), resolver.clone());
    reader.look().await;
    assert!(resolver.validity().borrow().is_none(), "nothing there yet");

    let write = |life: Duration| {
        let (certificate, key, authority) = leaf(clock.now(), life);
        std::fs::write(&files.certificate, certificate).unwrap();
        std::fs::write(&files.key, key).unwrap();
        std::fs::write(files.authority.as_ref().unwrap(), &authority).unwrap();
        authority
    };
    let first = write(DAY);
    reader.look().await;
    assert_eq!(trust.borrow().as_ref().unwrap().bundle, first);
    let good = *resolver.validity().borrow();

    std::fs::write(&files.key, "half a ke").unwrap();
    reader.look().await;
    let (_, stranger, _) = leaf(clock.now(), DAY);
    std::fs::write(&files.key, stranger).unwrap();
    reader.look().await;
    assert_eq!(*resolver.validity().borrow(), good);
    assert_eq!(trust.borrow().as_ref().unwrap().bundle, first);

    let second = write(2 * DAY);
    reader.look().await;
    assert!(resolver.validity().borrow().unwrap().until > good.unwrap().until);
    assert_eq!(trust.borrow().as_ref().unwrap().bundle, second);

    write(HOUR);
    clock.advance(2 * HOUR);
    reader.look().await;
    assert!(
        resolver.validity().borrow().unwrap().until > clock.now(),
        "expired ones are refused"
    );
}

/// A leaf as others make it: certificate, key, authority.
fn leaf(now: SystemTime, life: Duration) -> (String, String, String) {
    let authority = Authority::generate(now, life).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["sluice-control".to_owned()]).unwrap();
    super::authority::set_validity(&mut params, Validity::starting(now, life));
    let certificate = params.signed_by(&key, authority.issuer()).unwrap();
    let authority = authority.certificate().to_owned();
    (certificate.pem(), key.serialize_pem(), authority)
}

#[test]
fn names_are_sorted_into_addresses_and_others_once() {
    let mut names = Names::of_service("control", "ns", "cluster.local");
    assert_eq!(names.dns[3], "control.ns.svc.cluster.local");
    for name in ["10.0.0.1", "[::1]", "::1", "localhost", "localhost", ""] {
        names.add(name);
    }
    assert_eq!(names.addresses.len(), 2);
    assert_eq!(names.dns.len(), 5);
}

#[tokio::test]
async fn authorities_of_clients_are_read_again_and_bad_ones_leave_the_last_good() {
    let clock = TestClock::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clients.crt");
    let resolver = Arc::new(Resolver::default());
    std::fs::write(&path, "nothing").unwrap();
    assert!(ClientAuthorities::new(path.clone(), resolver.clone()).is_err());

    let write = || {
        let authority = Authority::generate(clock.now(), DAY).unwrap();
        std::fs::write(&path, authority.certificate()).unwrap();
    };
    write();
    let (mut reader, mut settings) = ClientAuthorities::new(path.clone(), resolver).unwrap();
    reader.look().await;
    assert!(!settings.has_changed().unwrap());
    write();
    reader.look().await;
    assert!(settings.has_changed().unwrap());
    settings.mark_unchanged();
    std::fs::write(&path, "-----BEGIN CERT").unwrap();
    reader.look().await;
    std::fs::remove_file(&path).unwrap();
    reader.look().await;
    assert!(!settings.has_changed().unwrap());
}
