//! The tests, by what they look at.

mod containers;
mod faults;
mod identities;
mod manifests;
mod rig;
mod schema;
mod services;
