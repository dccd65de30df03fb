//! What a file or folder looks like without reading it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::load::list;

/// Identity, size and times of a file, or of each file in a folder. Two equal ones mean "nothing to read".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(Vec<(PathBuf, Option<Stamp>)>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// Also moves with permissions: a file may have become readable.
    changed: (i64, i64),
    /// Where the path's last part points, if it is a symbolic link.
    link: Option<PathBuf>,
}

impl Fingerprint {
    /// As it is now.
    pub fn of(path: &Path) -> Self {
        // A folder by its files: others that come and go in it do not matter.
        let mut stamps = match list(path) {
            Ok(files) => files.into_iter().map(|file| (stamp(&file), file)).collect(),
            Err(_) => vec![(None, path.to_owned())],
        };
        if path.is_dir() {
            stamps.push((None, path.to_owned()));
        }
        Self(
            stamps
                .into_iter()
                .map(|(stamp, path)| (path, stamp))
                .collect(),
        )
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        length: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
        link: fs::read_link(path).ok(),
    })
}
