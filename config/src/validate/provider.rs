//! Rules of an ExternalModelProvider.

use sluice_crds::networking::ExternalModelProviderSpec;

use super::{Checker, names};
use crate::path::Place;

/// Headers that the gateway or HTTP itself sets.
const RESERVED_HEADERS: [&str; 14] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
    "host",
    "content-length",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Checker<'_> {
    pub(super) fn provider(&mut self, spec: &ExternalModelProviderSpec, at: Place<'_>) {
        self.model(spec.model.as_deref(), at.key("model"));
        if let Err((message, remedy)) = check_base_url(&spec.base_url) {
            self.error(at.key("baseURL"), message, remedy);
        }
        if let Some(auth) = &spec.auth {
            let (auth_at, secret) = (at.key("auth"), &auth.secret_ref);
            let at = auth_at.key("secretRef");
            if secret.name.is_empty() {
                self.error(
                    at.key("name"),
                    "the Secret has no name",
                    "name a Secret of the same namespace",
                );
            }
            if secret.key.is_empty() {
                self.error(
                    at.key("key"),
                    "the Secret's key is empty",
                    "name the key that holds the credential",
                );
            }
            if secret.optional == Some(true) {
                let message = "the credential cannot be optional";
                self.error(at.key("optional"), message, "write false, or remove `auth`");
            }
        }
        let headers = at.key("headers");
        for (name, value) in &spec.headers {
            self.provider_header(name, value, headers.key(name));
        }
        let remedy = "requests routed to it are answered with an error";
        self.warn(
            at,
            "accepted but not acted on: external providers are not called yet",
            remedy,
        );
    }

    fn provider_header(&mut self, name: &str, value: &str, at: Place<'_>) {
        if !names::is_header_name(name) {
            self.error(
                at,
                format!("`{name}` is not a header name"),
                "use letters, digits and `-`",
            );
        } else if RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
            let message = format!("the header `{name}` is set by the gateway");
            self.error(at, message, "remove it; credentials belong in `auth`");
        }
        if value.bytes().any(|b| (b < 0x20 && b != b'\t') || b == 0x7f) {
            self.error(
                at,
                "the value has a control character",
                "write it on one line",
            );
        }
    }
}

fn check_base_url(url: &str) -> Result<(), (&'static str, &'static str)> {
    let remedy = "write a URL such as `https://api.example.com/v1`";
    let Some(rest) = url.strip_prefix("https://") else {
        return Err(("the URL does not start with https://", remedy));
    };
    if rest.contains('?') || rest.contains('#') {
        return Err((
            "the URL has a query or a fragment",
            "remove everything from `?` or `#` on",
        ));
    }
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Err((
            "the URL names a user",
            "put the credential in a Secret and name it in `auth`",
        ));
    }
    if authority.is_empty() || rest.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return Err(("the URL has no valid host", remedy));
    }
    Ok(())
}
