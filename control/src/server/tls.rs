//! Where the certificates of our two TLS ports come from, by the flags.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rustls::ServerConfig;
use tokio::sync::watch;

use super::Common;
use super::tasks::Tasks;
use crate::certificates::{
    CertificateFiles, ClientAuthorities, FileCertificates, Lifetimes, Names, Resolver, SecretStore,
    SelfManaged, Trust, Validity, server_config, system_clock, without_clients,
};
use crate::flags::{PushTls, RunFlags};
use crate::push::listener::TlsSettings;

/// What the webhook's clients speak.
const PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];

/// One port's certificates.
#[derive(Clone)]
pub(super) struct Port {
    resolver: Arc<Resolver>,
    /// Whom its clients must trust, as far as we know.
    trust: watch::Receiver<Option<Trust>>,
    /// Shall there be such a bundle?
    brings_authority: bool,
}

/// The certificates of both ports.
pub(super) struct Tls {
    /// `None`: in clear.
    pub(super) push: Option<Port>,
    /// `None`: the webhook is off.
    pub(super) webhook: Option<Port>,
    settings: Option<TlsSettings>,
}

impl Tls {
    /// Starts what makes or reads them.
    pub(super) fn start(common: &Common<'_>, tasks: &mut Tasks) -> anyhow::Result<Self> {
        let flags = common.flags;
        let own = Self::needs_own(flags).then(|| own(common, tasks));
        let push = match flags.push.push_tls_mode {
            PushTls::Off => None,
            PushTls::SelfManaged => own.clone(),
            PushTls::Files => {
                let folder = flags.push.push_certificates.as_deref();
                folder.map(|folder| from_files("push certificates", folder, tasks))
            }
        };
        let webhook = match &flags.webhook.webhook_certificates {
            _ if !flags.webhook.webhook => None,
            Some(folder) => Some(from_files("webhook certificates", folder, tasks)),
            None => own,
        };
        let settings = push
            .as_ref()
            .map(|port| settings(flags, port, tasks))
            .transpose()?;
        Ok(Self {
            push,
            webhook,
            settings,
        })
    }

    fn needs_own(flags: &RunFlags) -> bool {
        let webhook = flags.webhook.webhook && flags.webhook.webhook_certificates.is_none();
        webhook || flags.push.push_tls_mode == PushTls::SelfManaged
    }

    /// Settings of the push port; `None`: in clear.
    pub(super) fn push_settings(&self) -> Option<TlsSettings> {
        self.settings.clone()
    }

    /// Settings of the webhook's port.
    pub(super) fn webhook_config(&self) -> anyhow::Result<Arc<ServerConfig>> {
        let port = self.webhook.as_ref().context("the webhook is off")?;
        Ok(Arc::new(server_config(
            port.resolver.clone(),
            None,
            &PROTOCOLS,
        )?))
    }

    /// Whom the API server must trust.
    pub(super) fn webhook_trust(&self) -> watch::Receiver<Option<Trust>> {
        trust(self.webhook.as_ref())
    }

    /// Whom clients of the push port must trust.
    pub(super) fn push_trust(&self) -> watch::Receiver<Option<Trust>> {
        trust(self.push.as_ref())
    }

    /// Is the registration to wait for that?
    pub(super) fn webhook_brings_authority(&self) -> bool {
        self.webhook
            .as_ref()
            .is_some_and(|port| port.brings_authority)
    }

    /// Will [`push_trust`](Self::push_trust) ever be known?
    pub(super) fn push_brings_authority(&self) -> bool {
        self.push.as_ref().is_some_and(|port| port.brings_authority)
    }
}

fn trust(port: Option<&Port>) -> watch::Receiver<Option<Trust>> {
    port.map_or_else(|| watch::channel(None).1, |port| port.trust.clone())
}

impl Port {
    /// How long the certificate in use is good; `None`: there is none yet.
    pub(super) fn validity(&self) -> impl Fn() -> Option<Validity> + Send + Sync + use<> {
        let validity = self.resolver.validity();
        move || *validity.borrow()
    }
}

/// Certificates that we make, and the bundle that tells of them.
fn own(common: &Common<'_>, tasks: &mut Tasks) -> Port {
    let flags = &common.flags.certificates;
    let resolver = Arc::new(Resolver::default());
    let store = SecretStore::new(
        common.client.clone(),
        &common.namespace,
        &flags.certificate_secret,
    );
    let lifetimes = Lifetimes::new(flags.authority_lifetime, flags.certificate_lifetime);
    let (managed, trust) = SelfManaged::new(
        store,
        common.leadership.clone(),
        names(common),
        lifetimes,
        system_clock(),
        resolver.clone(),
    );
    tasks.spawn("certificates", managed.run());
    tasks.spawn("authority", common.publish_authority(trust.clone()).run());
    Port {
        resolver,
        trust,
        brings_authority: true,
    }
}

fn from_files(name: &'static str, folder: &Path, tasks: &mut Tasks) -> Port {
    let resolver = Arc::new(Resolver::default());
    let authority = Some(folder.join("ca.crt")).filter(|path| path.exists());
    let brings_authority = authority.is_some();
    let files = CertificateFiles {
        certificate: folder.join("tls.crt"),
        key: folder.join("tls.key"),
        authority,
    };
    let (files, trust) = FileCertificates::new(files, system_clock(), resolver.clone());
    tasks.spawn(name, files.run());
    Port {
        resolver,
        trust,
        brings_authority,
    }
}

fn settings(flags: &RunFlags, port: &Port, tasks: &mut Tasks) -> anyhow::Result<TlsSettings> {
    let Some(path) = &flags.push.push_client_ca else {
        return Ok(without_clients(port.resolver.clone())?);
    };
    let (authorities, settings) = ClientAuthorities::new(path.clone(), port.resolver.clone())
        .with_context(|| format!("--push-client-ca {}", path.display()))?;
    tasks.spawn("authorities of gateways", authorities.run());
    Ok(settings)
}

/// All names by which either port is reached: they share a certificate.
fn names(common: &Common<'_>) -> Names {
    let flags = common.flags;
    let domain = &flags.certificates.cluster_domain;
    let mut names = Names::default();
    for service in [
        &flags.push.push_service_name,
        &flags.webhook.webhook_service_name,
    ] {
        for name in Names::of_service(service, &common.namespace, domain).dns {
            names.add(&name);
        }
    }
    if let Some(host) = flags.webhook.webhook_url.as_ref().and_then(http::Uri::host) {
        names.add(host);
    }
    let listening = [flags.push.push_address, flags.webhook.webhook_address];
    let addresses = listening.map(|address| address.ip());
    for address in addresses.into_iter().chain(flags.cluster.pod_ip) {
        if !address.is_unspecified() {
            names.add(&address.to_string());
        }
    }
    for name in &flags.certificates.certificate_names {
        names.add(name);
    }
    names
}
