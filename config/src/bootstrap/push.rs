//! `source.push`: the control loop that tells the gateway what to serve.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::path::FieldPath;
use crate::problem::Finding;

/// A control loop that pushes documents and endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PushConfig {
    /// Where it listens: `https://host:port`, each perhaps with several IP addresses. One is followed at a time.
    pub addresses: Vec<String>,
    /// PEM file of the authorities that sign its certificates.
    pub ca_file: Option<PathBuf>,
    /// PEM chain of the gateway's own certificate.
    pub cert_file: Option<PathBuf>,
    /// PEM private key of it.
    pub key_file: Option<PathBuf>,
    /// Service-account token, read anew for every connection.
    pub token_file: Option<PathBuf>,
    /// Name of this gateway; default: `POD_NAMESPACE/POD_NAME` of the environment, else the host's name.
    pub node: Option<String>,
    /// Namespaces to serve; default: all that the gateway is allowed to.
    pub namespaces: Vec<String>,
    /// The last good state is kept here, so that a restart serves while the control loop is away.
    pub state_file: Option<PathBuf>,
    /// Not ready before pushed state is there (from the stream or `stateFile`), even if `routes` are.
    pub required: bool,
}

/// One address of a control loop, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlAddress {
    /// Speak TLS.
    pub tls: bool,
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl ControlAddress {
    /// Takes `https://host:port` (or `http://`) apart.
    ///
    /// # Errors
    /// What is wrong with it, to stand behind the URL.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let (tls, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err("does not start with https://"),
        };
        let address = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = crate::validate::split_address(address)?;
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
        })
    }
}

/// Everything wrong with `push`.
pub(super) fn validate(push: &PushConfig, at: &FieldPath) -> Vec<Finding> {
    let mut findings = Vec::new();
    let addresses = at.key("addresses");
    if push.addresses.is_empty() {
        let remedy = "write `https://sluice-control.sluice-system.svc:15010`, or give --control";
        let message = "there is no address of a control loop";
        findings.push(Finding::warning(addresses.clone(), message, remedy));
    }
    let (mut tls, mut plain) = (false, false);
    for (index, url) in push.addresses.iter().enumerate() {
        match ControlAddress::parse(url) {
            Ok(address) => {
                tls |= address.tls;
                plain |= !address.tls;
            }
            Err(reason) => {
                let remedy = "write a URL such as `https://sluice-control.sluice-system.svc:15010`";
                let message = format!("{url:?} {reason}");
                findings.push(Finding::error(addresses.index(index), message, remedy));
            }
        }
    }
    findings.extend(credentials(push, at, tls, plain));
    for (index, namespace) in push.namespaces.iter().enumerate() {
        if namespace.is_empty() {
            let path = at.key("namespaces").index(index);
            findings.push(Finding::error(
                path,
                "the name is empty",
                "write a namespace",
            ));
        }
    }
    if push.node.as_ref().is_some_and(String::is_empty) {
        let remedy = "write a name, or remove the field";
        findings.push(Finding::error(at.key("node"), "the name is empty", remedy));
    }
    findings
}

fn credentials(push: &PushConfig, at: &FieldPath, tls: bool, plain: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let files = [
        ("caFile", &push.ca_file),
        ("certFile", &push.cert_file),
        ("keyFile", &push.key_file),
        ("tokenFile", &push.token_file),
        ("stateFile", &push.state_file),
    ];
    for (key, file) in files {
        if file
            .as_ref()
            .is_some_and(|file| file.as_os_str().is_empty())
        {
            let remedy = "name a file, or remove the field";
            findings.push(Finding::error(at.key(key), "the path is empty", remedy));
        }
    }
    if tls && push.ca_file.is_none() {
        let message = "nothing tells whose certificates are right";
        let remedy = "name the PEM file of the control loop's authority";
        findings.push(Finding::error(at.key("caFile"), message, remedy));
    }
    let (cert, key) = (push.cert_file.is_some(), push.key_file.is_some());
    if cert != key {
        let (missing, there) = match cert {
            true => ("keyFile", "certFile"),
            false => ("certFile", "keyFile"),
        };
        let message = format!("there is a `{there}` and no `{missing}`");
        let remedy = "write both, or neither and a `tokenFile`";
        findings.push(Finding::error(at.key(missing), message, remedy));
    }
    if plain {
        let remedy = "write https:// unless the network keeps others away";
        let message = match push.token_file {
            Some(_) => "the stream, its Secrets and the token are sent in clear",
            None => "the stream and its Secrets are sent in clear",
        };
        findings.push(Finding::warning(at.key("addresses"), message, remedy));
    } else if !cert && push.token_file.is_none() && tls {
        let message = "the gateway has neither a certificate nor a token to show";
        let remedy = "name a `tokenFile`, or `certFile` and `keyFile`";
        findings.push(Finding::warning(at.clone(), message, remedy));
    }
    findings
}

#[cfg(test)]
mod tests {
    use crate::{AnyFilter, Bootstrap};

    fn problems(push: &str) -> Vec<String> {
        let text = format!("source:\n  push: {push}\n");
        let problems = match Bootstrap::parse("b", text, &AnyFilter) {
            Ok((_, warnings)) => warnings,
            Err(report) => report.problems,
        };
        let texts = problems
            .iter()
            .map(|problem| format!("{}: {}", problem.path, problem.message));
        texts.collect()
    }

    #[test]
    fn a_whole_one_is_right() {
        let whole =
            "{addresses: ['https://c.ns.svc:15010', 'https://[::1]:1/'], caFile: a, tokenFile: t}";
        assert_eq!(problems(whole), Vec::<String>::new());
    }

    #[test]
    fn addresses_are_urls_of_host_and_port() {
        let found = problems(
            "{addresses: ['c:15010', 'https://c', 'https://c:1/x', 'ftp://c:1'], caFile: a}",
        );
        assert_eq!(
            found,
            [
                "source.push.addresses[0]: \"c:15010\" does not start with https://",
                "source.push.addresses[1]: \"https://c\" has no port",
                "source.push.addresses[2]: \"https://c:1/x\" is a URL, not an address",
                "source.push.addresses[3]: \"ftp://c:1\" does not start with https://",
            ]
        );
    }

    #[test]
    fn credentials_must_fit_the_addresses_and_each_other() {
        assert_eq!(
            problems("{addresses: ['https://c:1'], certFile: c}"),
            [
                "source.push.caFile: nothing tells whose certificates are right",
                "source.push.keyFile: there is a `certFile` and no `keyFile`",
            ]
        );
        assert_eq!(
            problems("{addresses: ['http://c:1'], tokenFile: t, stateFile: '', node: ''}"),
            [
                "source.push.stateFile: the path is empty",
                "source.push.addresses: the stream, its Secrets and the token are sent in clear",
                "source.push.node: the name is empty",
            ]
        );
        assert_eq!(
            problems("{addresses: ['https://c:1'], caFile: a, namespaces: ['']}"),
            [
                "source.push: the gateway has neither a certificate nor a token to show",
                "source.push.namespaces[0]: the name is empty",
            ]
        );
        assert_eq!(
            problems("{stateFile: s}"),
            ["source.push.addresses: there is no address of a control loop"]
        );
    }
}
