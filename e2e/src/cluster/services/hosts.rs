//! `/etc/hosts` of pods, one file for each namespace: names of Services, and short ones of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

/// One name of a Service, or of a pod in a headless one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    namespace: String,
    /// As it is called in its own namespace.
    short: String,
    address: Ipv4Addr,
}

impl Name {
    pub(super) fn of(service: &Service, host: Option<&str>, address: Ipv4Addr) -> Self {
        let name = service.name_any();
        Self {
            namespace: service.namespace().unwrap_or_default(),
            short: host.map_or_else(|| name.clone(), |host| format!("{host}.{name}")),
            address,
        }
    }
}

/// The files.
pub(crate) struct Hosts {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    names: Vec<Name>,
    files: BTreeMap<String, File>,
}

impl Hosts {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            state: Mutex::default(),
        }
    }

    /// The file of a namespace.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn file(&self, namespace: &str) -> io::Result<PathBuf> {
        let path = self.folder.join(namespace);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.files.contains_key(namespace) {
            std::fs::create_dir_all(&self.folder)?;
            let file = File::create(&path)?;
            write(&file, &text(&state.names, namespace))?;
            state.files.insert(namespace.to_owned(), file);
        }
        Ok(path)
    }

    /// Rewrites every file that is in use.
    pub(super) fn update(&self, mut names: Vec<Name>) {
        names.sort();
        names.dedup();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.names == names {
            return;
        }
        state.names = names;
        for (namespace, file) in &state.files {
            if let Err(error) = write(file, &text(&state.names, namespace)) {
                tracing::warn!(%namespace, %error, "names not written");
            }
        }
    }
}

/// In place, since it is mounted into containers; cut afterwards, so that no reader finds it empty.
fn write(mut file: &File, text: &str) -> io::Result<()> {
    io::Seek::rewind(&mut file)?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

fn text(names: &[Name], namespace: &str) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for name in names {
        let long = format!("{}.{}", name.short, name.namespace);
        write!(
            text,
            "{} {long}.svc.cluster.local {long}.svc {long}",
            name.address
        )
        .expect("a string takes everything");
        if name.namespace == namespace {
            text.push(' ');
            text.push_str(&name.short);
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_those_of_the_own_namespace() {
        let folder = tempfile::tempdir().unwrap();
        let hosts = Hosts::new(folder.path().to_owned());
        let own = hosts.file("n").unwrap();
        let other = hosts.file("m").unwrap();
        let name = |number| Name {
            namespace: "n".to_owned(),
            short: "a".to_owned(),
            address: Ipv4Addr::new(10, 0, 1, number),
        };
        hosts.update(vec![name(4), name(5)]);
        hosts.update(vec![name(6)]);
        let line = "10.0.1.6 a.n.svc.cluster.local a.n.svc a.n";
        let last = |path| -> String {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines().last().unwrap().to_owned()
        };
        assert_eq!(last(own), format!("{line} a"));
        assert_eq!(last(other), line);
    }
}
