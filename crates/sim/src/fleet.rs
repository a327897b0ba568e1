//! Many endpoints at little cost, for benches: a recorded page with a few values that move,
//! each endpoint at a loopback address of its own. No queueing model runs behind them; whoever
//! uses the fleet moves the values.

mod serve;

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::{net::TcpSocket, task::JoinSet, time::Instant};

use self::serve::{Pages, Place, serve};
use super::{
    endpoints_file::{Endpoint, EndpointsFile, GatewayAddress, InferenceSet, Phase},
    hostile::Hostile,
    http::Meter,
    page::Slot,
};
use scaler_core::time::Moment;

/// How a fleet is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub inference_sets: usize,
    pub endpoints_each: usize,
    /// Each InferenceSet has a gateway of its own.
    pub gateways: bool,
    pub pages: Filtering,
}

/// What becomes of a request for some samples of the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filtering {
    /// Those samples, as of vLLM.
    #[default]
    Works,
    /// An empty page, as of vLLM with several API servers: only whole pages can be had.
    GivesNothing,
}

/// How an endpoint treats those who scrape it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    #[default]
    Serves,
    /// Takes the request and never answers.
    Hangs,
    /// Nobody listens.
    Refuses,
    /// Takes the connection and drops it.
    Resets,
    /// Aims at one thing that a careless reader runs out of.
    Hostile(Hostile),
}

/// What one endpoint shows; moved from outside at any time.
#[derive(Debug, Default)]
pub struct Load {
    waiting: AtomicU32,
    running: AtomicU32,
    arrivals: Mutex<Vec<Instant>>,
}

impl Load {
    pub fn set(&self, waiting: u32, running: u32) {
        self.waiting.store(waiting, Ordering::Relaxed);
        self.running.store(running, Ordering::Relaxed);
    }

