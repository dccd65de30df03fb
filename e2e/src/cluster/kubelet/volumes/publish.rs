//! Files of a volume, replaced all at once.
//!
//! As a real kubelet does, because programs watch for just this: `..data` is a link to a folder with all files, each
//! file is a link through it, and a change renames a new `..data` over the old.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path};

const CURRENT: &str = "..data";

/// Makes the folder show exactly these files.
///
/// # Errors
/// When a path leaves the folder, or the disk refuses.
pub(super) fn publish(
    folder: &Path,
    files: &BTreeMap<String, Vec<u8>>,
    mode: u32,
) -> io::Result<()> {
    let before = std::fs::read_link(folder.join(CURRENT)).ok();
    let version = format!("..{}", uuid::Uuid::new_v4().simple());
    let data = folder.join(&version);
    std::fs::create_dir(&data)?;
    for (path, content) in files {
        let path = inside(path)?;
        let file = data.join(path);
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&file, content)?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode))?;
    }
    let new = folder.join("..data_tmp");
    std::fs::remove_file(&new).ok();
    symlink(&version, &new)?;
    std::fs::rename(&new, folder.join(CURRENT))?;
    links(folder, files)?;
    if let Some(before) = before {
        std::fs::remove_dir_all(folder.join(before))?;
    }
    Ok(())
}

/// One link for each first part of a path; links of files that are gone go too.
fn links(folder: &Path, files: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let wanted: BTreeSet<_> = files
        .keys()
        .filter_map(|path| path.split('/').next())
        .collect();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(&*name) {
            std::fs::remove_file(folder.join(&*name))?;
        }
    }
    for name in wanted {
        let link = folder.join(name);
        if link.symlink_metadata().is_err() {
            symlink(Path::new(CURRENT).join(name), link)?;
        }
    }
    Ok(())
}

fn inside(path: &str) -> io::Result<&Path> {
    let path = Path::new(path);
    let mut parts = path.components();
    if parts.all(|part| matches!(part, Component::Normal(_))) {
        Ok(path)
    } else {
        let text = format!("{} leaves the volume", path.display());
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        let list = list.iter();
        list.map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn a_change_replaces_everything_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let read = |path: &str| std::fs::read_to_string(folder.path().join(path)).ok();
        publish(folder.path(), &files(&[("a", "1"), ("d/b", "2")]), 0o644).unwrap();
        assert_eq!(read("a").as_deref(), Some("1"));
        assert_eq!(read("d/b").as_deref(), Some("2"));
        publish(folder.path(), &files(&[("a", "3")]), 0o600).unwrap();
        assert_eq!(read("a").as_deref(), Some("3"));
        assert_eq!(read("d/b"), None);
        // One version, its link, and one file.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn no_file_leaves_the_volume() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["../a", "/a", "a/../../b"] {
            assert!(
                publish(folder.path(), &files(&[(path, "")]), 0o644).is_err(),
                "{path}"
            );
        }
    }
}
