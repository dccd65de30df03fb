//! Broken configuration against a serving gateway: what was good stays in force, and what is wrong is told with
//! its place, in `/debug/config`, in metrics and by `check`.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use sluice_e2e::engine::{EngineOptions, EngineServer};
use sluice_e2e::harness::{Gateway, model_route, model_server, series_sum, wait_until};
use sluice_proxy::filters::BuiltinFilters;

struct Bed {
    engine: EngineServer,
    gateway: Gateway,
    good: String,
}

impl Bed {
    async fn start() -> Self {
        let engine = EngineServer::start(EngineOptions::instant("sim")).unwrap();
        let good =
            model_server("sim", &[engine.addr()], "") + &model_route("sim", "sim", &[("sim", 100)]);
        let gateway = Gateway::builder(good.clone()).start().await;
        Self {
            engine,
            gateway,
            good,
        }
    }

    async fn status(&self, model: &str) -> u16 {
        let body = json!({"model": model, "prompt": "x"});
        let answer = reqwest::Client::new()
            .post(self.gateway.url("/v1/completions"))
            .json(&body);
        let answer = answer.header("x-echo", "sha256").send().await.unwrap();
        answer.status().as_u16()
    }

    async fn problems(&self) -> Vec<Value> {
        let answer = reqwest::get(self.gateway.admin_url("/debug/config"))
            .await
            .unwrap();
        let config: Value = answer.json().await.unwrap();
        config["problems"].as_array().unwrap().clone()
    }

    /// Writes in place, as `cp` does.
    fn write(&self, text: &str) {
        std::fs::write(self.gateway.routes_file(), text).unwrap();
    }

    /// Waits until problems are reported whose text contains `part`; the first of them.
    async fn problem(&self, part: &str) -> Value {
        let find = || async {
            let all = self.problems().await;
            all.into_iter()
                .find(|problem| problem.to_string().contains(part))
        };
        wait_until(&format!("a problem with `{part}` is reported"), || async {
            find().await.is_some()
        })
        .await;
        find().await.unwrap()
    }

    async fn no_problems(&self) {
        wait_until("no problem is left", || async {
            self.problems().await.is_empty()
        })
        .await;
    }

    async fn series(&self, name: &str, labels: &[&str]) -> f64 {
        series_sum(&self.gateway.metrics().await, name, labels)
    }
}

#[tokio::test]
async fn a_broken_edit_changes_nothing_and_is_told_with_its_place() {
    let bed = Bed::start().await;
    assert_eq!(bed.series("sluice_config_rejects_total", &[]).await, 0.0);
    let broken = bed
        .good
        .replace("weight: 100", "weight: 500")
        .replace("modelName: sim", "modelName: renamed");
    let line = 1 + broken
        .lines()
        .position(|line| line.contains("weight: 500"))
        .unwrap();
    bed.write(&broken);
    let problem = bed.problem("weight").await;
    assert_eq!(problem["severity"], "error");
    assert_eq!(problem["path"], "spec.rules[0].targetModels[0].weight");
    assert_eq!(problem["line"], line);
    assert_eq!(
        problem["file"],
        bed.gateway.routes_file().display().to_string()
    );
    assert!(
        problem["document"]
            .as_str()
            .unwrap()
            .contains("default/sim"),
        "{problem}"
    );
    assert!(!problem["remedy"].as_str().unwrap().is_empty(), "{problem}");
    assert_eq!(bed.gateway.generation(), 1);
    assert_eq!(
        (bed.status("sim").await, bed.status("renamed").await),
        (200, 404)
    );
    assert_eq!(bed.series("sluice_config_rejects_total", &[]).await, 1.0);
    assert_eq!(
        bed.series("sluice_config_problems", &["severity=\"error\""])
            .await,
        1.0
    );

    bed.write(&bed.good);
    bed.no_problems().await;
    assert_eq!(
        bed.series("sluice_config_problems", &["severity=\"error\""])
            .await,
        0.0
    );
    assert_eq!(
        bed.series("sluice_config_rejects_total", &[]).await,
        1.0,
        "a counter stays"
    );
    assert_eq!(bed.status("sim").await, 200);
}

#[tokio::test]
async fn one_broken_document_does_not_hold_up_the_others() {
    let bed = Bed::start().await;
    let text = bed.good.replace("modelName: sim", "modelNam: sim")
        + &model_route("new", "new", &[("sim", 100)]);
    bed.gateway.replace_routes(&text).await;
    let problem = bed.problem("modelNam").await;
    assert_eq!(problem["path"], "spec.modelNam", "{problem}");
    assert!(
        problem["remedy"].as_str().unwrap().contains("modelName"),
        "{problem}"
    );
    assert_eq!(
        (bed.status("sim").await, bed.status("new").await),
        (200, 200)
    );
}

#[tokio::test]
async fn text_that_is_no_yaml_keeps_everything() {
    let bed = Bed::start().await;
    for (text, part) in [
        ("kind: [unclosed\n", "error"),
        ("\tkind: x\n", "error"),
        ("just words\n", "error"),
    ] {
        bed.write(text);
        bed.problem(part).await;
        assert_eq!(bed.status("sim").await, 200, "{text:?}");
        bed.write(&bed.good);
        bed.no_problems().await;
    }
    assert_eq!(bed.status("sim").await, 200);
}