    /// When requests came since this was asked last.
    #[must_use]
    pub fn take_arrivals(&self) -> Vec<Instant> {
        std::mem::take(&mut self.arrivals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn arrived(&self) {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
    }

    fn value(&self, slot: Slot) -> f64 {
        let (waiting, running) = (self.waiting.load(Ordering::Relaxed), self.running.load(Ordering::Relaxed));
        match slot {
            Slot::Waiting => f64::from(waiting),
            Slot::Running => f64::from(running),
            // Of a cache with room for 64 sequences.
            _ => (f64::from(running) / 64.0).min(1.0),
        }
    }
}

/// One InferenceSet of the fleet.
#[derive(Debug)]
pub struct Member {
    pub name: String,
    /// One for each endpoint; empty for an InferenceSet that sleeps.
    pub loads: Vec<Arc<Load>>,
    /// Requests that its gateway holds.
    pub held: Arc<AtomicU32>,
    addresses: Vec<SocketAddr>,
    gateway: Option<SocketAddr>,
}

/// A fleet that is being served; its servers end when it is dropped.
#[derive(Debug)]
pub struct Fleet {
    pub members: Vec<Member>,
    /// What all endpoints and gateways together were asked for.
    pub meter: Arc<Meter>,
    port: u16,
    _server: JoinSet<()>,
    _refusing: TcpSocket,
}

/// Endpoints are in this namespace.
pub const NAMESPACE: &str = "fleet";

/// Connections that may wait to be accepted: a fleet is found in one moment.
const BACKLOG: u32 = 16_384;

impl Fleet {
    /// Serves everything; must be called from within a runtime. `health` is asked with the endpoint's number, counted over the whole
    /// fleet.
    ///
    /// One listener takes the connections to all addresses and tells them apart by where they
    /// went: ten thousand listeners beside ten thousand connections are more files than most
    /// processes may open.
    pub fn start(plan: Plan, health: impl Fn(usize) -> Health) -> io::Result<Self> {
        let listener = on_loopback()?.listen(BACKLOG)?;
        let port = listener.local_addr()?.port();
        // Bound and never listening, so that no other program gets the port.
        let refusing = on_loopback()?;
        let refusing_port = refusing.local_addr()?.port();
        let mut places = HashMap::new();
        let mut hosts = loopback_addresses();
        let mut next = || hosts.next().ok_or(io::Error::from(io::ErrorKind::AddrNotAvailable));
        let mut members = Vec::with_capacity(plan.inference_sets);
        for number in 0..plan.inference_sets {
            let mut member = Member {
                name: format!("model-{number}"),
                loads: vec![],
                held: Arc::default(),
                addresses: vec![],
                gateway: None,
            };
            for endpoint in 0..plan.endpoints_each {
                let (host, load) = (next()?, Arc::new(Load::default()));
                let health = health(number * plan.endpoints_each + endpoint);
                let port = if health == Health::Refuses { refusing_port } else { port };
                member.addresses.push((host, port).into());
                member.loads.push(load.clone());
                places.insert(host, Place::Pod { load, health });
            }
            if plan.gateways {
                let host = next()?;
                member.gateway = Some((host, port).into());
                let pool = format!("{}-inferencepool", member.name);
                places.insert(host, Place::Gateway { held: member.held.clone(), pool });
            }
            members.push(member);
        }
        let (meter, mut server) = (Arc::new(Meter::default()), JoinSet::new());
        server.spawn(serve(listener, places, Pages::new(plan.pages), meter.clone()));
        Ok(Self { members, meter, port, _server: server, _refusing: refusing })
    }

    /// The port of every endpoint that does not refuse.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The endpoints file of the fleet: every pod is ready, since the given moment.
    #[must_use]
    pub fn listing(&self, since: Moment) -> EndpointsFile {
        let listed = |member: &Member| {
            let replicas = u32::try_from(member.addresses.len()).unwrap_or(u32::MAX);
            let endpoints = member.addresses.iter().enumerate().map(|(number, address)| Endpoint {
                pod: format!("{}-{number}-0", member.name),
                uid: format!("{}-{number}", member.name),
                address: Some(*address),
                phase: Phase::Ready,
                since,
            });
            InferenceSet {
                namespace: NAMESPACE.into(),
                name: member.name.clone(),
                replicas,
                ready_replicas: replicas,
                endpoints: endpoints.collect(),
                gateway: member.gateway.map(|address| GatewayAddress { address }),
            }
        };
        EndpointsFile { inference_sets: self.members.iter().map(listed).collect() }
    }
}

/// A socket on every loopback address, and on no other.
fn on_loopback() -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // All of 127.0.0.0/8 are addresses of this interface.
    #[cfg(target_os = "linux")]
    socket.bind_device(Some(b"lo"))?;
    socket.bind((Ipv4Addr::UNSPECIFIED, 0).into())?;
    Ok(socket)
}

/// 127.16.0.1 and on; the hosts 0 and 255 of each network are left out.
fn loopback_addresses() -> impl Iterator<Item = Ipv4Addr> {
    (16..=255)
        .flat_map(|second| {
            (0..=255).flat_map(move |third| (1..=254).map(move |host| [127, second, third, host]))
        })
        .map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> Result<String, reqwest::Error> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_millis(300)).build()?;
        client.get(format!("http://{address}{path}")).send().await?.text().await
    }

    const PLAN: Plan = Plan { inference_sets: 2, endpoints_each: 2, gateways: true, pages: Filtering::Works };

    #[tokio::test]
    async fn values_move_where_they_are_moved() {
        let fleet = Fleet::start(PLAN, |_| Health::Serves).unwrap();
        fleet.members[1].loads[0].set(7, 16);
        fleet.members[1].held.store(3, Ordering::Relaxed);
        let filter = "/metrics/?name[]=vllm:num_requests_waiting&name[]=vllm:kv_cache_usage_perc";
        let moved = get(fleet.members[1].addresses[0], filter).await.unwrap();
        assert!(moved.contains("} 7.0\n") && moved.contains("} 0.25\n"), "{moved}");
        assert!(get(fleet.members[1].addresses[1], filter).await.unwrap().contains("} 0.0\n"));
        assert!(get(fleet.members[1].addresses[0], "/metrics").await.unwrap().len() > 45_000);
        let gateway = get(fleet.members[1].gateway.unwrap(), "/metrics").await.unwrap();
        assert!(gateway.contains("inference_pool=\"model-1-inferencepool\"") && gateway.contains("} 3\n"));
        assert_eq!((fleet.meter.read().filtered, fleet.meter.read().plain), (2, 2));
        assert_eq!(fleet.members[1].loads[0].take_arrivals().len(), 2);
        assert_eq!(fleet.members[1].loads[0].take_arrivals().len(), 0);
    }

    #[tokio::test]
    async fn without_a_filter_there_are_whole_pages_only() {
        let plan = Plan { pages: Filtering::GivesNothing, ..PLAN };
        let fleet = Fleet::start(plan, |_| Health::Serves).unwrap();
        let address = fleet.members[0].addresses[0];
        assert_eq!(get(address, "/metrics/?name[]=vllm:num_requests_waiting").await.unwrap(), "");
        assert!(get(address, "/metrics").await.unwrap().len() > 45_000);
    }

    #[tokio::test]
    async fn the_sick_are_sick_in_their_own_way() {
        let plan = Plan { inference_sets: 1, endpoints_each: 4, ..PLAN };
        let conditions = [Health::Serves, Health::Hangs, Health::Refuses, Health::Resets];
        let fleet = Fleet::start(plan, |number| conditions[number]).unwrap();
        let [serves, hangs, refuses, resets] = fleet.members[0].addresses[..] else {
            panic!("four endpoints")
        };
        assert!(get(serves, "/metrics").await.is_ok());
        assert!(get(hangs, "/metrics").await.unwrap_err().is_timeout());
        assert!(get(refuses, "/metrics").await.unwrap_err().is_connect());
        let reset = get(resets, "/metrics").await.unwrap_err();
        assert!(!reset.is_timeout() && !reset.is_connect(), "{reset:?}");
    }

    #[tokio::test]
    async fn the_listing_has_every_endpoint_at_an_address_of_its_own() {
        let plan = Plan { inference_sets: 3, endpoints_each: 100, ..PLAN };
        let fleet = Fleet::start(plan, |_| Health::Serves).unwrap();
        let listing = fleet.listing(Moment::from_unix(Duration::ZERO));
        let endpoints = listing.inference_sets.iter().flat_map(|set| &set.endpoints);
        let mut hosts: Vec<_> = endpoints.filter_map(|endpoint| Some(endpoint.address?.ip())).collect();
        hosts.sort();
        hosts.dedup();
        assert_eq!(hosts.len(), 300);
        assert_eq!(listing.inference_sets[2].replicas, 100);
    }
}
