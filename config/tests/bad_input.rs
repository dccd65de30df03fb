//! Every kind of bad input: what is reported (file, line, path, remedy), and what stays in force.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use sluice_config::{
    AnyFilter, Catalog, FileSource, FilterSet, LoadedDocuments, MAX_FILE_BYTES, Problem, Severity,
    Update, check,
};
use tempfile::TempDir;

const GOOD: &str = "\
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelRoute
metadata:
  name: chat
spec:
  modelName: chat
  rules:
  - targetModels:
    - modelServerName: pool
      weight: 10
---
apiVersion: networking.serving.volcano.sh/v1alpha1
kind: ModelServer
metadata:
  name: pool
spec:
  inferenceEngine: vLLM
  endpoints:
  - address: 10.0.0.1:8000
";

/// A folder, a file in it, and what is in force.
struct Bench {
    folder: TempDir,
    file: PathBuf,
    catalog: Catalog,
}

impl Bench {
    /// Serves [`GOOD`] from one file.
    fn serving() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("routes.yaml");
        let mut bench = Self {
            folder,
            file,
            catalog: Catalog::new(FilterSet::unknown()),
        };
        let update = bench.write(GOOD);
        assert_eq!((update.problems.len(), update.snapshot.generation), (0, 1));
        bench
    }

    fn write(&mut self, text: impl AsRef<[u8]>) -> Update {
        fs::write(&self.file, text).expect("written");
        self.load()
    }

    fn load(&mut self) -> Update {
        self.catalog.update(LoadedDocuments::read(&self.file), 1)
    }

    /// The one error of [`GOOD`] with `from` replaced by `to`; what is in force did not change.
    fn error(&mut self, from: &str, to: &str) -> Problem {
        assert!(GOOD.contains(from));
        let update = self.write(GOOD.replacen(from, to, 1));
        self.unchanged(&update)
    }

    fn unchanged(&self, update: &Update) -> Problem {
        assert!(!update.changed);
        assert_eq!(
            (update.snapshot.routes.len(), update.snapshot.servers.len()),
            (1, 1)
        );
        assert_eq!(
            (update.problems.len(), update.rejected),
            (1, 1),
            "{:#?}",
            update.problems
        );
        let problem = update.problems[0].clone();
        assert!(
            problem.is_error() && problem.file.ends_with("routes.yaml"),
            "{problem}"
        );
        problem
    }
}

#[track_caller]
fn assert_problem(problem: &Problem, line: usize, path: &str, remedy: &str) {
    assert_eq!(
        (problem.line, problem.path.as_str(), problem.remedy.as_str()),
        (line, path, remedy),
        "{problem}"
    );
    let text = problem.to_string();
    assert!(
        text.starts_with(&format!("{}:{line}: {path}: ", problem.file)),
        "{text}"
    );
}

#[test]
fn an_unknown_field() {
    let problem = Bench::serving().error("weight: 10", "wieght: 10");
    assert_problem(
        &problem,
        10,
        "spec.rules[0].targetModels[0].wieght",
        "did you mean `weight`?",
    );
    assert_eq!(problem.document.as_deref(), Some("ModelRoute default/chat"));
}

#[test]
fn a_dangling_model_server() {
    let problem = Bench::serving().error("modelServerName: pool", "modelServerName: pol");
    assert_problem(
        &problem,
        9,
        "spec.rules[0].targetModels[0].modelServerName",
        "did you mean `pool`?",
    );
}

#[test]
fn a_total_weight_of_zero() {
    let problem = Bench::serving().error("weight: 10", "weight: 0");
    let remedy = "give at least one target a weight above zero";
    assert_problem(&problem, 8, "spec.rules[0].targetModels", remedy);
}

#[test]
fn a_bad_regular_expression() {
    let to = "- modelMatch: {uri: {regex: '['}}\n    targetModels:";
    let problem = Bench::serving().error("- targetModels:", to);
    let remedy = "mend the pattern; look-around and back-references are not supported";
    assert_problem(&problem, 8, "spec.rules[0].modelMatch.uri.regex", remedy);
}

