use std::time::SystemTime;

use http::{HeaderName, Uri, Version};
use jsonwebtoken::get_current_timestamp;
use serde_json::json;

use super::keys::Keys;
use super::testing::{Signer, part, set, text};
use super::*;
use crate::telemetry::BuildInfo;

const ISSUER: &str = "https://issuer.example";

fn params() -> JwtParams {
    JwtParams {
        issuer: ISSUER.into(),
        audiences: vec!["gateway".into(), "other".into()],
        keys: KeySource::File("/nowhere/keys.json".into()),
        user_claim: "sub".into(),
    }
}

/// What a good token says.
fn claims() -> Value {
    let now = get_current_timestamp();
    json!({"iss": ISSUER, "aud": "gateway", "sub": "anna", "exp": now + 600, "iat": now, "nbf": now})
}

/// The same with one claim changed; null takes it away.
fn with(claim: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().shift_remove(claim)),
        value => claims[claim] = value,
    }
    claims
}

fn keys(all: &[Value]) -> Keys {
    provider::install();
    Keys::parse(&set(all)).unwrap()
}

fn check(token: &str, keys: &Keys) -> Result<Option<String>, TokenError> {
    Rules::new(&params()).check(token, keys)
}

#[test]
fn tokens_of_every_accepted_algorithm_are_accepted_and_name_their_user() {
    let signers = [
        Signer::rsa(),
        Signer::p256(),
        Signer::p384(),
        Signer::ed25519(),
    ];
    let public: Vec<Value> = (signers.iter().zip(["r", "a", "b", "e"]))
        .map(|(signer, id)| signer.jwk(id))
        .collect();
    let keys = keys(&public);
    assert_eq!(keys.len(), 4);
    let user = Ok(Some("anna".to_owned()));
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        let token = signers[0].token(algorithm, Some("r"), &claims());
        assert_eq!(check(&token, &keys), user, "{algorithm}");
    }
    for (signer, algorithm, id) in [(1, "ES256", "a"), (2, "ES384", "b"), (3, "EdDSA", "e")] {
        let token = signers[signer].token(algorithm, Some(id), &claims());
        assert_eq!(check(&token, &keys), user, "{algorithm}");
        let unnamed = signers[signer].token(algorithm, None, &claims());
        assert_eq!(check(&unnamed, &keys), user, "{algorithm} without kid");
    }
}

#[test]
fn what_is_not_signed_by_the_issuer_is_refused() {
    let (own, foreign) = (Signer::p256(), Signer::p256());
    let keys = keys(&[own.jwk("a"), Signer::rsa().jwk("r")]);
    let good = own.token("ES256", Some("a"), &claims());
    assert!(check(&good, &keys).is_ok());
    let forged = foreign.token("ES256", Some("a"), &claims());
    assert_eq!(check(&forged, &keys), Err(TokenError::Signature));
    let unnamed = foreign.token("ES256", None, &claims());
    assert_eq!(check(&unnamed, &keys), Err(TokenError::Signature));
    let newer = foreign.token("ES256", Some("newer"), &claims());
    assert_eq!(check(&newer, &keys), Err(TokenError::UnknownKey));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (head, _) = message.split_once('.').unwrap();
    let other = part(&with("sub", json!("bert")));
    for changed in [
        format!("{head}.{other}.{signature}"),
        format!("{message}."),
        format!("{message}.{}", text(&[0; 64])),
    ] {
        assert_eq!(
            check(&changed, &keys),
            Err(TokenError::Signature),
            "{changed}"
        );
    }
}

