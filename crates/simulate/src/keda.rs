//! KEDA's part: between zero and one replica.

use crate::policy::Scaling;

/// KEDA's scale loop over one ScaledObject.
#[derive(Debug)]
pub struct Keda {
    min_replicas: u32,
    polling_interval_us: u64,
    cooldown_us: u64,
    push: bool,
    next_poll_us: u64,
    /// When it was last active; its creation counts.
    last_active_us: u64,
}

impl Keda {
    /// The loop of a ScaledObject that was made at 0, first polled at `phase_us`.
    #[must_use]
    pub fn new(scaling: &Scaling, phase_us: u64) -> Self {
        Self {
            min_replicas: scaling.min_replicas,
            polling_interval_us: scaling.polling_interval_us.max(1),
            cooldown_us: scaling.cooldown_us,
            push: scaling.push,
            next_poll_us: phase_us,
            last_active_us: 0,
        }
    }

    /// What becomes of `spec_replicas` at `now_us`, where the scaler says whether it is
    /// `active`; `None` where it can't say, and then nothing goes to zero.
    pub fn step(&mut self, spec_replicas: u32, active: Option<bool>, now_us: u64) -> u32 {
        let awake = self.min_replicas.max(1);
        let polled = now_us >= self.next_poll_us;
        while self.next_poll_us <= now_us {
            self.next_poll_us += self.polling_interval_us;
        }
        // An active scaler pushes as soon as it is, and again while it sees no replica.
        let pushed = self.push && active == Some(true) && spec_replicas == 0;
        if pushed || (polled && active == Some(true)) {
            self.last_active_us = now_us;
            return if spec_replicas == 0 { awake } else { spec_replicas.max(self.min_replicas) };
        }
        if !polled {
            return spec_replicas;
        }
        let idle = active == Some(false) && now_us.saturating_sub(self.last_active_us) > self.cooldown_us;
        if self.min_replicas == 0 && idle { 0 } else { spec_replicas.max(self.min_replicas) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{hpa::Behavior, world::SECOND};

    fn keda(min_replicas: u32, push: bool) -> Keda {
        let scaling = Scaling {
            behavior: Behavior::kubernetes_default(1, 10),
            min_replicas,
            polling_interval_us: 30 * SECOND,
            cooldown_us: 300 * SECOND,
            push,
        };
        Keda::new(&scaling, 10 * SECOND)
    }

    fn run(
        keda: &mut Keda,
        from: u32,
        seconds: std::ops::Range<u64>,
        active: Option<bool>,
    ) -> Vec<(u64, u32)> {
        let mut replicas = from;
        let mut changes = vec![];
        for second in seconds {
            let wanted = keda.step(replicas, active, second * SECOND);
            if wanted != replicas {
                changes.push((second, wanted));
            }
            replicas = wanted;
        }
        changes
    }

    #[test]
    fn a_poll_wakes_at_its_time_and_a_push_at_once() {
        for (push, woken) in [(false, 40), (true, 11)] {
            let mut keda = keda(0, push);
            assert_eq!(run(&mut keda, 0, 0..11, Some(false)), []);
            assert_eq!(run(&mut keda, 0, 11..60, Some(true)), [(woken, 1)]);
        }
        assert_eq!(run(&mut keda(0, true), 0, 11..600, None), []);
    }

    #[test]
    fn zero_comes_a_cooldown_after_the_last_activity() {
        let mut zero = keda(0, true);
        assert_eq!(run(&mut zero, 3, 0..101, Some(true)), []);
        // Active last at the poll at 100; the first poll more than 300 s later is at 430.
        assert_eq!(run(&mut zero, 3, 101..600, Some(false)), [(430, 0)]);
        assert_eq!(run(&mut keda(0, true), 3, 0..2000, None), [], "an error keeps what there is");
        assert_eq!(run(&mut keda(1, true), 3, 0..2000, Some(false)), []);
        assert_eq!(run(&mut keda(2, true), 1, 0..20, Some(false)), [(10, 2)], "never below the minimum");
    }
}