#[test]
fn a_key_that_stands_twice() {
    let problem = Bench::serving().error("  rules:\n", "  modelName: other\n  rules:\n");
    assert_problem(&problem, 7, "spec.modelName", "keep one of the two");
}

#[test]
fn a_name_that_stands_twice_in_two_files() {
    let bench = Bench::serving();
    let second = bench.folder.path().join("second.yaml");
    fs::write(&second, GOOD.split("---\n").nth(1).expect("two documents")).expect("written");
    let problems = check(&[bench.file.clone(), second], Arc::new(AnyFilter));
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_problem(
        &problems[0],
        4,
        "metadata.name",
        "rename or remove one of the two",
    );
    assert!(
        problems[0].message.ends_with("routes.yaml:15"),
        "{}",
        problems[0]
    );
}

#[test]
fn a_file_that_is_too_large() {
    let mut bench = Bench::serving();
    let update = bench.write(vec![b'#'; 10_000_000]);
    let problem = bench.unchanged(&update);
    assert_eq!(problem.message, "the file is larger than 8 MiB");
    assert_eq!(problem.remedy, "split it into several files of a folder");
    let padding = "#".repeat(MAX_FILE_BYTES as usize - GOOD.len() - 1);
    assert_eq!(
        bench.write(format!("{GOOD}{padding}\n")).problems.len(),
        0,
        "8 MiB are fine"
    );
}

#[test]
fn a_file_deleted_while_serving() {
    let mut bench = Bench::serving();
    fs::remove_file(&bench.file).expect("removed");
    let update = bench.load();
    let problem = bench.unchanged(&update);
    assert_eq!(problem.remedy, "create it, or correct the path");
}

#[test]
fn a_file_deleted_from_a_folder_takes_its_documents_with_it() {
    let bench = Bench::serving();
    let folder = bench.folder.path();
    let extra = folder.join("extra.yaml");
    fs::write(
        &extra,
        GOOD.split("---\n")
            .next()
            .expect("a route")
            .replace("name: chat", "name: extra"),
    )
    .expect("written");
    let mut catalog = Catalog::new(FilterSet::unknown());
    assert_eq!(
        catalog
            .update(LoadedDocuments::read(folder), 1)
            .snapshot
            .routes
            .len(),
        2
    );
    fs::remove_file(extra).expect("removed");
    let update = catalog.update(LoadedDocuments::read(folder), 2);
    assert_eq!(
        (update.snapshot.routes.len(), update.problems.len()),
        (1, 0)
    );
    let gone = catalog.update(LoadedDocuments::read(&folder.join("gone")), 3);
    assert_eq!(
        (gone.snapshot.routes.len(), gone.problems.len()),
        (1, 1),
        "a missing folder keeps all"
    );
}

#[test]
fn a_file_that_cannot_be_read() {
    let mut bench = Bench::serving();
    let update = bench.write(b"# fine\nkind: \xff\n");
    let problem = bench.unchanged(&update);
    assert_eq!(
        (problem.line, problem.remedy.as_str()),
        (2, "save it as UTF-8")
    );
    // In a folder: a folder in the file's place.
    let mut catalog = Catalog::new(FilterSet::unknown());
    bench.write(GOOD);
    catalog.update(LoadedDocuments::read(bench.folder.path()), 1);
    fs::remove_file(&bench.file).expect("removed");
    fs::create_dir(&bench.file).expect("created");
    let update = catalog.update(LoadedDocuments::read(bench.folder.path()), 1);
    assert_eq!(bench.unchanged(&update).remedy, "name a file of YAML");
}

