use super::*;
use crate::path::FieldPath;
use crate::problem::Finding;

fn checked(config: &JwtConfig) -> (Option<JwtParams>, Vec<String>) {
    let top = FieldPath::of("auth.jwt");
    let (params, findings) = check(config, crate::path::Place::Path(&top));
    let told = |finding: &Finding| format!("{}: {}", finding.path, finding.message);
    (params, findings.iter().map(told).collect())
}

fn at(uri: &str) -> JwtConfig {
    JwtConfig {
        issuer: "https://issuer".into(),
        audiences: vec!["gateway".into()],
        jwks_uri: Some(uri.into()),
        ..JwtConfig::default()
    }
}

fn uri(config: &JwtConfig) -> KeyUri {
    match checked(config) {
        (Some(params), _) => match params.keys {
            KeySource::Uri(uri) => uri,
            KeySource::File(file) => panic!("a file: {file:?}"),
        },
        (None, findings) => panic!("{findings:?}"),
    }
}

#[test]
fn uris_are_taken_apart() {
    for (text, host, port, authority, path) in [
        ("https://a.b/keys", "a.b", 443, "a.b", "/keys"),
        ("https://a.b", "a.b", 443, "a.b", "/"),
        ("https://a.b:8443?x=1", "a.b", 8443, "a.b:8443", "/?x=1"),
        ("https://[fd00::1]/k", "fd00::1", 443, "[fd00::1]", "/k"),
        ("https://[fd00::1]:9/k", "fd00::1", 9, "[fd00::1]:9", "/k"),
        (
            "http://127.0.0.1:80/k",
            "127.0.0.1",
            80,
            "127.0.0.1:80",
            "/k",
        ),
    ] {
        let found = uri(&at(text));
        assert_eq!(
            (found.host.as_str(), found.port, found.authority.as_str()),
            (host, port, authority),
            "{text}"
        );
        assert_eq!((found.path.as_str(), found.uri.as_str()), (path, text));
        assert_eq!(found.tls, text.starts_with("https"));
    }
    assert_eq!(uri(&at("https://a/k")).refresh.as_secs(), 300);
}

#[test]
fn what_is_no_uri_of_keys_is_refused() {
    for text in [
        "",
        "keys.json",
        "ftp://a/k",
        "https://",
        "https:///k",
        "https://a:/k",
        "https://a:0/k",
        "https://a:99999/k",
        "https://[a]/k",
        "https://user:password@a/k",
        "https://a/k#f",
        "https://a b/k",
        "https://\u{e4}/k",
    ] {
        let (params, findings) = checked(&at(text));
        assert!(
            params.is_none() && findings.len() == 1,
            "{text}: {findings:?}"
        );
        assert!(
            findings[0].starts_with("auth.jwt.jwksUri: "),
            "{findings:?}"
        );
        assert!(!findings[0].contains("password:"), "{findings:?}");
    }
}

#[test]
fn a_block_that_would_let_everybody_or_nobody_in_is_said_so() {
    let (params, findings) = checked(&JwtConfig::default());
    assert!(params.is_none());
    assert!(findings[0].contains("the issuer is empty"), "{findings:?}");
    assert!(
        findings[1].contains("no token could be checked"),
        "{findings:?}"
    );
    assert!(
        findings[2].contains("any audience is accepted"),
        "{findings:?}"
    );
    let both = JwtConfig {
        jwks_file: Some("/keys".into()),
        ..at("https://a/k")
    };
    assert!(checked(&both).1[0].contains("in two places"));
    let hasty = JwtConfig {
        refresh_interval: Some(std::time::Duration::from_millis(10).into()),
        ..at("https://a/k")
    };
    assert!(checked(&hasty).0.is_none());
    let (params, findings) = checked(&at("http://issuer/keys"));
    assert!(params.is_some());
    assert!(findings[0].contains("without TLS"), "{findings:?}");
}

#[test]
fn keys_may_be_in_a_file() {
    let config = JwtConfig {
        jwks_uri: None,
        jwks_file: Some("/keys".into()),
        ..at("")
    };
    let (params, findings) = checked(&config);
    assert_eq!(params.unwrap().keys, KeySource::File("/keys".into()));
    assert!(findings.is_empty(), "{findings:?}");
}
