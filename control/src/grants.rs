//! Who may see which namespaces: identities as the operator grants them.
//!
//! For: parsing `--grant`, and the answer to "may this gateway see that". Not for how an identity is proven:
//! [`authenticate`](crate::authenticate).

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

/// Stands for every namespace in a grant.
const ALL: &str = "*";

/// Namespaces that somebody may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespaces {
    /// Every one, also those to come.
    All,
    /// These.
    Only(BTreeSet<String>),
}

/// What is wrong with a grant.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum GrantError {
    /// There is no `=`.
    #[error("grant {0:?} has no `=`; write IDENTITY=NAMESPACE[,NAMESPACE...] or IDENTITY=*")]
    Shape(String),
    /// Nothing stands before the `=`.
    #[error(
        "grant {0:?} names no identity before `=`, such as system:serviceaccount:NAMESPACE:NAME"
    )]
    NoIdentity(String),
    /// Something between the commas is no namespace.
    #[error(
        "grant {grant:?}: {namespace:?} is not the name of a namespace (lower-case letters, digits and `-`)"
    )]
    Namespace {
        /// As written.
        grant: String,
        /// The part that is wrong.
        namespace: String,
    },
}

/// Identities and what they may see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    by_identity: BTreeMap<String, Namespaces>,
    /// Who the other replicas of the control loop are; they see no resources, only what gateways have acknowledged.
    replica: Option<String>,
}

impl Namespaces {
    /// May a resource of this namespace be seen?
    pub fn allow(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(namespace),
        }
    }

    /// What is both allowed and wanted. Whoever wants nothing in particular gets all that is allowed.
    #[must_use]
    pub fn narrowed(&self, wanted: &[String]) -> Self {
        if wanted.is_empty() {
            return self.clone();
        }
        Self::Only(
            wanted
                .iter()
                .filter(|name| self.allow(name))
                .cloned()
                .collect(),
        )
    }

    fn add(&mut self, more: Self) {
        match (&mut *self, more) {
            (Self::All, _) => {}
            (_, Self::All) => *self = Self::All,
            (Self::Only(names), Self::Only(more)) => names.extend(more),
        }
    }

    /// As in a grant: `*`, or names between commas.
    fn parse(grant: &str, text: &str) -> Result<Self, GrantError> {
        if text == ALL {
            return Ok(Self::All);
        }
        let names = text.split(',').map(|name| {
            if is_namespace(name) {
                Ok(name.to_owned())
            } else {
                Err(GrantError::Namespace {
                    grant: grant.to_owned(),
                    namespace: name.to_owned(),
                })
            }
        });
        Ok(Self::Only(names.collect::<Result<_, _>>()?))
    }
}

impl std::fmt::Display for Namespaces {
    /// As in a grant.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => formatter.write_str(ALL),
            Self::Only(names) => {
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                formatter.write_str(&names.join(","))
            }
        }
    }
}

impl Grants {
    /// From `IDENTITY=NAMESPACE[,NAMESPACE...]` or `IDENTITY=*`, each; several for one identity add up. Without any, the
    /// chart's gateways are granted all: service account `sluice-proxy` in the control loop's own namespace.
    ///
    /// # Errors
    /// When a grant cannot be understood.
    pub fn parse(grants: &[String], own_namespace: &str) -> Result<Self, GrantError> {
        let mut by_identity = BTreeMap::<String, Namespaces>::new();
        for grant in grants {
            let (identity, namespaces) = grant
                .rsplit_once('=')
                .ok_or_else(|| GrantError::Shape(grant.clone()))?;
            if identity.is_empty() {
                return Err(GrantError::NoIdentity(grant.clone()));
            }
            by_identity
                .entry(identity.to_owned())
                .or_insert_with(|| Namespaces::Only(BTreeSet::new()))
                .add(Namespaces::parse(grant, namespaces)?);
        }
        if grants.is_empty() {
            let identity = format!("system:serviceaccount:{own_namespace}:sluice-proxy");
            by_identity.insert(identity, Namespaces::All);
        }
        let replica = Some(format!(
            "system:serviceaccount:{own_namespace}:sluice-control"
        ));
        Ok(Self {
            by_identity,
            replica,
        })
    }

