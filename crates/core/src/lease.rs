//! Who leads: what to do about the Lease, given what was seen of it and when.
//!
//! The rules are those of client-go, so that this program and the scaler that it replaces can
//! share a Lease: a holder is gone when the Lease has not changed for its duration on *our*
//! clock. The times written in it are other machines' and are not compared with ours.

use std::time::Duration;

use super::time::Moment;

/// How patient candidates are. A holder that cannot renew gives up before others may take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    lease_duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let [lease_duration, renew_deadline, retry_period] = [15, 10, 2].map(Duration::from_secs);
        Self { lease_duration, renew_deadline, retry_period }
    }
}

impl Timing {
    /// # Errors
    /// Where not `lease_duration` > `renew_deadline` > `retry_period` > 0, or the duration is
    /// not at least a second, in which the Lease counts.
    pub fn new(
        lease_duration: Duration,
        renew_deadline: Duration,
        retry_period: Duration,
    ) -> Result<Self, String> {
        if lease_duration < Duration::from_secs(1) {
            return Err(format!("the lease duration is {lease_duration:?}; it has to be at least 1s"));
        }
        if lease_duration <= renew_deadline {
            return Err(format!(
                "the lease duration is {lease_duration:?}; it has to be longer than the renew deadline, {renew_deadline:?}"
            ));
        }
        if renew_deadline <= retry_period || retry_period.is_zero() {
            return Err(format!(
                "the renew deadline is {renew_deadline:?}; it has to be longer than the retry period, {retry_period:?}, and that above zero"
            ));
        }
        Ok(Self { lease_duration, renew_deadline, retry_period })
    }

    /// For how long a Lease that does not change is respected.
    #[must_use]
    pub const fn lease_duration(self) -> Duration {
        self.lease_duration
    }

    /// After how long without a successful renewal the holder stops to lead.
    #[must_use]
    pub const fn renew_deadline(self) -> Duration {
        self.renew_deadline
    }

    /// The time between two looks at the Lease.
    #[must_use]
    pub const fn retry_period(self) -> Duration {
        self.retry_period
    }
}

/// A Lease as it was last read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who holds it; `None` where it was given up.
    pub holder: Option<String>,
    /// For how long its holder asked to be respected without a change.
    pub duration: Duration,
    /// When it was first seen as it is: its last change, on our clock.
    pub since: Moment,
}

/// What to do about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is none: make it, held by us.
    Create,
    /// Nobody holds it any more: take it.
    Acquire,
    /// We hold it: say so again.
    Renew,
    /// Another holds it.
    Wait,
}

/// What `candidate` does now about the Lease that was seen.
#[must_use]
pub fn step(seen: Option<&Seen>, candidate: &str, now: Moment) -> Step {
    let Some(seen) = seen else { return Step::Create };
    match &seen.holder {
        None => Step::Acquire,
        Some(holder) if holder == candidate => Step::Renew,
        Some(_) if now >= seen.since + seen.duration => Step::Acquire,
        Some(_) => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_unix(Duration::from_secs(seconds))
    }

    #[test]
    fn steps() {
        let seen = |holder: Option<&str>| {
            Some(Seen { holder: holder.map(Into::into), duration: Duration::from_secs(15), since: at(100) })
        };
        for (lease, now, expected) in [
            (None, 0, Step::Create),
            (seen(None), 100, Step::Acquire),
            (seen(Some("me")), 100, Step::Renew),
            (seen(Some("me")), 1_000, Step::Renew),
            (seen(Some("other")), 100, Step::Wait),
            (seen(Some("other")), 114, Step::Wait),
            (seen(Some("other")), 115, Step::Acquire),
            (seen(Some("other")), 90, Step::Wait),
        ] {
            assert_eq!(step(lease.as_ref(), "me", at(now)), expected, "{lease:?} at {now}");
        }
    }

    #[test]
    fn timing_leaves_the_holder_time_to_give_up() {
        let new = |lease, renew, retry| {
            Timing::new(Duration::from_secs(lease), Duration::from_secs(renew), Duration::from_secs(retry))
        };
        assert_eq!(new(15, 10, 2), Ok(Timing::default()));
        for (lease, renew, retry) in [(10, 10, 2), (15, 2, 2), (15, 10, 0), (0, 0, 0)] {
            assert!(new(lease, renew, retry).is_err(), "{lease} {renew} {retry}");
        }
        assert_eq!(
            new(10, 15, 2).unwrap_err(),
            "the lease duration is 10s; it has to be longer than the renew deadline, 15s"
        );
    }
}
