use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use tempfile::TempDir;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// What the file held at each call.
fn watch(path: &Path) -> (Watcher, Receiver<Option<String>>) {
    let (sender, receiver) = channel();
    let file = path.to_owned();
    let on_change = move || {
        let _ = sender.send(fs::read_to_string(&file).ok());
    };
    (
        Watcher::new(path, Duration::from_millis(50), on_change).unwrap(),
        receiver,
    )
}

/// Waits for the call that sees `want`; earlier states may be seen too.
fn until(receiver: &Receiver<Option<String>>, want: Option<&str>) {
    loop {
        let seen = receiver
            .recv_timeout(PATIENCE)
            .expect("a change is reported in time");
        if seen.as_deref() == want {
            return;
        }
    }
}

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.yaml");
    (folder, path)
}

#[test]
fn sees_a_write_in_place_and_a_rename_over_it() {
    let (folder, path) = folder();
    fs::write(&path, "one").unwrap();
    let (_watcher, changes) = watch(&path);
    fs::write(&path, "two").unwrap();
    until(&changes, Some("two"));
    for text in ["three", "four"] {
        let temporary = folder.path().join(".routes.yaml.swp");
        fs::write(&temporary, text).unwrap();
        fs::rename(&temporary, &path).unwrap();
        until(&changes, Some(text));
    }
}

#[test]
fn sees_deletion_and_return_and_a_file_that_was_never_there() {
    let (_folder, path) = folder();
    let (_watcher, changes) = watch(&path);
    fs::write(&path, "one").unwrap();
    until(&changes, Some("one"));
    fs::remove_file(&path).unwrap();
    until(&changes, None);
    fs::write(&path, "two").unwrap();
    until(&changes, Some("two"));
}

#[test]
fn sees_a_folder_that_is_made_later_and_made_anew() {
    let (folder, _) = folder();
    let path = folder.path().join("conf/routes.yaml");
    let (_watcher, changes) = watch(&path);
    for text in ["one", "two"] {
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        until(&changes, Some(text));
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        until(&changes, None);
    }
}

#[test]
fn sees_the_swap_of_a_mounted_config_map() {
    let (folder, path) = folder();
    let version = |name: &str, text: &str| {
        let version = folder.path().join(name);
        fs::create_dir(&version).unwrap();
        fs::write(version.join("routes.yaml"), text).unwrap();
        symlink(name, folder.path().join("..data_tmp")).unwrap();
        fs::rename(
            folder.path().join("..data_tmp"),
            folder.path().join("..data"),
        )
        .unwrap();
    };
    version("..2025_01", "one");
    symlink("..data/routes.yaml", &path).unwrap();
    let (_watcher, changes) = watch(&path);
    version("..2025_02", "two");
    fs::remove_dir_all(folder.path().join("..2025_01")).unwrap();
    until(&changes, Some("two"));
    version("..2025_03", "three");
    until(&changes, Some("three"));
}

#[test]
fn sees_a_half_written_file_completed() {
    let (_folder, path) = folder();
    fs::write(&path, "").unwrap();
    let (_watcher, changes) = watch(&path);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"half").unwrap();
    until(&changes, Some("half"));
    file.write_all(b" and half").unwrap();
    until(&changes, Some("half and half"));
}

#[test]
fn a_folder_is_watched_for_its_files_only() {
    let folder = tempfile::tempdir().unwrap();
    let (sender, changes) = channel();
    let dir = folder.path().to_owned();
    let on_change = move || {
        let _ = sender.send(dir.join("b.yaml").exists());
    };
    let _watcher = Watcher::new(folder.path(), Duration::from_millis(20), on_change).unwrap();
    File::create(folder.path().join("a.txt")).unwrap();
    File::create(folder.path().join(".hidden.yaml")).unwrap();
    File::create(folder.path().join("b.yaml")).unwrap();
    assert!(
        changes.recv_timeout(PATIENCE).unwrap(),
        "the first call is for b.yaml"
    );
}

#[test]
fn a_change_before_the_watch_is_not_missed() {
    let (_folder, path) = folder();
    let seen = Fingerprint::of(&path);
    fs::write(&path, "one").unwrap();
    let (sender, changes) = channel();
    let on_change = move || {
        let _ = sender.send(());
    };
    let _watcher = Watcher::since(seen, &path, Duration::ZERO, on_change).unwrap();
    changes.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn dropping_it_ends_its_thread() {
    let (_folder, path) = folder();
    let (watcher, changes) = watch(&path);
    drop(watcher);
    // The callback, and with it the sender, is gone.
    assert!(
        changes
            .recv_timeout(PATIENCE)
            .is_err_and(|error| error == RecvTimeoutError::Disconnected)
    );
}

#[test]
fn polls_where_no_event_arrives() {
    let (_folder, path) = folder();
    let (sender, changes) = channel();
    let file = path.clone();
    let on_change = move || {
        let _ = sender.send(fs::read_to_string(&file).ok());
    };
    let (seen, tick) = (Fingerprint::of(&path), Duration::from_millis(10));
    let _watcher =
        Watcher::spawn(seen, path.clone(), tick, tick, Notifier::silent, on_change).unwrap();
    fs::write(&path, "one").unwrap();
    until(&changes, Some("one"));
    fs::remove_file(&path).unwrap();
    until(&changes, None);
}
