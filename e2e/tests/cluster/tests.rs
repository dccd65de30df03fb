//! The tests, by what they look at.

mod containers;
mod identities;
mod manifests;
mod rig;
mod schema;
mod services;
