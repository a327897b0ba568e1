//! Many endpoints at little cost, for benches: a recorded page with a few values that move,
//! on as many loopback addresses as wanted. No queueing model runs behind them; whoever uses
//! the fleet moves the values.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    endpoints_file::{Endpoint, EndpointsFile, GatewayAddress, InferenceSet, Phase},
    gateway,
    http::{Answer, Meter, query_values, serve},
    page::{Page, Slot, Template},
};
use crate::core::time::Moment;

/// How a fleet is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub inference_sets: usize,
    pub endpoints_each: usize,
    /// Each InferenceSet has a gateway of its own.
    pub gateways: bool,
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
}

/// What one endpoint shows; moved from outside at any time.
#[derive(Debug, Default)]
pub struct Load {
    waiting: AtomicU32,
    running: AtomicU32,
}

impl Load {
    pub fn set(&self, waiting: u32, running: u32) {
        self.waiting.store(waiting, Ordering::Relaxed);
        self.running.store(running, Ordering::Relaxed);
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
    _servers: JoinSet<()>,
}

/// Endpoints are in this namespace.
pub const NAMESPACE: &str = "fleet";

impl Fleet {
    /// Binds and serves everything. `health` is asked with the endpoint's number, counted over
    /// the whole fleet.
    pub async fn start(plan: Plan, health: impl Fn(usize) -> Health) -> io::Result<Self> {
        let (meter, pages, stop) =
            (Arc::new(Meter::default()), Arc::new(Pages::new()), CancellationToken::new());
        let mut servers = JoinSet::new();
        let mut addresses = loopback_addresses();
        let mut bind = async || {
            let host = addresses.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
            let listener = TcpListener::bind((host, 0)).await?;
            let address = listener.local_addr()?;
            io::Result::Ok((listener, address))
        };
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
                let (listener, address) = bind().await?;
                let load = Arc::new(Load::default());
                member.loads.push(load.clone());
                member.addresses.push(address);
                match health(number * plan.endpoints_each + endpoint) {
                    Health::Refuses => drop(listener),
                    Health::Resets => {
                        servers.spawn(reset(listener));
                    }
                    condition => {
                        let pages = pages.clone();
                        let respond = move |path: &str, query: Option<&str>| {
                            (condition == Health::Serves).then(|| pages.answer(&load, path, query))
                        };
                        servers.spawn(serve(listener, respond, meter.clone(), stop.clone()));
                    }
                }
            }
            if plan.gateways {
                let (listener, address) = bind().await?;
                member.gateway = Some(address);
                let (held, pool) = (member.held.clone(), format!("{}-inferencepool", member.name));
                let respond = move |_: &str, _: Option<&str>| {
                    let held = held.load(Ordering::Relaxed) as usize;
                    Some(Answer::page(gateway::page(&pool, Some(held), 0)))
                };
                servers.spawn(serve(listener, respond, meter.clone(), stop.clone()));
            }
            members.push(member);
        }
        Ok(Self { members, meter, _servers: servers })
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

/// 127.16.0.1 and on; the hosts 0 and 255 of each network are left out.
fn loopback_addresses() -> impl Iterator<Item = Ipv4Addr> {
    (16..=255)
        .flat_map(|second| {
            (0..=255).flat_map(move |third| (1..=254).map(move |host| [127, second, third, host]))
        })
        .map(Ipv4Addr::from)
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
    fn new() -> Self {
        Self { template: Template::recorded("model"), compiled: Mutex::default() }
    }

    fn answer(&self, load: &Load, path: &str, query: Option<&str>) -> Answer {
        // vLLM filters on the path with the slash only.
        let query = query.filter(|_| path.ends_with('/')).unwrap_or_default();
        let page = {
            let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
            compiled.get(query).cloned().unwrap_or_else(|| {
                let names = query_values(query, "name[]");
                let filter = (!names.is_empty()).then_some(names.as_slice());
                let moves = |slot| matches!(slot, Slot::Waiting | Slot::Running | Slot::KvUsage);
                let page = Arc::new(self.template.compile(filter, moves));
                compiled.insert(query.into(), page.clone());
                page
            })
        };
        Answer::page(page.render(|slot| load.value(slot)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> Result<String, reqwest::Error> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_millis(300)).build()?;
        client.get(format!("http://{address}{path}")).send().await?.text().await
    }

    #[tokio::test]
    async fn values_move_where_they_are_moved() {
        let plan = Plan { inference_sets: 2, endpoints_each: 2, gateways: true };
        let fleet = Fleet::start(plan, |_| Health::Serves).await.unwrap();
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
    }

    #[tokio::test]
    async fn the_sick_are_sick_in_their_own_way() {
        let plan = Plan { inference_sets: 1, endpoints_each: 4, gateways: false };
        let conditions = [Health::Serves, Health::Hangs, Health::Refuses, Health::Resets];
        let fleet = Fleet::start(plan, |number| conditions[number]).await.unwrap();
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
        let plan = Plan { inference_sets: 3, endpoints_each: 100, gateways: false };
        let fleet = Fleet::start(plan, |_| Health::Serves).await.unwrap();
        let listing = fleet.listing(Moment::from_unix(Duration::ZERO));
        let endpoints = listing.inference_sets.iter().flat_map(|set| &set.endpoints);
        let mut hosts: Vec<_> = endpoints.filter_map(|endpoint| Some(endpoint.address?.ip())).collect();
        hosts.sort();
        hosts.dedup();
        assert_eq!(hosts.len(), 300);
        assert_eq!(listing.inference_sets[2].replicas, 100);
    }
}