    /// The same with another identity of the control loop's own replicas. By default it is the chart's: service account
    /// `sluice-control` in the control loop's namespace.
    #[must_use]
    pub fn with_replicas(self, identity: String) -> Self {
        Self {
            replica: Some(identity),
            ..self
        }
    }

    /// Is this a replica of the control loop?
    pub fn is_replica(&self, identity: &str) -> bool {
        self.replica.as_deref() == Some(identity)
    }

    /// What an identity may see; `None` if it may not even connect.
    pub fn namespaces(&self, identity: &str) -> Option<&Namespaces> {
        self.by_identity.get(identity)
    }
}

/// A DNS label, as Kubernetes wants namespaces to be.
fn is_namespace(name: &str) -> bool {
    let edges_hold = !name.starts_with('-') && !name.ends_with('-');
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    edges_hold && (1..=63).contains(&name.len()) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(names: &[&str]) -> Namespaces {
        Namespaces::Only(names.iter().map(|&name| name.to_owned()).collect())
    }

    fn parse(grants: &[&str]) -> Result<Grants, GrantError> {
        let grants: Vec<_> = grants.iter().map(|&grant| grant.to_owned()).collect();
        Grants::parse(&grants, "sluice-system")
    }

    #[test]
    fn without_grants_the_charts_gateways_see_everything() {
        let grants = parse(&[]).unwrap();
        let gateway = "system:serviceaccount:sluice-system:sluice-proxy";
        assert_eq!(grants.namespaces(gateway), Some(&Namespaces::All));
        let other = "system:serviceaccount:elsewhere:sluice-proxy";
        assert_eq!(grants.namespaces(other), None);
    }

    #[test]
    fn replicas_are_our_own_service_account_or_whom_the_operator_names_and_get_no_resources() {
        let grants = parse(&[]).unwrap();
        let own = "system:serviceaccount:sluice-system:sluice-control";
        assert!(grants.is_replica(own));
        assert_eq!(grants.namespaces(own), None);
        assert!(!grants.is_replica("system:serviceaccount:sluice-system:sluice-proxy"));
        let named = grants.with_replicas("control.example.com".into());
        assert!(named.is_replica("control.example.com") && !named.is_replica(own));
        assert!(!Grants::default().is_replica(own));
    }

    #[test]
    fn grants_of_one_identity_add_up_and_replace_the_default() {
        let grants = parse(&["a=x,y", "a=z", "b=x", "b=*", "b=y"]).unwrap();
        assert_eq!(grants.namespaces("a"), Some(&only(&["x", "y", "z"])));
        assert_eq!(grants.namespaces("b"), Some(&Namespaces::All));
        let gateway = "system:serviceaccount:sluice-system:sluice-proxy";
        assert_eq!(grants.namespaces(gateway), None);
    }

    #[test]
    fn an_identity_may_hold_an_equals_sign() {
        let grants = parse(&["spiffe://cluster/x?a=b=team"]).unwrap();
        let namespaces = grants.namespaces("spiffe://cluster/x?a=b");
        assert_eq!(namespaces, Some(&only(&["team"])));
    }

    #[test]
    fn a_wrong_grant_is_refused_in_words() {
        for (grant, word) in [
            ("identity", "no `=`"),
            ("=x", "names no identity"),
            ("a=", "\"\" is not the name"),
            ("a=x,,y", "\"\" is not the name"),
            ("a=Team", "\"Team\" is not the name"),
            ("a=x,*", "\"*\" is not the name"),
            ("a=-x", "\"-x\" is not the name"),
        ] {
            let error = parse(&[grant]).unwrap_err().to_string();
            assert!(error.contains(word), "{grant}: {error}");
        }
    }

    #[test]
    fn a_gateway_narrows_what_it_is_allowed_and_never_widens_it() {
        let wanted = ["x".to_owned(), "z".to_owned()];
        assert_eq!(Namespaces::All.narrowed(&wanted), only(&["x", "z"]));
        assert_eq!(only(&["x", "y"]).narrowed(&wanted), only(&["x"]));
        assert_eq!(only(&["y"]).narrowed(&wanted), only(&[]));
        assert_eq!(only(&["y"]).narrowed(&[]), only(&["y"]));
        assert!(!only(&[]).allow("x"));
    }

    #[test]
    fn grants_are_shown_as_they_are_written() {
        assert_eq!(only(&["y", "x"]).to_string(), "x,y");
        assert_eq!(Namespaces::All.to_string(), "*");
    }
}
