//! Families about the certificates of listeners, which are read again when their files change.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::family::Family;
use super::labels::OutcomeLabel;

#[derive(Debug, Default)]
pub(crate) struct CertificateSeries {
    reads: Family<OutcomeLabel, Counter>,
    /// Listeners whose files hold something that is not in use.
    pub(crate) refused: Gauge,
}

impl CertificateSeries {
    pub(super) fn register(&self, sluice: &mut Registry) {
        sluice.register(
            "certificate_reads",
            "Certificates of listeners read after their files had changed",
            self.reads.clone(),
        );
        sluice.register(
            "certificates_refused",
            "Listeners that serve an older certificate, since what is in their files is no good",
            self.refused.clone(),
        );
    }

    /// A changed certificate is in use, or refused.
    pub(crate) fn read(&self, good: bool) {
        let outcome = if good { "ok" } else { "failed" };
        self.reads.child(&OutcomeLabel { outcome }).inc();
    }
}