#[test]
fn the_algorithm_is_the_keys_and_never_none_or_a_secret() {
    let (elliptic, rsa) = (Signer::p256(), Signer::rsa());
    let secret = json!({"kty": "oct", "kid": "s", "k": text(b"a secret that somebody published")});
    let only = json!({"alg": "RS512"});
    let mut rs512 = rsa.jwk("r512");
    rs512["alg"] = only["alg"].clone();
    let keys = keys(&[elliptic.jwk("a"), rsa.jwk("r"), secret, rs512]);
    assert_eq!(
        keys.len(),
        3,
        "a secret is no public key: {:?}",
        keys.describe()
    );
    // The classic: the public key taken for a password.
    let claims = part(&claims());
    for algorithm in [
        "none", "None", "NONE", "HS256", "HS384", "HS512", "ES512", "ES256K", "",
    ] {
        for id in ["a", "r", "s"] {
            let head = part(&json!({"alg": algorithm, "kid": id}));
            for signature in ["", "AAAA", &text(&[7; 32])] {
                let token = format!("{head}.{claims}.{signature}");
                let refused = check(&token, &keys);
                assert_eq!(refused, Err(TokenError::Algorithm), "{algorithm} {id}");
            }
        }
    }
    // A key of one kind is not asked about another.
    let mixed = elliptic.token("EdDSA", Some("a"), &super::tests::claims());
    assert_eq!(check(&mixed, &keys), Err(TokenError::UnknownKey));
    let mixed = rsa.token("RS256", Some("r512"), &super::tests::claims());
    assert_eq!(check(&mixed, &keys), Err(TokenError::UnknownKey));
    let right = rsa.token("RS512", Some("r512"), &super::tests::claims());
    assert!(check(&right, &keys).is_ok());
}

#[test]
fn claims_are_held_against_the_rules() {
    let signer = Signer::ed25519();
    let keys = keys(&[signer.jwk("e")]);
    let check = |claims: &Value| check(&signer.token("EdDSA", Some("e"), claims), &keys);
    let now = get_current_timestamp();
    for (claim, value, expected) in [
        ("exp", json!(null), TokenError::Claims),
        ("exp", json!("tomorrow"), TokenError::Claims),
        ("exp", json!((now + 600).to_string()), TokenError::Claims),
        ("exp", json!(now - 31), TokenError::Expired),
        ("exp", json!(0), TokenError::Expired),
        ("nbf", json!(now + 60), TokenError::NotYet),
        ("nbf", json!("later"), TokenError::Claims),
        ("iat", json!(now + 60), TokenError::FromTheFuture),
        ("iat", json!("yesterday"), TokenError::Claims),
        ("iss", json!(null), TokenError::Claims),
        ("iss", json!("https://issuer.example/"), TokenError::Issuer),
        ("iss", json!(7), TokenError::Claims),
        ("aud", json!(null), TokenError::Claims),
        ("aud", json!("elsewhere"), TokenError::Audience),
        ("aud", json!([]), TokenError::Audience),
        ("aud", json!({"gateway": true}), TokenError::Claims),
    ] {
        let found = check(&with(claim, value.clone()));
        assert_eq!(found, Err(expected), "{claim}: {value}");
    }
    for (claim, value) in [
        ("exp", json!(now as f64 + 600.5)),
        ("nbf", json!(null)),
        ("nbf", json!(now + 10)),
        ("iat", json!(null)),
        ("iat", json!(now + 10)),
        ("aud", json!(["elsewhere", "other"])),
    ] {
        let found = check(&with(claim, value.clone()));
        assert!(found.is_ok(), "{claim}: {value}: {found:?}");
    }
    for odd in [json!(null), json!(7), json!(""), json!("x".repeat(300))] {
        assert_eq!(check(&with("sub", odd)), Ok(None));
    }
    assert_eq!(check(&json!(["exp"])), Err(TokenError::Malformed));
}

#[test]
fn audiences_are_looked_at_only_where_some_are_configured_and_the_user_claim_may_be_another() {
    let signer = Signer::p384();
    let keys = keys(&[signer.jwk("a")]);
    let rules = Rules::new(&JwtParams {
        audiences: Vec::new(),
        user_claim: "email".into(),
        ..params()
    });
    for audience in [json!(null), json!("elsewhere"), json!(["x"])] {
        let mut claims = with("aud", audience);
        claims["email"] = json!("anna@example.com");
        let token = signer.token("ES384", Some("a"), &claims);
        let user = rules.check(&token, &keys);
        assert_eq!(user, Ok(Some("anna@example.com".into())));
    }
}

#[test]
fn what_is_no_token_is_refused_without_a_panic() {
    let signer = Signer::p256();
    let keys = keys(&[signer.jwk("a")]);
    let good = signer.token("ES256", Some("a"), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    for odd in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        &good[1..],
        &format!("{good}.x"),
        &format!("{}.{}", parts[0], parts[1]),
        &format!("{}.{}.{}", parts[0], "!", parts[2]),
        &format!("{}.{}.{}", text(b"{}"), parts[1], parts[2]),
        &format!("{}.{}.{}", text(b"\xff\xfe"), parts[1], parts[2]),
    ] {
        let found = check(odd, &keys);
        assert!(
            matches!(found, Err(TokenError::Malformed | TokenError::Signature)),
            "{odd}: {found:?}"
        );
    }
    let critical = json!({"alg": "ES256", "kid": "a", "crit": ["b64"], "b64": false});
    let token = signer.sign(&critical, &claims(), "ES256");
    assert!(check(&token, &keys).is_err());
}

