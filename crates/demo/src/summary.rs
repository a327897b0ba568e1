//! The demo in a few numbers.

use std::fmt;

use super::{history::History, stage::Stage};
use scaler_core::time::Moment;
use sim::{
    http::Scrapes,
    keda::{Cause, Event},
    queueing::Served,
};

/// How the demo went.
#[derive(Clone, Debug, PartialEq)]
pub struct DemoSummary {
    /// From the first request in the gateway's queue to the frame on KEDA's stream, in
    /// milliseconds; `None` where none was pushed.
    pub queue_to_push: Option<f64>,
    /// The scaler's own share of that: from the sample that showed the queue to the frame.
    pub scaler_share: Option<f64>,
    /// And to `spec.replicas` = 1.
    pub queue_to_replica: Option<f64>,
    /// What made KEDA write that: the push, or (slower) one of its polls.
    pub woken_by: Option<Cause>,
    pub pushes: usize,
    /// The most requests that waited at once, at the gateway and at replicas.
    pub peak_queue: usize,
    pub most_replicas: u32,
    /// Pods times seconds, from zero to zero.
    pub replica_seconds: f64,
    /// What as many replicas as were ever wanted would have cost, kept up all the time.
    pub always_on_replica_seconds: f64,
    pub arrived: u64,
    pub served: usize,
    /// Requests that got a 429.
    pub refused: u64,
    /// Requests that went down with a pod.
    pub lost: u64,
    /// Seconds to the first token, as clients saw them: median and 95th percentile.
    pub time_to_first_token: Option<(f64, f64)>,
    /// What the model servers were asked for, and gave.
    pub pods: Scrapes,
    pub gateway: Scrapes,
    /// Calls of KEDA and the HPA that failed.
    pub failed_calls: usize,
    /// Whether the model is asleep again.
    pub ended_at_zero: bool,
    /// Seconds.
    pub took: f64,
}

impl DemoSummary {
    #[must_use]
    pub fn of(stage: &Stage, history: &History, scaler_share: Option<f64>) -> Self {
        let world = stage.world();
        let events = &history.events;
        let first = |wanted: &dyn Fn(&Event) -> bool| {
            events.iter().find(|(_, event)| wanted(event)).map(|(at, _)| *at)
        };
        let from_queue = |at: Option<Moment>| {
            let (queued, at) = (world.first_queued?, at?);
            (at >= queued).then(|| at.saturating_since(queued).as_secs_f64() * 1000.0)
        };
        let woken = events.iter().find_map(|(at, event)| match event {
            Event::Scaled { from: 0, cause, .. } => Some((*at, *cause)),
            _ => None,
        });
        let most_replicas = history.frames.iter().map(|frame| frame.wanted).max().unwrap_or_default();
        let took = history.length();
        Self {
            queue_to_push: from_queue(first(&|event| matches!(event, Event::Pushed { active: true, .. }))),
            scaler_share,
            queue_to_replica: from_queue(woken.map(|(at, _)| at)),
            woken_by: woken.map(|(_, cause)| cause),
            pushes: history.pushes().len(),
            peak_queue: history
                .frames
                .iter()
                .map(|frame| frame.held + frame.waiting())
                .max()
                .unwrap_or_default(),
            most_replicas,
            replica_seconds: history.replica_seconds(),
            always_on_replica_seconds: f64::from(most_replicas) * took,
            arrived: world.arrived,
            served: world.served.len(),
            refused: world.gateway.refused() + world.bypass_refused,
            lost: world.cluster.lost(),
            time_to_first_token: quantiles(&world.served),
            pods: stage.pods.read(),
            gateway: stage.gateway.read(),
            failed_calls: events
                .iter()
                .filter(|(_, event)| matches!(event, Event::CallFailed { .. }))
                .count(),
            ended_at_zero: history.frames.last().is_some_and(|frame| frame.wanted == 0) && most_replicas > 0,
            took,
        }
    }
}

fn quantiles(served: &[Served]) -> Option<(f64, f64)> {
    let seconds = |one: &Served| one.first_token.saturating_since(one.request.sent).as_secs_f64();
    let mut sorted: Vec<f64> = served.iter().map(seconds).collect();
    sorted.sort_by(f64::total_cmp);
    let at = |hundredths: usize| sorted.get(sorted.len() * hundredths / 100).copied();
    Some((at(50)?, at(95)?))
}

