use super::*;
use crate::problem::Severity;
use crate::snapshot::Target;

const SERVER: &str = "\
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelServer
metadata: {name: NAME}
spec:
  inferenceEngine: vLLM
  endpoints:
  - address: 10.0.0.1:8000
";

const ROUTE: &str = "\
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelRoute
metadata: {name: NAME}
spec:
  modelName: chat
  rules:
  - targetModels:
    - modelServerName: TARGET
";

fn server(name: &str) -> String {
    SERVER.replace("NAME", name)
}

fn route(name: &str, target: &str) -> String {
    ROUTE.replace("NAME", name).replace("TARGET", target)
}

fn catalog() -> Catalog {
    Catalog::new(FilterSet::new(&[], Arc::new(crate::AnyFilter)))
}

fn load(catalog: &mut Catalog, documents: &[String]) -> Update {
    catalog.update(
        LoadedDocuments::from_text("f.yaml", &documents.join("---\n")),
        1,
    )
}

/// `line: path: message; remedy`.
fn texts(update: &Update) -> Vec<String> {
    update.problems.iter().map(|p| p.to_string()).collect()
}

fn names(update: &Update) -> (Vec<&str>, Vec<&str>) {
    let routes = update.snapshot.routes.iter().map(|r| r.name.as_str());
    (
        routes.collect(),
        update
            .snapshot
            .servers
            .iter()
            .map(|s| s.name.as_str())
            .collect(),
    )
}

#[test]
fn compiles_routes_and_servers_with_their_indexes() {
    let mut catalog = catalog();
    assert_eq!(catalog.snapshot().generation, 0);
    let update = load(&mut catalog, &[route("r", "s"), server("s")]);
    assert_eq!(texts(&update), Vec::<String>::new());
    let snapshot = &update.snapshot;
    assert!(update.changed && snapshot.generation == 1);
    assert_eq!(snapshot.by_model["chat"], [0]);
    assert_eq!(snapshot.routes[0].created, 1);
    let target = &snapshot.routes[0].rules[0].targets[0];
    assert_eq!((&target.target, target.weight), (&Target::Server(0), 100));
    assert_eq!(snapshot.servers[0].endpoints[0].port, 8000);
}

#[test]
fn the_same_documents_again_are_no_change() {
    let mut catalog = catalog();
    let first = load(&mut catalog, &[route("r", "s"), server("s")]);
    let again = load(
        &mut catalog,
        &["# a comment\n".into(), route("r", "s"), server("s")],
    );
    assert!(!again.changed);
    assert!(Arc::ptr_eq(&first.snapshot, &again.snapshot));
}

#[test]
fn a_refused_document_keeps_its_last_good_version_and_others_take_effect() {
    let mut catalog = catalog();
    load(&mut catalog, &[route("r", "s"), server("s")]);
    let bad = route("r", "s").replace("modelName: chat", "modelNam: other");
    let update = load(
        &mut catalog,
        &[bad, server("s").replace("10.0.0.1", "10.0.0.2")],
    );
    assert_eq!(
        texts(&update),
        ["f.yaml:5: spec.modelNam: unknown field `modelNam`; did you mean `modelName`?"]
    );
    assert_eq!(
        update.problems[0].document.as_deref(),
        Some("ModelRoute default/r")
    );
    assert_eq!((update.changed, update.rejected), (true, 1));
    assert_eq!(update.snapshot.routes[0].model_name, "chat");
    assert_eq!(update.snapshot.servers[0].endpoints[0].host, "10.0.0.2");
}

#[test]
fn a_removed_document_is_removed() {
    let mut catalog = catalog();
    load(
        &mut catalog,
        &[route("r", "s"), route("q", "s"), server("s")],
    );
    let update = load(&mut catalog, &[route("q", "s"), server("s")]);
    assert_eq!(names(&update), (vec!["q"], vec!["s"]));
    assert_eq!(update.rejected, 0);
}

