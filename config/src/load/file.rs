//! Text of files and names of a folder's files, with every failure in words.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::MAX_FILE_BYTES;
use crate::problem::{Problem, Severity, Topic};

const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

pub(crate) fn problem(
    file: &str,
    line: usize,
    message: impl Into<String>,
    remedy: impl Into<String>,
) -> Box<Problem> {
    Box::new(Problem {
        severity: Severity::Error,
        file: file.to_owned(),
        line,
        document: None,
        path: String::new(),
        message: message.into(),
        remedy: remedy.into(),
        topic: Topic::General,
    })
}

/// The file itself, or a folder's resource files by name.
pub(crate) fn list(path: &Path) -> Result<Vec<PathBuf>, Box<Problem>> {
    let fail = |error: io::Error| cannot_read(path, &error);
    if !fs::metadata(path).map_err(fail)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(path).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        // `..data` and `..2024_01_01` are how Kubernetes mounts a ConfigMap; editors leave dotfiles.
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let extension = path.extension().and_then(|extension| extension.to_str());
        if !hidden && extension.is_some_and(|e| EXTENSIONS.contains(&e)) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// A file's text, if it is a regular file of UTF-8 and not too large.
pub(crate) fn read_text(path: &Path) -> Result<String, Box<Problem>> {
    let name = path.display().to_string();
    let fail = |error: io::Error| cannot_read(path, &error);
    // Before opening: opening a pipe would wait for a writer.
    if !fs::metadata(path).map_err(fail)?.is_file() {
        return Err(problem(
            &name,
            0,
            "this is not a regular file",
            "name a file of YAML",
        ));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(fail)?;
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(fail)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let message = format!("the file is larger than {} MiB", MAX_FILE_BYTES >> 20);
        return Err(problem(
            &name,
            0,
            message,
            "split it into several files of a folder",
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        problem(
            &name,
            line,
            "the file is not UTF-8 text",
            "save it as UTF-8",
        )
    })
}

fn cannot_read(path: &Path, error: &io::Error) -> Box<Problem> {
    let name = path.display().to_string();
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "create it, or correct the path",
        io::ErrorKind::PermissionDenied => "let the gateway's user read it",
        _ => "check the path and the file system",
    };
    problem(&name, 0, format!("cannot be read: {error}"), remedy)
}
