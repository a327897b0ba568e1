//! Counts what a run costs and who waits, in bounded memory.

use crate::{
    engine::Served,
    fleet::Census,
    outcome::{Detail, Outcome, Point, Timeline},
    trace::Request,
    world::{SECOND, Slo},
};

/// A change of direction within this time of the last change is a reversal.
const REVERSAL_US: u64 = 600 * SECOND;

/// Times in microseconds, counted in buckets of 1/128 of their size, so that a percentile is
/// within 0.8 %.
#[derive(Clone, Debug)]
pub struct Spread {
    buckets: Vec<u64>,
    count: u64,
}

impl Default for Spread {
    fn default() -> Self {
        Self { buckets: vec![0; Self::bucket(u64::MAX) + 1], count: 0 }
    }
}

impl Spread {
    /// Counts one time.
    pub fn add(&mut self, time_us: u64) {
        self.buckets[Self::bucket(time_us)] += 1;
        self.count += 1;
    }

    /// The time that this share of what was counted does not exceed, in seconds; 0 where
    /// nothing was counted.
    #[must_use]
    pub fn percentile(&self, share: f64) -> f64 {
        let wanted = (share * self.count as f64).max(1.0);
        let mut below = 0;
        let found = self.buckets.iter().position(|count| {
            below += count;
            below as f64 >= wanted
        });
        found.map_or(0.0, |bucket| Self::middle(bucket) / 1e6)
    }

    fn clear(&mut self) {
        if self.count > 0 {
            self.buckets.fill(0);
            self.count = 0;
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "below 128 where it is cast")]
    const fn bucket(time_us: u64) -> usize {
        if time_us < 128 {
            return time_us as usize;
        }
        // 57 powers of two, each in 128 parts.
        let power = 63 - time_us.leading_zeros() as usize;
        let part = ((time_us >> (power - 7)) & 127) as usize;
        (power - 6) * 128 + part
    }

    fn middle(bucket: usize) -> f64 {
        if bucket < 128 {
            return bucket as f64;
        }
        let (power, part) = (bucket / 128 + 6, bucket % 128);
        let part_size = (1_u64 << (power - 7)) as f64;
        ((128 + part) as f64 + 0.5) * part_size
    }
}

/// Everything that is counted over a run.
#[derive(Debug)]
pub struct Score {
    slo: Slo,
    warm_up_us: u64,
    scored: u64,
    met: u64,
    met_first: u64,
    met_decode: u64,
    answered: u64,
    refused: u64,
    lost: u64,
    ttft: Spread,
    replica_seconds: u64,
    loading_seconds: u64,
    ups: u64,
    downs: u64,
    reversals: u64,
    last_change: Option<(u64, bool)>,
    waking_since: Option<u64>,
    wakes: u64,
    wake_us: u64,
    detail: Detail,
    timeline: Timekeeper,
}

impl Score {
    /// Nothing counted yet; requests that arrive before `warm_up_us` will not be scored.
    #[must_use]
    pub fn new(slo: Slo, warm_up_us: u64) -> Self {
        Self {
            slo,
            warm_up_us,
            scored: 0,
            met: 0,
            met_first: 0,
            met_decode: 0,
            answered: 0,
            refused: 0,
            lost: 0,
            ttft: Spread::default(),
            replica_seconds: 0,
            loading_seconds: 0,
            ups: 0,
            downs: 0,
            reversals: 0,
            last_change: None,
            waking_since: None,
            wakes: 0,
            wake_us: 0,
            detail: Detail::default(),
            timeline: Timekeeper::default(),
        }
    }

    /// A request arrives; `asleep` where there is no replica for it.
    pub fn arrived(&mut self, request: &Request, asleep: bool) {
        self.detail.arrived += 1;
        self.scored += u64::from(self.counts(request.at_us));
        if asleep && self.waking_since.is_none() {
            self.waking_since = Some(request.at_us);
        }
        let point = &mut self.timeline.current;
        point.arrivals += 1;
        point.input_tokens += u64::from(request.input_tokens);
        point.output_tokens += u64::from(request.output_tokens);
    }

