//! Files and pushed documents side by side.

use sluice_config::snapshot::Target;
use sluice_config::{LoadedDocuments, Update};

use crate::bed::{Bed, endpoint, route, server};
use sluice_config::push::ResourceType;

const FILE_SERVER: &str = "\
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelServer
metadata: {name: NAME}
spec:
  inferenceEngine: vLLM
  endpoints:
  - address: 10.9.9.9:8000
---
";

const FILE_ROUTE: &str = "\
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelRoute
metadata: {name: NAME, creationTimestamp: 2030-01-01T00:00:00Z}
spec:
  modelName: chat
  rules:
  - targetModels:
    - modelServerName: TARGET
---
";

fn file_server(name: &str) -> String {
    FILE_SERVER.replace("NAME", name)
}

fn file_route(name: &str, target: &str) -> String {
    FILE_ROUTE.replace("NAME", name).replace("TARGET", target)
}

fn load(bed: &mut Bed, documents: &[String]) -> Update {
    let loaded = LoadedDocuments::from_text("f.yaml", &format!("# x\n{}", documents.concat()));
    bed.catalog.update(loaded, 1)
}

#[test]
fn a_file_hides_the_pushed_document_of_its_name_and_says_so() {
    let mut bed = Bed::new();
    load(&mut bed, &[file_server("s")]);
    let applied = bed.put(&[server("s"), endpoint("a", "10.0.0.1", &["s"])]);
    assert!(applied.refusals.is_empty(), "it is not wrong");
    assert_eq!(bed.addresses("s"), ["10.9.9.9:8000", "10.0.0.1:8000"]);
    let problems = applied.update.problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(
        problems[0].to_string(),
        "push: it is hidden by the document of the same name at f.yaml:4; \
         remove one of the two; until then the file's is in force"
    );
    assert_eq!(
        problems[0].document.as_deref(),
        Some("ModelServer default/s")
    );
    // Once the file lets go, the pushed one is in force.
    let update = load(&mut bed, &[]);
    assert_eq!(bed.addresses("s"), ["10.0.0.1:8000"]);
    assert!(update.problems.is_empty(), "{:?}", update.problems);
}

#[test]
fn routes_of_files_go_before_pushed_ones_however_young() {
    let mut bed = Bed::new();
    bed.put(&[
        server("s"),
        route("pushed", "2020-01-01T00:00:00Z", &[("s", 1)]),
    ]);
    load(&mut bed, &[file_route("file", "s")]);
    assert_eq!(bed.routes(), ["file", "pushed"]);
    let snapshot = bed.snapshot();
    assert_eq!(snapshot.by_model["chat"], [0, 1]);
    let target = &snapshot.routes[0].rules[0].targets[0].target;
    assert_eq!(
        *target,
        Target::Server(0),
        "a file's route may target a pushed pool"
    );
}

#[test]
fn a_files_route_waits_for_a_pushed_server() {
    let mut bed = Bed::new();
    let update = load(&mut bed, &[file_route("r", "s")]);
    assert_eq!((update.rejected, update.problems.len()), (0, 1));
    assert!(
        update.problems[0]
            .message
            .contains("the target is passed over")
    );
    assert_eq!(update.problems[0].line, 9);
    let applied = bed.put(&[server("s")]);
    assert!(applied.update.problems.is_empty());
    let target = bed.snapshot().routes[0].rules[0].targets[0].target.clone();
    assert_eq!(target, Target::Server(0));
}

#[test]
fn a_server_that_left_its_file_stays_for_its_route_until_one_is_pushed() {
    let mut bed = Bed::new();
    bed.put(&[]);
    load(&mut bed, &[file_route("r", "s"), file_server("s")]);
    let update = load(&mut bed, &[file_route("r", "s")]);
    assert_eq!((update.rejected, update.changed), (1, false));
    assert_eq!(bed.addresses("s"), ["10.9.9.9:8000"]);
    bed.put(&[server("s"), endpoint("a", "10.0.0.1", &["s"])]);
    assert_eq!(bed.addresses("s"), ["10.0.0.1:8000"]);
    bed.remove(ResourceType::ModelServer, "default/s");
    assert_eq!(bed.addresses("s"), ["10.9.9.9:8000", "10.0.0.1:8000"]);
}

#[test]
fn a_load_of_the_same_files_changes_nothing_of_either_layer() {
    let mut bed = Bed::new();
    bed.put(&[
        server("s"),
        route("pushed", "2020-01-01T00:00:00Z", &[("s", 1)]),
    ]);
    let files = [file_route("file", "t"), file_server("t")];
    let first = load(&mut bed, &files);
    let again = load(&mut bed, &["# moved\n".to_owned(), files.concat()]);
    assert!(!again.changed);
    assert!(std::sync::Arc::ptr_eq(&first.snapshot, &again.snapshot));
}

#[test]
fn a_check_with_a_control_loop_lets_servers_come_from_there() {
    let folder = tempfile::tempdir().unwrap();
    let (bootstrap, routes) = (folder.path().join("b.yaml"), folder.path().join("r.yaml"));
    std::fs::write(&routes, file_route("r", "s")).unwrap();
    let push = "source: {push: {addresses: ['https://c:1'], caFile: a, tokenFile: t}}\n";
    std::fs::write(&bootstrap, push).unwrap();
    let problems = |paths: &[std::path::PathBuf]| {
        let problems = sluice_config::check(paths, std::sync::Arc::new(sluice_config::AnyFilter));
        let errors = problems.iter().filter(|problem| problem.is_error()).count();
        (problems.len(), errors)
    };
    assert_eq!(problems(std::slice::from_ref(&routes)), (1, 1));
    assert_eq!(problems(&[bootstrap, routes]), (1, 0));
}
