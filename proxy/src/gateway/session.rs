//! The name of a request's session, as a hash: what makes turns go where the turns before went.

use http::header::{self, HeaderMap};
use sluice_config::scheduling::SessionParams;
use xxhash_rust::xxh3::xxh3_64;

use crate::openai::scan::Facts;

/// The first that is there: the configured header, the configured cookie, the body's own hint, its user.
pub(super) fn key(
    params: &SessionParams,
    headers: &HeaderMap,
    facts: Option<&Facts>,
) -> Option<u64> {
    let header = headers.get(&params.header).map(|value| value.as_bytes());
    let header = header.filter(|value| !value.is_empty());
    let cookie = || cookie(headers, params.cookie.as_deref()?);
    let hint = || facts?.session.as_deref().map(str::as_bytes);
    let user = || facts?.user.as_deref().map(str::as_bytes);
    header
        .or_else(cookie)
        .or_else(hint)
        .or_else(user)
        .map(xxh3_64)
}

/// The value of a cookie; RFC 6265 5.4: pairs parted by `; `, in one field or several.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|field| field.as_bytes().split(|&byte| byte == b';'))
        .map(<[u8]>::trim_ascii)
        .find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        .filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn header_goes_before_cookie_before_hint_before_user() {
        let params = SessionParams {
            header: "x-session-id".into(),
            cookie: Some("sid".into()),
        };
        let facts = Facts {
            session: Some("hint".into()),
            user: Some("user".into()),
            ..Facts::default()
        };
        let mut headers = HeaderMap::new();
        let key = |headers: &HeaderMap, facts: &Facts| key(&params, headers, Some(facts));
        let user_only = Facts {
            session: None,
            ..facts.clone()
        };
        assert_eq!(key(&headers, &Facts::default()), None);
        assert_eq!(key(&headers, &user_only), Some(xxh3_64(b"user")));
        assert_eq!(key(&headers, &facts), Some(xxh3_64(b"hint")));
        let cookies = HeaderValue::from_static("a=1; sidx=2;sid=cookie");
        headers.insert(header::COOKIE, cookies);
        assert_eq!(key(&headers, &facts), Some(xxh3_64(b"cookie")));
        headers.insert("x-session-id", HeaderValue::from_static("head"));
        assert_eq!(key(&headers, &facts), Some(xxh3_64(b"head")));
    }
}
