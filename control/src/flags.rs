//! The command line. Every flag can also be given as `SLUICE_...` in the environment.

mod kthena;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use sluice_config::bootstrap::ControlAddress;
use sluice_crds::duration;

use crate::leader::Terms;
use crate::webhook::FailurePolicy;

pub use self::kthena::{Note, translate};

/// Sluice's control loop: follows a cluster and tells the gateways what to serve.
#[derive(Debug, Parser)]
#[command(
    name = "sluice-control",
    version,
    args_conflicts_with_subcommands = true
)]
pub struct Flags {
    /// What to do; runs by default.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to run.
    #[command(flatten)]
    pub run: RunFlags,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Follow the cluster (the default).
    Run(Box<RunFlags>),
    /// Print the definitions of all kinds, for `kubectl apply --server-side -f -`.
    Crds,
    /// Check manifests without a cluster; exit 1 on errors.
    Check {
        /// Files, and folders with all that is below them; those of other kinds are passed over.
        #[arg(short = 'f', long = "filename", required = true, num_args = 1..)]
        paths: Vec<PathBuf>,
    },
    /// Print values of Sluice's chart for values of Kthena's.
    Migrate {
        /// Values of Kthena's chart: your file, or what `helm get values kthena` prints.
        #[arg(short = 'f', long = "filename")]
        values: PathBuf,
    },
}

/// How to run.
#[derive(Debug, Clone, Args)]
pub struct RunFlags {
    /// The cluster and who we are in it.
    #[command(flatten)]
    pub cluster: ClusterFlags,
    /// Who writes.
    #[command(flatten)]
    pub election: ElectionFlags,
    /// The stream to the gateways.
    #[command(flatten)]
    pub push: PushFlags,
    /// The other replicas.
    #[command(flatten)]
    pub replicas: ReplicaFlags,
    /// The admission webhook.
    #[command(flatten)]
    pub webhook: WebhookFlags,
    /// Certificates that we make ourselves.
    #[command(flatten)]
    pub certificates: CertificateFlags,
    /// Address of /healthz, /readyz and /metrics.
    #[arg(
        long,
        env = "SLUICE_OPERATIONS_ADDRESS",
        default_value = "0.0.0.0:8080"
    )]
    pub operations_address: SocketAddr,
    /// Address of /debug/state and /debug/proxies; loopback only.
    #[arg(long, env = "SLUICE_DEBUG_ADDRESS", default_value = "127.0.0.1:15020", value_parser = loopback)]
    pub debug_address: SocketAddr,
    /// Log as JSON.
    #[arg(long, env = "SLUICE_LOG_JSON")]
    pub log_json: bool,
    /// Log filter, such as `debug` or `info,sluice_control::push=debug`.
    #[arg(long, env = "SLUICE_LOG")]
    pub log_level: Option<String>,
}

/// The cluster and who we are in it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterFlags {
    /// Kubeconfig file. Default: $KUBECONFIG, ~/.kube/config, or the service account of the pod.
    #[arg(long, env = "SLUICE_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig file.
    #[arg(long, env = "SLUICE_CONTEXT")]
    pub context: Option<String>,
    /// Requests a second to the API server, in the long run; 0: no limit but the server's own.
    #[arg(long, env = "SLUICE_KUBE_API_QPS", default_value_t = 0.0, value_parser = rate)]
    pub kube_api_qps: f64,
    /// Requests beyond that in one go. 0: twice --kube-api-qps.
    #[arg(long, env = "SLUICE_KUBE_API_BURST", default_value_t = 0)]
    pub kube_api_burst: u32,
    /// Namespaces to watch, with commas between them. Default: all.
    #[arg(long, env = "SLUICE_NAMESPACES", value_delimiter = ',')]
    pub namespaces: Vec<String>,
    /// Namespaces whose labelled Secrets may be read, for ExternalModelProviders; `*`: those of --namespaces.
    #[arg(long, env = "SLUICE_SECRET_NAMESPACES", value_delimiter = ',')]
    pub secret_namespaces: Vec<String>,
    /// Name of our pod.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// Namespace of our pod. Default: that of the kubeconfig or the service account.
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: Option<String>,
    /// Address of our pod, a name in its certificate.
    #[arg(long, env = "POD_IP")]
    pub pod_ip: Option<std::net::IpAddr>,
}

