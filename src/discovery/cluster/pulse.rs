//! When the fleet as a whole was heard from: it takes the pods and the InferenceSets.

use std::time::Duration;

use tokio::time::Instant;

/// What has to be heard from. An event of one says nothing of the other's watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Pods,
    InferenceSets,
}

/// At most one sign of life in this time, however much happens.
const LEAST: Duration = Duration::from_secs(5);

/// Which sources were heard from since the last sign of life was given.
#[derive(Debug)]
pub(super) struct Pulse {
    pods: bool,
    inference_sets: bool,
    given: Option<Instant>,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self { pods: false, inference_sets: false, given: None }
    }

    pub(super) fn beat(&mut self, source: Source) {
        match source {
            Source::Pods => self.pods = true,
            Source::InferenceSets => self.inference_sets = true,
        }
    }

    /// Whether a sign of life is to be given at `now`; taken as given where it is.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let is_alive = self.pods && self.inference_sets;
        if !is_alive || self.given.is_some_and(|given| now.saturating_duration_since(given) < LEAST) {
            return false;
        }
        *self = Self { given: Some(now), ..Self::new() };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_both_and_not_too_often() {
        use Source::{InferenceSets, Pods};
        let start = Instant::now();
        let mut pulse = Pulse::new();
        for (seconds, heard, due) in [
            (0, &[Pods][..], false),
            (1, &[InferenceSets], true),
            (7, &[], false),
            (8, &[InferenceSets], false),
            (9, &[InferenceSets], false),
            (10, &[Pods], true),
            // Too early; not forgotten.
            (12, &[Pods, InferenceSets], false),
            (15, &[], true),
            (99, &[Pods], false),
        ] {
            for source in heard {
                pulse.beat(*source);
            }
            assert_eq!(pulse.is_due(start + Duration::from_secs(seconds)), due, "at {seconds} s");
        }
    }
}
