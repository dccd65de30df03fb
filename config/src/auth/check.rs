//! Rules of an `auth` block that its schema cannot say.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{JwtConfig, JwtParams, KeySource, KeyUri};
use crate::path::Place;
use crate::problem::Finding;

/// Time between two fetches of the keys.
const REFRESH: Duration = Duration::from_secs(300);
/// More often would only load the issuer.
const SHORTEST_REFRESH: Duration = Duration::from_secs(1);
/// Longer URIs are a slip.
const MAX_URI_BYTES: usize = 2048;

/// What `config` means and what is wrong with it. With an error among the findings there is no meaning.
pub(crate) fn check(config: &JwtConfig, at: Place<'_>) -> (Option<JwtParams>, Vec<Finding>) {
    let mut findings = Vec::new();
    texts(config, at, &mut findings);
    let keys = keys(config, at, &mut findings);
    if config.audiences.is_empty() {
        let message = "any audience is accepted: tokens that the issuer made for others open this gateway too";
        let remedy = "list what `aud` must be";
        findings.push(Finding::warning(at.key("audiences"), message, remedy));
    }
    let params = keys.map(|keys| JwtParams {
        issuer: config.issuer.clone(),
        audiences: config.audiences.clone(),
        keys,
        user_claim: config.claims.user.clone(),
    });
    let wrong = findings.iter().any(Finding::is_error);
    (params.filter(|_| !wrong), findings)
}

fn texts(config: &JwtConfig, at: Place<'_>, findings: &mut Vec<Finding>) {
    if config.issuer.is_empty() {
        let remedy = "write what `iss` is in the tokens";
        findings.push(Finding::error(
            at.key("issuer"),
            "the issuer is empty: no token would be accepted",
            remedy,
        ));
    }
    let list = at.key("audiences");
    for (index, audience) in config.audiences.iter().enumerate() {
        if audience.is_empty() {
            let remedy = "write what `aud` is in the tokens, or remove it";
            findings.push(Finding::error(
                list.index(index),
                "the audience is empty",
                remedy,
            ));
        }
    }
    if config.claims.user.is_empty() {
        let claims = at.key("claims");
        let remedy = "name the claim, or remove the field: it is `sub`";
        findings.push(Finding::error(
            claims.key("user"),
            "the claim's name is empty",
            remedy,
        ));
    }
}

fn keys(config: &JwtConfig, at: Place<'_>, findings: &mut Vec<Finding>) -> Option<KeySource> {
    let refresh = config.refresh_interval;
    if refresh.is_some_and(|time| time.is_negative() || Duration::from(time) < SHORTEST_REFRESH) {
        let remedy = "write a time such as `5m`, at least `1s`";
        findings.push(Finding::error(
            at.key("refreshInterval"),
            "the keys would be fetched without a pause",
            remedy,
        ));
    }
    match (&config.jwks_uri, &config.jwks_file) {
        (Some(_), Some(_)) => {
            let message = "the keys are said to be in two places";
            let remedy = "keep one of `jwksUri` and `jwksFile`";
            findings.push(Finding::error(at.key("jwksFile"), message, remedy));
            None
        }
        (None, None) => {
            let message = "nothing says where the issuer's keys are: no token could be checked";
            let remedy = "write `jwksUri: https://...`, or `jwksFile`";
            findings.push(Finding::error(at, message, remedy));
            None
        }
        (Some(uri), None) => {
            let place = at.key("jwksUri");
            let (refresh, ca_file) = (refresh.map_or(REFRESH, Duration::from), &config.ca_file);
            match parse(uri, refresh, ca_file) {
                Ok(parsed) => {
                    findings.extend(exposed(&parsed, place));
                    Some(KeySource::Uri(parsed))
                }
                Err((message, remedy)) => {
                    findings.push(Finding::error(place, message, remedy));
                    None
                }
            }
        }
        (None, Some(file)) if file.as_os_str().is_empty() => {
            let remedy = "name a file of keys (a JSON Web Key Set)";
            findings.push(Finding::error(
                at.key("jwksFile"),
                "the path is empty",
                remedy,
            ));
            None
        }
        (None, Some(file)) => Some(KeySource::File(file.clone())),
    }
}

/// Without TLS whoever is on the way can put keys of their own.
fn exposed(uri: &KeyUri, place: Place<'_>) -> Option<Finding> {
    let loopback = uri.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if uri.tls || loopback || uri.host == "localhost" {
        return None;
    }
    let message =
        "the keys are fetched without TLS: whoever is on the way can put keys of their own";
    Some(Finding::warning(place, message, "use https"))
}

fn parse(
    uri: &str,
    refresh: Duration,
    ca_file: &Option<PathBuf>,
) -> Result<KeyUri, (String, &'static str)> {
    let wrong = |message: &str, remedy| Err((message.to_owned(), remedy));
    let example = "write a URI such as `https://issuer.example/.well-known/jwks.json`";
    let (tls, rest) = match uri.split_once("://") {
        Some(("https", rest)) => (true, rest),
        Some(("http", rest)) => (false, rest),
        _ => return wrong("this is no URI that begins with https://", example),
    };
    if uri.len() > MAX_URI_BYTES || !uri.bytes().all(|byte| byte.is_ascii_graphic()) {
        let remedy = "write it in ASCII without blanks, at most 2048 characters";
        return wrong("this is no URI", remedy);
    }
    if rest.contains('#') {
        return wrong("the URI has a fragment", "remove what begins with `#`");
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.contains('@') {
        let remedy = "remove what stands before `@`: this file is shown in /debug/config";
        return wrong("the URI holds a name or a password", remedy);
    }
    let Some((host, port)) = host_and_port(authority, tls) else {
        return wrong("the URI has no host, or its port is wrong", example);
    };
    let path = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/{path}"),
    };
    Ok(KeyUri {
        uri: uri.to_owned(),
        tls,
        host: host.to_owned(),
        port,
        authority: authority.to_owned(),
        path,
        refresh,
        ca_file: ca_file.clone(),
    })
}

fn host_and_port(authority: &str, tls: bool) -> Option<(&str, u16)> {
    let default = if tls { 443 } else { 80 };
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port.strip_prefix(':').unwrap_or(port))
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    if host.is_empty() || !host.bytes().all(named) {
        return None;
    }
    match port {
        "" if authority.ends_with(':') => None,
        "" => Some((host, default)),
        port => Some((host, port.parse().ok().filter(|port| *port > 0)?)),
    }
}