/// Bytes for people.
#[must_use]
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

fn milliseconds(value: Option<f64>) -> String {
    value.map_or_else(
        || "never".into(),
        |value| if value < 10.0 { format!("{value:.1} ms") } else { format!("{value:.0} ms") },
    )
}

impl DemoSummary {
    /// Label, value and explanation of everything worth telling.
    #[must_use]
    pub fn lines(&self) -> Vec<(&'static str, String, String)> {
        let (median, late) = self.time_to_first_token.unwrap_or_default();
        let cause = match self.woken_by {
            Some(Cause::Push) => "on the push",
            Some(Cause::Poll) => "on a poll",
            Some(Cause::Cooldown | Cause::Hpa) | None => "",
        };
        let scrapes = self.pods.filtered + self.pods.plain + self.gateway.plain + self.gateway.filtered;
        vec![
            (
                "Activation",
                milliseconds(self.queue_to_replica),
                format!(
                    "from the first queued request to spec.replicas = 1, {cause}; {} of it in the scaler, the rest \
                     until the gateway was scraped",
                    milliseconds(self.scaler_share)
                ),
            ),
            ("Pushes", self.pushes.to_string(), "frames with true on KEDA's stream".into()),
            (
                "Peak queue",
                self.peak_queue.to_string(),
                "requests that waited at once, gateway included".into(),
            ),
            ("Replicas", format!("0 → {} → 0", self.most_replicas), ended(self.ended_at_zero).into()),
            (
                "Replica-seconds",
                format!("{:.0}", self.replica_seconds),
                format!(
                    "{:.0} would it take to keep {} up",
                    self.always_on_replica_seconds, self.most_replicas
                ),
            ),
            ("Served", self.served.to_string(), format!("of {} requests, {} lost", self.arrived, self.lost)),
            (
                "Refused",
                self.refused.to_string(),
                "with 429, all past the gateway; they count as demand for 30 s".into(),
            ),
            (
                "First token",
                format!("{median:.2} s"),
                format!("median; 95th percentile {late:.2} s, the cold start included"),
            ),
            (
                "Scrapes",
                scrapes.to_string(),
                format!(
                    "{} filtered and {} whole pages of pods, {} of the gateway",
                    self.pods.filtered,
                    self.pods.plain,
                    self.gateway.plain + self.gateway.filtered
                ),
            ),
            (
                "Bytes",
                bytes(self.pods.bytes + self.gateway.bytes),
                format!("{} of them from pods", bytes(self.pods.bytes)),
            ),
            ("Failed calls", self.failed_calls.to_string(), "of KEDA and the HPA".into()),
        ]
    }
}

fn ended(at_zero: bool) -> &'static str {
    if at_zero { "and the model sleeps again" } else { "but the model is still awake" }
}

impl fmt::Display for DemoSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (label, value, explanation) in self.lines() {
            let mut first = format!("  {label:<16} {value:>10}   ");
            for line in wrapped(&explanation, 64) {
                writeln!(f, "{first:<32}{line}")?;
                first.clear();
            }
        }
        Ok(())
    }
}

/// `text` in lines of at most `width` characters, broken between words.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.extend([" ", word]);
        } else {
            lines.push(word.into());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use sim::traffic::Request;

    #[test]
    fn text_is_broken_between_words() {
        assert_eq!(wrapped("one two three four", 9), ["one two", "three", "four"]);
        assert_eq!(wrapped("", 9), [""]);
    }

    #[test]
    fn quantiles_are_those_of_the_clients() {
        let at = |milliseconds| Moment::from_unix(Duration::from_millis(milliseconds));
        let served: Vec<_> = (0..100)
            .map(|wait| Served {
                request: Request { sent: at(500), prompt_tokens: 1, output_tokens: 1 },
                first_token: at(500 + wait * 10),
                finished: at(9000),
            })
            .collect();
        assert_eq!(quantiles(&served), Some((0.5, 0.95)));
        assert_eq!(quantiles(&[]), None);
    }
}
