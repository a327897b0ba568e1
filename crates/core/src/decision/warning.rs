//! What the user of a ScaledObject should know of it while it is scaled: each becomes a Warning
//! event.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use super::push::UNANSWERED;
use crate::{config::go_duration, names::PodUid, page::usage::Misuse};

/// Something that is wrong with a target, and that waiting will not mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// KEDA has not acted on a wake-up for [`UNANSWERED`].
    WakeNotHonoured,
    /// Replicas were not up by their deadline, and are no longer waited for.
    ReplicaStuck(Stuck),
    /// A page says that the trigger's metric is nothing that can be read so.
    MetricMisused(Misuse),
}

/// Replicas that were not up by their deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Each with its name.
    pub pods: Vec<(PodUid, Arc<str>)>,
    /// Replicas that are wanted and for which there is no pod.
    pub not_created: u32,
    pub deadline: Duration,
}

impl Trouble {
    /// The event's reason.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::WakeNotHonoured => "WakeNotHonoured",
            Self::ReplicaStuck(_) => "ReplicaStuck",
            Self::MetricMisused(_) => "MetricMisused",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WakeNotHonoured => write!(
                f,
                "requests wait, and {} s after KEDA could know of it spec.replicas was not raised: see whether \
                 KEDA's operator runs, and whether this ScaledObject is Ready and not paused",
                UNANSWERED.as_secs()
            ),
            Self::ReplicaStuck(stuck) => write!(f, "{stuck}"),
            Self::MetricMisused(misuse) => write!(f, "{misuse}"),
        }
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let deadline = go_duration::format(self.deadline);
        write!(f, "not up within {deadline} (inFlightDeadline), and no longer waited for: ")?;
        for (index, (_, pod)) in self.pods.iter().enumerate() {
            write!(f, "{}pod {pod}", if index > 0 { ", " } else { "" })?;
        }
        let and = if self.pods.is_empty() { "" } else { ", and " };
        match self.not_created {
            0 => Ok(()),
            1 => write!(f, "{and}1 replica for which there is no pod"),
            count => write!(f, "{and}{count} replicas for which there are no pods"),
        }
    }
}

/// Which stuck replicas were told of. One for each target.
#[derive(Clone, Debug, Default)]
pub struct ToldStuck {
    pods: BTreeSet<PodUid>,
    not_created: u32,
}

impl ToldStuck {
    /// Takes in who is stuck at present. True where somebody is who was not before.
    pub fn follow(&mut self, stuck: &Stuck) -> bool {
        let news = stuck.not_created > self.not_created
            || stuck.pods.iter().any(|(uid, _)| !self.pods.contains(uid));
        self.pods = stuck.pods.iter().map(|(uid, _)| uid.clone()).collect();
        self.not_created = stuck.not_created;
        news
    }

    /// Nobody is stuck.
    pub fn clear(&mut self) {
        self.pods.clear();
        self.not_created = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stuck(pods: &[&str], not_created: u32) -> Stuck {
        let pods = pods.iter().map(|pod| (PodUid((*pod).into()), Arc::from(*pod))).collect();
        Stuck { pods, not_created, deadline: Duration::from_secs(900) }
    }

    #[test]
    fn who_is_stuck_is_named() {
        let start = "not up within 15m (inFlightDeadline), and no longer waited for: ";
        for (stuck, text) in [
            (stuck(&["a", "b"], 0), "pod a, pod b"),
            (stuck(&["a"], 1), "pod a, and 1 replica for which there is no pod"),
            (stuck(&[], 2), "2 replicas for which there are no pods"),
        ] {
            assert_eq!(Trouble::ReplicaStuck(stuck).to_string(), format!("{start}{text}"));
        }
    }

    #[test]
    fn each_is_told_of_once() {
        let mut told = ToldStuck::default();
        for (pods, not_created, news) in [
            (&["a"][..], 0, true),
            (&["a"], 0, false),
            (&["a", "b"], 0, true),
            (&["b"], 0, false),
            (&["b"], 1, true),
            (&["b"], 1, false),
            (&["a"], 1, true),
        ] {
            assert_eq!(told.follow(&stuck(pods, not_created)), news, "{pods:?} {not_created}");
        }
        told.clear();
        assert!(told.follow(&stuck(&[], 1)));
    }
}
