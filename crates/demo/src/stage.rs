//! The simulated world in motion: one task moves it on, servers on loopback addresses show it,
//! and the endpoints file describes it.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::scenario::{Hang, Scenario};
use clock::Clock;
use scaler_core::time::Moment;
use sim::{
    cluster::{Cluster, Stage as PodStage},
    endpoints_file::{self, EndpointsFile, WriteError},
    gateway::Gateway,
    http::{Answer, Meter, serve},
    keda::Scale,
    model_server::ModelServer,
    queueing::Served,
    traffic::Traffic,
};

/// Why the stage could not be set, or broke down.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("failed to listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    File(#[from] WriteError),
}

/// Everything that is simulated, at one moment.
#[derive(Debug)]
pub struct World {
    pub cluster: Cluster,
    pub gateway: Gateway,
    traffic: Traffic,
    /// Requests that came so far.
    pub arrived: u64,
    pub served: Vec<Served>,
    /// Requests past the gateway that got a 429.
    pub bypass_refused: u64,
    /// When a request joined the gateway's queue while there was no replica.
    pub first_queued: Option<Moment>,
}

/// The world, and what has been asked of its servers.
#[derive(Clone, Debug)]
pub struct Stage {
    world: Arc<Mutex<World>>,
    pub scenario: Arc<Scenario>,
    pub began: Moment,
    pub clock: Clock,
    /// Scrapes of model servers.
    pub pods: Arc<Meter>,
    /// Scrapes of the gateway.
    pub gateway: Arc<Meter>,
    endpoints_file: PathBuf,
}

impl Stage {
    #[must_use]
    pub fn new(scenario: Scenario, endpoints_file: PathBuf, clock: Clock) -> Self {
        let began = clock.now();
        let pool = format!("{}-inferencepool", scenario.key.name);
        let world = World {
            cluster: Cluster::new(scenario.key.clone(), scenario.profile.clone()),
            gateway: Gateway::new(&pool, Some(scenario.hold_at_waiting)),
            traffic: Traffic::new(scenario.schedule.clone(), scenario.tokens, began, SEED),
            arrived: 0,
            served: vec![],
            bypass_refused: 0,
            first_queued: None,
        };
        Self {
            world: Arc::new(Mutex::new(world)),
            scenario: Arc::new(scenario),
            began,
            clock,
            pods: Arc::default(),
            gateway: Arc::default(),
            endpoints_file,
        }
    }

    /// The world as it is; nothing moves while the guard lives.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `uid` leaves scrapes without an answer at `now`.
    #[must_use]
    pub fn hangs(&self, world: &World, uid: &str, now: Moment) -> bool {
        let elapsed = now.saturating_since(self.began);
        self.scenario.hang.is_some_and(|Hang { pod, from, until }| {
            let mut serving = world.cluster.pods().iter().filter(|pod| pod.stage(now) == PodStage::Serving);
            (from..until).contains(&elapsed) && serving.nth(pod).is_some_and(|pod| pod.uid == uid)
        })
    }

    /// Writes the first endpoints file and starts the gateway. The engine can start then.
    pub async fn set(&self) -> Result<Gate, StageError> {
        let (listener, address) = bind(Ipv4Addr::new(127, 0, 9, 1)).await?;
        let listing = self.world().cluster.listing(Some(address), self.clock.now());
        endpoints_file::write(&self.endpoints_file, &listing).await?;
        let mut servers = JoinSet::new();
        let shown = self.clone();
        let respond = move |path: &str, _: Option<&str>| {
            let (mut world, now) = (shown.world(), shown.clock.now());
            let serving = world.cluster.serving(now).count();
            Some(match path {
                "/metrics" => Answer::page(world.gateway.page(serving)),
                _ => Answer::status(http::StatusCode::NOT_FOUND),
            })
        };
        servers.spawn(serve(listener, respond, self.gateway.clone(), CancellationToken::new()));
        Ok(Gate { servers, address, written: listing })
    }

    /// From now on time counts: whatever was done before belongs to setting the stage.
    pub fn begin(&mut self) {
        self.began = self.clock.now();
        let Scenario { schedule, tokens, .. } = &*self.scenario;
        self.world().traffic = Traffic::new(schedule.clone(), *tokens, self.began, SEED);
    }