#[test]
fn a_removed_server_stays_while_a_route_targets_it() {
    let mut catalog = catalog();
    load(
        &mut catalog,
        &[route("r", "s"), server("s"), server("other")],
    );
    let update = load(&mut catalog, &[route("r", "s"), server("other")]);
    assert_eq!(
        texts(&update),
        [
            "f.yaml:8: spec.rules[0].targetModels[0].modelServerName: the ModelServer `s` was removed \
          while this route targets it; it stays in force: restore it, or remove the target"
        ]
    );
    assert_eq!((update.changed, update.rejected), (false, 1));
    assert_eq!(names(&update), (vec!["r"], vec!["other", "s"]));
    // Still so at the next look, and gone once the route lets go.
    assert_eq!(
        load(&mut catalog, &[route("r", "s"), server("other")]).rejected,
        1
    );
    let update = load(&mut catalog, &[route("r", "other"), server("other")]);
    assert_eq!(
        (names(&update), update.rejected),
        ((vec!["r"], vec!["other"]), 0)
    );
}

#[test]
fn a_route_whose_new_version_dangles_keeps_its_last_good() {
    let mut catalog = catalog();
    load(
        &mut catalog,
        &[route("r", "chat-a"), server("chat-a"), server("chat-b")],
    );
    let update = load(&mut catalog, &[route("r", "chat-x"), server("chat-b")]);
    assert_eq!(update.problems.len(), 1);
    assert_eq!(
        update.problems[0].message,
        "there is no ModelServer `chat-x` in namespace `default`"
    );
    assert_eq!(update.problems[0].remedy, "did you mean `chat-b`?");
    assert_eq!(update.problems[0].line, 8);
    assert_eq!(names(&update), (vec!["r"], vec!["chat-a", "chat-b"]));
    assert_eq!(
        update.snapshot.routes[0].rules[0].targets[0].target,
        Target::Server(0)
    );
}

#[test]
fn a_dangling_route_is_left_out_of_the_first_load() {
    let update = load(
        &mut catalog(),
        &[route("r", "s"), route("q", "t"), server("t")],
    );
    assert_eq!(
        (names(&update), update.rejected),
        ((vec!["q"], vec!["t"]), 1)
    );
}

#[test]
fn a_route_to_a_refused_server_says_so() {
    let bad = server("s").replace("vLLM", "vllm");
    let update = load(&mut catalog(), &[route("r", "s"), bad]);
    assert_eq!(update.rejected, 2);
    assert_eq!(
        update.problems[0].message,
        "the ModelServer `s` is refused and has no last good version"
    );
    assert_eq!(update.problems[1].remedy, "did you mean `vLLM`?");
}

#[test]
fn the_second_of_two_equal_names_is_the_error() {
    let update = load(&mut catalog(), &[route("r", "s"), server("s"), server("s")]);
    assert_eq!(
        texts(&update),
        [
            "f.yaml:20: metadata.name: ModelServer default/s is already defined at f.yaml:12; \
          rename or remove one of the two"
        ]
    );
    assert_eq!(update.rejected, 1);
}

#[test]
fn a_syntax_error_keeps_all_of_the_file() {
    let mut catalog = catalog();
    load(&mut catalog, &[route("r", "s"), server("s")]);
    let update = load(&mut catalog, &[route("r", "s"), "a: [1\nb: 2\n".into()]);
    assert_eq!(update.problems.len(), 1);
    assert!(
        update.problems[0].message.starts_with("not YAML: "),
        "{:?}",
        update.problems
    );
    assert!(
        (10..=12).contains(&update.problems[0].line),
        "{:?}",
        update.problems
    );
    assert_eq!(
        (names(&update), update.changed),
        ((vec!["r"], vec!["s"]), false)
    );
    let empty = load(&mut catalog, &[]);
    assert_eq!(
        (empty.problems[0].severity, empty.changed),
        (Severity::Warning, false)
    );
}

#[test]
fn a_document_that_lost_its_name_takes_nothing_away() {
    let mut catalog = catalog();
    load(&mut catalog, &[route("r", "s"), server("s")]);
    let update = load(
        &mut catalog,
        &[route("r", "s").replace("name: r", ""), server("s")],
    );
    assert_eq!(
        texts(&update),
        ["f.yaml:3: metadata: this ModelRoute has no name; add `metadata: {name: ...}`"]
    );
    assert_eq!(
        (names(&update), update.rejected),
        ((vec!["r"], vec!["s"]), 1)
    );
}

