//! The model servers: vLLM's recorded metrics page on each pod's own address, with the few
//! values that a scenario moves, and the ways in which a server can be out of order.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use sim::{
    http::{Answer, Meter, query_values, serve},
    page::{Page, Slot, Template},
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::vllm::Installation;

/// How a pod treats those who scrape it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Health {
    #[default]
    Serves,
    /// Takes the request and never answers.
    Hangs,
    /// Takes the connection and drops it.
    Resets,
    /// Answers something that is no metrics page.
    Lies,
}

/// How many requests wait.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Waiting {
    /// In all, and all on the first pod that serves: a request does not move to another queue, and
    /// a total of samples of different age must not count it twice.
    Total(f64),
    /// On each pod.
    Each(f64),
}

/// One InferenceSet's replicas, as a scenario wants them.
#[derive(Debug)]
pub(crate) struct Model {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    start_up: Duration,
    nodes: usize,
    holds_status: bool,
    waiting: Waiting,
    running: f64,
    kv_usage: f64,
    real: Option<Installation>,
    pods: BTreeMap<String, Pod>,
}

#[derive(Debug, Default)]
struct Pod {
    serves: bool,
    health: Health,
    waiting: Option<f64>,
}

impl Default for Model {
    fn default() -> Self {
        let state = State {
            start_up: Duration::ZERO,
            nodes: 1,
            holds_status: false,
            waiting: Waiting::Total(0.0),
            running: 0.0,
            kv_usage: 0.0,
            real: None,
            pods: BTreeMap::new(),
        };
        Self { state: Mutex::new(state), changed: watch::channel(()).0 }
    }
}

impl Model {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.send_replace(());
    }

    /// How long a pod that is made from now on loads its model.
    pub(crate) fn starts_up_in(&self, start_up: Duration) {
        self.change(|state| state.start_up = start_up);
    }

    /// Lets the pods that load become ready.
    pub(crate) fn start_up(&self) -> Duration {
        self.state().start_up
    }

    /// Pods of a workspace that is made from now on.
    pub(crate) fn spans(&self, nodes: usize) {
        self.change(|state| state.nodes = nodes);
    }

    pub(crate) fn nodes(&self) -> usize {
        self.state().nodes
    }

    /// Whether KAITO lags: the InferenceSet's status stays as it is.
    pub(crate) fn hold_status(&self, holds: bool) {
        self.change(|state| state.holds_status = holds);
    }

    pub(crate) fn holds_status(&self) -> bool {
        self.state().holds_status
    }

    /// Has so many requests wait in all, on the first pod that serves.
    pub(crate) fn wait_in_all(&self, waiting: f64) {
        self.change(|state| state.waiting = Waiting::Total(waiting));
    }

    /// Has so many requests wait on each pod.
    pub(crate) fn wait_on_each(&self, waiting: f64) {
        self.change(|state| state.waiting = Waiting::Each(waiting));
    }

    pub(crate) fn run_on_each(&self, running: f64, kv_usage: f64) {
        self.change(|state| (state.running, state.kv_usage) = (running, kv_usage));
    }

    /// What one pod shows, whatever the others do.
    pub(crate) fn wait_on(&self, pod: &str, waiting: f64) {
        self.change(|state| state.pods.entry(pod.to_owned()).or_default().waiting = Some(waiting));
    }

    pub(crate) fn set_health(&self, pod: &str, health: Health) {
        self.change(|state| state.pods.entry(pod.to_owned()).or_default().health = health);
    }

    /// The pods that serve, by name.
    pub(crate) fn serving(&self) -> Vec<String> {
        let state = self.state();
        state.pods.iter().filter(|(_, pod)| pod.serves).map(|(name, _)| name.clone()).collect()
    }

    /// Has the first pod, if it is made from now on, be a real vLLM.
    pub(crate) fn be_real(&self, vllm: Installation) {
        self.change(|state| state.real = Some(vllm));
    }

    pub(crate) fn real(&self) -> Option<Installation> {
        self.state().real.clone()
    }

    /// Wakes whoever depends on the settings, when they change.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn value(&self, pod: &str, slot: Slot) -> f64 {
        let state = self.state();
        match slot {
            Slot::Waiting => {
                let own = state.pods.get(pod).and_then(|pod| pod.waiting);
                let first = state.pods.iter().find(|(_, pod)| pod.serves).map(|(name, _)| name.as_str());
                own.unwrap_or(match state.waiting {
                    Waiting::Total(total) if first == Some(pod) => total,
                    Waiting::Total(_) => 0.0,
                    Waiting::Each(each) => each,
                })
            }
            Slot::Running => state.running,
            _ => state.kv_usage,
        }
    }

    fn health(&self, pod: &str) -> Health {
        self.state().pods.get(pod).map(|pod| pod.health).unwrap_or_default()
    }

    fn serves(&self, pod: &str) -> bool {
        self.state().pods.get(pod).is_some_and(|pod| pod.serves)
    }

    /// Says whether the model is loaded.
    pub(crate) fn set_serving(&self, pod: &str, serves: bool) {
        self.change(|state| state.pods.entry(pod.to_owned()).or_default().serves = serves);
    }

    /// Forgets a pod that is gone.
    pub(crate) fn forget(&self, pod: &str) {
        self.change(|state| {
            state.pods.remove(pod);
        });
    }
}

