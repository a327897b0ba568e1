//! What the HPA makes of a policy's three answers: 2 ×, 1 × and 0.5 × spec.replicas, with a
//! target of 1 per pod.
//!
//! The arithmetic is that of Kubernetes 1.36 (`GetExternalPerPodMetricReplicas`, the
//! stabilization window and the `Pods` policies of `behavior`).

use super::*;
use crate::config::annotations::{Behavior, Steps};

/// Seconds between two looks of the HPA.
const SYNC: u64 = 15;

struct Hpa {
    behavior: Behavior,
    max: u32,
    /// When which number was asked for, before any limit.
    recommended: Vec<(u64, u32)>,
    /// When by how many pods it went up, and down.
    went_up: Vec<(u64, u32)>,
    went_down: Vec<(u64, u32)>,
}

impl Hpa {
    fn new(behavior: Behavior, max: u32) -> Self {
        Self { behavior, max, recommended: vec![], went_up: vec![], went_down: vec![] }
    }

    /// What the metric alone asks for. It is compared with the pods that the status counts.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as Kubernetes does")]
    fn asked(&self, value: f64, status: u32) -> u32 {
        let ratio = value / f64::from(status);
        let within = 1.0 - self.behavior.down.tolerance <= ratio && ratio <= 1.0 + self.behavior.up.tolerance;
        if within { status } else { value.ceil() as u32 }
    }

    /// The new spec.replicas.
    fn sync(&mut self, now: u64, spec: u32, status: u32, value: f64) -> u32 {
        let asked = self.asked(value, status);
        let since = |window: u32| move |(at, _): &&(u64, u32)| *at + u64::from(window) > now;
        let Behavior { up, down } = self.behavior;
        let lowest = self.recommended.iter().filter(since(up.window)).map(|it| it.1).fold(asked, u32::min);
        let highest = self.recommended.iter().filter(since(down.window)).map(|it| it.1).fold(asked, u32::max);
        self.recommended.push((now, asked));
        let stable = spec.max(lowest).min(highest);

        let sum =
            |events: &[(u64, u32)], period| events.iter().filter(since(period)).map(|it| it.1).sum::<u32>();
        let start = |period| spec + sum(&self.went_down, period) - sum(&self.went_up, period).min(spec);
        let new = if stable > spec {
            stable.min((start(up.period) + up.pods).max(spec)).min(self.max)
        } else {
            stable.max(start(down.period).saturating_sub(down.pods).min(spec)).max(1)
        };
        if new > spec {
            self.went_up.push((now, new - spec));
        }
        if new < spec {
            self.went_down.push((now, spec - new));
        }
        new
    }
}

fn behavior(window: u32, tolerance_up: f64, tolerance_down: f64) -> Behavior {
    Behavior {
        up: Steps { window, tolerance: tolerance_up, pods: 1, period: 300 },
        down: Steps { window, tolerance: tolerance_down, pods: 1, period: 300 },
    }
}

/// Every tolerance that the annotations allow, at its ends and between.
const TOLERANCES: [(f64, f64); 5] = [(0.0, 0.0), (0.1, 0.1), (0.5, 0.3), (0.5, 0.499), (0.999, 0.499)];

/// A status that is right, behind a step up or down, far behind, and not written yet.
fn statuses(replicas: u32) -> [u32; 6] {
    [replicas, replicas - 1, replicas + 1, replicas / 2, 2 * replicas, 0]
}

#[test]
fn up_is_one_step_up_and_down_one_step_down() {
    for replicas in 1..=1000 {
        for status in statuses(replicas) {
            for window in [0, 60, 300] {
                for (up, down) in TOLERANCES {
                    let hpa = || Hpa::new(behavior(window, up, down), 2000);
                    let case = format!(
                        "{replicas} replicas, status {status}, window {window}, tolerances {up} {down}"
                    );
                    let value = f64::from(replicas);
                    assert_eq!(hpa().sync(0, replicas, status, 2.0 * value), replicas + 1, "up, {case}");
                    let one_less = (replicas - 1).max(1);
                    assert_eq!(hpa().sync(0, replicas, status, 0.5 * value), one_less, "down, {case}");
                }
            }
        }
    }
}

#[test]
fn hold_holds_where_the_status_is_right_or_far_off() {
    for replicas in 1..=1000 {
        for status in statuses(replicas) {
            for (up, down) in TOLERANCES {
                let mut hpa = Hpa::new(behavior(0, up, down), 2000);
                let value = f64::from(replicas);
                let ratio = value / f64::from(status);
                let new = hpa.sync(0, replicas, status, value);
                // Inside the tolerance the HPA keeps the *status*: while that lags by a step, a
                // hold drags the spec back to it, unless a window remembers the step.
                let drags = status != replicas && (1.0 - down..=1.0 + up).contains(&ratio);
                let expected = if drags {
                    if status > replicas { replicas + 1 } else { (replicas - 1).max(1) }
                } else {
                    replicas
                };
                assert_eq!(new, expected, "{replicas} replicas, status {status}, tolerances {up} {down}");
            }
        }
    }
}

/// Follows an answer for an hour, with a status that lags by `lag` looks.
fn hour(mut hpa: Hpa, start: u32, lag: usize, factor: impl Fn(u64) -> f64) -> Vec<u32> {
    let mut specs = vec![start];
    for look in 0..3600 / SYNC {
        let spec = specs[specs.len() - 1];
        let status = specs[specs.len().saturating_sub(1 + lag)];
        specs.push(hpa.sync(look * SYNC, spec, status, factor(look * SYNC) * f64::from(spec)));
    }
    specs
}

#[test]
fn a_steady_answer_moves_one_pod_in_each_period() {
    for start in [1, 2, 9, 11, 50, 400] {
        for lag in [0, 1, 3] {
            for window in [0, 60, 300] {
                let hpa = || Hpa::new(behavior(window, 0.1, 0.1), 1000);
                let case = format!("from {start}, lag {lag}, window {window}");
                let up = hour(hpa(), start, lag, |_| 2.0);
                assert!(up.windows(2).all(|pair| pair[0] <= pair[1]), "up, {case}: {up:?}");
                assert_eq!(up.last(), Some(&(start + 12)), "up, {case}");
                let down = hour(hpa(), start, lag, |_| 0.5);
                assert!(down.windows(2).all(|pair| pair[0] >= pair[1]), "down, {case}: {down:?}");
                assert_eq!(down.last(), Some(&start.saturating_sub(12).max(1)), "down, {case}");
                let hold = hour(hpa(), start, lag, |_| 1.0);
                assert!(hold.iter().all(|spec| *spec == start), "hold, {case}");
            }
        }
    }
}

#[test]
fn the_default_windows_keep_a_step_while_the_status_lags() {
    let default = spec(NEWER).annotations.behavior;
    for start in [2, 11, 50, 400] {
        // Up for one look, then hold: the step stays, though the status shows it only later.
        for (factor, stays) in [(2.0, start + 1), (0.5, start - 1)] {
            let specs =
                hour(Hpa::new(default.clone(), 1000), start, 3, |now| if now < SYNC { factor } else { 1.0 });
            assert!(specs[1..].iter().all(|spec| *spec == stays), "from {start} by {factor}: {specs:?}");
        }
    }
}
