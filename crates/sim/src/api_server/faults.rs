//! What goes wrong at the API server, on demand.

use std::{fmt, time::Duration};

use http::Method;

use super::ApiServer;

/// A fault with this code leaves the request without an answer.
pub const SILENCE: u16 = 999;

type Fault = Box<dyn FnMut(&Method, &str) -> Option<u16> + Send>;

#[derive(Default)]
pub(super) struct Faults {
    refusals: Vec<Refusal>,
    /// Called for each request: a status code makes it fail.
    fault: Option<Fault>,
    latency: Duration,
    answer_latency: Duration,
}

#[derive(Clone, Debug)]
struct Refusal {
    method: Method,
    part: String,
    code: u16,
    message: String,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("refusals", &self.refusals).finish_non_exhaustive()
    }
}

impl Faults {
    /// How a request fails: with a code, and a message.
    pub(super) fn of(&mut self, method: &Method, path: &str) -> Option<(u16, String)> {
        let refused = |refusal: &&Refusal| refusal.method == *method && path.contains(&refusal.part);
        if let Some(refusal) = self.refusals.iter().find(refused) {
            return Some((refusal.code, refusal.message.clone()));
        }
        let code = self.fault.as_mut()?(method, path)?;
        Some((code, format!("made to fail with {code}")))
    }

    /// How long it takes until a request is carried out, and from then until it is answered.
    pub(super) fn latencies(&self) -> (Duration, Duration) {
        (self.latency, self.answer_latency)
    }
}

impl ApiServer {
    /// From now on answers with `code` where the path holds `part`.
    pub fn refuse(&self, method: Method, part: &str, code: u16, message: &str) {
        let (part, message) = (part.to_owned(), message.to_owned());
        self.state().faults.refusals.push(Refusal { method, part, code, message });
    }

    /// From now on asks `fault` about each request; a status code, or [`SILENCE`], makes it fail.
    pub fn fail(&self, fault: impl FnMut(&Method, &str) -> Option<u16> + Send + 'static) {
        self.state().faults.fault = Some(Box::new(fault));
    }

    /// Lets nothing fail any more.
    pub fn forgive(&self) {
        let mut state = self.state();
        state.faults.refusals.clear();
        state.faults.fault = None;
    }

    /// From now on every request takes this long on its way.
    pub fn set_latency(&self, latency: Duration) {
        self.state().faults.latency = latency;
    }

    /// From now on the answer to every change takes this long on its way back.
    pub fn set_answer_latency(&self, latency: Duration) {
        self.state().faults.answer_latency = latency;
    }

    /// Ends every watch of a kind that is open, as a server does now and then.
    pub fn end_watches(&self, plural: &str) {
        *self.state().ended.entry(plural.to_owned()).or_default() += 1;
        self.announce();
    }
}
