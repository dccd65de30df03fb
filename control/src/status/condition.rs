//! Conditions and their reasons: closed sets, because scripts and alerts match on them.

/// What a condition speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// Do gateways take the document into force?
    Accepted,
    /// Is there what it points at?
    ResolvedRefs,
    /// Have gateways acknowledged this version?
    Programmed,
    /// Does an older route take requests that this one would take?
    Conflicted,
    /// Kthena's: can requests go to the provider?
    Ready,
    /// Kthena's: is its credential there?
    CredentialsResolved,
}

impl ConditionType {
    /// As written in `type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Programmed => "Programmed",
            Self::Conflicted => "Conflicted",
            Self::Ready => "Ready",
            Self::CredentialsResolved => "CredentialsResolved",
        }
    }

    /// Is it good news when it is true?
    pub fn is_good(self) -> bool {
        self != Self::Conflicted
    }
}

/// A condition's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Truth {
    /// Yes.
    True,
    /// No.
    False,
    /// Nobody can say yet.
    Unknown,
}

impl Truth {
    /// As written in `status`.
    pub fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Declares the reasons: each is written as it is called.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Why a condition is as it is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As written in `reason`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

reasons! {
    /// Nothing is wrong with the document by itself.
    Accepted,
    /// Gateways refuse the document, and keep its last good version.
    Invalid,
    /// Another condition has to come right before this one can be judged.
    NotAccepted,
    /// Everything that it points at is there.
    ResolvedRefs,
    /// A target of the route does not exist.
    TargetNotFound,
    /// A target of the route exists, and gateways refuse it.
    TargetInvalid,
    /// No pod has the labels of the selector.
    NoMatchingPods,
    /// The pods of the namespace have not been listed yet.
    PodsUnknown,
    /// Pods have the labels of the selector, but none those of a role.
    RoleNotFound,
    /// There are pods, and no port to reach them on.
    PortMissing,
    /// Every connected gateway has acknowledged it.
    Programmed,
    /// Not every connected gateway has answered yet.
    Pending,
    /// A gateway refuses it.
    Rejected,
    /// No gateway is connected.
    NoProxies,
    /// No older route is in its way.
    NoConflict,
    /// Requests that match an older route too go there.
    OverlapsOlderRoute,
    /// Some of its rules get no requests for an older route's sake.
    RulesShadowed,
    /// It gets no requests at all for older routes' sake.
    Shadowed,
    /// Kthena's.
    Ready,
    /// Kthena's.
    ConfigurationInvalid,
    /// Kthena's.
    CredentialNotRequired,
    /// Kthena's.
    CredentialResolved,
    /// Kthena's.
    CredentialNotFound,
    /// Kthena's.
    CredentialKeyNotFound,
    /// Kthena's.
    CredentialInvalid,
}

/// A condition without times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What it speaks of.
    pub kind: ConditionType,
    /// Its status.
    pub truth: Truth,
    /// Why.
    pub reason: Reason,
    /// In words, with what to do where something is wrong.
    pub message: String,
}

/// Longest message: the list of conditions is printed in one piece.
const MAX_MESSAGE_BYTES: usize = 1024;

impl Verdict {
    pub(super) fn new(
        kind: ConditionType,
        truth: Truth,
        reason: Reason,
        message: impl Into<String>,
    ) -> Self {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE_BYTES {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES - 4));
            message.push_str(" ...");
        }
        Self {
            kind,
            truth,
            reason,
            message,
        }
    }

    /// Is it news that somebody has to act on?
    pub fn is_bad(&self) -> bool {
        match self.truth {
            Truth::True => !self.kind.is_good(),
            Truth::False => self.kind.is_good(),
            Truth::Unknown => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let verdict = Verdict::new(
            ConditionType::Accepted,
            Truth::False,
            Reason::Invalid,
            "ü".repeat(MAX_MESSAGE_BYTES),
        );
        assert!(verdict.message.len() <= MAX_MESSAGE_BYTES);
        assert!(verdict.message.ends_with("ü ..."));
    }

    #[test]
    fn reasons_are_as_the_api_wants_them() {
        for reason in Reason::ALL {
            assert!(reason.name().chars().all(|c| c.is_ascii_alphanumeric()));
        }
    }
}
