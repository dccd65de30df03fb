//! The tests, by what they look at.

mod containers;
mod manifests;
mod rig;
mod schema;
