//! The limit of what a scaler can do: it knows what will come, and only has to wait for replicas
//! as everybody does.

use std::collections::VecDeque;

use super::{Context, Fault, Settings, plain_scaling};
use crate::{
    fluid, hpa,
    policy::{Decision, Policy, Scaling, Seen},
    trace::{Request, RequestStream},
    world::{SECOND, World, microseconds},
};

/// Length of the intervals in which the future is reckoned.
const BIN_US: u64 = 10 * SECOND;

/// Follows the need of the requests that are still to come.
pub struct Clairvoyant {
    world: World,
    future: RequestStream,
    next: Option<Request>,
    /// Work in nanoseconds and KV token-steps of each interval from `first_bin` on.
    bins: VecDeque<(u64, f64)>,
    first_bin: u64,
    lead_us: u64,
    window_bins: usize,
    headroom: f64,
    wanted: u32,
    decided_bin: Option<u64>,
}

impl std::fmt::Debug for Clairvoyant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clairvoyant").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl Clairvoyant {
    /// `headroom` (0.2) over the fluid need of every `window` (30 s) to come, `lead` (1.2) cold
    /// starts ahead.
    pub fn new(settings: &mut Settings, context: &Context) -> Result<Self, Fault> {
        let world = context.world.clone();
        let headroom = settings.number("headroom", 0.2, -0.9..=10.0)?;
        let lead = settings.number("lead", 1.2, 0.0..=10.0)?;
        let window_us = settings.time_us("window", 30 * SECOND)?;
        let node_us = world.cold_start.node.map_or(0, |node| node.mean_us);
        let lead_us = microseconds(lead * (world.cold_start.mean_us + node_us) as f64);
        let mut future = context.trace.open()?;
        let next = future.next().transpose()?;
        Ok(Self {
            world,
            future,
            next,
            bins: VecDeque::new(),
            first_bin: 0,
            lead_us,
            window_bins: usize::try_from(window_us / BIN_US).unwrap_or(usize::MAX).max(1),
            headroom,
            wanted: 0,
            decided_bin: None,
        })
    }

    /// The replicas that are needed at some time from now until a cold start from now.
    fn need(&mut self, now_us: u64) -> u32 {
        let bin = now_us / BIN_US;
        if self.decided_bin == Some(bin) {
            return self.wanted;
        }
        self.decided_bin = Some(bin);
        let last = (now_us + self.lead_us) / BIN_US + self.window_bins as u64;
        self.read_until(last);
        while self.first_bin < bin && !self.bins.is_empty() {
            self.bins.pop_front();
            self.first_bin += 1;
        }
        let span_us = BIN_US * self.window_bins as u64;
        let mut most = 0.0_f64;
        let mut sum = (0, 0.0);
        for (index, (work, held)) in self.bins.iter().enumerate() {
            sum = (sum.0 + work, sum.1 + held);
            if let Some(gone) = index.checked_sub(self.window_bins).and_then(|gone| self.bins.get(gone)) {
                sum = (sum.0 - gone.0, (sum.1 - gone.1).max(0.0));
            }
            most = most.max(fluid::replicas(&self.world, sum.0, sum.1, span_us));
        }
        let wanted = hpa::ceiling(most * (1.0 + self.headroom));
        self.wanted = wanted.clamp(self.world.min_replicas, self.world.max_replicas);
        self.wanted
    }

    /// Reckons the intervals up to and with `last`. An error ends the future; whoever replays
    /// the trace meets it too.
    fn read_until(&mut self, last: u64) {
        while let Some(request) = self.next.take_if(|request| request.at_us / BIN_US <= last) {
            let offset = (request.at_us / BIN_US).saturating_sub(self.first_bin);
            let index = usize::try_from(offset).unwrap_or(usize::MAX);
            while self.bins.len() <= index {
                self.bins.push_back((0, 0.0));
            }
            self.bins[index].0 += fluid::work_ns(&self.world.engine, &request);
            self.bins[index].1 += fluid::token_steps(&request);
            self.next = self.future.next().and_then(Result::ok);
        }
        // Intervals without a request count too.
        while self.first_bin + (self.bins.len() as u64) <= last {
            self.bins.push_back((0, 0.0));
        }
    }
}

impl Policy for Clairvoyant {
    fn scaling(&self) -> Scaling {
        plain_scaling(&self.world)
    }

    fn start(&mut self) -> Option<u32> {
        Some(self.need(0).max(1))
    }

    fn decide(&mut self, seen: &Seen<'_>) -> Decision {
        Decision::Replicas(self.need(seen.now_us))
    }
}