    /// Moves the world on until `stop`.
    pub async fn play(self, gate: Gate, scale: Scale, stop: CancellationToken) -> Result<(), StageError> {
        let Gate { mut servers, address: gateway, mut written } = gate;
        let model_server = Arc::new(ModelServer::new(&self.scenario.key.name));
        // A pod's server ends when its guard is dropped.
        let mut guards: HashMap<String, DropGuard> = HashMap::new();
        let mut next_host = 1;
        let mut wanted = scale.watch();
        let mut ticks = interval(self.scenario.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let now = self.clock.now();
            let replicas = wanted.has_changed().unwrap_or_default().then(|| *wanted.borrow_and_update());
            let (unbound, present) = {
                let mut world = self.world();
                if let Some(replicas) = replicas {
                    world.cluster.scale_to(replicas, now);
                }
                self.step(&mut world, now);
                let present: Vec<_> = world.cluster.pods().iter().map(|pod| pod.uid.clone()).collect();
                (world.cluster.without_address(now), present)
            };
            guards.retain(|uid, _| present.contains(uid));
            for uid in unbound {
                let (listener, address) = bind(Ipv4Addr::new(127, 0, 1, next_host)).await?;
                next_host = next_host.wrapping_add(1).max(1);
                let token = stop.child_token();
                servers.spawn(serve(
                    listener,
                    self.pod(&uid, &model_server),
                    self.pods.clone(),
                    token.clone(),
                ));
                self.world().cluster.bind(&uid, address);
                guards.insert(uid, token.drop_guard());
            }
            let listing = self.world().cluster.listing(Some(gateway), self.clock.now());
            if listing != written {
                endpoints_file::write(&self.endpoints_file, &listing).await?;
                written = listing;
            }
        }
    }

    /// What the server of the pod `uid` answers.
    fn pod(
        &self,
        uid: &str,
        model_server: &Arc<ModelServer>,
    ) -> impl Fn(&str, Option<&str>) -> Option<Answer> + Clone + use<> {
        let (stage, model_server, uid) = (self.clone(), model_server.clone(), uid.to_owned());
        move |path, query| {
            let (world, now) = (stage.world(), stage.clock.now());
            let pod = world.cluster.pod(&uid)?;
            if stage.hangs(&world, &uid, now) {
                return None;
            }
            Some(model_server.answer(pod, path, query, now))
        }
    }

    fn step(&self, world: &mut World, now: Moment) {
        let elapsed = now.saturating_since(self.began);
        let stretch = self.scenario.schedule.at(elapsed).map(|(stretch, _)| stretch.name);
        let bypass = self.scenario.bypass.filter(|bypass| stretch == Some(bypass.stretch));
        for request in world.traffic.arrivals(now) {
            world.arrived += 1;
            let past_gateway = bypass.is_some_and(|bypass| world.arrived.is_multiple_of(bypass.every));
            let least_loaded = world.cluster.serving(now).min_by_key(|replica| replica.waiting());
            match least_loaded.filter(|_| past_gateway) {
                Some(replica) => {
                    world.bypass_refused += u64::from(replica.offer(request, now).is_err());
                }
                None => world.gateway.receive(request),
            }
        }
        if world.gateway.held() > 0 {
            world.first_queued.get_or_insert(now);
        }
        world.gateway.dispatch(&mut world.cluster, now);
        let served = world.cluster.advance(now);
        world.served.extend(served);
    }
}

/// The gateway, which serves, and the file as it was first written.
#[derive(Debug)]
pub struct Gate {
    /// Dropping it ends every server.
    servers: JoinSet<()>,
    pub address: SocketAddr,
    written: EndpointsFile,
}

/// Any run of the demo sees the same requests.
const SEED: u64 = 20_260_101;

/// A free port of a loopback address, so that several demos can run at once.
async fn bind(address: Ipv4Addr) -> Result<(TcpListener, SocketAddr), StageError> {
    let failed = |source| StageError::Listen { address: (address, 0).into(), source };
    let listener = TcpListener::bind((address, 0)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}