#[tokio::test]
async fn a_deleted_file_keeps_serving_and_comes_back() {
    let bed = Bed::start().await;
    std::fs::remove_file(bed.gateway.routes_file()).unwrap();
    let problem = bed.problem("cannot be read").await;
    assert_eq!(problem["severity"], "error");
    assert_eq!(bed.status("sim").await, 200);
    let ready = reqwest::get(bed.gateway.admin_url("/readyz"))
        .await
        .unwrap();
    assert_eq!(ready.status(), 200);
    bed.gateway
        .replace_routes(&bed.good.replace("modelName: sim", "modelName: back"))
        .await;
    bed.no_problems().await;
    assert_eq!(
        (bed.status("back").await, bed.status("sim").await),
        (200, 404)
    );
}

#[tokio::test]
async fn a_half_written_file_is_waited_for() {
    let bed = Bed::start().await;
    let next = bed.good.clone() + &model_route("late", "late", &[("sim", 100)]);
    // Cut in the middle of the last document's rules.
    let cut = next.rfind("targetModels").unwrap() + 4;
    bed.write(&next[..cut]);
    bed.problem("late").await;
    assert_eq!(
        (bed.status("sim").await, bed.status("late").await),
        (200, 404)
    );
    bed.write(&next);
    bed.no_problems().await;
    assert_eq!(
        (bed.status("sim").await, bed.status("late").await),
        (200, 200)
    );
    wait_until("the engine is idle", || async {
        bed.engine.in_flight() == 0
    })
    .await;
}

#[tokio::test]
async fn warnings_take_effect_and_are_told() {
    let bed = Bed::start().await;
    let foreign = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n";
    let text = foreign.to_owned() + &bed.good.replace("modelName: sim", "modelName: new");
    bed.gateway.replace_routes(&text).await;
    let problem = bed.problem("ConfigMap").await;
    assert_eq!(
        (&problem["severity"], &problem["path"], &problem["line"]),
        (&json!("warning"), &json!("kind"), &json!(2))
    );
    assert_eq!(
        (bed.status("new").await, bed.status("sim").await),
        (200, 404)
    );
    assert_eq!(
        bed.series("sluice_config_problems", &["severity=\"warning\""])
            .await,
        1.0
    );
    assert_eq!(bed.series("sluice_config_rejects_total", &[]).await, 0.0);
}

#[tokio::test]
async fn a_route_to_a_server_that_is_not_there_is_refused() {
    let bed = Bed::start().await;
    bed.write(&(model_route("loose", "loose", &[("nowhere", 100)]) + &bed.good));
    let problem = bed.problem("nowhere").await;
    assert_eq!(
        problem["path"], "spec.rules[0].targetModels[0].modelServerName",
        "{problem}"
    );
    assert_eq!(
        (bed.status("sim").await, bed.status("loose").await),
        (200, 404)
    );
}

#[tokio::test]
async fn a_gateway_without_a_good_file_is_not_ready_until_there_is_one() {
    let engine = EngineServer::start(EngineOptions::instant("sim")).unwrap();
    let gateway = Gateway::builder("kind: [broken\n").start().await;
    let ready = || async {
        reqwest::get(gateway.metrics_url("/readyz"))
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(ready().await, 503);
    let alive = reqwest::get(gateway.metrics_url("/healthz")).await.unwrap();
    assert_eq!(alive.status(), 200);
    let good =
        model_server("sim", &[engine.addr()], "") + &model_route("sim", "sim", &[("sim", 100)]);
    gateway.replace_routes(&good).await;
    assert_eq!(ready().await, 200);
}

#[test]
fn check_finds_errors_with_their_lines_and_passes_what_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let check =
        |paths: &[PathBuf]| sluice_config::check(paths, Arc::new(BuiltinFilters::default()));
    let routes = model_server("sim", &["127.0.0.1:1".parse().unwrap()], "")
        + &model_route("sim", "sim", &[("sim", 100)]);
    let good = file("good.yaml", &routes);
    let bad = file("bad.yaml", &routes.replace("weight: 100", "weight: 500"));
    let bootstrap = file(
        "sluice.yaml",
        "filters: [{name: g, type: promptGuard, config: {maxTokens: 5}}]\n",
    );
    let broken = file(
        "broken.yaml",
        "filters: [{name: g, type: promptGard, config: {maxTokens: 5}}]\n",
    );
    assert_eq!(check(&[good.clone(), bootstrap]), []);
    for (paths, part) in [
        (vec![bad], "spec.rules[0].targetModels[0].weight"),
        (vec![broken], "promptGuard"),
        (vec![folder.path().join("missing.yaml")], "cannot be read"),
    ] {
        let problems = check(&paths);
        assert!(
            problems
                .iter()
                .any(|one| one.is_error() && one.to_string().contains(part)),
            "{problems:?}"
        );
        // ExitCode cannot be compared; its form for people can.
        let code = format!("{:?}", sluice_proxy::check::run(&paths));
        assert_eq!(code, format!("{:?}", std::process::ExitCode::FAILURE));
    }
    let code = format!("{:?}", sluice_proxy::check::run(&[good]));
    assert_eq!(code, format!("{:?}", std::process::ExitCode::SUCCESS));
}
