//! The replicas of one run: they load, serve, drain and go.

use std::collections::VecDeque;

use crate::{
    engine::{Offered, QueueFull, Replica, Served},
    policy::PodSeen,
    world::World,
};

/// One replica's pod.
#[derive(Debug)]
pub struct Pod {
    /// Unique over the run, in the order of creation.
    pub uid: u64,
    /// When it was created.
    pub created_us: u64,
    /// When it is ready, which may lie ahead.
    pub ready_us: u64,
    /// When it was asked to end.
    pub draining_us: Option<u64>,
    /// The engine in it.
    pub replica: Replica,
}

impl Pod {
    /// Whether requests may be sent to it.
    #[must_use]
    pub fn serves(&self, now_us: u64) -> bool {
        self.draining_us.is_none() && self.ready_us <= now_us
    }

    fn loads(&self, now_us: u64) -> bool {
        self.draining_us.is_none() && self.ready_us > now_us
    }
}

/// How many pods are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Ready, and not draining.
    pub serving: u32,
    /// Not ready yet.
    pub loading: u32,
    /// Asked to end.
    pub draining: u32,
}

/// The pods of the scale target.
#[derive(Debug)]
pub struct Fleet {
    world: World,
    /// Oldest first.
    pods: Vec<Pod>,
    created: u64,
    /// Until when each node without a replica stays, soonest first.
    idle_nodes: VecDeque<u64>,
    spec_replicas: u32,
    preemptions_of_gone: u64,
    lost: Vec<Offered>,
}

impl Fleet {
    /// A fleet that starts with `replicas`, all ready.
    #[must_use]
    pub fn new(world: &World, replicas: u32) -> Self {
        let mut fleet = Self {
            world: world.clone(),
            pods: Vec::new(),
            created: 0,
            idle_nodes: VecDeque::new(),
            spec_replicas: replicas,
            preemptions_of_gone: 0,
            lost: Vec::new(),
        };
        for _ in 0..replicas {
            fleet.create(0, 0);
        }
        fleet
    }

    /// `spec.replicas` of the scale target.
    #[must_use]
    pub const fn spec_replicas(&self) -> u32 {
        self.spec_replicas
    }

    /// Every pod, oldest first.
    pub fn pods_mut(&mut self) -> &mut [Pod] {
        &mut self.pods
    }

    /// Every pod, oldest first.
    #[must_use]
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// Sets `spec.replicas` and what follows from it: pods are created, or asked to end, those
    /// that load first, then the newest.
    pub fn scale_to(&mut self, replicas: u32, now_us: u64) {
        self.spec_replicas = replicas;
        let mut living = self.pods.iter().filter(|pod| pod.draining_us.is_none()).count();
        while living < replicas as usize {
            let needs_node = self.world.cold_start.node.is_some() && !self.take_idle_node(now_us);
            let takes = self.world.cold_start.draw(self.world.seed, self.created, needs_node);
            self.create(now_us, now_us + takes);
            living += 1;
        }
        while living > replicas as usize {
            let newest = |wanted: fn(&Pod, u64) -> bool| {
                self.pods.iter().rposition(|pod| pod.draining_us.is_none() && wanted(pod, now_us))
            };
            let Some(victim) = newest(Pod::loads).or_else(|| newest(Pod::serves)) else { break };
            self.pods[victim].draining_us = Some(now_us);
            living -= 1;
        }
        self.remove_drained(now_us);
    }

    /// Runs every pod up to `now_us` and removes those that are done.
    pub fn advance(&mut self, now_us: u64) {
        for pod in &mut self.pods {
            if pod.ready_us <= now_us {
                pod.replica.scrape(now_us);
            }
        }
    }

    /// Removes the pods that have ended. Their answers have to be taken before.
    pub fn remove_drained(&mut self, now_us: u64) {
        let grace_us = self.world.grace_us.unwrap_or(u64::MAX);
        let linger_us = self.world.cold_start.node.map(|node| node.linger_us);
        let Self { pods, idle_nodes, preemptions_of_gone, lost, .. } = self;
        pods.retain_mut(|pod| {
            let Some(since) = pod.draining_us else { return true };
            pod.replica.advance(now_us);
            let cut_off = now_us.saturating_sub(since) >= grace_us;
            let done = pod.replica.is_idle() && !pod.replica.has_served();
            if cut_off && !pod.replica.has_served() {
                lost.extend(pod.replica.held().cloned());
            } else if !done {
                return true;
            }
            *preemptions_of_gone += pod.replica.page().preemptions;
            if let Some(linger_us) = linger_us {
                idle_nodes.push_back(now_us + linger_us);
            }
            false
        });
    }

    /// Hands over all answers since the last call.
    pub fn take_served(&mut self, mut each: impl FnMut(Served)) {
        for pod in &mut self.pods {
            if pod.replica.has_served() {
                pod.replica.take_served().for_each(&mut each);
            }
        }
    }

    /// The requests whose replica went away since the last call.
    pub fn take_lost(&mut self) -> Vec<Offered> {
        std::mem::take(&mut self.lost)
    }

    /// Sends a request to the pod at `index`.
    pub fn offer(&mut self, index: usize, offered: Offered, now_us: u64) -> Result<(), QueueFull> {
        match self.pods.get_mut(index) {
            Some(pod) => pod.replica.offer(offered, now_us),
            None => Err(QueueFull(offered)),
        }
    }

    /// How many pods are in which state.
    #[must_use]
    pub fn census(&self, now_us: u64) -> Census {
        let mut census = Census::default();
        for pod in &self.pods {
            if pod.draining_us.is_some() {
                census.draining += 1;
            } else if pod.ready_us <= now_us {
                census.serving += 1;
            } else {
                census.loading += 1;
            }
        }
        census
    }

    /// Requests that the pods hold: those that wait, and all.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        self.pods.iter().fold((0, 0), |(waiting, all), pod| {
            let waits = pod.replica.waiting();
            (waiting + waits, all + waits + pod.replica.running())
        })
    }

    /// Preemptions of the whole run.
    #[must_use]
    pub fn preemptions(&self) -> u64 {
        let now: u64 = self.pods.iter().map(|pod| pod.replica.page().preemptions).sum();
        self.preemptions_of_gone + now
    }

    /// What the API server and the metrics pages show, as of the last [`Fleet::advance`].
    #[must_use]
    pub fn seen(&self, now_us: u64) -> Vec<PodSeen<'_>> {
        self.pods
            .iter()
            .map(|pod| {
                let ready = pod.ready_us <= now_us;
                PodSeen {
                    uid: pod.uid,
                    created_us: pod.created_us,
                    ready_us: ready.then_some(pod.ready_us),
                    draining: pod.draining_us.is_some(),
                    page: ready.then(|| pod.replica.page()),
                }
            })
            .collect()
    }

    fn create(&mut self, now_us: u64, ready_us: u64) {
        let replica = Replica::new(self.world.engine);
        let uid = self.created;
        self.pods.push(Pod { uid, created_us: now_us, ready_us, draining_us: None, replica });
        self.created += 1;
    }

    fn take_idle_node(&mut self, now_us: u64) -> bool {
        while self.idle_nodes.front().is_some_and(|until| *until <= now_us) {
            self.idle_nodes.pop_front();
        }
        self.idle_nodes.pop_front().is_some()
    }
}
