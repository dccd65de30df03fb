//! What stands in for container images: programs of this machine, by the last part of an image's name.
//!
//! `ghcr.io/example/sluice-proxy:1.2` is the program `sluice-proxy`. An image that is not in the table cannot be
//! "pulled", as in a real cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;

/// One image.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// The program; it is at `/NAME` and `/usr/local/bin/NAME` in the container. None: only what the machine has.
    pub program: Option<PathBuf>,
    /// What runs when the container has no `command`; the program where this is empty.
    pub entrypoint: Vec<String>,
    /// Folders that the program needs, at their own paths.
    pub folders: Vec<PathBuf>,
    /// The user it runs as when the pod says nothing; root where none.
    pub user: Option<u32>,
    /// Pods with it have a network of their own: it listens on every address, or on ports of its loopback.
    pub own_network: bool,
}

/// The table.
#[derive(Clone, Debug, Default)]
pub struct Images(BTreeMap<String, Image>);

impl Images {
    /// Sluice's own programs out of the folder that the running test was built into, and `shell`, an image with only
    /// what the machine has.
    ///
    /// # Errors
    /// When the folder cannot be told.
    pub fn of_this_build() -> anyhow::Result<Self> {
        let mut images = Self::default();
        for name in ["sluice-engine", "sluice-proxy", "sluice-control"] {
            images.insert(
                name,
                Image {
                    program: Some(built(name)?),
                    own_network: name != "sluice-engine",
                    ..Image::default()
                },
            );
        }
        let shell = Image {
            entrypoint: vec!["/bin/sh".to_owned()],
            ..Image::default()
        };
        images.insert("shell", shell);
        Ok(images)
    }

    /// Adds an image, or takes the place of one.
    pub fn insert(&mut self, name: &str, image: Image) {
        self.0.insert(name.to_owned(), image);
    }

    /// The image and its name in the table.
    pub(super) fn find(&self, reference: &str) -> Option<(&str, &Image)> {
        let name = reference.rsplit('/').next().unwrap_or(reference);
        let name = name.split(['@', ':']).next().unwrap_or(name);
        let (name, image) = self.0.get_key_value(name)?;
        Some((name, image))
    }
}

/// Where a program of this build is: the test's own executable is in `deps` beside it.
///
/// # Errors
/// When the test's own path cannot be told.
pub fn built(program: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("the test's own path is unknown")?;
    let folder = own.parent().and_then(|folder| match folder.file_name() {
        Some(name) if name == "deps" => folder.parent(),
        _ => Some(folder),
    });
    Ok(folder.context("the test has no folder")?.join(program))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_found_by_the_last_part_of_their_name() {
        let mut images = Images::default();
        images.insert("engine", Image::default());
        for reference in ["engine", "engine:1", "a.example:5000/b/engine:1@sha256:00"] {
            assert!(images.find(reference).is_some(), "{reference}");
        }
        assert!(images.find("a.example/other:engine").is_none());
    }
}
