//! A stand-in for kube-proxy and the cluster's DNS: each Service answers at its ClusterIP and
//! by its name, and passes connections on to a ready endpoint.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::Value;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use crate::{
    api::{Api, ENDPOINT_SLICE, Objects, SERVICE, label, number, text},
    sandbox::Hosts,
};

/// Proxies every Service for as long as tasks run.
pub(crate) fn start(api: &Api, hosts: Hosts, tasks: &TaskTracker) {
    let proxy = Proxy {
        services: api.mirror(SERVICE, tasks),
        slices: api.mirror(ENDPOINT_SLICE, tasks),
        hosts,
        tasks: tasks.clone(),
        listening: BTreeMap::new(),
    };
    tasks.spawn(proxy.run());
}

struct Proxy {
    services: watch::Receiver<Objects>,
    slices: watch::Receiver<Objects>,
    hosts: Hosts,
    tasks: TaskTracker,
    listening: BTreeMap<Port, CancellationToken>,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    namespace: String,
    service: String,
    name: String,
    address: SocketAddr,
}

impl Proxy {
    async fn run(mut self) {
        while self.services.changed().await.is_ok() {
            let services = self.services.borrow_and_update().clone();
            let ports: Vec<Port> = services.values().flat_map(ports).collect();
            self.listening.retain(|port, listening| {
                let stays = ports.contains(port);
                if !stays {
                    listening.cancel();
                }
                stays
            });
            for port in ports {
                if !self.listening.contains_key(&port) {
                    self.listen(port).await;
                }
            }
            if let Err(error) = self.hosts.write(names(&services)) {
                warn!("the cluster's DNS: {error:#}");
            }
        }
    }

    async fn listen(&mut self, port: Port) {
        let listener = match TcpListener::bind(port.address).await {
            Ok(listener) => listener,
            Err(error) => return warn!("kube-proxy's stand-in: {port:?}: {error}"),
        };
        let stop = CancellationToken::new();
        self.listening.insert(port.clone(), stop.clone());
        let (slices, tasks) = (self.slices.clone(), self.tasks.clone());
        self.tasks
            .spawn(async move { stop.run_until_cancelled(accept(listener, port, slices, tasks)).await });
    }
}

async fn accept(listener: TcpListener, port: Port, slices: watch::Receiver<Objects>, tasks: TaskTracker) {
    let turn = Arc::new(AtomicUsize::new(0));
    while let Ok((mut client, _)) = listener.accept().await {
        let endpoints = endpoints(&slices.borrow(), &port);
        let chosen = turn.fetch_add(1, Ordering::Relaxed);
        // Without an endpoint the connection is closed: refused, for all that a client can tell.
        let Some(endpoint) = endpoints.get(chosen % endpoints.len().max(1)).copied() else { continue };
        tasks.spawn(async move {
            let Ok(mut server) = TcpStream::connect(endpoint).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            // How a connection ends is the business of those who hold it.
            let _ = copy_bidirectional(&mut client, &mut server).await;
        });
    }
}

fn ports(service: &Value) -> Vec<Port> {
    let address = text(service, "/spec/clusterIP").parse().ok();
    let listed = service.pointer("/spec/ports").and_then(Value::as_array);
    let ports = listed.into_iter().flatten().filter_map(|port| {
        Some(Port {
            namespace: text(service, "/metadata/namespace"),
            service: text(service, "/metadata/name"),
            name: text(port, "/name"),
            address: SocketAddr::new(address?, u16::try_from(number(port, "/port")?).ok()?),
        })
    });
    // The API server's own Service has no endpoint.
    ports.filter(|port| port.service != "kubernetes").collect()
}

fn endpoints(slices: &Objects, port: &Port) -> Vec<SocketAddr> {
    let of_service = slices.values().filter(|slice| {
        text(slice, "/metadata/namespace") == port.namespace
            && label(slice, "kubernetes.io/service-name") == port.service
    });
    let mut found = Vec::new();
    for slice in of_service {
        let ports = slice.pointer("/ports").and_then(Value::as_array);
        let number = ports.into_iter().flatten().find(|one| text(one, "/name") == port.name);
        let Some(number) = number.and_then(|one| u16::try_from(number_of(one)).ok()) else { continue };
        for endpoint in slice.pointer("/endpoints").and_then(Value::as_array).into_iter().flatten() {
            let is_ready = endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true);
            let address = text(endpoint, "/addresses/0").parse().ok();
            found.extend(address.filter(|_| is_ready).map(|address| SocketAddr::new(address, number)));
        }
    }
    found.sort_unstable();
    found
}

fn number_of(port: &Value) -> i64 {
    number(port, "/port").unwrap_or(-1)
}

fn names(services: &Objects) -> impl Iterator<Item = (String, String)> {
    services.iter().filter_map(|((namespace, name), service)| {
        let address = text(service, "/spec/clusterIP");
        let has_address = address.parse::<std::net::IpAddr>().is_ok();
        has_address.then(|| {
            let host = format!("{name}.{namespace}.svc");
            (address, format!("{host}.cluster.local {host} {name}.{namespace}"))
        })
    })
}
