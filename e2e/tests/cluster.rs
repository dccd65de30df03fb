//! Tests on a real Kubernetes control plane with pods as processes: `make e2e-cluster`.
//!
//! Each has a namespace of its own on one shared cluster; those that disturb the control plane have a cluster of their
//! own. All are ignored otherwise, so that none looks passed on a machine without a control plane.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

#[path = "cluster/containers.rs"]
mod containers;
#[path = "cluster/manifests.rs"]
mod manifests;
#[path = "cluster/rig.rs"]
mod rig;
#[path = "cluster/schema.rs"]
mod schema;