/// Who writes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Leader election")]
pub struct ElectionFlags {
    /// Elect the replica that writes statuses and events. With `false`, this one does.
    #[arg(long, env = "SLUICE_LEADER_ELECT", default_value_t = true, action = ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub leader_elect: bool,
    /// Name of the Lease.
    #[arg(long, env = "SLUICE_LEASE_NAME", default_value = "sluice-control")]
    pub lease_name: String,
    /// Namespace of the Lease. Default: that of our pod.
    #[arg(long, env = "SLUICE_LEASE_NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// How long others must leave a lease alone after they last saw it renewed.
    #[arg(long, env = "SLUICE_LEADER_ELECT_LEASE_DURATION", default_value = "15s", value_parser = time)]
    pub leader_elect_lease_duration: Duration,
    /// How long the leader goes on without a renewal.
    #[arg(long, env = "SLUICE_LEADER_ELECT_RENEW_DEADLINE", default_value = "10s", value_parser = time)]
    pub leader_elect_renew_deadline: Duration,
    /// Time between two attempts.
    #[arg(long, env = "SLUICE_LEADER_ELECT_RETRY_PERIOD", default_value = "2s", value_parser = time)]
    pub leader_elect_retry_period: Duration,
}

/// The stream to the gateways.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Push")]
pub struct PushFlags {
    /// Address on which gateways connect.
    #[arg(long, env = "SLUICE_PUSH_ADDRESS", default_value = "0.0.0.0:15010")]
    pub push_address: SocketAddr,
    /// Who may connect and what they see: IDENTITY=NAMESPACE[,NAMESPACE...] or IDENTITY=*; may be given several times.
    /// Default: the service account sluice-proxy of our namespace, everything.
    #[arg(long = "grant", env = "SLUICE_GRANTS", value_delimiter = ';')]
    pub grants: Vec<String>,
    /// PEM file of the authorities that sign certificates of gateways. Read again when it changes.
    #[arg(long, env = "SLUICE_PUSH_CLIENT_CA")]
    pub push_client_ca: Option<PathBuf>,
    /// Where the certificate of this port comes from.
    #[arg(long, env = "SLUICE_PUSH_TLS_MODE", value_enum, default_value_t = PushTls::SelfManaged)]
    pub push_tls_mode: PushTls,
    /// With `files`: the folder with tls.crt and tls.key.
    #[arg(
        long,
        env = "SLUICE_PUSH_CERTIFICATES",
        required_if_eq("push_tls_mode", "files")
    )]
    pub push_certificates: Option<PathBuf>,
    /// Name of the Service of this port, in its certificate.
    #[arg(
        long,
        env = "SLUICE_PUSH_SERVICE_NAME",
        default_value = "sluice-control"
    )]
    pub push_service_name: String,
    /// Let everybody connect and see everything, for development.
    #[arg(long, env = "SLUICE_INSECURE_PUSH")]
    pub insecure_push: bool,
}

/// The other replicas, whom the leader asks what their gateways have acknowledged.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Replicas")]
pub struct ReplicaFlags {
    /// Push ports of all replicas, such as https://sluice-control.NAMESPACE.svc:15010, with commas between them; a name
    /// may stand for several, and for this one. Default: there are no others.
    #[arg(long, env = "SLUICE_REPLICAS", value_delimiter = ',', value_parser = control_address)]
    pub replicas: Vec<ControlAddress>,
    /// Our service-account token for audience sluice-control, shown to them. Read anew for every connection.
    #[arg(long, env = "SLUICE_REPLICA_TOKEN_FILE")]
    pub replica_token_file: Option<PathBuf>,
    /// Who they are. Default: the service account sluice-control of our namespace.
    #[arg(long, env = "SLUICE_REPLICA_IDENTITY")]
    pub replica_identity: Option<String>,
}

/// Where the certificate of the push port comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PushTls {
    /// We make and renew it.
    SelfManaged,
    /// From --push-certificates.
    Files,
    /// There is none: a mesh protects the connection, or it is development.
    Off,
}