    /// A request was answered.
    pub fn served(&mut self, served: &Served) {
        self.detail.served += 1;
        let ttft_us = served.first_token_us - served.at_us;
        let first = ttft_us <= self.slo.ttft_us;
        let decode = served.finished_us - served.first_token_us <= self.slo.decode_us(served.output_tokens);
        self.timeline.ttft.add(ttft_us);
        if let Some(since) = self.waking_since.filter(|since| *since <= served.first_token_us) {
            self.waking_since = None;
            self.wakes += 1;
            self.wake_us += served.first_token_us - since;
        }
        if !(first && decode) {
            self.timeline.current.violations += 1;
        }
        if self.counts(served.at_us) {
            self.answered += 1;
            self.ttft.add(ttft_us);
            self.met_first += u64::from(first);
            self.met_decode += u64::from(decode);
            self.met += u64::from(first && decode);
        }
    }

    /// A request that arrived at `at_us` was refused for the last time.
    pub fn refused(&mut self, at_us: u64) {
        self.detail.refused += 1;
        self.refused += u64::from(self.counts(at_us));
        self.timeline.current.violations += 1;
    }

    /// The replica of a request that arrived at `at_us` went away.
    pub fn lost(&mut self, at_us: u64) {
        self.detail.lost += 1;
        self.lost += u64::from(self.counts(at_us));
        self.timeline.current.violations += 1;
    }

    /// The number of replicas wanted changes.
    pub fn scaled(&mut self, from: u32, to: u32, now_us: u64) {
        if from == to || now_us < self.warm_up_us {
            return;
        }
        let up = to > from;
        if up {
            self.ups += 1;
        } else {
            self.downs += 1;
        }
        let turned = self.last_change.is_some_and(|(at, was_up)| was_up != up && now_us - at <= REVERSAL_US);
        self.reversals += u64::from(turned);
        self.last_change = Some((now_us, up));
    }

    /// A second has passed.
    pub fn second(&mut self, now_us: u64, wanted: u32, census: Census, queued: usize) {
        let Census { serving, loading, draining } = census;
        if now_us > self.warm_up_us {
            self.replica_seconds += u64::from(serving + loading + draining);
            self.loading_seconds += u64::from(loading);
        }
        self.timeline.second(wanted, census, queued);
    }

    /// The result, with what is left over at the end.
    #[must_use]
    pub fn finish(mut self, held: u64, preemptions: u64, fluid_hours: f64) -> Outcome {
        let share = |count: u64| if self.scored == 0 { 1.0 } else { count as f64 / self.scored as f64 };
        self.timeline.close();
        let detail = Detail {
            ttft_attainment: share(self.met_first),
            tpot_attainment: share(self.met_decode),
            held,
            fluid_hours,
            wake_seconds: (self.wakes > 0).then(|| self.wake_us as f64 / 1e6 / self.wakes as f64),
            preemptions,
            timeline: self.timeline.done,
            ..self.detail
        };
        Outcome {
            requests: self.scored,
            attainment: share(self.met),
            replica_hours: self.replica_seconds as f64 / 3600.0,
            loading_hours: self.loading_seconds as f64 / 3600.0,
            ttft_p50: self.ttft.percentile(0.5),
            ttft_p95: self.ttft.percentile(0.95),
            ttft_p99: self.ttft.percentile(0.99),
            refused: self.refused,
            lost: self.lost,
            scale_ups: self.ups,
            scale_downs: self.downs,
            reversals: self.reversals,
            detail,
            ..Outcome::default()
        }
    }

    const fn counts(&self, at_us: u64) -> bool {
        at_us >= self.warm_up_us
    }
}

/// Fills the timeline, and halves it whenever it gets too long.
#[derive(Debug)]
struct Timekeeper {
    done: Timeline,
    current: Point,
    seconds: u64,
    ttft: Spread,
}

impl Default for Timekeeper {
    fn default() -> Self {
        let done = Timeline { interval_us: 60 * SECOND, points: Vec::new() };
        Self { done, current: Point::default(), seconds: 0, ttft: Spread::default() }
    }
}

