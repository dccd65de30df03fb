//! Clients that never stop asking and remember every answer, while a test changes the world around them.
//!
//! A closed loop: each client asks again as soon as it is answered. Not for measuring speed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::ensure;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::wait::{Look, eventually};
use crate::harness::client::{self, Answer, chat};

/// A running load; dropping it ends it in the middle of its answers.
pub struct Load {
    going: watch::Sender<bool>,
    record: Arc<Mutex<Record>>,
    clients: JoinSet<()>,
}

/// What came so far.
#[derive(Debug, Default)]
pub struct Record {
    /// The good answers, in the order in which they ended.
    pub answers: Vec<Served>,
    /// What went wrong with the others.
    pub failures: Vec<String>,
}

/// One good answer.
#[derive(Debug)]
pub struct Served {
    /// When it was asked for.
    pub asked: Instant,
    /// The model that answered, by its own name.
    pub by: String,
}

impl Record {
    /// Answers by who gave them.
    pub fn by_model(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for answer in &self.answers {
            *counts.entry(answer.by.as_str()).or_default() += 1;
        }
        counts
    }

    /// Good answers to requests that were sent after `from`.
    fn since(&self, from: Instant) -> impl Iterator<Item = &Served> {
        self.answers.iter().filter(move |one| one.asked > from)
    }

    /// Fails if any request has failed, with the first few.
    ///
    /// # Errors
    /// When one has.
    pub fn without_failures(self) -> anyhow::Result<Self> {
        let some: Vec<_> = self.failures.iter().take(3).collect();
        let (failed, good) = (self.failures.len(), self.answers.len());
        ensure!(
            failed == 0,
            "{failed} requests failed beside {good} good ones: {some:#?}"
        );
        ensure!(good > 0, "nothing was asked");
        Ok(self)
    }
}

impl Load {
    /// `clients` clients that ask `base` for streams of `tokens` tokens of a model.
    pub fn start(base: &str, model: &str, clients: usize, tokens: u32) -> Self {
        let record = Arc::new(Mutex::new(Record::default()));
        let (going, seen) = watch::channel(true);
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let body = chat(model, &format!("Client {number} says hello"), tokens, true);
            let (base, record) = (base.to_owned(), record.clone());
            tasks.spawn(ask_on(base, body, seen.clone(), record));
        }
        Self {
            going,
            record,
            clients: tasks,
        }
    }

    /// Waits for more good answers to requests that are sent from now on.
    ///
    /// # Errors
    /// When they do not come in time.
    pub async fn goes_on(&self, more: usize) -> anyhow::Result<()> {
        let from = Instant::now();
        eventually("more requests are answered", || async {
            let record = lock(&self.record);
            let new = record.since(from).count();
            Ok(Look::when(new >= more, (new, &record.failures)))
        })
        .await
    }

    /// Waits until a stretch of so many good answers to new requests has none that a model gave.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn leaves(&self, model: &str, stretch: usize) -> anyhow::Result<()> {
        eventually(&format!("{model} is left alone"), || async {
            let from = Instant::now();
            self.goes_on(stretch).await?;
            let record = lock(&self.record);
            let given = record.since(from).filter(|one| one.by == model).count();
            Ok(Look::when(given == 0, given))
        })
        .await
    }

    /// Lets every client finish what it has asked, and ends them.
    pub async fn stop(mut self) -> Record {
        self.going.send_replace(false);
        while self.clients.join_next().await.is_some() {}
        std::mem::take(&mut lock(&self.record))
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn ask_on(
    base: String,
    body: Value,
    going: watch::Receiver<bool>,
    record: Arc<Mutex<Record>>,
) {
    let client = client::without_reuse();
    while *going.borrow() {
        let asked = Instant::now();
        let outcome = match client::post(&client, &base, "load", None, &body).await {
            Ok(response) => served(&client::read(response).await),
            Err(error) => Err(format!("{:#}", anyhow::Error::from(error))),
        };
        let mut record = lock(&record);
        match outcome {
            Ok(by) => record.answers.push(Served { asked, by }),
            Err(failure) => record.failures.push(failure),
        }
    }
}

/// The model that a whole stream comes from, by its own name.
fn served(answer: &Answer) -> Result<String, String> {
    let events = answer.events();
    let whole = answer.complete && events.last().is_some_and(|event| event.data == "[DONE]");
    if answer.status != 200 || !whole {
        let start: String = answer.text().chars().take(500).collect();
        let cut = if answer.complete { "" } else { ", cut off" };
        return Err(format!("{}{cut}: {start}", answer.status));
    }
    let first = serde_json::from_str(&events[0].data).unwrap_or(Value::Null);
    let model = first["model"].as_str().map(str::to_owned);
    model.ok_or_else(|| format!("no model in {first}"))
}
