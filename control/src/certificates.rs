//! Certificates of our own listeners: made, renewed and handed out by ourselves, or read from files.
//!
//! Self-managed: an authority ([`Authorities`]) lives in a Secret that only the leader writes; each replica issues itself a
//! short-lived serving certificate, in memory only; the public half is published for those who must trust it
//! ([`Trust`]). Files: whoever writes them (cert-manager) renews them, and they are read again when they change.
//! Either way new handshakes use the newest good certificate ([`Resolver`]) and streams under way are not touched.
//! Not for deciding who may connect (`authenticate`).

mod authority;
mod clients;
mod files;
mod resolver;
mod self_managed;
mod serving;
mod store;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use self::authority::{Authorities, Authority, CertificateError};
pub use self::clients::{ClientAuthorities, without_clients};
pub use self::files::{CertificateFiles, FileCertificates};
pub use self::resolver::{Resolver, server_config};
pub use self::self_managed::SelfManaged;
pub use self::serving::ServingCertificate;
pub use self::store::SecretStore;

/// Tells the time; tests bring their own.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The clock of the machine.
pub fn system_clock() -> Clock {
    Arc::new(SystemTime::now)
}

/// How long certificates live. Each is renewed when two thirds of its life are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of the authority.
    pub authority: Duration,
    /// Of a replica's serving certificate.
    pub serving: Duration,
    /// How long a new authority is published before anything is signed with it: those who trust it read a ConfigMap
    /// that the kubelet brings within a minute or two.
    pub publication: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self::new(
            Duration::from_secs(90 * 24 * 60 * 60),
            Duration::from_secs(24 * 60 * 60),
        )
    }
}

impl Lifetimes {
    /// An hour of publication, or a tenth of the time in which two authorities overlap if that is less.
    pub fn new(authority: Duration, serving: Duration) -> Self {
        Self {
            authority,
            serving,
            publication: Duration::from_secs(60 * 60).min(authority / 30),
        }
    }
}

/// Under which names we are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// DNS names.
    pub dns: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
}

impl Names {
    /// The names of a Service, as clients of the cluster write them.
    pub fn of_service(service: &str, namespace: &str, cluster_domain: &str) -> Self {
        let short = format!("{service}.{namespace}");
        Self {
            dns: vec![
                service.to_owned(),
                short.clone(),
                format!("{short}.svc"),
                format!("{short}.svc.{cluster_domain}"),
            ],
            addresses: Vec::new(),
        }
    }

    /// Adds an address or a DNS name, unless it is there.
    pub fn add(&mut self, name: &str) {
        match name.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) if !self.addresses.contains(&address) => self.addresses.push(address),
            Err(_) if !name.is_empty() && !self.dns.iter().any(|known| known == name) => {
                self.dns.push(name.to_owned());
            }
            _ => {}
        }
    }
}

/// The public halves that clients of our listeners must trust. Certificates in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// One or, while authorities overlap, two.
    pub bundle: String,
}

/// From when to when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub from: SystemTime,
    /// Last moment.
    pub until: SystemTime,
}

/// Clocks of those who check may be behind ours.
const BACKDATED: Duration = Duration::from_secs(10 * 60);

impl Validity {
    /// Good for `life` from `now`, and a little before.
    fn starting(now: SystemTime, life: Duration) -> Self {
        Self {
            from: now - BACKDATED,
            until: now + life,
        }
    }

    /// When it was made, if [`starting`](Self::starting) made it.
    fn made(&self) -> SystemTime {
        self.from + BACKDATED
    }

    /// When two thirds are over.
    pub fn renew_at(&self) -> SystemTime {
        let life = self.until.duration_since(self.made()).unwrap_or_default();
        self.made() + life * 2 / 3
    }

    /// Is it over?
    pub fn is_over(&self, now: SystemTime) -> bool {
        now >= self.until
    }
}

#[cfg(test)]
mod tests;
