//! Real engines: llama.cpp with SmolLM2, fetched by `make engines`.
//!
//! Never a stand-in: where `SLUICE_ENGINES` is unset or broken, starting one fails and says what to run.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context;

/// A llama.cpp server in a process of its own; dropping it ends it.
pub struct LlamaEngine {
    process: Child,
    address: SocketAddr,
}

/// The folder that `make engines` fills.
///
/// # Errors
/// When `SLUICE_ENGINES` does not name such a folder.
pub fn engines_folder() -> anyhow::Result<PathBuf> {
    let folder = std::env::var_os("SLUICE_ENGINES")
        .context("SLUICE_ENGINES is not set: run `make test-real`, or `make engines` and set it")?;
    let folder = PathBuf::from(folder);
    let python = folder.join("bin/python");
    anyhow::ensure!(
        python.exists(),
        "{} is missing: run `make engines`",
        python.display()
    );
    Ok(folder)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("python")
        .join(name)
}

/// A command that runs one of `e2e/python` with the fetched Python.
///
/// # Errors
/// As [`engines_folder`].
pub fn python(name: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(engines_folder()?.join("bin/python"));
    command.arg(script(name));
    Ok(command)
}

impl LlamaEngine {
    /// Starts an engine that serves SmolLM2 under `alias`, and waits until it answers.
    ///
    /// # Errors
    /// When the engines are not fetched, or the process ends early; its own words are then on stderr.
    pub fn start(alias: &str) -> anyhow::Result<Self> {
        let model = engines_folder()?.join("model.gguf");
        let mut process = python("llama_engine.py")?
            .args(["--port", "0", "--alias", alias, "--embeddings", "--model"])
            .arg(model)
            .stdout(Stdio::piped())
            .spawn()
            .context("the engine's Python cannot be started")?;
        let output = process.stdout.take().context("stdout was asked for")?;
        for line in BufReader::new(output).lines() {
            if let Some(address) = line?.strip_prefix("listening on http://") {
                return Ok(Self {
                    process,
                    address: address.trim().parse()?,
                });
            }
        }
        let status = process.wait()?;
        anyhow::bail!("the engine ended before it listened: {status}")
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for LlamaEngine {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
