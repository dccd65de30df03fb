//! The layer of documents that files bring: each load holds all of them, and what is wrong keeps its last good version.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::document::{Document, Identity, Resource};
use crate::judge::{Judge, problems};
use crate::load::LoadedFile;
use crate::path::FieldPath;
use crate::problem::{Finding, Problem};
use crate::validate::Origin;

use super::pushed::Documents;
use super::references;

/// Documents in force, by identity.
pub(super) type InForce = BTreeMap<Identity, Kept>;

/// A good document and when its first good version came.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) document: Arc<Document>,
    /// Of the document; as long as it says the same, the same one.
    pub(super) resource: Arc<Resource>,
    /// Unix seconds.
    pub(super) created: u64,
    /// Not from the present load: its text may have changed since.
    pub(super) stale: bool,
    /// No file has it any more, and a route still needs it.
    pub(super) gone: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) in_force: InForce,
    /// Of the last load.
    pub(super) problems: Vec<Problem>,
    /// A file could be read once.
    pub(super) read: bool,
}

/// A load being worked through.
pub(super) struct Pass<'a> {
    pub(super) next: InForce,
    /// The first document of each identity.
    seen: HashMap<Identity, Arc<Document>>,
    pub(super) refused: HashMap<Identity, Arc<Document>>,
    pub(super) problems: Vec<Problem>,
    pub(super) rejected: usize,
    /// Documents that were pushed, where that happens.
    pub(super) pushed: Option<&'a Documents>,
}

impl Files {
    /// Takes a load; gives the number of documents refused and files not read.
    pub(super) fn load(
        &mut self,
        files: &[LoadedFile],
        pushed: Option<&Documents>,
        (filters, regexes): Judge<'_>,
        now: u64,
    ) -> usize {
        let mut pass = Pass {
            next: InForce::new(),
            seen: HashMap::new(),
            refused: HashMap::new(),
            problems: Vec::new(),
            rejected: 0,
            pushed,
        };
        for file in files {
            let errors = file.problems.iter().filter(|problem| problem.is_error());
            pass.rejected += errors.count();
            pass.problems.extend(file.problems.iter().cloned());
            for document in &file.documents {
                self.take(document, (filters, &mut *regexes), now, &mut pass);
            }
        }
        self.keep_unread(files, &mut pass);
        references::resolve(&self.in_force, &mut pass);
        pass.problems
            .sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        self.read |= files.iter().any(|file| file.readable);
        self.in_force = pass.next;
        self.problems = pass.problems;
        pass.rejected
    }

    fn take(&self, document: &Arc<Document>, judge: Judge<'_>, now: u64, pass: &mut Pass<'_>) {
        let identity = &document.identity;
        if let Some(first) = pass.seen.get(identity) {
            let finding = defined_twice(identity, first);
            pass.problems.push(document.problem(&finding));
            pass.rejected += 1;
            return;
        }
        pass.seen.insert(identity.clone(), document.clone());
        let problems = problems(document, Origin::File, judge);
        let is_good = !problems.iter().any(Problem::is_error);
        pass.problems.extend(problems);
        let last = self.in_force.get(identity);
        match &document.resource {
            Some(resource) if is_good => {
                let kept = Kept::new(document, resource, last, now);
                pass.next.insert(identity.clone(), kept);
            }
            _ => {
                pass.rejected += 1;
                pass.refused.insert(identity.clone(), document.clone());
                let last = last.map(|last| (identity.clone(), last.stale()));
                pass.next.extend(last);
            }
        }
    }

    /// Files that could not be read, or hold a document that nobody can name, keep what was last
    /// loaded from them.
    fn keep_unread(&self, files: &[LoadedFile], pass: &mut Pass<'_>) {
        let broken =
            |file: &&LoadedFile| !file.readable || file.problems.iter().any(Problem::is_error);
        let names: HashSet<&str> = files
            .iter()
            .filter(broken)
            .map(|file| file.name.as_str())
            .collect();
        for (identity, kept) in &self.in_force {
            let file = kept.document.place.source.name.as_str();
            if names.contains(file) && !pass.seen.contains_key(identity) {
                pass.next.insert(identity.clone(), kept.stale());
            }
        }
    }
}

impl Kept {
    /// A good document in place of its last version.
    fn new(
        document: &Arc<Document>,
        resource: &Arc<Resource>,
        last: Option<&Self>,
        now: u64,
    ) -> Self {
        let same = last.filter(|last| last.resource == *resource);
        Self {
            document: Arc::clone(document),
            resource: Arc::clone(same.map_or(resource, |last| &last.resource)),
            created: last.map_or(now, |last| last.created),
            stale: false,
            gone: false,
        }
    }

    pub(super) fn stale(&self) -> Self {
        Self {
            stale: true,
            ..self.clone()
        }
    }

    pub(super) fn gone(&self) -> Self {
        Self {
            gone: true,
            ..self.stale()
        }
    }
}

fn defined_twice(identity: &Identity, first: &Document) -> Finding {
    let path = FieldPath::of("metadata.name");
    let line = first.place.line(&path);
    let at = format!("{}:{line}", first.place.source.name);
    let message = format!("{identity} is already defined at {at}");
    Finding::error(path, message, "rename or remove one of the two")
}