impl Timekeeper {
    fn second(&mut self, wanted: u32, census: Census, queued: usize) {
        let point = &mut self.current;
        point.wanted += f64::from(wanted);
        point.serving += f64::from(census.serving);
        point.loading += f64::from(census.loading);
        point.queued += queued as f64;
        self.seconds += 1;
        if self.seconds * SECOND >= self.done.interval_us {
            self.close();
        }
    }

    fn close(&mut self) {
        if self.seconds == 0 {
            return;
        }
        let mut point = std::mem::take(&mut self.current);
        for sum in [&mut point.wanted, &mut point.serving, &mut point.loading, &mut point.queued] {
            *sum /= self.seconds as f64;
        }
        point.ttft_p95 = self.ttft.percentile(0.95);
        self.ttft.clear();
        self.seconds = 0;
        self.done.points.push(point);
        if self.done.points.len() >= Timeline::MAX_POINTS {
            self.done.interval_us *= 2;
            let halved = self.done.points.chunks(2).map(|pair| pair.iter().copied().reduce(merged));
            self.done.points = halved.flatten().collect();
        }
    }
}

/// Two intervals as one. Of the percentile the larger is kept: what was slow stays visible.
fn merged(a: Point, b: Point) -> Point {
    let mean = |a: f64, b: f64| f64::midpoint(a, b);
    Point {
        arrivals: a.arrivals + b.arrivals,
        input_tokens: a.input_tokens + b.input_tokens,
        output_tokens: a.output_tokens + b.output_tokens,
        violations: a.violations + b.violations,
        wanted: mean(a.wanted, b.wanted),
        serving: mean(a.serving, b.serving),
        loading: mean(a.loading, b.loading),
        queued: mean(a.queued, b.queued),
        ttft_p95: a.ttft_p95.max(b.ttft_p95),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_hundredth() {
        let mut spread = Spread::default();
        assert_eq!(spread.percentile(0.95), 0.0);
        for time in 1..=100_000_u64 {
            spread.add(time * 100);
        }
        for (share, seconds) in [(0.0001, 0.001), (0.5, 5.0), (0.95, 9.5), (0.99, 9.9), (1.0, 10.0)] {
            let found = spread.percentile(share);
            assert!((found / seconds - 1.0).abs() < 0.01, "{share}: {found}");
        }
        spread.add(u64::MAX);
        assert!(spread.percentile(1.0) > 1e13);
    }

    #[test]
    fn a_change_of_direction_soon_after_another_is_a_reversal() {
        let mut score = Score::new(Slo::default(), 0);
        for (second, from, to) in [(0, 1, 2), (100, 2, 1), (800, 1, 2), (801, 2, 2), (900, 2, 4), (901, 4, 1)]
        {
            score.scaled(from, to, second * SECOND);
        }
        let outcome = score.finish(0, 0, 0.0);
        assert_eq!((outcome.scale_ups, outcome.scale_downs, outcome.reversals), (3, 2, 2));
    }

    #[test]
    fn the_timeline_stays_bounded_and_keeps_its_sums() {
        let mut score = Score::new(Slo::default(), 0);
        let minutes = 4 * Timeline::MAX_POINTS as u64;
        for second in 1..=60 * minutes {
            score.arrived(&Request { at_us: second * SECOND, ..Request::default() }, false);
            score.second(second * SECOND, 3, Census { serving: 2, loading: 1, draining: 0 }, 5);
        }
        let outcome = score.finish(0, 0, 0.0);
        let timeline = outcome.detail.timeline;
        assert!(timeline.points.len() < Timeline::MAX_POINTS && timeline.interval_us > 240 * SECOND);
        assert_eq!(timeline.points.iter().map(|point| point.arrivals).sum::<u64>(), 60 * minutes);
        assert!(timeline.points.iter().all(|point| (point.wanted, point.queued) == (3.0, 5.0)));
        assert_eq!(outcome.replica_hours, (60 * minutes * 3) as f64 / 3600.0);
        assert_eq!(outcome.loading_hours * 3.0, outcome.replica_hours);
    }
}
