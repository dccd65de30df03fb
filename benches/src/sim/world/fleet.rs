//! The engines of a world: each steps while it has work, dies and starts again.

use std::time::Duration;

use sluice_e2e::engine::{Engine, GenerateRequest, KvEvent, Profile, StepResult, Token};
use sluice_proxy::schedule::Reported;

pub(super) struct Fleet {
    machines: Vec<Machine>,
}

struct Machine {
    engine: Engine,
    profile: Profile,
    up: bool,
    /// Counts restarts, so that what an earlier life began is told from what this one did.
    life: u32,
    step: Option<StepResult>,
    /// The workload's request behind each of the engine's ids, which count from zero.
    requests: Vec<usize>,
    busy: Duration,
    /// Of earlier lives.
    preemptions: u64,
}

/// What a step brought.
pub(super) struct Step {
    /// Each with the request that it belongs to.
    pub(super) tokens: Vec<(usize, Token)>,
    pub(super) events: Vec<KvEvent>,
}

/// A step in which nothing could run is tried again after so long.
const IDLE: Duration = Duration::from_millis(1);

impl Fleet {
    pub(super) fn new(profiles: &[Profile]) -> Self {
        let machines = profiles.iter().map(|profile| Machine {
            engine: cold(profile),
            profile: profile.clone(),
            up: true,
            life: 0,
            step: None,
            requests: Vec::new(),
            busy: Duration::ZERO,
            preemptions: 0,
        });
        Self {
            machines: machines.collect(),
        }
    }

    /// Hands a request to an engine; false when the engine refuses it.
    pub(super) fn submit(
        &mut self,
        engine: usize,
        request: usize,
        generate: GenerateRequest,
        now: Duration,
    ) -> bool {
        let machine = &mut self.machines[engine];
        let accepted = machine.engine.submit(generate, now).is_ok();
        if accepted {
            machine.requests.push(request);
        }
        accepted
    }

    /// Begins a step on an engine that is free and has work: how long it takes, and in which life.
    pub(super) fn start_step(&mut self, engine: usize, now: Duration) -> Option<(Duration, u32)> {
        let machine = &mut self.machines[engine];
        if !machine.up || machine.step.is_some() || !machine.engine.has_work() {
            return None;
        }
        let result = machine.engine.step(now);
        let duration = match result.duration {
            Duration::ZERO => IDLE,
            duration => duration,
        };
        machine.busy += result.duration;
        machine.step = Some(result);
        Some((duration, machine.life))
    }

    /// The step that ends now, unless the engine died meanwhile.
    pub(super) fn step_ended(&mut self, engine: usize, life: u32) -> Option<Step> {
        let machine = &mut self.machines[engine];
        if machine.life != life {
            return None;
        }
        let result = machine.step.take()?;
        let tokens = result.tokens.into_iter();
        let tokens = tokens.map(|token| (machine.requests[token.id.0 as usize], token));
        Some(Step {
            tokens: tokens.collect(),
            events: result.events,
        })
    }

    /// Throws the engine away for a cold one that is up or not.
    pub(super) fn restart(&mut self, engine: usize, up: bool) {
        let machine = &mut self.machines[engine];
        machine.preemptions += machine.engine.gauges().preemptions;
        machine.engine = cold(&machine.profile);
        machine.up = up;
        machine.life += 1;
        machine.step = None;
        machine.requests.clear();
    }

    pub(super) fn life(&self, engine: usize) -> u32 {
        self.machines[engine].life
    }

    pub(super) fn lives(&self, engine: usize, life: u32) -> bool {
        self.machines[engine].up && self.machines[engine].life == life
    }

    /// What the engine's metrics page says now; nothing while it is down.
    pub(super) fn reported(&self, engine: usize) -> Option<Reported> {
        let machine = &self.machines[engine];
        let gauges = machine.engine.gauges();
        machine.up.then_some(Reported {
            running: Some(gauges.running as f64),
            waiting: Some(gauges.waiting as f64),
            kv_usage: Some(gauges.kv_usage),
        })
    }

    pub(super) fn busy(&self) -> Vec<Duration> {
        self.machines.iter().map(|machine| machine.busy).collect()
    }

    pub(super) fn preemptions(&self) -> u64 {
        let lives = self.machines.iter();
        lives
            .map(|machine| machine.preemptions + machine.engine.gauges().preemptions)
            .sum()
    }
}

fn cold(profile: &Profile) -> Engine {
    let mut engine = Engine::new(profile.clone());
    engine.record_events();
    engine
}
