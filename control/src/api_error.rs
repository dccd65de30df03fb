//! What an error of the Kubernetes client means, in a line.
//!
//! The client's own words repeat the whole status object.

use std::error::Error as _;

/// `error` without the client's wrapping; for a verb that is denied, what to do.
pub(crate) fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            format!(
                "{}; grant it in the role of this service account",
                status.message
            )
        }
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) => format!("the API server answered {}", status.code),
        other => {
            // The innermost source says `connection refused` and the like.
            let mut text = other.to_string();
            let mut source = other.source();
            while let Some(inner) = source {
                let inner_text = inner.to_string();
                if !text.contains(&inner_text) {
                    text = format!("{text}: {inner_text}");
                }
                source = inner.source();
            }
            text
        }
    }
}

/// Did the API server answer with this status code?
pub(crate) fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn api(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Box::new(Status {
            code,
            message: message.into(),
            ..Status::default()
        }))
    }

    #[test]
    fn a_denied_verb_comes_with_what_to_do() {
        let text = explain(&api(403, "leases is forbidden"));
        assert!(text.starts_with("leases is forbidden; grant"), "{text}");
    }

    #[test]
    fn the_status_object_is_not_repeated() {
        assert_eq!(explain(&api(409, "it changed")), "it changed");
        assert_eq!(explain(&api(500, "")), "the API server answered 500");
        assert!(is_code(&api(409, ""), 409) && !is_code(&api(409, ""), 404));
    }
}
