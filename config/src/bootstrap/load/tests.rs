use serde_json::json;

use super::*;
use crate::AnyFilter;

struct Known;

impl FilterCheck for Known {
    fn check(&self, _: &str, config: &Value) -> Result<(), String> {
        if config["broken"] == true {
            Err("`broken` is set".into())
        } else {
            Ok(())
        }
    }

    fn kinds(&self) -> Option<Vec<&str>> {
        Some(vec!["headers", "cors"])
    }
}

fn problems(text: &str) -> Vec<String> {
    let report = Bootstrap::parse("b.yaml", text, &Known).unwrap_err();
    report.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn an_empty_file_is_all_defaults_and_the_defaults_are_right() {
    let default = Bootstrap::default();
    let empty = Bootstrap::parse("b.yaml", "# nothing\n", &Known).unwrap();
    assert_eq!(empty, (default.clone(), vec![]));
    let written = serde_yaml::to_string(&default).unwrap();
    assert_eq!(
        Bootstrap::parse("b.yaml", written, &Known).unwrap(),
        (default, vec![])
    );
    assert!(Bootstrap::default().threads() >= 1);
}

#[test]
fn every_duration_and_address_of_the_defaults_is_known_as_one() {
    fn walk(name: &str, value: &Value, found: &mut usize) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| walk(key, value, found)),
            Value::Array(items) => items.iter().for_each(|item| walk(name, item, found)),
            Value::String(text) if crate::shape::Format::Duration.check(text).is_ok() => {
                *found += 1;
                assert_eq!(format(name), Some(Format::Duration), "{name}");
            }
            Value::String(text) if text.parse::<std::net::SocketAddr>().is_ok() => {
                *found += 1;
                assert_eq!(format(name), Some(Format::SocketAddress), "{name}");
            }
            _ => {}
        }
    }
    let mut found = 0;
    walk(
        "",
        &serde_json::to_value(Bootstrap::default()).unwrap(),
        &mut found,
    );
    assert_eq!(found, 18);
}

#[test]
fn reports_every_problem_with_its_line_and_path() {
    let text = "\
listeners:
- address: localhost:8080
  h2: true
limits:
  bodyBytes: 1024
  bodyBudgetBytes: 10
  headerCount: 257
  headerBytes: 2097152
retry:
  budgetPercent: 120
timeouts:
  total: 5 minutes
  connect: 0s
acessLog: {}
accessLog:
  queue: 0
  format: xml
filters:
- name: a
  type: header
- name: a
  type: cors
  config: {broken: true}
";
    assert_eq!(
        problems(text),
        [
            "b.yaml:2: listeners[0].address: \"localhost:8080\" is not an ip address and a port; \
             write ip:port such as `0.0.0.0:8080` or `[::1]:8080`",
            "b.yaml:3: listeners[0].h2: unknown field `h2`; did you mean `h2c`?",
            "b.yaml:6: limits.bodyBudgetBytes: the budget of 10 bytes is below `limits.bodyBytes` of 1024; \
             raise it: no body of the allowed size would be taken",
            "b.yaml:7: limits.headerCount: 257 is out of range; write a number from 1 to 256",
            "b.yaml:8: limits.headerBytes: 2097152 is out of range; write a number from 1024 to 1048576",
            "b.yaml:10: retry.budgetPercent: 120 is out of range; write a number from 0 to 100",
            "b.yaml:12: timeouts.total: \"5 minutes\" is not a duration; \
             write a number and a unit such as `250ms`, `30s`, `5m` or `1h30m`",
            "b.yaml:13: timeouts.connect: the time is not above zero; write a time such as `30s`",
            "b.yaml:14: acessLog: unknown field `acessLog`; did you mean `accessLog`?",
            "b.yaml:16: accessLog.queue: 0 is out of range; write a number from 1 to 16777216",
            "b.yaml:17: accessLog.format: `xml` is none of json, text; known here: json, text",
            "b.yaml:20: filters[0].type: there is no filter type `header`; did you mean `headers`?",
            "b.yaml:21: filters[1].name: `filters[0]` is called `a` too; give each filter a name of its own",
            "b.yaml:23: filters[1].config: wrong configuration for a filter of type cors: `broken` is set; \
             mend the configuration",
        ]
    );
}

#[test]
fn refuses_no_listener_taken_ports_and_equal_keys() {
    assert_eq!(
        problems("listeners: []\n"),
        ["b.yaml:1: listeners: there is no listener; add `- address: 0.0.0.0:8080`"]
    );
    assert_eq!(
        problems("admin: {address: '127.0.0.1:80'}\nmetrics: {address: '127.0.0.1:80'}\n"),
        [
            "b.yaml:2: metrics.address: 127.0.0.1:80 is taken by `admin.address`; choose another port"
        ]
    );
    assert_eq!(
        problems("threads: 1\nthreads: 2\n"),
        ["b.yaml:2: threads: this key stands here twice; keep one of the two"]
    );
}

#[test]
fn warns_without_refusing() {
    let text = "admin: {address: '0.0.0.0:15000'}\nupstream: {insecureSkipVerify: true}\n";
    let (bootstrap, warnings) = Bootstrap::parse("b.yaml", text, &AnyFilter).unwrap();
    assert!(bootstrap.upstream.insecure_skip_verify);
    let paths: Vec<&str> = warnings
        .iter()
        .map(|warning| warning.path.as_str())
        .collect();
    assert_eq!(paths, ["admin.address", "upstream.insecureSkipVerify"]);
}

#[test]
fn keeps_a_filters_free_configuration_and_takes_closures_as_checks() {
    let text = "filters:\n- {name: h, type: headers, config: {set: {x-a: null}}}\n";
    let refuse = |kind: &str, _: &Value| Err(format!("no {kind} today"));
    let report = Bootstrap::parse("b.yaml", text, &refuse).unwrap_err();
    assert_eq!(report.errors().count(), 1);
    assert!(report.to_string().contains("no headers today"), "{report}");
    let (bootstrap, _) = Bootstrap::parse("b.yaml", text, &AnyFilter).unwrap();
    assert_eq!(bootstrap.filters[0].config, json!({"set": {"x-a": null}}));
}

#[test]
fn a_missing_or_broken_file_is_a_report() {
    let report = Bootstrap::load(Path::new("/nonexistent/b.yaml"), &Known).unwrap_err();
    assert_eq!(report.problems[0].remedy, "create it, or correct the path");
    assert!(
        problems("a: [\n")[0].starts_with("b.yaml:"),
        "{:?}",
        problems("a: [\n")
    );
    assert!(problems("threads: 1\n---\nthreads: 1\n")[0].contains("one document"));
}
