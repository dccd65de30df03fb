//! What the command line takes.

use clap::CommandFactory;

use super::*;

fn run(arguments: &[&str]) -> Result<RunFlags, String> {
    let all = ["sluice-control"].iter().chain(arguments);
    Flags::try_parse_from(all)
        .map(|flags| flags.run)
        .map_err(|error| error.to_string())
}

#[test]
fn the_definition_of_the_flags_holds_together() {
    Flags::command().debug_assert();
}

#[test]
fn every_flag_can_be_given_in_the_environment() {
    let command = Flags::command();
    let without: Vec<&str> = command
        .get_arguments()
        .filter(|argument| argument.get_env().is_none())
        .map(|argument| argument.get_id().as_str())
        .filter(|name| !["help", "version"].contains(name))
        .collect();
    assert!(without.is_empty(), "{without:?}");
}

#[test]
fn switches_stand_alone_or_with_a_value() {
    assert!(run(&[]).unwrap().election.leader_elect);
    assert!(run(&["--leader-elect"]).unwrap().election.leader_elect);
    assert!(
        !run(&["--leader-elect=false"])
            .unwrap()
            .election
            .leader_elect
    );
    assert!(!run(&["--webhook=false"]).unwrap().webhook.webhook);
}

#[test]
fn lists_are_split_and_grants_may_be_repeated() {
    let flags = run(&["--namespaces=a,b", "--grant=x=*", "--grant=CN=y=a,b"]).unwrap();
    assert_eq!(flags.cluster.namespaces, ["a", "b"]);
    assert_eq!(flags.push.grants, ["x=*", "CN=y=a,b"]);
}

#[test]
fn the_chart_s_command_line_is_understood() {
    let flags = run(&[
        "--push-address=0.0.0.0:15010",
        "--operations-address=[::]:8080",
        "--leader-elect=true",
        "--lease-namespace=sluice-system",
        "--namespaces=team-a,team-b",
        "--secret-namespaces=team-b",
        "--webhook=true",
        "--webhook-address=0.0.0.0:8443",
        "--webhook-service-name=sluice-control-webhook",
        "--webhook-certificates=/etc/sluice/webhook",
        "--grant=system:serviceaccount:sluice-system:sluice-proxy=*",
        "--log-json",
    ])
    .unwrap();
    assert_eq!(
        flags.election.lease_namespace.as_deref(),
        Some("sluice-system")
    );
    assert!(flags.log_json);
}

#[test]
fn what_makes_no_sense_is_refused_with_a_reason() {
    for (argument, reason) in [
        ("--debug-address=0.0.0.0:15020", "loopback only"),
        ("--webhook-url=http://127.0.0.1:1", "https://"),
        ("--push-tls-mode=files", "--push-certificates"),
        ("--certificate-lifetime=1s", "at least 30s"),
        ("--kube-api-qps=-1", "0 or more"),
        ("--leader-elect-retry-period=soon", "not a duration"),
    ] {
        let error = run(&[argument]).unwrap_err();
        assert!(error.contains(reason), "{argument}: {error}");
    }
}

#[test]
fn commands_have_flags_of_their_own() {
    let parse = |arguments: &[&str]| {
        let all = ["sluice-control"].iter().chain(arguments);
        Flags::try_parse_from(all).unwrap().command
    };
    assert!(
        matches!(parse(&["run", "--webhook=false"]), Some(Command::Run(flags)) if !flags.webhook.webhook)
    );
    assert!(matches!(parse(&["crds"]), Some(Command::Crds)));
    assert!(
        matches!(parse(&["check", "-f", "a", "b"]), Some(Command::Check { paths }) if paths.len() == 2)
    );
    assert!(matches!(
        parse(&["migrate", "-f", "values.yaml"]),
        Some(Command::Migrate { .. })
    ));
    assert!(Flags::try_parse_from(["sluice-control", "check"]).is_err());
}