/// Every model, by the namespace and name of its InferenceSet.
#[derive(Debug)]
pub(crate) struct Models {
    all: Mutex<HashMap<(String, String), Arc<Model>>>,
    pages: Pages,
    /// What all of them were asked for.
    pub meter: Arc<Meter>,
}

impl Models {
    pub(crate) fn new() -> Arc<Self> {
        let pages = Pages { template: Template::recorded("model"), compiled: Mutex::default() };
        Arc::new(Self { all: Mutex::default(), pages, meter: Arc::default() })
    }

    pub(crate) fn of(&self, namespace: &str, inference_set: &str) -> Arc<Model> {
        let mut models = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        models.entry((namespace.to_owned(), inference_set.to_owned())).or_default().clone()
    }

    /// Serves `pod` of `model` at `address` until `stop`.
    pub(crate) async fn serve(
        self: Arc<Self>,
        model: Arc<Model>,
        pod: String,
        address: IpAddr,
        stop: CancellationToken,
    ) -> Result<()> {
        let address = SocketAddr::new(address, 5000);
        let mut changes = model.changes();
        // A pod that resets has a listener of another kind; so it is begun anew when that changes.
        loop {
            let listener = TcpListener::bind(address).await;
            let listener = listener.with_context(|| format!("failed to listen on {address}"))?;
            let resets = model.health(&pod) == Health::Resets;
            let ends = stop.child_token();
            let serving = async {
                if resets {
                    ends.run_until_cancelled(reset(listener)).await;
                } else {
                    let (models, model, pod) = (self.clone(), model.clone(), pod.clone());
                    let respond =
                        move |path: &str, query: Option<&str>| models.answer(&model, &pod, path, query);
                    serve(listener, respond, self.meter.clone(), ends.clone()).await;
                }
            };
            let changed = async {
                while (model.health(&pod) == Health::Resets) == resets {
                    if changes.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                ends.cancel();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = serving => {}
                () = changed => {}
            }
            if stop.is_cancelled() {
                return Ok(());
            }
        }
    }

    fn answer(&self, model: &Model, pod: &str, path: &str, query: Option<&str>) -> Option<Answer> {
        match model.health(pod) {
            Health::Hangs => None,
            Health::Lies => {
                Some(Answer::page("vllm:num_requests_waiting{engine=\"0\"} many\n<html>busy</html>\n"))
            }
            _ if !model.serves(pod) => Some(match path {
                // KAITO's download server knows one path.
                "/metrics" => Answer::page(
                    "# TYPE kaito_model_download_remaining_seconds gauge\n\
                                            kaito_model_download_remaining_seconds 5.0\n",
                ),
                _ => Answer::status(http::StatusCode::NOT_FOUND),
            }),
            _ => {
                // vLLM filters on the path with the slash only.
                let query = query.filter(|_| path.ends_with('/')).unwrap_or_default();
                Some(Answer::page(self.pages.page(query).render(|slot| model.value(pod, slot))))
            }
        }
    }
}

async fn reset(listener: TcpListener) {
    loop {
        // What was sent is left unread, so that closing is a reset.
        drop(listener.accept().await);
    }
}

/// The pages that were asked for so far, compiled.
#[derive(Debug)]
struct Pages {
    template: Template,
    compiled: Mutex<HashMap<String, Arc<Page>>>,
}

impl Pages {
    fn page(&self, query: &str) -> Arc<Page> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = compiled.get(query) {
            return page.clone();
        }
        let names = query_values(query, "name[]");
        let filter = (!names.is_empty()).then_some(names.as_slice());
        let moves = |slot| matches!(slot, Slot::Waiting | Slot::Running | Slot::KvUsage);
        let page = Arc::new(self.template.compile(filter, moves));
        compiled.insert(query.to_owned(), page.clone());
        page
    }
}
