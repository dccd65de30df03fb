//! Files and folders of resource documents, as far as one can tell without knowing the others.
//!
//! Not for deciding what takes effect: that is [`Catalog`](crate::Catalog)'s, which knows what was there.

mod file;

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

pub(crate) use self::file::{list, problem, read_text};
use crate::document::{Document, DocumentPlace, Reading, Resource, read};
use crate::path::FieldPath;
use crate::problem::{Problem, Severity};
use crate::yaml::{self, Source};

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 8 << 20;

/// What one look at a file, a folder or a stream found.
#[derive(Debug, Default)]
pub struct LoadedDocuments {
    /// In order of precedence.
    pub(crate) files: Vec<LoadedFile>,
    /// The file or folder as a whole could not be read.
    pub(crate) failed: Option<Problem>,
}

/// One file.
#[derive(Debug)]
pub(crate) struct LoadedFile {
    pub(crate) name: String,
    pub(crate) documents: Vec<Arc<Document>>,
    /// Of documents that nobody can name, and of the file.
    pub(crate) problems: Vec<Problem>,
    /// False: what was last loaded from it stays in force.
    pub(crate) readable: bool,
}

impl LoadedDocuments {
    /// Reads a file, or the `*.yaml`, `*.yml` and `*.json` files of a folder (not of its sub-folders), in
    /// order of name. Never fails: what is wrong comes out of [`Catalog::update`](crate::Catalog::update).
    pub fn read(path: &Path) -> Self {
        match file::list(path) {
            Ok(paths) => {
                let files: Vec<_> = paths.iter().map(|path| LoadedFile::read(path)).collect();
                Self {
                    files,
                    failed: None,
                }
            }
            Err(problem) => Self {
                files: Vec::new(),
                failed: Some(*problem),
            },
        }
    }

    /// Reads several files and folders as if they were one folder.
    pub fn read_all<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut all = Self::default();
        for path in paths {
            let one = Self::read(path);
            all.files.extend(one.files);
            // A missing one must not hide what is wrong with the others.
            all.files.extend(one.failed.map(LoadedFile::failed));
        }
        all
    }

    /// The documents of `text`, as if it were the file `name`.
    pub fn from_text(name: &str, text: &str) -> Self {
        Self {
            files: vec![LoadedFile::parse(name.to_owned(), text.to_owned())],
            failed: None,
        }
    }

    /// Documents that came as values, such as from a push stream called `name`.
    pub fn from_values(name: &str, values: Vec<Value>) -> Self {
        let mut file = LoadedFile::empty(Arc::new(Source::new(name.to_owned(), String::new())));
        let source = Arc::new(Source::new(name.to_owned(), String::new()));
        for (position, value) in values.into_iter().enumerate() {
            let place = DocumentPlace {
                source: source.clone(),
                position,
                item: None,
            };
            file.add(value, Vec::new(), place);
        }
        Self {
            files: vec![file],
            failed: None,
        }
    }

    /// Documents that are typed already.
    pub fn from_resources(name: &str, resources: Vec<Resource>) -> Self {
        let source = Arc::new(Source::new(name.to_owned(), String::new()));
        let mut file = LoadedFile::empty(source.clone());
        for (position, resource) in resources.into_iter().enumerate() {
            file.documents.push(Arc::new(Document::typed(
                source.clone(),
                position,
                resource,
            )));
        }
        Self {
            files: vec![file],
            failed: None,
        }
    }
}

impl LoadedFile {
    fn read(path: &Path) -> Self {
        match read_text(path) {
            Ok(text) => Self::parse(path.display().to_string(), text),
            Err(problem) => Self::failed(*problem),
        }
    }

    fn parse(name: String, text: String) -> Self {
        if text.is_empty() {
            // An editor that truncates before it writes looks like this for a moment.
            return Self::failed(Problem {
                severity: Severity::Warning,
                ..*file::problem(
                    &name,
                    0,
                    "the file is empty",
                    "delete it, or write a document or a comment",
                )
            });
        }
        let source = Arc::new(Source::new(name, text));
        let documents = match yaml::parse(source.text()) {
            Ok(documents) => documents,
            Err(error) => {
                let message = format!("not YAML: {}", error.message);
                let remedy = "mend the line; nothing of this file takes effect until then";
                return Self::failed(*file::problem(&source.name, error.line, message, remedy));
            }
        };
        let mut file = Self::empty(source.clone());
        for (position, document) in documents.into_iter().enumerate() {
            let place = DocumentPlace {
                source: source.clone(),
                position,
                item: None,
            };
            match document.value {
                Value::Null => {}
                value => file.add_or_expand(value, document.duplicates, place),
            }
        }
        file
    }

    fn empty(source: Arc<Source>) -> Self {
        let name = source.name.clone();
        Self {
            name,
            documents: Vec::new(),
            problems: Vec::new(),
            readable: true,
        }
    }

    fn failed(problem: Problem) -> Self {
        let name = problem.file.clone();
        Self {
            name,
            documents: Vec::new(),
            problems: vec![problem],
            readable: false,
        }
    }

    /// A document, or each item of a `List` such as `kubectl get -o yaml` prints.
    fn add_or_expand(
        &mut self,
        mut value: Value,
        duplicates: Vec<FieldPath>,
        place: DocumentPlace,
    ) {
        let is_list = value["kind"]
            .as_str()
            .is_some_and(|kind| kind.ends_with("List"));
        let Some(items) = value
            .get_mut("items")
            .filter(|_| is_list)
            .and_then(Value::as_array_mut)
        else {
            return self.add(value, duplicates, place);
        };
        for (index, item) in std::mem::take(items).into_iter().enumerate() {
            let prefix = FieldPath::of("items").index(index);
            let below = duplicates
                .iter()
                .filter_map(|path| path.below(&prefix))
                .collect();
            self.add(
                item,
                below,
                DocumentPlace {
                    item: Some(index),
                    ..place.clone()
                },
            );
        }
    }

    fn add(&mut self, value: Value, duplicates: Vec<FieldPath>, place: DocumentPlace) {
        match read(value, duplicates, place) {
            Reading::Document(document) => self.documents.push(document),
            Reading::Problem(problem) => self.problems.push(problem),
        }
    }
}
