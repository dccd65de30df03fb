//! Engine simulator and test harness for the whole product.
pub mod engine;
pub mod harness;
