//! A metric per label set, whose children can be dropped when their names leave the configuration.
//!
//! Like `prometheus-client`'s `Family`, with two things added: [`Family::retain`] and a stable order.
//! The map's lock is taken when a handle is resolved and at a scrape, not when a resolved child is updated.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Cheap to clone; clones share their children.
#[derive(Debug)]
pub(super) struct Family<L, M> {
    children: Arc<RwLock<BTreeMap<L, M>>>,
    make: fn() -> M,
}

impl<L, M> Clone for Family<L, M> {
    fn clone(&self) -> Self {
        Self {
            children: Arc::clone(&self.children),
            make: self.make,
        }
    }
}

impl<L: Ord + Clone, M: Clone + Default> Default for Family<L, M> {
    fn default() -> Self {
        Self::new(M::default)
    }
}

impl<L: Ord + Clone, M: Clone> Family<L, M> {
    pub(super) fn new(make: fn() -> M) -> Self {
        Self {
            children: Arc::default(),
            make,
        }
    }

    /// The child of a label set, made at its first use.
    pub(super) fn child(&self, labels: &L) -> M {
        // No code runs under this lock that could leave the map half-changed: poison carries no news.
        let known = self
            .children
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(labels)
            .cloned();
        known.unwrap_or_else(|| {
            let mut children = self
                .children
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            children
                .entry(labels.clone())
                .or_insert_with(self.make)
                .clone()
        })
    }

    /// Drops the children whose labels are not to be kept.
    pub(super) fn retain(&self, keep: impl Fn(&L) -> bool) {
        self.children
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|labels, _| keep(labels));
    }
}

impl<L, M: TypedMetric> TypedMetric for Family<L, M> {
    const TYPE: MetricType = M::TYPE;
}

impl<L, M> EncodeMetric for Family<L, M>
where
    L: EncodeLabelSet,
    M: EncodeMetric + TypedMetric,
{
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let children = self.children.read().unwrap_or_else(PoisonError::into_inner);
        for (labels, child) in children.iter() {
            child.encode(encoder.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }

    fn is_empty(&self) -> bool {
        self.children
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }
}