#[test]
fn a_set_is_read_as_far_as_it_is_of_use() {
    provider::install();
    let signer = Signer::p256();
    let mut encrypts = signer.jwk("enc");
    encrypts["use"] = json!("enc");
    let mut derives = signer.jwk("ops");
    derives["key_ops"] = json!(["deriveKey"]);
    let mut odd = signer.jwk("odd");
    odd["x"] = json!("not base64!");
    let kinds = [
        json!({"kty": "unheard of", "kid": "u"}),
        json!({"kty": "EC", "crv": "P-521", "kid": "p", "x": "AA", "y": "AA"}),
        json!("a text"),
        encrypts,
        derives,
        odd,
        signer.jwk("good"),
    ];
    assert_eq!(
        Keys::parse(&set(&kinds)).unwrap().describe(),
        ["good (ES256)"]
    );
    for useless in [
        &set(&kinds[..6]),
        &set(&[]),
        &b"<html>".to_vec(),
        &b"{}".to_vec(),
    ] {
        assert!(Keys::parse(useless).is_err());
    }
    let many: Vec<Value> = (0..500).map(|id| signer.jwk(&id.to_string())).collect();
    assert_eq!(Keys::parse(&set(&many)).unwrap().len(), 100);
}

#[test]
fn a_token_is_found_in_one_bearer_field_only() {
    let find = |fields: &[&str]| {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(field).unwrap());
        }
        token::find(&headers).map(str::to_owned)
    };
    for field in [
        "Bearer a.b.c",
        "bearer a.b.c",
        "BEARER   a.b.c",
        " Bearer a.b.c ",
    ] {
        assert_eq!(find(&[field]), Ok("a.b.c".into()), "{field}");
    }
    assert_eq!(find(&[]), Err(TokenError::Missing));
    assert_eq!(find(&["Bearer a", "Bearer b"]), Err(TokenError::Several));
    for field in [
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "a.b.c",
        "Bearer a b",
        "Bearer a,b",
    ] {
        assert_eq!(find(&[field]), Err(TokenError::Scheme), "{field}");
    }
}

#[test]
fn a_challenge_tells_what_is_wrong_and_nothing_of_the_token() {
    for error in TokenError::ALL {
        let told = challenge(&error);
        let told = told.to_str().unwrap();
        assert!(told.starts_with("Bearer realm=\"sluice\""), "{told}");
        let has_error = told.contains("error=\"invalid_token\"");
        assert_eq!(has_error, error != TokenError::Missing, "{told}");
    }
}

fn authenticator(params: Option<JwtParams>) -> Arc<Authenticator> {
    let build = BuildInfo {
        version: "test",
        revision: "test",
    };
    let metrics = Arc::new(Metrics::new(build, SystemTime::UNIX_EPOCH));
    Authenticator::new(params, metrics)
}

fn head(method: Method, fields: &[(HeaderName, &str)]) -> RequestHead {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    RequestHead {
        method,
        uri: Uri::from_static("/v1/chat/completions"),
        version: Version::HTTP_11,
        headers,
    }
}

/// Asks with a token, which is taken from the request whatever becomes of it.
async fn ask(authenticator: &Authenticator, token: &str) -> Result<Option<String>, RequestError> {
    let field = format!("Bearer {token}");
    let mut head = head(Method::POST, &[(header::AUTHORIZATION, &field)]);
    let admitted = authenticator.admit(&mut head).await;
    assert!(head.headers.get(header::AUTHORIZATION).is_none());
    admitted
}

