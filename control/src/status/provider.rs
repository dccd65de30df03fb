//! Conditions of an ExternalModelProvider: ours, and Kthena's with Kthena's reasons.

use crate::index::{Credential, Facts};

use super::condition::{ConditionType, Reason, Truth, Verdict};
use super::desired::not_accepted;

/// Secrets without it are not looked at.
const LABEL: &str = "networking.serving.volcano.sh/external-model-provider-credential=true";

pub(super) fn verdicts(facts: &Facts, credential: &Credential) -> Vec<Verdict> {
    let (truth, reason, message) = explain(credential, &facts.key.namespace);
    let resolved = Verdict::new(ConditionType::CredentialsResolved, truth, reason, &*message);
    if !facts.accepted {
        let message = "gateways refuse the document: mend what `Accepted` names";
        let reason = Reason::ConfigurationInvalid;
        return vec![
            not_accepted(ConditionType::ResolvedRefs),
            resolved,
            Verdict::new(ConditionType::Ready, Truth::False, reason, message),
        ];
    }
    let (references, ready) = match truth {
        Truth::True => (
            Verdict::new(
                ConditionType::ResolvedRefs,
                truth,
                Reason::ResolvedRefs,
                &*message,
            ),
            Verdict::new(
                ConditionType::Ready,
                truth,
                Reason::Ready,
                "everything that it needs is there",
            ),
        ),
        _ => (
            Verdict::new(ConditionType::ResolvedRefs, truth, reason, &*message),
            Verdict::new(ConditionType::Ready, truth, reason, &*message),
        ),
    };
    vec![references, resolved, ready]
}

fn explain(credential: &Credential, namespace: &str) -> (Truth, Reason, String) {
    match credential {
        Credential::NotRequired => (
            Truth::True,
            Reason::CredentialNotRequired,
            "no credential is asked for".into(),
        ),
        Credential::Resolved => (
            Truth::True,
            Reason::CredentialResolved,
            "the credential is there".into(),
        ),
        Credential::NotFound { secret } => (
            Truth::False,
            Reason::CredentialNotFound,
            format!(
                "there is no Secret `{secret}` in namespace `{namespace}` with the label `{LABEL}`: create it, or label \
                 it (and let sluice-control read Secrets there, --secret-namespaces)"
            ),
        ),
        Credential::KeyNotFound { secret, key } => (
            Truth::False,
            Reason::CredentialKeyNotFound,
            format!(
                "the Secret `{secret}` has nothing under the key `{key}`: add it, or correct auth.secretRef.key"
            ),
        ),
        Credential::Invalid { secret, key } => (
            Truth::False,
            Reason::CredentialInvalid,
            format!(
                "what the Secret `{secret}` has under the key `{key}` has line breaks or control characters, and cannot \
                 stand in a header: write it again on one line"
            ),
        ),
    }
}
