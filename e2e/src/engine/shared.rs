//! What all connections of one engine share: options, model, adapters, faults and counters.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{mpsc, watch};

use super::counters::Counters;
use super::driver::Driver;
use super::fault::{Fault, FaultRule};
use super::hash;
use super::kv::KvHandle;
use super::options::EngineOptions;
use super::profile::Profile;
use super::tokenizer::Tokenizing;

/// Asks the accept loop to listen or not; the answer is the call.
pub(crate) struct ListenCommand {
    pub(crate) listen: bool,
    pub(crate) done: Box<dyn FnOnce() + Send>,
}

#[derive(Debug)]
struct Faults {
    rules: Vec<FaultRule>,
    random: SmallRng,
}

pub(crate) struct Shared {
    pub(crate) options: EngineOptions,
    pub(crate) driver: Arc<Driver>,
    pub(crate) counters: Arc<Counters>,
    /// Loaded adapters with their requests in flight. Held without awaiting.
    loras: Mutex<BTreeMap<String, usize>>,
    /// Held without awaiting; looked at only while `faulty`.
    faults: Mutex<Faults>,
    faulty: AtomicBool,
    listen: mpsc::UnboundedSender<ListenCommand>,
    /// Whether streams wait after their first piece.
    pub(crate) held: watch::Sender<bool>,
    /// Publisher of KV events, if they are on.
    pub(crate) kv: Option<KvHandle>,
    /// The model's tokenizer, if it has one.
    pub(crate) tokenizing: Option<Tokenizing>,
    paced: AtomicUsize,
    next_id: AtomicU64,
    boot: u64,
}

impl Shared {
    pub(crate) fn new(
        options: EngineOptions,
        listen: mpsc::UnboundedSender<ListenCommand>,
        kv: Option<KvHandle>,
        tokenizing: Option<Tokenizing>,
    ) -> Arc<Self> {
        let boot = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos() as u64;
        let profile = match options.event_interval {
            // The pace comes from the streams; the model must not slow them down.
            Some(_) => Profile {
                kv_tokens: options.profile.kv_tokens,
                block_tokens: options.profile.block_tokens,
                ..Profile::INSTANT
            },
            None => options.profile.clone(),
        };
        let faults = Faults {
            rules: Vec::new(),
            random: SmallRng::seed_from_u64(options.seed),
        };
        let shared = Arc::new(Self {
            driver: Driver::new(profile, options.speed, kv.as_ref().map(KvHandle::sender)),
            counters: Arc::default(),
            loras: Mutex::new(options.loras.iter().map(|name| (name.clone(), 0)).collect()),
            faults: Mutex::new(faults),
            faulty: AtomicBool::new(false),
            listen,
            held: watch::Sender::new(false),
            kv,
            tokenizing,
            paced: AtomicUsize::new(0),
            next_id: AtomicU64::new(0),
            boot,
            options,
        });
        shared.set_rules(shared.options.faults.clone());
        shared
    }

    /// The fault that strikes the next request, if any.
    pub(crate) fn draw_fault(&self) -> Option<Fault> {
        if !self.faulty.load(Relaxed) {
            return None;
        }
        let faults = &mut *self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let random = &mut faults.random;
        faults
            .rules
            .iter()
            .find(|rule| random.random_bool(rule.probability))
            .map(|rule| rule.fault)
    }

    fn set_rules(&self, rules: Vec<FaultRule>) {
        self.faulty.store(!rules.is_empty(), Relaxed);
        self.faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .rules = rules;
    }

    /// Replaces the faults of all requests; `done` is called once the listener is as they say.
    pub(crate) fn set_faults(&self, rules: Vec<FaultRule>, done: Box<dyn FnOnce() + Send>) {
        let listen = !rules.iter().any(|rule| rule.fault == Fault::Refuse);
        self.set_rules(rules);
        if let Err(refused) = self.listen.send(ListenCommand { listen, done }) {
            // The server is stopped: there is nothing to wait for.
            (refused.0.done)();
        }
    }

    /// A number no other request of this engine has, as vLLM's random ids look.
    pub(crate) fn new_id(&self) -> String {
        let number = self.next_id.fetch_add(1, Relaxed);
        format!(
            "{:016x}{:016x}",
            hash::mix(self.boot, number),
            hash::mix(number, self.boot)
        )
    }

    pub(crate) fn is_base_model(&self, name: &str) -> bool {
        self.options.models.iter().any(|model| model == name)
    }

    /// Loads an adapter; false when it is loaded already.
    pub(crate) fn load_lora(&self, name: &str) -> bool {
        let mut loras = self.loras.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = !loras.contains_key(name);
        if fresh {
            loras.insert(name.to_owned(), 0);
        }
        fresh
    }

    /// Unloads an adapter; false when it is not loaded.
    pub(crate) fn unload_lora(&self, name: &str) -> bool {
        self.loras
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name)
            .is_some()
    }

    pub(crate) fn loras(&self) -> Vec<String> {
        self.loras
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .cloned()
            .collect()
    }

    pub(crate) fn running_loras(&self) -> Vec<String> {
        let loras = self.loras.lock().unwrap_or_else(PoisonError::into_inner);
        loras
            .iter()
            .filter(|(_, running)| **running > 0)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Counts a request to an adapter; none when it is not loaded.
    pub(crate) fn use_lora(self: &Arc<Self>, name: &str) -> Option<LoraGuard> {
        let mut loras = self.loras.lock().unwrap_or_else(PoisonError::into_inner);
        *loras.get_mut(name)? += 1;
        Some(LoraGuard {
            shared: self.clone(),
            name: name.to_owned(),
        })
    }

    /// Streams whose pace is a fixed interval: the model is long done with them.
    pub(crate) fn paced_streams(&self) -> usize {
        self.paced.load(Relaxed)
    }

    pub(crate) fn pace(self: &Arc<Self>) -> Option<PaceGuard> {
        self.options.event_interval?;
        self.paced.fetch_add(1, Relaxed);
        Some(PaceGuard(self.clone()))
    }
}

/// A request to an adapter, while it lives.
pub(crate) struct LoraGuard {
    shared: Arc<Shared>,
    name: String,
}

impl Drop for LoraGuard {
    fn drop(&mut self) {
        let mut loras = self
            .shared
            .loras
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = loras.get_mut(&self.name) {
            *running = running.saturating_sub(1);
        }
    }
}

/// A stream with a fixed interval, while it lives.
pub(crate) struct PaceGuard(Arc<Shared>);

impl Drop for PaceGuard {
    fn drop(&mut self) {
        self.0.paced.fetch_sub(1, Relaxed);
    }
}