#[test]
fn older_routes_go_first_and_created_outlives_reloads() {
    let mut catalog = catalog();
    let dated = |name: &str, date: &str| {
        route(name, "s").replace(
            &format!("name: {name}"),
            &format!("name: {name}, creationTimestamp: {date}"),
        )
    };
    let documents = [
        route("first", "s"),
        dated("new", "2025-01-02T00:00:00Z"),
        dated("old", "2025-01-01T00:00:00Z"),
        server("s"),
    ];
    let update = load(&mut catalog, &documents);
    assert_eq!(names(&update).0, ["old", "new", "first"]);
    assert_eq!(update.snapshot.by_model["chat"], [0, 1, 2]);
    assert_eq!(update.snapshot.routes[0].created, 1_735_689_600);
    let mut more = documents.to_vec();
    more.insert(0, route("added", "s"));
    let update = catalog.update(LoadedDocuments::from_text("f.yaml", &more.join("---\n")), 9);
    assert_eq!(names(&update).0, ["old", "new", "added", "first"]);
    let created: Vec<u64> = update.snapshot.routes[2..]
        .iter()
        .map(|route| route.created)
        .collect();
    assert_eq!(created, [9, 1]);
}

#[test]
fn lists_and_foreign_kinds_are_read() {
    let item = |text: String| {
        text.lines()
            .map(|line| format!("  {line}\n"))
            .collect::<String>()
    };
    let list = format!(
        "kind: List\napiVersion: v1\nitems:\n-\n{}-\n{}",
        item(route("r", "s")),
        item(server("s"))
    );
    let other = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n".to_owned();
    let update = load(&mut catalog(), &[list.clone(), other]);
    assert_eq!(update.problems.len(), 1);
    assert_eq!(
        update.problems[0].message,
        "ignored: kind Deployment of apps/v1"
    );
    assert_eq!(
        (names(&update), update.rejected),
        ((vec!["r"], vec!["s"]), 0)
    );
    let update = load(&mut catalog(), &[list.replace("modelName", "model")]);
    assert_eq!(update.problems[0].path, "items[0].spec.model");
    assert_eq!(update.problems[0].line, 9);
}

#[test]
fn typed_documents_and_values_compile_without_a_file() {
    let values = [route("r", "s"), server("s")].map(|text| serde_yaml::from_str(&text).unwrap());
    let update = catalog().update(LoadedDocuments::from_values("push", values.to_vec()), 1);
    assert_eq!(names(&update), (vec!["r"], vec!["s"]));
    let resources = vec![
        crate::Resource::Route(serde_yaml::from_str(&route("r", "s")).unwrap()),
        crate::Resource::Server(Box::new(serde_yaml::from_str(&server("s")).unwrap())),
        crate::Resource::Route(serde_yaml::from_str(&route("lost", "t")).unwrap()),
    ];
    let (snapshot, problems) = crate::compile(resources, &FilterSet::unknown(), 1);
    assert_eq!((snapshot.routes.len(), problems.len()), (1, 1));
    assert_eq!(
        (problems[0].file.as_str(), problems[0].line),
        ("resources", 0)
    );
}

#[test]
fn a_file_that_is_gone_changes_nothing() {
    let mut catalog = catalog();
    load(&mut catalog, &[route("r", "s"), server("s")]);
    let missing = std::path::Path::new("/nonexistent/routes.yaml");
    let update = catalog.update(LoadedDocuments::read(missing), 2);
    assert_eq!(
        (update.changed, update.rejected, names(&update).0),
        (false, 1, vec!["r"])
    );
    assert_eq!(update.problems[0].remedy, "create it, or correct the path");
}

#[test]
fn a_mistyped_kind_or_group_is_refused_and_takes_nothing_away() {
    let mut catalog = catalog();
    let good = [route("r", "s"), server("s")];
    load(&mut catalog, &good);
    for (right, wrong) in [
        ("kind: ModelRoute", "kind: ModelRout"),
        (
            "networking.serving.volcano.sh/v1alpha1\nkind: ModelRoute",
            "v1\nkind: ModelRoute",
        ),
        (
            "networking.serving.volcano.sh/v1alpha1\nkind: ModelRoute",
            "v1\nkind: ModelRoutes",
        ),
    ] {
        let text = good[0].replace(right, wrong);
        assert_ne!(text, good[0], "{right}");
        let update = load(&mut catalog, &[text, good[1].clone()]);
        assert_eq!(update.problems.len(), 1, "{:?}", update.problems);
        assert!(update.problems[0].is_error(), "{wrong}");
        assert_eq!(names(&update).0, ["r"], "{wrong}");
    }
}