#[tokio::test]
async fn a_file_of_keys_is_followed_and_its_last_good_version_stays() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let source = JwtParams {
        keys: KeySource::File(file.clone()),
        ..params()
    };
    let authenticator = authenticator(Some(source));
    let (first, second) = (Signer::p256(), Signer::p256());
    let ask = async |token: String| ask(&authenticator, &token).await;
    let token = |signer: &Signer, id: &str| signer.token("ES256", Some(id), &claims());
    assert!(!authenticator.is_ready());
    let refused = ask(token(&first, "1")).await.unwrap_err();
    assert_eq!(refused.status(), 503);
    let until = async |signer: &Signer, id: &str, good: bool| {
        while ask(token(signer, id)).await.is_ok() != good {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let write = |page: &[u8]| {
        std::fs::write(folder.path().join("new"), page).unwrap();
        std::fs::rename(folder.path().join("new"), &file).unwrap();
    };
    write(&set(&[first.jwk("1")]));
    until(&first, "1", true).await;
    assert!(authenticator.is_ready());
    write(b"{broken");
    while authenticator.describe()["keys"]["trouble"].is_null() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(ask(token(&first, "1")).await.unwrap(), Some("anna".into()));
    write(&set(&[second.jwk("2")]));
    until(&second, "2", true).await;
    assert_eq!(ask(token(&first, "1")).await.unwrap_err().status(), 401);
    // Another audience, the same keys: they are not read anew.
    authenticator.set(Some(JwtParams {
        keys: KeySource::File(file),
        audiences: vec!["elsewhere".into()],
        ..params()
    }));
    assert!(authenticator.is_ready());
    assert_eq!(ask(token(&second, "2")).await.unwrap_err().status(), 401);
    authenticator.set(None);
    let mut head = head(
        Method::POST,
        &[(header::AUTHORIZATION, "Bearer of an engine's key")],
    );
    assert_eq!(authenticator.admit(&mut head).await.unwrap(), None);
    assert!(
        head.headers.contains_key(header::AUTHORIZATION),
        "not ours to take"
    );
}

#[tokio::test]
async fn rules_whose_keys_do_not_come_leave_those_before_in_force_and_never_open_the_door() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::p256();
    let write = |name: &str, signer: &Signer| {
        let file = folder.path().join(name);
        std::fs::write(&file, set(&[signer.jwk("1")])).unwrap();
        file
    };
    let of = |file: std::path::PathBuf, issuer: &str| JwtParams {
        keys: KeySource::File(file),
        issuer: issuer.into(),
        ..params()
    };
    let missing = folder.path().join("missing.json");
    let authenticator = authenticator(Some(of(missing.clone(), ISSUER)));
    let ask = async |token: String| {
        let admitted = ask(&authenticator, &token).await;
        admitted.map_err(|error| error.status().as_u16())
    };
    let token = || signer.token("ES256", Some("1"), &claims());
    authenticator.set(Some(of(write("good.json", &signer), ISSUER)));
    assert_eq!(ask(token()).await, Ok(Some("anna".into())));
    // Twice: what was in force last is what had keys, not what came between.
    authenticator.set(Some(of(missing, "https://other.example")));
    authenticator.set(Some(of(
        folder.path().join("wrong.json"),
        "https://other.example",
    )));
    assert!(authenticator.is_ready());
    assert_eq!(authenticator.describe()["issuerInForce"], ISSUER);
    assert_eq!(ask(token()).await, Ok(Some("anna".into())));
    let stranger = Signer::p256().token("ES256", Some("1"), &claims());
    assert_eq!(ask(stranger).await, Err(401));
    // With keys the new rules count alone.
    authenticator.set(Some(of(
        write("other.json", &signer),
        "https://other.example",
    )));
    assert_eq!(ask(token()).await, Err(401));
}

#[tokio::test]
async fn browsers_may_ask_first_without_a_token_but_only_so() {
    let authenticator = authenticator(Some(params()));
    let origin = (header::ORIGIN, "https://app.example");
    let method = (header::ACCESS_CONTROL_REQUEST_METHOD, "POST");
    let asks = |method: Method, fields: &[(HeaderName, &str)]| {
        let mut head = head(method, fields);
        let authenticator = Arc::clone(&authenticator);
        async move { authenticator.admit(&mut head).await.is_ok() }
    };
    assert!(asks(Method::OPTIONS, &[origin.clone(), method.clone()]).await);
    assert!(!asks(Method::OPTIONS, &[]).await);
    assert!(!asks(Method::OPTIONS, std::slice::from_ref(&origin)).await);
    assert!(!asks(Method::POST, &[origin.clone(), method.clone()]).await);
    assert!(!asks(Method::GET, &[origin, method]).await);
}
