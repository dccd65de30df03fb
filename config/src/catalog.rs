//! What is in force: takes each load of the files and each batch that was pushed, and keeps the last good version of
//! what is wrong.
//!
//! Two layers: documents of files, then pushed ones. A file's document hides a pushed one of the same name, and its
//! routes go first. For: rules between documents (one name once, targets that exist) and last-good per document.
//! Not for I/O: files are read by [`LoadedDocuments`], time comes in as an argument.

mod endpoints;
mod files;
mod layers;
mod pushed;
mod references;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::filters::FilterSet;
use crate::live::{self, Live};
use crate::load::LoadedDocuments;
use crate::problem::Problem;
use crate::push::{Batch, Refusal, ResourceType};
use crate::snapshot::Snapshot;
use crate::validate::Regexes;

use self::files::Files;
use self::layers::Layers;
use self::pushed::{Pushed, Touched};

/// The outcome of one load or batch.
#[derive(Debug, Clone)]
pub struct Update {
    /// What is in force now; the same `Arc` as before when nothing changed.
    pub snapshot: Arc<Snapshot>,
    /// Everything wrong with what is in force or was refused, errors and warnings; the same `Arc` as before when nothing
    /// of it changed.
    pub problems: Arc<Vec<Problem>>,
    /// Is `snapshot` a new one?
    pub changed: bool,
    /// Of this load or batch: resources refused, and files that could not be read.
    pub rejected: usize,
}

/// The outcome of one batch.
#[derive(Debug, Clone)]
pub struct Applied {
    /// What it made of what is in force.
    pub update: Update,
    /// Why parts of it were refused; in order of their items.
    pub refusals: Vec<Refusal>,
}

/// Keeps what is in force. Owned by the task that feeds it.
#[derive(Debug)]
pub struct Catalog {
    filters: FilterSet,
    regexes: Regexes,
    files: Files,
    /// `None`: nothing is ever pushed, so a target that no file has is a mistake.
    pushed: Option<Pushed>,
    live: Live,
    problems: Arc<Vec<Problem>>,
    snapshot: Arc<Snapshot>,
}

impl Catalog {
    /// Nothing in force, generation 0, and only files to come. Route overrides are held against `filters`.
    pub fn new(filters: FilterSet) -> Self {
        Self {
            filters,
            regexes: Regexes::default(),
            files: Files::default(),
            pushed: None,
            live: Live::default(),
            problems: Arc::default(),
            snapshot: Arc::default(),
        }
    }

    /// As [`Self::new`], but documents are pushed, too: what a file's route targets may come later.
    pub fn with_push(filters: FilterSet) -> Self {
        Self {
            pushed: Some(Pushed::default()),
            ..Self::new(filters)
        }
    }

    /// What is in force.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Takes a load of the files into force as far as it is right; `now` is in Unix seconds.
    pub fn update(&mut self, input: LoadedDocuments, now: u64) -> Update {
        let rejected = match input.failed {
            Some(problem) => {
                self.files.problems = vec![problem];
                1
            }
            None => {
                let known = self.pushed.as_ref().map(|pushed| &pushed.documents);
                let judge = (&self.filters, &mut self.regexes);
                self.files.load(&input.files, known, judge, now)
            }
        };
        let update = self.rebuild(&Touched::default(), rejected);
        self.regexes.sweep();
        update
    }

    /// Takes a batch into force as far as it is right; `now` is in Unix seconds. Nothing is pushed to a catalog that is
    /// not made for it.
    pub fn push(&mut self, batch: &Batch, now: u64) -> Applied {
        let pushed = self.pushed.get_or_insert_default();
        let judge = (&self.filters, &mut self.regexes);
        let (touched, refusals) = pushed.take(batch, judge, now);
        let refused: BTreeSet<usize> = refusals.iter().map(|refusal| refusal.item).collect();
        let update = if touched.documents {
            self.rebuild(&touched, refused.len())
        } else {
            self.touch(&touched, refused.len())
        };
        self.regexes.trim();
        Applied { update, refusals }
    }

