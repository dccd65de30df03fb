//! Tests on a real Kubernetes control plane with pods as processes: `make e2e-cluster`.
//!
//! Each has a namespace of its own on one shared cluster; those that disturb the control plane have a cluster of their
//! own. All are ignored otherwise, so that none looks passed on a machine without a control plane; and all are below
//! one module, by which `test.sh` leaves them out where it runs ignored tests.

#[path = "cluster/tests.rs"]
mod on_cluster;
