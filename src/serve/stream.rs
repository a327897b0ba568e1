//! One StreamIsActive call: says `true` when KEDA has to hear it, and nothing else.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use futures::{Stream, stream};
use tokio::{sync::watch, time::sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::rpc::Rpc;
use crate::{
    metrics::{Metrics, PushLabels},
    targets::Target,
};
use clock::Clock;
use keda_proto::IsActiveResponse;
use scaler_core::decision::push::{Hygiene, PushCause, PushState, Pusher};

/// The state of an open stream. Its end is noticed by the drop, whoever ends it.
pub(super) struct ActivityStream {
    target: Arc<Target>,
    follow: watch::Receiver<PushState>,
    pusher: Pusher,
    hygiene: Hygiene,
    /// The process is going away: end with OK.
    drain: CancellationToken,
    clock: Clock,
    metrics: Metrics,
    rpc: Rpc,
}

impl ActivityStream {
    pub(super) fn open(
        target: Arc<Target>,
        drain: CancellationToken,
        clock: Clock,
        metrics: Metrics,
        rpc: Rpc,
    ) -> Self {
        target.stream_opened();
        metrics.open_streams.inc();
        let hygiene = Hygiene::new(clock.now(), !target.ended_cleanly(), jitter());
        Self { follow: target.follow(), target, pusher: Pusher::new(), hygiene, drain, clock, metrics, rpc }
    }

    /// The frames. Each is made when the transport asks for it: a client that reads slowly
    /// gets the newest state, late, and never a queue of old ones.
    pub(super) fn frames(self) -> impl Stream<Item = Result<IsActiveResponse, Status>> + Send {
        stream::unfold(self, |mut stream| async {
            stream.next_push().await.then_some((Ok(IsActiveResponse { result: true }), stream))
        })
    }

    /// Waits until `true` is to be sent; `false` where the stream is to end with OK.
    async fn next_push(&mut self) -> bool {
        loop {
            let now = self.clock.now();
            let state = *self.follow.borrow_and_update();
            if self.drain.is_cancelled() || self.hygiene.ends(now, &state) {
                self.target.note_clean_end();
                self.rpc.ends_with(Code::Ok);
                return false;
            }
            let step = self.pusher.poll(now, &state);
            if let Some(cause) = step.send {
                self.count(cause, &state);
                return true;
            }
            // Once the hygiene is due, a change of state decides, not time.
            let hygiene = Some(self.hygiene.due()).filter(|due| *due > now);
            let wake_at = [step.again_at, hygiene].into_iter().flatten().min();
            tokio::select! {
                () = self.drain.cancelled() => {}
                // An error means that nothing will change any more, and the target is kept
                // by this stream: it can't be.
                Ok(()) = self.follow.changed() => {}
                () = sleep_until(self.clock.instant(wake_at.unwrap_or(now))), if wake_at.is_some() => {}
            }
        }
    }

    fn count(&self, cause: PushCause, state: &PushState) {
        let now = self.clock.now();
        self.target.pushed(now);
        self.metrics.pushes.get_or_create(&PushLabels { cause: cause.as_str() }).inc();
        if let (PushCause::Edge, Some(sampled)) = (cause, state.sampled) {
            self.metrics.activation_latency.observe(now.saturating_since(sampled).as_secs_f64());
        }
    }
}

impl Drop for ActivityStream {
    fn drop(&mut self) {
        self.metrics.open_streams.dec();
        self.target.stream_closed(self.clock.now());
    }
}

/// A number in 0..1 that differs from stream to stream. It spreads ends over time; nothing
/// else depends on it.
fn jitter() -> f64 {
    let random = RandomState::new().hash_one(0_u8);
    (random >> 11) as f64 / (1_u64 << 53) as f64
}
