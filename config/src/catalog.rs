//! What is in force: takes each load of the documents and keeps the last good version of what is wrong.
//!
//! For: rules between documents (one name once, targets that exist) and last-good per document.
//! Not for I/O: files are read by [`LoadedDocuments`], time comes in as an argument.

mod references;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::compile;
use crate::document::{Document, Identity, Resource, without_echoes};
use crate::filters::FilterSet;
use crate::load::{LoadedDocuments, LoadedFile};
use crate::path::FieldPath;
use crate::problem::{Finding, Problem};
use crate::snapshot::Snapshot;
use crate::validate::{Regexes, validate};

/// Documents in force, by identity.
type InForce = BTreeMap<Identity, Kept>;

/// A good document and when its first good version came.
#[derive(Debug, Clone)]
struct Kept {
    document: Arc<Document>,
    /// Unix seconds.
    created: u64,
    /// Not from the present load: its text may have changed since.
    stale: bool,
}

/// The outcome of one load.
#[derive(Debug, Clone)]
pub struct Update {
    /// What is in force now; the same `Arc` as before when nothing changed.
    pub snapshot: Arc<Snapshot>,
    /// Everything wrong with what was loaded, errors and warnings.
    pub problems: Vec<Problem>,
    /// Is `snapshot` a new one?
    pub changed: bool,
    /// Documents refused, and files that could not be read.
    pub rejected: usize,
}

/// Keeps what is in force. Owned by the task that feeds it.
#[derive(Debug)]
pub struct Catalog {
    filters: FilterSet,
    in_force: InForce,
    regexes: Regexes,
    snapshot: Arc<Snapshot>,
}

/// A load being worked through.
#[derive(Default)]
struct Pass {
    next: InForce,
    /// The first document of each identity.
    seen: HashMap<Identity, Arc<Document>>,
    refused: HashMap<Identity, Arc<Document>>,
    problems: Vec<Problem>,
    rejected: usize,
}

impl Catalog {
    /// Nothing in force, generation 0. Route overrides are held against `filters`.
    pub fn new(filters: FilterSet) -> Self {
        let (in_force, regexes, snapshot) = Default::default();
        Self {
            filters,
            in_force,
            regexes,
            snapshot,
        }
    }

    /// What is in force.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Takes a load into force as far as it is right; `now` is in Unix seconds.
    pub fn update(&mut self, input: LoadedDocuments, now: u64) -> Update {
        if let Some(problem) = input.failed {
            return self.unchanged(vec![problem], 1);
        }
        let mut pass = Pass::default();
        for file in &input.files {
            self.take_file(file, now, &mut pass);
        }
        self.keep_unread(&input.files, &mut pass);
        references::resolve(&self.in_force, &mut pass);
        pass.problems
            .sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        let read_one = input.files.iter().any(|file| file.readable);
        let changed =
            differ(&self.in_force, &pass.next) || (self.snapshot.generation == 0 && read_one);
        self.in_force = pass.next;
        if !changed {
            self.regexes.sweep();
            return self.unchanged(pass.problems, pass.rejected);
        }
        self.compile();
        self.regexes.sweep();
        let snapshot = self.snapshot.clone();
        Update {
            snapshot,
            problems: pass.problems,
            changed,
            rejected: pass.rejected,
        }
    }

    fn unchanged(&self, problems: Vec<Problem>, rejected: usize) -> Update {
        Update {
            snapshot: self.snapshot.clone(),
            problems,
            changed: false,
            rejected,
        }
    }

    fn take_file(&mut self, file: &LoadedFile, now: u64, pass: &mut Pass) {
        pass.rejected += file
            .problems
            .iter()
            .filter(|problem| problem.is_error())
            .count();
        pass.problems.extend(file.problems.iter().cloned());
        for document in &file.documents {
            self.take_document(document, now, pass);
        }
    }

    fn take_document(&mut self, document: &Arc<Document>, now: u64, pass: &mut Pass) {
        let identity = &document.identity;
        if let Some(first) = pass.seen.get(identity) {
            let line = first.place.line(&FieldPath::of("metadata.name"));
            let at = format!("{}:{line}", first.place.source.name);
            let message = format!("{identity} is already defined at {at}");
            let finding = Finding::error(
                FieldPath::of("metadata.name"),
                message,
                "rename or remove one of the two",
            );
            pass.problems.push(document.problem(&finding));
            pass.rejected += 1;
            return;
        }
        pass.seen.insert(identity.clone(), document.clone());
        let mut findings = document.findings.clone();
        if let Some(resource) = &document.resource {
            let meaning = validate(identity, resource, &self.filters, &mut self.regexes);
            findings.extend(without_echoes(&document.findings, meaning));
        }
        pass.problems
            .extend(findings.iter().map(|finding| document.problem(finding)));
        let last = self.in_force.get(identity);
        if findings.iter().any(Finding::is_error) {
            pass.rejected += 1;
            pass.refused.insert(identity.clone(), document.clone());
            pass.next
                .extend(last.map(|last| (identity.clone(), last.stale())));
        } else {
            let created = last.map_or(now, |last| last.created);
            let kept = Kept {
                document: document.clone(),
                created,
                stale: false,
            };
            pass.next.insert(identity.clone(), kept);
        }
    }

    /// Files that could not be read, or hold a document that nobody can name, keep what was last
    /// loaded from them.
    fn keep_unread(&self, files: &[LoadedFile], pass: &mut Pass) {
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

    fn compile(&mut self) {
        let documents: Vec<_> = precedence(&self.in_force)
            .into_iter()
            .filter_map(|(identity, kept)| {
                let resource = kept.document.resource.as_ref()?;
                let created = resource.created().unwrap_or(kept.created);
                Some(compile::Input {
                    identity,
                    resource,
                    created,
                    document: &kept.document,
                })
            })
            .collect();
        let generation = self.snapshot.generation + 1;
        self.snapshot = Arc::new(compile::snapshot(&documents, generation, &mut self.regexes));
    }
}

impl Kept {
    fn stale(&self) -> Self {
        Self {
            stale: true,
            ..self.clone()
        }
    }
}

/// Routes: oldest `creationTimestamp` first, then those without one as they stand in the files. The time
/// of first load has no say: a restart must not change the order. The rest, where order means nothing,
/// by name.
fn precedence(in_force: &InForce) -> Vec<(&Identity, &Kept)> {
    let mut all: Vec<_> = in_force.iter().collect();
    all.sort_by_cached_key(|(_, kept)| match &kept.document.resource {
        Some(resource @ Resource::Route(_)) => {
            let created = resource.created();
            let (file, position, item) = kept.document.order();
            Some((created.is_none(), created, file.to_owned(), position, item))
        }
        _ => None,
    });
    all
}

/// Would they compile to different snapshots?
fn differ(old: &InForce, new: &InForce) -> bool {
    let (old, new) = (precedence(old), precedence(new));
    let same = |((a_id, a), (b_id, b)): (&(&Identity, &Kept), &(&Identity, &Kept))| {
        a_id == b_id && a.created == b.created && a.document.resource == b.document.resource
    };
    old.len() != new.len() || !old.iter().zip(&new).all(same)
}

#[cfg(test)]
mod tests;
