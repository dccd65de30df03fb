//! Helpers shared by the benches: what is measured lives in `benches/benches` and `benches/src/bin`.
