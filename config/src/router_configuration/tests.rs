use super::*;
use crate::auth::KeySource;
use crate::problem::Severity;
use crate::scheduling::{PolicyParams, ScorePlugin};

/// As Kthena's chart installs it, with an `auth` block.
const CONFIGURATION: &str = "\
scheduler:
  pluginConfig:
  - name: least-request
    args:
      maxWaitingRequests: 7
  - name: least-latency
    args:
      TTFTTPOTWeightFactor: 0.5
  plugins:
    Filter:
      enabled:
        - least-request
      disabled:
        - lora-affinity
    Score:
      enabled:
        - name: least-request
          weight: 1
        - name: prefix-cache
          weight: 3
auth:
  issuer: testing@example.com
  audiences: [gateway]
  jwksUri: https://issuer.example/jwks.json
";

fn config_map(key: &str, text: &str) -> String {
    let indented: String = text.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: kthena-router-config\ndata:\n  {key}: |-\n{indented}"
    )
}

fn good(text: &str) -> (RouterConfiguration, Vec<String>) {
    let (configuration, warnings) = RouterConfiguration::parse("r.yaml", text).unwrap();
    assert!(warnings.iter().all(|one| one.severity == Severity::Warning));
    let warnings = warnings.iter().map(ToString::to_string).collect();
    (configuration, warnings)
}

fn bad(text: &str) -> Vec<String> {
    let report = RouterConfiguration::parse("r.yaml", text).unwrap_err();
    report.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_bare_file_and_a_config_map_say_the_same() {
    let (bare, warnings) = good(CONFIGURATION);
    assert!(warnings.is_empty(), "{warnings:?}");
    let PolicyParams::Kthena(params) = &bare.scheduling.as_ref().unwrap().policy else {
        panic!("{bare:?}");
    };
    let scores = [
        (ScorePlugin::LeastRequest, 1),
        (ScorePlugin::PrefixCache, 3),
    ];
    assert_eq!(params.scores, scores);
    assert_eq!(params.max_waiting_requests, 7.0);
    let jwt = bare.jwt.as_ref().unwrap();
    assert_eq!(jwt.issuer, "testing@example.com");
    assert!(matches!(&jwt.keys, KeySource::Uri(uri) if uri.host == "issuer.example"));
    for key in KEYS {
        assert_eq!(good(&config_map(key, CONFIGURATION)).0, bare);
    }
    let among_others = format!("kind: Service\n---\n{}", config_map(KEYS[0], CONFIGURATION));
    assert_eq!(good(&among_others).0, bare);
}

#[test]
fn what_says_nothing_changes_nothing() {
    for text in [
        "",
        "# nothing\n",
        "auth:\n",
        "auth: {}\n",
        "auth: {issuer: '', jwksUri: ''}\n",
    ] {
        assert_eq!(good(text).0, RouterConfiguration::default(), "{text}");
    }
    assert_eq!(
        good(&config_map(KEYS[0], "")).0,
        RouterConfiguration::default()
    );
}

#[test]
fn an_empty_file_does_not_let_everybody_in() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("router.yaml");
    std::fs::write(&file, "\n").unwrap();
    let report = RouterConfiguration::load(&file).unwrap_err();
    assert_eq!(report.problems[0].message, "the file is empty");
    std::fs::write(&file, "{}").unwrap();
    let (none, warnings) = RouterConfiguration::load(&file).unwrap();
    assert_eq!((none, warnings.len()), (RouterConfiguration::default(), 0));
}

#[test]
fn problems_have_the_line_of_the_file_in_a_config_map_too() {
    let wrong = CONFIGURATION.replace("name: prefix-cache", "name: prefix-cash");
    let told = "scheduler.plugins.Score.enabled[1].name: there is no such plug-in here: `prefix-cash`; \
                did you mean `prefix-cache`?";
    assert_eq!(bad(&wrong), [format!("r.yaml:19: {told}")]);
    assert_eq!(
        bad(&config_map(KEYS[0], &wrong)),
        [format!("r.yaml:25: {told}")]
    );
    let broken = CONFIGURATION.replace("plugins:", "plugins: [");
    let (bare, mapped) = (bad(&broken), bad(&config_map(KEYS[0], &broken)));
    assert!(bare[0].contains("not YAML"), "{bare:?}");
    let line = |told: &str| told.split(':').nth(1).unwrap().parse::<usize>().unwrap();
    assert_eq!(line(&bare[0]) + 6, line(&mapped[0]));
}

#[test]
fn unknown_fields_are_ignored_as_kthena_does_but_not_below_auth() {
    let newer = format!("sessionSticky:\n  backend: memory\n{CONFIGURATION}").replace(
        "      enabled:\n        - name: least-request",
        "      disabled: []\n      enabled:\n        - name: least-request",
    );
    let (configuration, warnings) = good(&newer);
    assert!(configuration.jwt.is_some() && configuration.scheduling.is_some());
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].starts_with("r.yaml:1: sessionSticky: unknown field"),
        "{warnings:?}"
    );
    let misspelt = CONFIGURATION.replace("jwksUri", "jwksURI");
    let told = bad(&misspelt);
    assert!(told[0].contains("did you mean `jwksUri`?"), "{told:?}");
}

#[test]
fn an_auth_block_that_would_not_be_enforced_is_refused() {
    let open = CONFIGURATION.replace("  jwksUri: https://issuer.example/jwks.json\n", "");
    assert!(bad(&open)[0].contains("nobody is asked for a token"));
    let nobody = "auth: {jwksUri: 'https://issuer/keys'}\n";
    assert!(bad(nobody)[0].contains("the issuer is empty"));
    for outside in ["Auth", "authentication"] {
        let told = bad(&CONFIGURATION.replace("auth:", &format!("{outside}:")));
        assert!(told[1].contains("outside of `auth`"), "{told:?}");
    }
    assert!(!bad("auth: [1]\n").is_empty());
    assert!(!bad("- scheduler\n").is_empty());
    assert!(!bad("a: 1\n---\nb: 2\n").is_empty());
    let other = "kind: ConfigMap\ndata: {other: x}\n";
    assert!(bad(other)[0].contains("no text called `routerConfiguration`"));
}

#[test]
fn it_is_told_from_bootstrap_files_and_resources() {
    let is = |text: &str| {
        yaml::parse(text)
            .unwrap()
            .iter()
            .any(|one| is_one(&one.value))
    };
    assert!(is(CONFIGURATION) && is(&config_map(KEYS[1], CONFIGURATION)));
    assert!(is("auth: {issuer: x}\n"));
    assert!(!is("auth: {jwt: {issuer: x}}\nscheduling: {}\n"));
    assert!(!is("kind: ModelRoute\nspec: {}\n") && !is("kind: ConfigMap\ndata: {a: b}\n"));
}