    /// Name and version of each pushed resource of a type that is in force.
    pub fn versions(&self, kind: ResourceType) -> impl Iterator<Item = (String, String)> {
        let pushed = self.pushed.iter();
        pushed.flat_map(move |pushed| pushed.versions(kind))
    }

    /// Pushed resources in force, by type.
    pub fn pushed_counts(&self) -> Vec<(ResourceType, usize)> {
        let pushed = self.pushed.iter();
        pushed.flat_map(Pushed::counts).collect()
    }

    /// Secrets (`namespace/name`) that documents in force refer to.
    pub fn wanted_secrets(&self) -> Arc<BTreeSet<String>> {
        let pushed = self.pushed.as_ref();
        pushed
            .map(|pushed| Arc::clone(&pushed.wanted))
            .unwrap_or_default()
    }

    /// Problems of pushed resources whose newest version was refused.
    pub fn refused(&self) -> impl Iterator<Item = &Problem> {
        let refused = self
            .pushed
            .iter()
            .flat_map(|pushed| pushed.refused.values());
        refused.flatten()
    }

    /// Looks at all documents.
    fn rebuild(&mut self, touched: &Touched, rejected: usize) -> Update {
        let none = Pushed::default();
        let pushed = self.pushed.as_ref().unwrap_or(&none);
        let layers = Layers::of(&self.files, &pushed.documents);
        let endpoints = (pushed.endpoints.pools(), &touched.pools);
        let (servers, routes) = (&layers.servers, &layers.routes);
        let mut next = self.live.rebuild(
            &self.snapshot,
            servers,
            routes,
            endpoints,
            &mut self.regexes,
        );
        let wanted = layers.wanted_secrets();
        let problems = self.files.problems.iter().cloned();
        let problems = problems
            .chain(layers.problems())
            .chain(pushed.problems().cloned());
        let problems: Vec<Problem> = problems.collect();
        // Files of which all was refused are no first good state: who starts with them is not ready.
        let files_are_news = self.files.read && rejected == 0;
        let empty_is_news = self.snapshot.generation == 0 && (files_are_news || pushed.any);
        if next.is_none() && empty_is_news {
            next = Some(live::following(&self.snapshot));
        }
        let beside = match &mut self.pushed {
            Some(pushed) => pushed.want(wanted) || touched.beside,
            None => false,
        };
        self.put_in_force(next, beside, Some(problems), rejected)
    }

    /// No document has changed.
    fn touch(&mut self, touched: &Touched, rejected: usize) -> Update {
        let Some(pushed) = &self.pushed else {
            return self.put_in_force(None, false, None, rejected);
        };
        let mut next = self
            .live
            .touch(&self.snapshot, pushed.endpoints.pools(), &touched.pools);
        if next.is_none() && self.snapshot.generation == 0 && pushed.any {
            next = Some(live::following(&self.snapshot));
        }
        // What was wrong with single resources has changed: all the rest is as it was.
        let problems = touched.refused.then(|| {
            let layers = Layers::of(&self.files, &pushed.documents);
            let problems = self.files.problems.iter().cloned();
            let problems = problems
                .chain(layers.problems())
                .chain(pushed.problems().cloned());
            problems.collect()
        });
        self.put_in_force(next, touched.beside, problems, rejected)
    }

    fn put_in_force(
        &mut self,
        mut next: Option<Snapshot>,
        beside: bool,
        problems: Option<Vec<Problem>>,
        rejected: usize,
    ) -> Update {
        if let (true, Some(pushed)) = (beside, &self.pushed) {
            let next = next.get_or_insert_with(|| live::following(&self.snapshot));
            next.secrets = Arc::clone(&pushed.secrets);
            next.peers = Arc::clone(&pushed.peers);
        }
        let changed = next.is_some();
        if let Some(next) = next {
            self.snapshot = Arc::new(next);
        }
        if let Some(problems) = problems
            && problems != *self.problems
        {
            self.problems = Arc::new(problems);
        }
        Update {
            snapshot: Arc::clone(&self.snapshot),
            problems: Arc::clone(&self.problems),
            changed,
            rejected,
        }
    }
}

#[cfg(test)]
mod tests;
