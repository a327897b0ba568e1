//! As many replicas all the time.

use super::{Context, Fault, Settings, plain_scaling};
use crate::{
    fluid, hpa,
    policy::{Decision, Policy, Scaling, Seen},
    world::World,
};

/// A fixed number of replicas.
#[derive(Debug)]
pub struct Static {
    world: World,
    replicas: u32,
}

impl Static {
    /// `n` replicas, or `times` (1.4 by default) what the trace needs on average, which takes
    /// hindsight.
    pub fn new(settings: &mut Settings, context: &Context) -> Result<Self, Fault> {
        let world = context.world.clone();
        let most = world.max_replicas;
        let replicas = match settings.whole("n", 1..=most)? {
            Some(replicas) => replicas,
            None => {
                let times = settings.number("times", 1.4, 0.1..=100.0)?;
                let mean = fluid::mean_replicas(&world, context.trace.as_ref())?;
                hpa::ceiling(times * mean).clamp(1, most)
            }
        };
        Ok(Self { world, replicas })
    }
}

impl Policy for Static {
    fn scaling(&self) -> Scaling {
        plain_scaling(&self.world)
    }

    fn start(&mut self) -> Option<u32> {
        Some(self.replicas)
    }

    fn decide(&mut self, _: &Seen<'_>) -> Decision {
        Decision::Replicas(self.replicas)
    }
}
