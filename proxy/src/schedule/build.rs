//! From a checked choice to a policy.

use sluice_config::scheduling::{PolicyName, PolicyParams, SchedulingConfig, SchedulingParams};

use super::{
    BoundedHash, GpuUsage, Kthena, KvcacheAware, LeastLatency, LeastRequest, Lmetric, LoraAffinity,
    Mtl, Policy, PrefixCache, Random, RoundRobin, Session, Sticky,
};

/// The policy that `params` names. One for each pool: a policy may keep a turn of its own.
pub fn build(params: &SchedulingParams) -> Box<dyn Policy> {
    match &params.policy {
        PolicyParams::Mtl(weights) => Box::new(Mtl::new(*weights)),
        PolicyParams::Lmetric => Box::new(Lmetric),
        PolicyParams::LeastRequest => Box::new(LeastRequest),
        PolicyParams::LeastLatency(params) => Box::new(LeastLatency { params: *params }),
        PolicyParams::GpuUsage => Box::new(GpuUsage),
        PolicyParams::PrefixCache => Box::new(PrefixCache),
        PolicyParams::KvcacheAware => Box::new(KvcacheAware),
        PolicyParams::LoraAffinity => Box::new(LoraAffinity),
        PolicyParams::Random => Box::new(Random),
        PolicyParams::RoundRobin => Box::<RoundRobin>::default(),
        PolicyParams::Session => Box::new(Session),
        PolicyParams::BoundedHash => Box::new(BoundedHash),
        PolicyParams::Sticky => Box::<Sticky>::default(),
        PolicyParams::Kthena(params) => Box::new(Kthena {
            params: params.clone(),
        }),
    }
}

/// A policy by its name, with defaults for everything else.
pub fn by_name(name: PolicyName) -> Box<dyn Policy> {
    let config = SchedulingConfig {
        policy: name,
        ..SchedulingConfig::default()
    };
    build(&SchedulingParams::of(&config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_is_built_under_its_own_name() {
        for name in PolicyName::ALL {
            assert_eq!(by_name(name).name(), name.as_str());
        }
    }
}
