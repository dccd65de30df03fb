//! Engine simulator and test harness for the whole product.
pub mod cluster;
pub mod engine;
pub mod harness;