#[test]
fn a_half_written_file() {
    let mut bench = Bench::serving();
    let cut = GOOD.find("weight").expect("there") + 3;
    let update = bench.write(&GOOD[..cut]);
    let problem = bench.unchanged(&update);
    assert!(problem.message.starts_with("not YAML: "), "{problem}");
    assert_eq!(
        problem.remedy,
        "mend the line; nothing of this file takes effect until then"
    );
    assert!((9..=10).contains(&problem.line), "{problem}");
    let update = bench.write("");
    assert_eq!(
        (update.changed, update.problems[0].severity),
        (false, Severity::Warning)
    );
    assert_eq!(
        bench.write(GOOD.replace("10.0.0.1", "10.0.0.2")).rejected,
        0
    );
}

#[test]
fn all_problems_of_all_documents_come_at_once() {
    let bench = Bench::serving();
    let text = GOOD
        .replace("weight: 10", "weight: 1000")
        .replace("modelName:", "modelNam:")
        .replace("modelServerName: pool", "modelServerName: pol")
        .replace("vLLM", "vllm")
        .replace("10.0.0.1:8000", "10.0.0.1");
    fs::write(&bench.file, text).expect("written");
    let problems = check(&[bench.folder.path().to_owned()], Arc::new(AnyFilter));
    let lines: Vec<usize> = problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [6, 9, 10, 17, 19], "{problems:#?}");
    assert_eq!(problems[1].remedy, "did you mean `pool`?");
}

#[test]
fn check_tells_bootstrap_from_resource_files() {
    let bench = Bench::serving();
    let bootstrap = bench.folder.path().join("sluice.yml");
    fs::write(
        &bootstrap,
        "filters: [{name: tags, type: headers}]\nthreads: none\n",
    )
    .expect("written");
    let problems = check(
        &[bootstrap.clone(), bench.file.clone()],
        Arc::new(AnyFilter),
    );
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_problem(
        &problems[0],
        2,
        "threads",
        "write the number without quotes and without a unit",
    );
    fs::write(&bootstrap, "filters: [{name: tags, type: headers}]\n").expect("written");
    fs::write(
        &bench.file,
        GOOD.replacen(
            "  rules:",
            "  filters: {tag: {disabled: true}}\n  rules:",
            1,
        ),
    )
    .expect("written");
    let problems = check(&[bootstrap, bench.file.clone()], Arc::new(AnyFilter));
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_problem(&problems[0], 7, "spec.filters.tag", "did you mean `tags`?");
}

/// The first update that fulfils `want`.
fn until(updates: &Receiver<Update>, want: impl Fn(&Update) -> bool) -> Update {
    loop {
        let update = updates
            .recv_timeout(Duration::from_secs(20))
            .expect("an update in time");
        if want(&update) {
            return update;
        }
    }
}

#[test]
fn a_watched_file_survives_mistakes_deletion_and_return() {
    let Bench {
        folder: _folder,
        file,
        ..
    } = Bench::serving();
    let (sender, updates) = channel();
    let mut catalog = Catalog::new(FilterSet::unknown());
    let deliver = move |loaded| {
        let _ = sender.send(catalog.update(loaded, 7));
    };
    let source = FileSource::start(&file, Duration::from_millis(30), deliver);
    let first = updates
        .try_recv()
        .expect("the first update is there before `start` returns");
    assert_eq!((first.changed, first.snapshot.routes[0].created), (true, 7));

    fs::write(&file, GOOD.replace("weight: 10", "weight: ten")).expect("written");
    let bad = until(&updates, |update| update.rejected > 0);
    assert_eq!((bad.changed, bad.snapshot.generation), (false, 1));

    fs::remove_file(&file).expect("removed");
    let gone = until(&updates, |update| {
        update
            .problems
            .iter()
            .any(|p| p.remedy.starts_with("create it"))
    });
    assert_eq!(gone.snapshot.routes.len(), 1);

    fs::write(&file, GOOD.replace("10.0.0.1", "10.0.0.2")).expect("written");
    let back = until(&updates, |update| update.changed);
    assert_eq!(back.snapshot.servers[0].endpoints[0].host, "10.0.0.2");
    assert_eq!((back.snapshot.generation, back.problems.len()), (2, 0));
    drop(source);
}
