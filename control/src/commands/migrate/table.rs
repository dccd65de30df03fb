//! Each value of Kthena's chart and what becomes of it, in the order of the result.

/// What becomes of a value, and of all below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is this value of ours.
    Value(&'static str),
    /// It switches ours on, together with others that are to be on too.
    Switch(&'static [&'static str]),
    /// It is an environment variable of the control loop; 0 means that Kthena does not set it.
    ControlEnvironment(&'static str),
    /// There is nothing like it, and this is why, or what to do instead.
    None(&'static str),
}

use Fate::{ControlEnvironment, None, Switch, Value};

const OWN_IMAGES: &str = "Sluice has images of its own: proxy.image and control.image";
const OWN_CERTIFICATES: &str = "the control loop makes and renews the webhook's certificates; to bring your own, set \
     control.webhook.certificates.secretName";
const NO_QUEUES: &str = "this version keeps no queues in the gateway";
const NO_GATEWAY_API: &str = "this version does not read the Gateway API";
const SESSIONS: &str =
    "sessions are a matter of each ModelServer: spec.scheduling with policy session";
const WORKLOADS: &str = "ModelServing, ModelBooster and AutoscalingPolicy are not served by this version: keep Kthena's chart \
     with networking.enabled=false beside Sluice";
const KEDA: &str =
    "a ScaledObject of KEDA: write one for the Deployment sluice-proxy, or use proxy.autoscaling";

pub(super) const TABLE: &[(&str, Fate)] = &[
    (
        "networking.enabled",
        Switch(&["proxy.enabled", "control.enabled"]),
    ),
    (
        "networking.kthenaRouter.enabled",
        Switch(&["proxy.enabled", "control.enabled"]),
    ),
    ("networking.kthenaRouter.replicas", Value("proxy.replicas")),
    (
        "networking.kthenaRouter.image.pullPolicy",
        Value("proxy.image.pullPolicy"),
    ),
    ("networking.kthenaRouter.image", None(OWN_IMAGES)),
    ("networking.kthenaRouter.port", Value("proxy.port")),
    (
        "networking.kthenaRouter.metrics.port",
        Value("proxy.metrics.port"),
    ),
    (
        "networking.kthenaRouter.metrics.exposeOnRouterPort",
        None("metrics have a port of their own, proxy.metrics.port; clients never see them"),
    ),
    (
        "networking.kthenaRouter.metrics.serviceMonitor.enabled",
        Value("serviceMonitor.enabled"),
    ),
    (
        "networking.kthenaRouter.metrics.serviceMonitor.interval",
        Value("serviceMonitor.interval"),
    ),
    (
        "networking.kthenaRouter.metrics.podMonitor",
        None("the chart has ServiceMonitors only: serviceMonitor.enabled"),
    ),
    (
        "networking.kthenaRouter.debugPort",
        Value("proxy.admin.port"),
    ),
    (
        "networking.kthenaRouter.service.type",
        Value("proxy.service.type"),
    ),
    (
        "networking.kthenaRouter.tls.enabled",
        Value("proxy.tls.enabled"),
    ),
    (
        "networking.kthenaRouter.tls.secretName",
        Value("proxy.tls.secretName"),
    ),
    (
        "networking.kthenaRouter.tls.dnsName",
        None(
            "Kthena's chart makes a Certificate of cert-manager with it; Sluice's does not: keep one of your own",
        ),
    ),
    ("networking.kthenaRouter.resource", Value("proxy.resources")),
    (
        "networking.kthenaRouter.resources",
        Value("proxy.resources"),
    ),
    (
        "networking.kthenaRouter.terminationGracePeriodSeconds",
        Value("proxy.terminationGracePeriodSeconds"),
    ),
    (
        "networking.kthenaRouter.drainTimeout",
        Value("proxy.drain.timeout"),
    ),
    (
        "networking.kthenaRouter.accessLog.enabled",
        Value("proxy.accessLog.enabled"),
    ),
    (
        "networking.kthenaRouter.accessLog.format",
        Value("proxy.accessLog.format"),
    ),
    (
        "networking.kthenaRouter.accessLog.output",
        Value("proxy.accessLog.output"),
    ),
    (
        "networking.kthenaRouter.webhook.enabled",
        Value("control.webhook.enabled"),
    ),
    (
        "networking.kthenaRouter.webhook.port",
        Value("control.webhook.port"),
    ),
    (
        "networking.kthenaRouter.webhook.servicePort",
        None("the webhook's Service always has port 443"),
    ),
    (
        "networking.kthenaRouter.webhook.tls",
        None(OWN_CERTIFICATES),
    ),
    (
        "networking.kthenaRouter.kubeAPIQPS",
        ControlEnvironment("SLUICE_KUBE_API_QPS"),
    ),
    (
        "networking.kthenaRouter.kubeAPIBurst",
        ControlEnvironment("SLUICE_KUBE_API_BURST"),
    ),
    ("networking.kthenaRouter.fairness", None(NO_QUEUES)),
    ("networking.kthenaRouter.sessionBoost", None(NO_QUEUES)),
    ("networking.kthenaRouter.sessionSticky", None(SESSIONS)),
    ("networking.kthenaRouter.gatewayAPI", None(NO_GATEWAY_API)),
    (
        "networking.kthenaRouter.jwtAuth",
        None("the gateway checks tokens: proxy.config.auth.jwt"),
    ),
    (
        "networking.kthenaRouter.debugBackendPodHeader",
        None("the access log and /debug/explain say which endpoint answered"),
    ),
    ("networking.kthenaRouter.autoscaling", None(KEDA)),
    (
        "networking.kthenaTokenizer",
        None("the gateway tokenises by itself: spec.tokenizer of a ModelServer"),
    ),
    (
        "networking.webhook.enabled",
        Value("control.webhook.enabled"),
    ),
    ("networking.webhook.replicas", Value("control.replicas")),
    (
        "networking.webhook.image.pullPolicy",
        Value("control.image.pullPolicy"),
    ),
    ("networking.webhook.image", None(OWN_IMAGES)),
    (
        "networking.webhook.resource",
        None(
            "the control loop does more than Kthena's webhook: control.resources keeps its default",
        ),
    ),
    ("global.certManagementMode", None(OWN_CERTIFICATES)),
    ("global.webhook.caBundle", None(OWN_CERTIFICATES)),
    ("workload", None(WORKLOADS)),
];

/// Values that a file need not hold, and that the result holds all the same: where the charts differ in what clients see.
pub(super) const DEFAULTS: &[(&str, &str)] = &[
    ("networking.kthenaRouter.service.type", "LoadBalancer"),
    ("networking.kthenaRouter.accessLog.format", "text"),
];

/// The Secret that Kthena's chart has with `tls.enabled`, unless it is named.
pub(super) const TLS_SECRET: &str = "kthena-router-tls";
