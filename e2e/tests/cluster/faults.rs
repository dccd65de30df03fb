//! The rig's faults: what a client of the API server meets on the detour, and pods whose cable is pulled.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::ListParams;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use sluice_e2e::cluster::client::{Credential, token};
use sluice_e2e::cluster::faults::{Detour, Gone, Link};
use sluice_e2e::cluster::{Look, Namespace, eventually, on_cluster};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const READER: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [''], resources: [configmaps], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader}]
";

/// Someone who watches the ConfigMaps of a namespace over a detour.
struct Watcher {
    detour: Detour,
    client: Client,
    store: Store<ConfigMap>,
    namespace: Namespace,
    _task: JoinSet<()>,
}

impl Watcher {
    async fn start(namespace: Namespace) -> Result<Self> {
        namespace.apply(READER).await?;
        let detour = Detour::start(namespace.cluster().plane()).await?;
        let name = namespace.name();
        let token = token(&namespace.client(), name, "reader", None).await?;
        let client = detour.access().client(&Credential::Token(token)).await?;
        let (store, writer) = reflector::store();
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), name);
        let events = watcher(maps, watcher::Config::default());
        let mut events = events.default_backoff().reflect(writer).boxed();
        let mut task = JoinSet::new();
        task.spawn(async move { while events.next().await.is_some() {} });
        let watcher = Self {
            detour,
            client,
            store,
            namespace,
            _task: task,
        };
        watcher.learns_of("first").await?;
        Ok(watcher)
    }

    async fn make(&self, name: &str) -> Result<()> {
        let map = format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}}}");
        self.namespace.apply(&map).await?;
        Ok(())
    }

    fn knows(&self) -> BTreeSet<String> {
        let state = self.store.state();
        state.iter().map(|map| map.name_any()).collect()
    }

    async fn sees(&self, name: &str) -> Result<()> {
        eventually(&format!("{name} is seen"), || async {
            let known = self.knows();
            Ok(Look::when(known.contains(name), known))
        })
        .await
    }

    async fn learns_of(&self, name: &str) -> Result<()> {
        self.make(name).await?;
        self.sees(name).await
    }

    fn requests(&self, watches: bool) -> usize {
        let requests = self.detour.requests().into_iter();
        requests
            .filter(|request| request.watches() == watches)
            .count()
    }

    async fn waits_for_requests(&self, watches: bool, count: usize) -> Result<()> {
        eventually("more is asked", || async {
            let seen = self.requests(watches);
            Ok(Look::when(seen >= count, seen))
        })
        .await
    }

    async fn list(&self) -> kube::Result<usize> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace.name());
        Ok(maps.list(&ListParams::default()).await?.items.len())
    }
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_watch_survives_a_network_that_is_cut_closed_and_held() {
    on_cluster("cut", |namespace| async move {
        let watcher = Watcher::start(namespace).await?;
        let link = watcher.detour.link();
        link.cut();
        watcher.learns_of("after-a-cut").await?;
        link.break_off();
        let error = watcher.list().await.err().context("nobody is there")?;
        ensure!(!matches!(error, kube::Error::Api(_)), "{error}");
        watcher.make("unheard").await?;
        link.close(false);
        watcher.sees("unheard").await?;
        link.hold(true);
        watcher.make("held").await?;
        let answer = tokio::time::timeout(Duration::from_millis(300), watcher.list()).await;
        ensure!(answer.is_err(), "a held link answered: {answer:?}");
        ensure!(!watcher.knows().contains("held"), "it passed");
        link.hold(false);
        watcher.sees("held").await
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn answers_are_late_or_refused_while_the_server_is_overrun() {
    on_cluster("overrun", |namespace| async move {
        let watcher = Watcher::start(namespace).await?;
        let detour = &watcher.detour;
        detour.delay(Duration::from_millis(200));
        let began = Instant::now();
        watcher.list().await?;
        ensure!(began.elapsed() >= Duration::from_millis(200), "it is late");
        detour.delay(Duration::ZERO);
        detour.overrun(Some(Duration::from_secs(1)));
        let before = detour.requests().len();
        let began = Instant::now();
        // kube tries again by itself, when it was told to.
        let list = async {
            let answer = watcher.list().await;
            (answer, began.elapsed())
        };
        let relief = async {
            eventually("the list is refused", || async {
                let requests = detour.requests();
                let lists = requests[before..].iter().filter(|it| !it.watches());
                let answers: Vec<u16> = lists.map(|it| it.status).collect();
                Ok(Look::when(answers.contains(&429), answers))
            })
            .await?;
            detour.overrun(None);
            anyhow::Ok(())
        };
        let ((answer, took), relieved) = tokio::join!(list, relief);
        relieved?;
        if answer.is_ok() {
            ensure!(took >= Duration::from_millis(900), "not after {took:?}");
        }
        watcher.learns_of("after-the-rush").await
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_watch_is_told_410_by_event_and_by_status() {
    on_cluster("gone", |namespace| async move {
        let watcher = Watcher::start(namespace).await?;
        let lists = watcher.requests(false);
        watcher.detour.forget(Some(Gone::Event));
        watcher.waits_for_requests(false, lists + 1).await?;
        watcher.detour.forget(None);
        watcher.learns_of("by-event").await?;
        // By status, kube's watcher tries the same version again: the rig only answers.
        watcher.detour.forget(Some(Gone::Status));
        eventually("a watch is refused", || async {
            let requests = watcher.detour.requests();
            let refused = requests.iter().any(|request| request.status == 410);
            Ok(Look::when(refused, refused))
        })
        .await?;
        watcher.detour.forget(None);
        watcher.learns_of("by-status").await?;
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn watches_that_end_are_begun_anew_and_miss_nothing() {
    on_cluster("ends", |namespace| async move {
        let watcher = Watcher::start(namespace).await?;
        let lists = watcher.requests(false);
        let watches = watcher.requests(true);
        watcher
            .detour
            .limit_watches(Some(Duration::from_millis(100)));
        for count in 1..4 {
            watcher.waits_for_requests(true, watches + count).await?;
            watcher.learns_of(&format!("number-{count}")).await?;
        }
        ensure!(watcher.requests(false) == lists, "nothing is listed again");
        Ok(())
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_server_that_is_behind_shows_what_was_until_it_catches_up() {
    on_cluster("behind", |namespace| async move {
        let watcher = Watcher::start(namespace).await?;
        let lists = watcher.requests(false);
        watcher.detour.forget(Some(Gone::Event));
        watcher.waits_for_requests(false, lists + 1).await?;
        watcher.detour.forget(None);
        // Perhaps known from one more list; from then on it watches.
        watcher.learns_of("listed").await?;
        watcher.learns_of("watched").await?;
        watcher.detour.stay_behind(true);
        watcher.make("unknown").await?;
        eventually("the past is back", || async {
            let known = watcher.knows();
            Ok(Look::when(!known.contains("watched"), known))
        })
        .await?;
        watcher.detour.stay_behind(false);
        watcher.sees("watched").await?;
        watcher.sees("unknown").await
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn a_link_resets_what_it_cuts() {
    on_cluster("reset", |_| async move {
        let server = TcpListener::bind(("127.0.0.1", 0)).await?;
        let link = Link::to(server.local_addr()?).await?;
        let mut client = TcpStream::connect(link.address()).await?;
        let (mut peer, _) = server.accept().await?;
        client.write_all(b"a").await?;
        ensure!(peer.read_u8().await? == b'a', "it passes");
        link.cut();
        for end in [&mut client, &mut peer] {
            let error = end.read_u8().await.err().context("it is open")?;
            ensure!(
                error.kind() == std::io::ErrorKind::ConnectionReset,
                "{error}"
            );
        }
        link.close(true);
        eventually("it is refused", || async {
            let refused = TcpStream::connect(link.address()).await.is_err();
            Ok(Look::when(refused, refused))
        })
        .await
    });
}

#[test]
#[ignore = "needs a control plane: make e2e-cluster"]
fn pods_with_a_network_of_their_own_share_no_ports_and_can_be_cut_off() {
    on_cluster("cable", |namespace| async move {
        // Gateways without routes: two of them, on the same ports of all their addresses.
        let gateways = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: gateway}
spec:
  replicas: 2
  selector: {matchLabels: {app: gateway}}
  template:
    metadata: {labels: {app: gateway}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: proxy
        image: sluice-proxy
        args: ['--config=/etc/sluice/sluice.yaml']
        ports: [{name: metrics, containerPort: 9090}]
        readinessProbe: {httpGet: {path: /healthz, port: metrics}, periodSeconds: 1}
        volumeMounts: [{name: config, mountPath: /etc/sluice}]
      volumes: [{name: config, configMap: {name: gateway}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: gateway}
data: {sluice.yaml: 'source: {routes: /etc/sluice/routes.yaml}', routes.yaml: ''}
";
        namespace.apply(gateways).await?;
        namespace.wait_ready("deployment/gateway").await?;
        let pod = namespace.pods("app=gateway").await?.remove(0);
        let address = pod.status.clone().and_then(|status| status.pod_ip);
        let url = format!("http://{}:9090/healthz", address.context("an address")?);
        let running = namespace.running(&pod)?;
        ensure!(reqwest::get(&url).await?.status() == 200, "it answers");
        running.connect(false).await?;
        let ready = || async {
            let pod = namespace.api::<Pod>().get(&pod.name_any()).await?;
            let conditions = pod.status.and_then(|status| status.conditions);
            let mut conditions = conditions.unwrap_or_default().into_iter();
            anyhow::Ok(conditions.any(|it| it.type_ == "Ready" && it.status == "True"))
        };
        eventually("its probe fails", || async {
            Ok(Look::when(!ready().await?, "ready"))
        })
        .await?;
        running.connect(true).await?;
        eventually("its probe passes", || async {
            Ok(Look::when(ready().await?, "not ready"))
        })
        .await
    });
}