/// The admission webhook.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Webhook")]
pub struct WebhookFlags {
    /// Serve the webhook, and see to it that the API server can call it.
    #[arg(long, env = "SLUICE_WEBHOOK", default_value_t = true, action = ArgAction::Set,
        num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub webhook: bool,
    /// Address on which the API server calls.
    #[arg(long, env = "SLUICE_WEBHOOK_ADDRESS", default_value = "0.0.0.0:8443")]
    pub webhook_address: SocketAddr,
    /// Name of the Service of this port, in its certificate and in the registration.
    #[arg(
        long,
        env = "SLUICE_WEBHOOK_SERVICE_NAME",
        default_value = "sluice-control-webhook"
    )]
    pub webhook_service_name: String,
    /// Port of that Service.
    #[arg(long, env = "SLUICE_WEBHOOK_SERVICE_PORT", default_value_t = 443)]
    pub webhook_service_port: u16,
    /// Register this URL instead of the Service, where the API server does not reach Services.
    #[arg(long, env = "SLUICE_WEBHOOK_URL", value_parser = https)]
    pub webhook_url: Option<http::Uri>,
    /// Folder with tls.crt and tls.key, and with ca.crt unless others fill in caBundle. Read again when they change.
    /// Default: we make the certificate and renew it.
    #[arg(long, env = "SLUICE_WEBHOOK_CERTIFICATES")]
    pub webhook_certificates: Option<PathBuf>,
    /// Name of the ValidatingWebhookConfiguration. One that is there (the chart's) only gets our authority; one that is
    /// not is made. Default: sluice-control-NAMESPACE.
    #[arg(long, env = "SLUICE_WEBHOOK_CONFIGURATION")]
    pub webhook_configuration: Option<String>,
    /// What becomes of writes while the webhook cannot be asked, in a configuration that we make.
    #[arg(long, env = "SLUICE_FAILURE_POLICY", value_enum, default_value_t = FailurePolicy::Fail)]
    pub failure_policy: FailurePolicy,
}

/// Certificates that we make ourselves.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Certificates")]
pub struct CertificateFlags {
    /// Name of the Secret with our authority, and of the ConfigMap with its public half (ca.crt).
    #[arg(
        long,
        env = "SLUICE_CERTIFICATE_SECRET",
        default_value = "sluice-control-ca"
    )]
    pub certificate_secret: String,
    /// Further DNS names and addresses by which we are reached, with commas between them.
    #[arg(long, env = "SLUICE_CERTIFICATE_NAMES", value_delimiter = ',')]
    pub certificate_names: Vec<String>,
    /// Domain of the cluster's Services.
    #[arg(long, env = "SLUICE_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Life of the authority; a new one is made when two thirds are over.
    #[arg(long, env = "SLUICE_AUTHORITY_LIFETIME", default_value = "2160h", value_parser = lifetime)]
    pub authority_lifetime: Duration,
    /// Life of a replica's certificate; a new one is made when two thirds are over.
    #[arg(long, env = "SLUICE_CERTIFICATE_LIFETIME", default_value = "24h", value_parser = lifetime)]
    pub certificate_lifetime: Duration,
}

impl ElectionFlags {
    /// The times, not yet checked together.
    pub fn terms(&self) -> Terms {
        Terms {
            lease_duration: self.leader_elect_lease_duration,
            renew_deadline: self.leader_elect_renew_deadline,
            retry_period: self.leader_elect_retry_period,
        }
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let duration = duration::parse(text).map_err(|error| error.to_string())?;
    Ok(duration.into())
}

fn lifetime(text: &str) -> Result<Duration, String> {
    match time(text)? {
        short if short < Duration::from_secs(30) => Err("must be at least 30s".into()),
        long if long > Duration::from_secs(10 * 366 * 24 * 60 * 60) => {
            Err("must be at most 10 years".into())
        }
        life => Ok(life),
    }
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "not an address with a port")?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("the debug endpoints show the whole state: loopback only; `kubectl port-forward` reaches it".into())
    }
}

fn control_address(text: &str) -> Result<ControlAddress, String> {
    ControlAddress::parse(text).map_err(|reason| format!("it {reason}"))
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(rate),
        _ => Err("must be a number, 0 or more".into()),
    }
}

fn https(text: &str) -> Result<http::Uri, String> {
    let url: http::Uri = text.parse().map_err(|_| "not a URL")?;
    let is_good =
        url.scheme_str() == Some("https") && url.host().is_some() && url.query().is_none();
    if is_good {
        Ok(url)
    } else {
        Err("must be https://HOST[:PORT], which the API server insists on".into())
    }
}

#[cfg(test)]
mod tests;
