//! Holds the rooms to their arrows: crds <- config <- proxy; crds, config <- control; benches, e2e on top.
//!
//! What a member says it depends on comes from `cargo metadata`. What it compiles comes from `cargo tree`,
//! because metadata merges the features of all members: `kube` with the client that control switches on
//! would look as if proxy compiled it too.
//! Not for: development dependencies, which no product carries.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// Each member, and the members it may use.
const ARROWS: [(&str, &[&str]); 6] = [
    ("sluice-crds", &[]),
    ("sluice-config", &["sluice-crds"]),
    ("sluice-proxy", &["sluice-crds", "sluice-config"]),
    ("sluice-control", &["sluice-crds", "sluice-config"]),
    (
        "sluice-e2e",
        &[
            "sluice-crds",
            "sluice-config",
            "sluice-proxy",
            "sluice-control",
        ],
    ),
    (
        "sluice-benches",
        &[
            "sluice-crds",
            "sluice-config",
            "sluice-proxy",
            "sluice-control",
            "sluice-e2e",
        ],
    ),
];

/// Each member, and the beginnings of the names of crates it must never compile.
const FORBIDDEN: [(&str, &[&str]); 4] = [
    ("sluice-crds", &["kube-client", "kube-runtime", "pingora"]),
    ("sluice-config", &["pingora"]),
    ("sluice-proxy", &["kube-client", "kube-runtime"]),
    ("sluice-control", &["pingora"]),
];

/// Runs cargo on this workspace's lock file, without the network when what it needs is on disk.
fn cargo(arguments: &[&str]) -> String {
    let run = |more: &[&str]| {
        Command::new(env!("CARGO"))
            .args(arguments)
            .arg("--locked")
            .args(more)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs, for it runs this test")
    };
    let mut output = run(&["--offline"]);
    if !output.status.success() {
        output = run(&[]);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

/// The normal and build dependencies that are members, of each member.
fn members(metadata: &Value) -> BTreeMap<String, Vec<String>> {
    let ids = metadata["workspace_members"].as_array().unwrap();
    let packages: Vec<&Value> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| ids.contains(&package["id"]))
        .collect();
    let is_member = |name: &Value| packages.iter().any(|package| package["name"] == *name);
    packages
        .iter()
        .map(|package| {
            let uses = package["dependencies"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|dependency| dependency["kind"] != "dev" && is_member(&dependency["name"]))
                .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
                .collect();
            (package["name"].as_str().unwrap().to_owned(), uses)
        })
        .collect()
}

/// Says which arrow points the wrong way, or which member has no place yet.
fn wrong_arrows(members: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (member, uses) in members {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| name == member) else {
            wrong.push(format!(
                "{member} is not in ARROWS; say there what it may use"
            ));
            continue;
        };
        let outside = uses.iter().filter(|used| !allowed.contains(&used.as_str()));
        wrong.extend(outside.map(|used| format!("{member} -> {used}")));
    }
    wrong
}

/// The way from the root of a `cargo tree --prefix depth` to the first crate that must not be there.
///
/// A crate that comes up again is printed without its dependencies, but the first time it has them all.
fn forbidden_path(tree: &str, forbidden: &[&str]) -> Option<String> {
    let mut path: Vec<&str> = Vec::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let mut words = line.split(' ');
        let depth = words.next().expect("a split has a first part");
        let name = words.next().expect("a name follows the depth");
        path.truncate(depth.parse().expect("the depth comes first"));
        path.push(name);
        if path.len() > 1 && forbidden.iter().any(|start| name.starts_with(start)) {
            return Some(path.join(" -> "));
        }
    }
    None
}

#[test]
fn arrows_between_members_point_one_way() {
    // `--no-deps` needs no crate on disk but ours.
    let metadata = cargo(&["metadata", "--format-version", "1", "--no-deps"]);
    let members = members(&serde_json::from_str(&metadata).unwrap());
    assert_eq!(members.len(), ARROWS.len(), "members: {:?}", members.keys());
    let wrong = wrong_arrows(&members);
    assert!(wrong.is_empty(), "arrows that must not be: {wrong:#?}");
}

#[test]
fn no_member_compiles_what_is_kept_out_of_it() {
    for (member, forbidden) in FORBIDDEN {
        let tree = cargo(&[
            "tree", "-p", member, "--edges", "normal", "--prefix", "depth", "--format", " {p}",
        ]);
        assert!(
            tree.starts_with(&format!("0 {member} ")),
            "not the tree of {member}: {tree}"
        );
        if let Some(path) = forbidden_path(&tree, forbidden) {
            panic!("{member} must not reach {forbidden:?}, but: {path}");
        }
    }
}

#[test]
fn a_wrong_arrow_and_a_new_member_are_named() {
    let uses = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let members = BTreeMap::from([
        (
            "sluice-config".to_owned(),
            uses(&["sluice-crds", "sluice-proxy"]),
        ),
        ("sluice-new".to_owned(), uses(&[])),
        ("sluice-proxy".to_owned(), uses(&["sluice-config"])),
    ]);
    assert_eq!(
        wrong_arrows(&members),
        [
            "sluice-config -> sluice-proxy",
            "sluice-new is not in ARROWS; say there what it may use"
        ]
    );
}

#[test]
fn development_dependencies_are_no_arrows() {
    let metadata = serde_json::json!({
        "workspace_members": ["a", "b"],
        "packages": [
            { "id": "a", "name": "sluice-a", "dependencies": [
                { "name": "sluice-b", "kind": "dev" }, { "name": "serde", "kind": null }] },
            { "id": "b", "name": "sluice-b", "dependencies": [{ "name": "sluice-a", "kind": null }] },
        ],
    });
    let members = members(&metadata);
    assert_eq!(members["sluice-a"], Vec::<String>::new());
    assert_eq!(members["sluice-b"], ["sluice-a"]);
}

#[test]
fn the_path_to_a_forbidden_crate_is_told() {
    let tree = "0 sluice-proxy v0.1.0\n1 serde v1.0.0\n1 sluice-config v0.1.0\n2 kube v5.0.0\n\
                3 kube-core v5.0.0\n3 kube-client v5.0.0\n1 tokio v1.0.0\n";
    assert_eq!(
        forbidden_path(tree, &["kube-client"]).as_deref(),
        Some("sluice-proxy -> sluice-config -> kube -> kube-client")
    );
    assert_eq!(forbidden_path(tree, &["pingora"]), None);
}
