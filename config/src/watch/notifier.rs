//! File events of the operating system, for the folders in which a path's changes show.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};

/// A folder and its inode: a folder that was made anew needs a new watch.
type Folder = (PathBuf, u64);

pub(super) struct Notifier {
    /// `None`: the system gives no events; the poll remains.
    watcher: Option<RecommendedWatcher>,
    armed: BTreeSet<Folder>,
}

impl Notifier {
    /// Wakes the receiver of `wake` on every event that may be a change.
    pub(super) fn new(wake: SyncSender<()>) -> Self {
        let handler = move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| !may_be_change(event.kind)) {
                return;
            }
            // Full: a wake-up is under way.
            let _ = wake.try_send(());
        };
        let watcher = notify::recommended_watcher(handler)
            .inspect_err(|error| tracing::warn!(%error, "no file events, polling instead"))
            .ok();
        Self {
            watcher,
            armed: BTreeSet::new(),
        }
    }

    /// Says nothing, as on a file system without events.
    #[cfg(test)]
    pub(super) fn silent(_: SyncSender<()>) -> Self {
        Self {
            watcher: None,
            armed: BTreeSet::new(),
        }
    }

    /// Watches what must be watched now.
    pub(super) fn arm(&mut self, path: &Path) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let wanted = folders(path);
        for old in self.armed.difference(&wanted) {
            // Gone with its folder, most likely.
            let _ = watcher.unwatch(&old.0);
        }
        let mut armed = BTreeSet::new();
        for folder in wanted {
            let is_new = !self.armed.contains(&folder);
            if !is_new
                || watcher
                    .watch(&folder.0, RecursiveMode::NonRecursive)
                    .is_ok()
            {
                armed.insert(folder);
            }
        }
        self.armed = armed;
    }
}

/// Reading a file is an event too; waking for our own reads would never end.
fn may_be_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// The folder of the path (renames show there), the path itself if it is a folder, and both again where
/// symbolic links lead.
fn folders(path: &Path) -> BTreeSet<Folder> {
    let mut all = BTreeSet::new();
    let real = fs::canonicalize(path).ok();
    for path in [Some(path), real.as_deref()].into_iter().flatten() {
        let parent = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => path,
        };
        for folder in [parent, path] {
            if let Ok(metadata) = fs::metadata(folder)
                && metadata.is_dir()
            {
                all.insert((folder.to_owned(), metadata.ino()));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, ModifyKind};

    use super::*;

    #[test]
    fn reading_is_no_change_and_all_else_may_be_one() {
        assert!(!may_be_change(EventKind::Access(AccessKind::Open(
            AccessMode::Any
        ))));
        assert!(!may_be_change(EventKind::Access(AccessKind::Close(
            AccessMode::Read
        ))));
        assert!(may_be_change(EventKind::Access(AccessKind::Close(
            AccessMode::Write
        ))));
        assert!(may_be_change(EventKind::Create(CreateKind::File)));
        assert!(may_be_change(EventKind::Modify(ModifyKind::Any)));
        assert!(may_be_change(EventKind::Any));
    }
}
