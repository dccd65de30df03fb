//! Helpers shared by the benches: what is measured lives in `benches/benches` and `benches/src/bin`.

pub mod load;
pub mod push;
pub mod sim;

use std::path::PathBuf;

/// Writes a bench's figures to `target/bench/NAME.json`, for tables and comparisons between runs.
///
/// # Errors
/// When the folder or the file cannot be written.
pub fn write_figures(name: &str, figures: &serde_json::Value) -> std::io::Result<()> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")),
        PathBuf::from,
    );
    let folder = target.join("bench");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(
        folder.join(format!("{name}.json")),
        format!("{figures:#}\n"),
    )
}
