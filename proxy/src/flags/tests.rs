use std::time::Duration;

use sluice_config::bootstrap::AccessLogFormat;

use super::*;

fn read(arguments: &[&str]) -> Result<Flags, clap::Error> {
    let arguments = ["sluice-proxy"]
        .into_iter()
        .chain(arguments.iter().copied());
    Flags::read(arguments.map(OsString::from))
}

fn bootstrap(arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<Bootstrap> {
    let environment = environment.iter();
    let environment = environment.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    read(arguments)?.bootstrap(environment)
}

fn good(arguments: &[&str], environment: &[(&str, &str)]) -> Bootstrap {
    bootstrap(arguments, environment).unwrap_or_else(|error| panic!("{arguments:?}: {error:#}"))
}

fn refused(arguments: &[&str]) -> String {
    match read(arguments) {
        Ok(flags) => panic!("{arguments:?} are taken: {flags:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn flags_go_before_the_file_and_the_file_before_kthenas_environment() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sluice.yaml");
    let text = "accessLog: {format: json}\nmetrics: {address: '127.0.0.1:1', kthena: false}\n";
    std::fs::write(&file, text).unwrap();
    let environment = [
        ("ACCESS_LOG_FORMAT", "text"),
        ("ACCESS_LOG_ENABLED", "F"),
        ("ACCESS_LOG_OUTPUT", "/tmp/access.log"),
        ("DRAIN_TIMEOUT", "90s"),
        ("ENABLE_FAIRNESS_SCHEDULING", "true"),
        ("REDIS_HOST", "redis"),
        ("HOME", "/root"),
    ];
    let file = file.display().to_string();
    let found = good(
        &["--config", &file, "--metrics", "127.0.0.1:2"],
        &environment,
    );
    assert_eq!(found.access_log.format, AccessLogFormat::Json);
    assert!(!found.access_log.enabled);
    assert_eq!(found.access_log.output, "/tmp/access.log");
    assert_eq!(Duration::from(found.drain.timeout), Duration::from_secs(90));
    assert_eq!(found.metrics.address.port(), 2);
    let without = good(&[], &environment);
    assert_eq!(without.access_log.format, AccessLogFormat::Text);
}

#[test]
fn a_wrong_or_empty_value_of_kthenas_changes_nothing() {
    let wrong = [
        ("ACCESS_LOG_ENABLED", "maybe"),
        ("ACCESS_LOG_FORMAT", "xml"),
        ("ACCESS_LOG_OUTPUT", ""),
        ("DRAIN_TIMEOUT", "soon"),
        ("ENABLE_SESSION_BOOST", "perhaps"),
    ];
    assert_eq!(good(&[], &wrong), Bootstrap::default());
}

#[test]
fn kthenas_families_are_switched_by_flag_variable_or_file() {
    const NAME: &str = "SLUICE_KTHENA_METRICS";
    let kthena = |arguments: &[&str], value: &str| good(arguments, &[(NAME, value)]).metrics.kthena;
    assert!(!kthena(&[], ""));
    assert!(kthena(&["--kthena-metrics"], ""));
    assert!(kthena(&[], "true"));
    assert!(!kthena(&["--kthena-metrics=false"], "true"));
    assert!(kthena(&["--kthena-metrics=true"], "0"));
    let error = bootstrap(&[], &[(NAME, "on")]).unwrap_err();
    assert!(
        error.to_string().contains("neither true nor false"),
        "{error:#}"
    );
}

#[test]
fn kthenas_flags_with_an_equivalent_are_taken() {
    let flags = [
        "--port=8081",
        "--debug-port",
        "15001",
        "--metrics-port=9091",
        "--tls-cert=/tls/tls.crt",
        "--tls-key=/tls/tls.key",
        "--enable-gateway-api=false",
        "--enable-webhook=false",
    ];
    let found = good(&flags, &[]);
    assert_eq!(found.listeners.len(), 1);
    let listener = &found.listeners[0];
    assert_eq!(listener.address.to_string(), "0.0.0.0:8081");
    let tls = listener.tls.as_ref().unwrap();
    assert_eq!(tls.cert_file, PathBuf::from("/tls/tls.crt"));
    assert_eq!(tls.key_file, PathBuf::from("/tls/tls.key"));
    assert_eq!(found.admin.address.to_string(), "127.0.0.1:15001");
    assert_eq!(found.metrics.address.to_string(), "0.0.0.0:9091");
    let both = good(
        &[
            "--listen=127.0.0.1:1",
            "--listen=127.0.0.1:2",
            "--tls-cert=c",
            "--tls-key=k",
        ],
        &[],
    );
    assert!(both.listeners.iter().all(|listener| listener.tls.is_some()));
}

#[test]
fn kthenas_flags_without_one_say_what_to_use() {
    for (arguments, word) in [
        (&["--enable-gateway-api"][..], "Gateway API"),
        (&["--enable-gateway-api=true"], "Gateway API"),
        (&["--webhook-port", "8443"], "sluice-control"),
        (&["--kube-api-qps=5"], "sluice-control"),
        (&["--expose-metrics-on-router-port"], "--metrics"),
        (&["-v=4"], "RUST_LOG"),
        (
            &["--port=80", "--listen=127.0.0.1:1"],
            "cannot be used with",
        ),
        (&["--port=0"], "0"),
        (&["--tls-cert=c"], "--tls-key"),
    ] {
        let told = refused(arguments);
        assert!(told.contains(word), "{arguments:?}: {told}");
    }
    let help = refused(&["--help"]);
    assert!(
        !help.contains("--debug-port") && !help.contains("--tls-cert"),
        "{help}"
    );
}
