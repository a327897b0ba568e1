//! Values of the API server that are kept for a while, and asked for anew in the background.

use std::{fmt::Debug, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use crate::tasks::Tasks;

/// One value. There is at most one request for it at a time, whoever wants it, and whoever
/// finds it good waits for none. Cheap to clone; all clones are the same.
#[derive(Debug)]
pub(super) struct Cached<T>(watch::Sender<State<T>>);

/// What an answer is good for.
#[derive(Clone, Debug)]
pub(super) struct Answer<T> {
    pub(super) value: T,
    /// After this time since the request another one is made.
    pub(super) renew_after: Duration,
    /// For so long since the request it is good.
    pub(super) good_for: Duration,
    /// It stays good while requests for another fail.
    pub(super) outlives_failure: bool,
}

#[derive(Debug)]
struct State<T> {
    answer: Option<(Instant, Answer<T>)>,
    /// The newest request failed: why, and when to make another.
    failed: Option<(Arc<str>, Instant)>,
    asking: bool,
    /// Requests that have ended.
    ended: u64,
}

/// Between two requests that fail.
pub(super) const PAUSE: Duration = Duration::from_secs(10);

impl<T> Clone for Cached<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self(watch::Sender::new(State { answer: None, failed: None, asking: false, ended: 0 }))
    }
}

impl<T: Clone + Debug + Send + Sync + 'static> Cached<T> {
    /// The value. Waits only where none is good: for the request that is under way, or that
    /// `ask` makes.
    ///
    /// # Errors
    /// Where none is good, and the newest request failed.
    pub(super) async fn get<A>(&self, tasks: &Tasks, ask: impl FnOnce() -> A) -> Result<T, Arc<str>>
    where
        A: Future<Output = Result<Answer<T>, Arc<str>>> + Send + 'static,
    {
        let mut state = self.0.subscribe();
        let is_due = state.borrow_and_update().is_due(Instant::now());
        if is_due {
            self.start(tasks, ask());
        }
        loop {
            {
                let state = state.borrow_and_update();
                if let Some(value) = state.good(Instant::now()) {
                    return Ok(value.clone());
                }
                if !state.asking {
                    let problem = state.failed.as_ref().map(|(problem, _)| problem.clone());
                    return Err(problem.unwrap_or_else(|| "the answer is of the past already".into()));
                }
            }
            if state.changed().await.is_err() {
                return Err("nobody asks any more".into());
            }
        }
    }

    /// Has the value asked for anew where `is_doubtful`, given when it was asked for, and waits
    /// for the end of that request.
    pub(super) async fn renew<A>(
        &self,
        is_doubtful: impl FnOnce(&T, Instant) -> bool,
        tasks: &Tasks,
        ask: impl FnOnce() -> A,
    ) where
        A: Future<Output = Result<Answer<T>, Arc<str>>> + Send + 'static,
    {
        let mut state = self.0.subscribe();
        let ended = {
            let state = state.borrow_and_update();
            match &state.answer {
                Some((at, answer)) if is_doubtful(&answer.value, *at) => state.ended,
                _ => return,
            }
        };
        self.start(tasks, ask());
        // Fails only where nobody asks any more.
        let _ = state.wait_for(|state| state.ended > ended).await;
    }

    /// Whether somebody may still ask for it.
    pub(super) fn is_recent(&self, now: Instant) -> bool {
        let state = self.0.borrow();
        state.asking || !state.is_due(now) || state.good(now).is_some()
    }

    /// Makes a request, unless one is under way.
    fn start<A>(&self, tasks: &Tasks, ask: A)
    where
        A: Future<Output = Result<Answer<T>, Arc<str>>> + Send + 'static,
    {
        let is_first = self.0.send_if_modified(|state| !std::mem::replace(&mut state.asking, true));
        if !is_first {
            return;
        }
        let asked_at = Instant::now();
        // Reports in any case, a panic included: others wait for the end.
        let request = Request { state: self.0.clone(), ended: None };
        tasks.contained("request for a wake source's token or pool", async move {
            let mut request = request;
            request.ended = Some(ask.await.map(|answer| (asked_at, answer)));
        });
    }
}

impl<T> State<T> {
    fn is_due(&self, now: Instant) -> bool {
        match (&self.failed, &self.answer) {
            (Some((_, again_at)), _) => now >= *again_at,
            (None, Some((at, answer))) => now >= *at + answer.renew_after,
            (None, None) => true,
        }
    }

    fn good(&self, now: Instant) -> Option<&T> {
        let (at, answer) = self.answer.as_ref()?;
        let outlives = answer.outlives_failure && self.failed.is_some();
        (outlives || now < *at + answer.good_for).then_some(&answer.value)
    }
}

/// A request that is under way. Its end is told when it is dropped.
struct Request<T> {
    state: watch::Sender<State<T>>,
    ended: Option<Result<(Instant, Answer<T>), Arc<str>>>,
}

impl<T> Drop for Request<T> {
    fn drop(&mut self) {
        let ended = self.ended.take().unwrap_or_else(|| Err("the request was broken off".into()));
        self.state.send_modify(|state| {
            match ended {
                // From before the request was sent: a wait for its answer is not life.
                Ok(answer) => (state.answer, state.failed) = (Some(answer), None),
                Err(problem) => state.failed = Some((problem, Instant::now() + PAUSE)),
            }
            state.asking = false;
            state.ended += 1;
        });
    }
}
