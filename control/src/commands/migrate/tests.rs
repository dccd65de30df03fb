//! Golden: a file of Kthena's values and what becomes of it.

use super::*;

const KTHENA: &str = include_str!("../../../tests/migrate/kthena-values.yaml");
const SLUICE: &str = include_str!("../../../tests/migrate/sluice-values.yaml");

fn migrate(values: &str) -> Account {
    let values: Value = serde_yaml::from_str(values).unwrap();
    account(values.as_object().unwrap_or(&Map::new()))
}

fn get<'a>(account: &'a Account, path: &str) -> &'a Value {
    let mut keys = path.split('.');
    let first = account
        .values
        .get(keys.next().unwrap())
        .unwrap_or(&Value::Null);
    keys.fold(first, |value, key| &value[key])
}

#[test]
fn every_value_is_taken_over_or_named_with_the_reason() {
    let text = text(&migrate(KTHENA));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/migrate/sluice-values.yaml"
        );
        fs::write(path, &text).unwrap();
    }
    assert_eq!(text, SLUICE, "UPDATE_GOLDEN=1 writes it anew");
}

#[test]
fn credentials_are_not_repeated_in_comments() {
    let text = text(&migrate(KTHENA));
    assert!(text.contains("secretKey: (not shown)"), "{text}");
    assert!(!text.contains("hush") && !text.contains("AKIA"), "{text}");
}

#[test]
fn little_memory_is_worth_a_note_and_enough_is_not() {
    let noted = |memory: &str| {
        let account = migrate(&format!(
            "networking: {{kthenaRouter: {{resource: {{limits: {{memory: {memory}}}}}}}}}"
        ));
        account
            .notes
            .iter()
            .any(|note| note.starts_with("proxy.resources"))
    };
    assert!(noted("512Mi") && noted("536870912") && noted("1e9m"));
    assert!(!noted("1Gi") && !noted("2G") && !noted("1024Mi"));
}

#[test]
fn an_untouched_chart_gives_kthenas_defaults_where_ours_differ() {
    let account = migrate("# nothing\n");
    assert_eq!(
        (account.taken, account.unknown.len(), account.without.len()),
        (0, 0, 0)
    );
    assert_eq!(get(&account, "proxy.service.type"), "LoadBalancer");
    assert_eq!(get(&account, "proxy.accessLog.format"), "text");
    assert_eq!(get(&account, "proxy.kthenaMetrics.enabled"), true);
}

#[test]
fn either_switch_turns_the_gateway_off() {
    for off in [
        "networking: {enabled: false, kthenaRouter: {enabled: true}}",
        "networking: {enabled: true, kthenaRouter: {enabled: false}}",
    ] {
        let account = migrate(off);
        assert_eq!(get(&account, "proxy.enabled"), false, "{off}");
        assert_eq!(get(&account, "control.enabled"), false, "{off}");
        assert!(get(&account, "proxy.service").is_null(), "{off}");
    }
}

#[test]
fn a_grace_period_that_would_cut_streams_is_raised() {
    let short = "networking: {kthenaRouter: {terminationGracePeriodSeconds: 30, drainTimeout: 2m}}";
    assert_eq!(
        get(&migrate(short), "proxy.terminationGracePeriodSeconds"),
        126
    );
    let long = "networking: {kthenaRouter: {drainTimeout: 10m}}";
    assert_eq!(
        get(&migrate(long), "proxy.terminationGracePeriodSeconds"),
        606
    );
    let odd = "networking: {kthenaRouter: {drainTimeout: soon}}";
    assert_eq!(get(&migrate(odd), "proxy.drain.timeout"), "soon");
}

#[test]
fn empty_parts_are_nothing_to_speak_of_and_odd_ones_do_no_harm() {
    for values in [
        "networking:\n",
        "networking: {}\nworkload: {}\n",
        "networking: {kthenaRouter: null}",
    ] {
        let account = migrate(values);
        assert!(
            account.unknown.is_empty(),
            "{values}: {:?}",
            account.unknown
        );
    }
    let odd = migrate("networking: text\nglobal: [1]\n");
    assert_eq!(odd.unknown, ["networking: text", "global: [1]"]);
}

#[test]
fn no_entry_of_the_table_stands_there_twice() {
    let mut paths: Vec<&str> = table::TABLE.iter().map(|(path, _)| *path).collect();
    let count = paths.len();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), count);
}

#[test]
fn what_is_no_file_of_values_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let write = |text: &str| {
        let path = folder.path().join("values.yaml");
        fs::write(&path, text).unwrap();
        read(&path).map_err(|error| error.to_string())
    };
    assert_eq!(write("# only a comment\n"), Ok(Map::new()));
    assert!(write("a: [").unwrap_err().contains("not YAML"));
    assert!(write("[1]").unwrap_err().contains("values are a mapping"));
    assert!(read(Path::new("/nowhere")).is_err());
}
