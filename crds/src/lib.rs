//! The API as written: Kubernetes resources as plain serde + schemars + kube-derive types.
//!
//! For: the shape of every document a user may write, its defaults, and the rules Kubernetes itself can
//! check (OpenAPI schema, CEL). Kthena's manifests fit unchanged; what Sluice adds is optional.
//! Not for: what a document means once references are resolved (that is `sluice-config`), and no
//! Kubernetes client.

pub mod duration;
pub mod manifest;
pub mod networking;
mod structural;
