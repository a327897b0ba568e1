//! KAITO's part: keeps as many replicas as `spec.replicas` says, each of which takes its time
//! to start, and describes them as the Kubernetes API would.

use std::{net::SocketAddr, time::Duration};

use super::{
    endpoints_file::{Endpoint, EndpointsFile, GatewayAddress, InferenceSet, Phase},
    queueing::{Engine, Replica, Served},
};
use scaler_core::{names::InferenceSetKey, time::Moment};

/// How long the parts of a replica's start take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StartUp {
    /// Until a GPU node is there and the pod has an address.
    pub unscheduled: Duration,
    /// While the image downloads the model, its server answers with KAITO's page.
    pub downloading: Duration,
    /// While vLLM loads the model onto the GPU; KAITO's page still.
    pub loading: Duration,
}

impl StartUp {
    /// From the pod's creation until it serves.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.unscheduled + self.downloading + self.loading
    }
}

/// What the replicas of an InferenceSet are like.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    pub engine: Engine,
    /// How the n-th pod starts; the last entry stands for all further ones.
    pub start_up: Vec<StartUp>,
    /// How long a removed pod may go on with what it has in hand.
    pub grace: Duration,
}

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Unscheduled,
    Downloading,
    Loading,
    Serving,
    Terminating,
}

/// One pod with its model server.
#[derive(Clone, Debug)]
pub struct Pod {
    pub name: String,
    pub uid: String,
    created: Moment,
    start_up: StartUp,
    address: Option<SocketAddr>,
    removed: Option<Moment>,
    pub replica: Replica,
}

impl Pod {
    #[must_use]
    pub fn stage(&self, now: Moment) -> Stage {
        let age = now.saturating_since(self.created);
        let StartUp { unscheduled, downloading, loading } = self.start_up;
        if self.removed.is_some() {
            Stage::Terminating
        } else if age < unscheduled || self.address.is_none() {
            Stage::Unscheduled
        } else if age < unscheduled + downloading {
            Stage::Downloading
        } else if age < unscheduled + downloading + loading {
            Stage::Loading
        } else {
            Stage::Serving
        }
    }

    /// How far its start is, 0..=1.
    #[must_use]
    pub fn started(&self, now: Moment) -> f64 {
        let length = self.start_up.length().as_secs_f64();
        if length > 0.0 { (now.saturating_since(self.created).as_secs_f64() / length).min(1.0) } else { 1.0 }
    }

    /// Until the model is downloaded.
    #[must_use]
    pub fn download_remaining(&self, now: Moment) -> Duration {
        let ends = self.created + self.start_up.unscheduled + self.start_up.downloading;
        ends.saturating_since(now)
    }

    fn ready(&self, now: Moment) -> bool {
        self.stage(now) == Stage::Serving
    }
}

/// One InferenceSet and its pods.
#[derive(Clone, Debug)]
pub struct Cluster {
    key: InferenceSetKey,
    profile: Profile,
    wanted: u32,
    pods: Vec<Pod>,
    made: usize,
    /// Requests that a pod took along when its grace ended.
    lost: u64,
}

impl Cluster {
    #[must_use]
    pub fn new(key: InferenceSetKey, profile: Profile) -> Self {
        Self { key, profile, wanted: 0, pods: vec![], made: 0, lost: 0 }
    }

    /// `spec.replicas` is now this. Pods that are not ready go first, then the youngest.
    pub fn scale_to(&mut self, replicas: u32, now: Moment) {
        self.wanted = replicas;
        let wanted = replicas as usize;
        let mut kept: Vec<usize> =
            (0..self.pods.len()).filter(|pod| self.pods[*pod].removed.is_none()).collect();
        if let Some(missing) = wanted.checked_sub(kept.len()) {
            (0..missing).for_each(|_| self.create(now));
            return;
        }
        // Those to keep first: ready before not ready, and the older before the younger.
        kept.sort_by_key(|pod| (!self.pods[*pod].ready(now), self.pods[*pod].created));
        for pod in kept.split_off(wanted) {
            self.pods[pod].removed = Some(now);
        }
    }

    fn create(&mut self, now: Moment) {
        let start_up = self.profile.start_up.get(self.made).or(self.profile.start_up.last()).copied();
        let start_up = start_up.unwrap_or(StartUp {
            unscheduled: Duration::ZERO,
            downloading: Duration::ZERO,
            loading: Duration::ZERO,
        });
        let ordinal = self.made;
        self.made += 1;
        // Workspaces of an InferenceSet have a generated suffix; theirs here is readable.
        let suffix = char::from(b'a' + u8::try_from(ordinal % 26).unwrap_or_default());
        let round = if ordinal < 26 { String::new() } else { (ordinal / 26).to_string() };
        self.pods.push(Pod {
            name: format!("{}-{suffix}{round}-0", self.key.name),
            uid: format!("00000000-0000-4000-8000-{ordinal:012}"),
            created: now,
            start_up,
            address: None,
            removed: None,
            replica: Replica::new(self.profile.engine),
        });
    }

    /// Runs every replica up to `now`, lets go of removed pods that are done, and gives what
    /// was answered.
    pub fn advance(&mut self, now: Moment) -> Vec<Served> {
        let (grace, lost, mut served) = (self.profile.grace, &mut self.lost, vec![]);
        self.pods.retain_mut(|pod| {
            pod.replica.advance(now);
            served.append(&mut pod.replica.take_served());
            let Some(removed) = pod.removed else { return true };
            let in_hand = pod.replica.waiting() + pod.replica.running();
            let stays = in_hand > 0 && now < removed + grace;
            if !stays {
                *lost += in_hand as u64;
            }
            stays
        });
        served
    }

    /// The replicas that take requests.
    pub fn serving(&mut self, now: Moment) -> impl Iterator<Item = &mut Replica> {
        self.pods.iter_mut().filter(move |pod| pod.ready(now)).map(|pod| &mut pod.replica)
    }

    /// The UIDs of pods that have a node but no address yet.
    #[must_use]
    pub fn without_address(&self, now: Moment) -> Vec<String> {
        let due = |pod: &&Pod| pod.address.is_none() && pod.created + pod.start_up.unscheduled <= now;
        self.pods.iter().filter(due).map(|pod| pod.uid.clone()).collect()
    }

    /// The pod has an address now.
    pub fn bind(&mut self, uid: &str, address: SocketAddr) {
        if let Some(pod) = self.pods.iter_mut().find(|pod| pod.uid == uid) {
            pod.address = Some(address);
        }
    }

    #[must_use]
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.uid == uid)
    }

    /// Requests that pods took along.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// What the Kubernetes API would say of it.
    #[must_use]
    pub fn listing(&self, gateway: Option<SocketAddr>, now: Moment) -> EndpointsFile {
        let ready = self.pods.iter().filter(|pod| pod.ready(now)).count();
        let endpoints = self.pods.iter().map(|pod| Endpoint {
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
            address: pod.address,
            phase: match pod.stage(now) {
                Stage::Serving => Phase::Ready,
                Stage::Terminating => Phase::Terminating,
                Stage::Unscheduled | Stage::Downloading | Stage::Loading => Phase::NotReady,
            },
            since: pod.created,
        });
        EndpointsFile {
            inference_sets: vec![InferenceSet {
                namespace: self.key.namespace.to_string(),
                name: self.key.name.to_string(),
                replicas: self.wanted,
                ready_replicas: u32::try_from(ready).unwrap_or(u32::MAX),
                endpoints: endpoints.collect(),
                gateway: gateway.map(|address| GatewayAddress { address }),
            }],
        }
    }

    /// Requests in the hands of replicas.
    #[must_use]
    pub fn in_hand(&self) -> usize {
        self.pods.iter().map(|pod| pod.replica.waiting() + pod.replica.running()).sum()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::traffic::Request;

    pub(crate) fn at(milliseconds: u64) -> Moment {
        Moment::from_unix(Duration::from_secs(1_800_000_000) + Duration::from_millis(milliseconds))
    }

    /// Pods start within 1 + 2 + 3 seconds.
    pub(crate) fn cluster() -> Cluster {
        let engine = Engine {
            max_num_seqs: 8,
            kv_tokens: 8192,
            step: Duration::from_millis(20),
            step_per_sequence: Duration::from_millis(1),
            step_per_prompt_token: Duration::from_micros(50),
            max_batched_tokens: 2048,
        };
        let start_up = StartUp {
            unscheduled: Duration::from_secs(1),
            downloading: Duration::from_secs(2),
            loading: Duration::from_secs(3),
        };
        let profile = Profile { engine, start_up: vec![start_up], grace: Duration::from_secs(5) };
        Cluster::new(InferenceSetKey::new("default", "phi-4"), profile)
    }

    fn offer_to_first(cluster: &mut Cluster, request: Request, now: Moment) -> bool {
        cluster.serving(now).next().is_some_and(|replica| replica.offer(request, now).is_ok())
    }

    impl Cluster {
        /// Gives every pod that is due an address.
        pub(crate) fn bind_all(&mut self, now: Moment) {
            for uid in self.without_address(now) {
                self.bind(&uid, "127.0.1.1:5000".parse().unwrap());
            }
        }
    }

    #[test]
    fn a_pod_goes_through_its_stages() {
        let mut cluster = cluster();
        cluster.scale_to(1, at(0));
        assert_eq!(cluster.without_address(at(999)), [] as [String; 0]);
        assert_eq!(cluster.without_address(at(1000)).len(), 1);
        assert_eq!(
            cluster.pods()[0].stage(at(9000)),
            Stage::Unscheduled,
            "without an address it can't serve"
        );
        cluster.bind_all(at(1000));
        let table = [
            (0, Stage::Unscheduled),
            (1000, Stage::Downloading),
            (2999, Stage::Downloading),
            (3000, Stage::Loading),
            (5999, Stage::Loading),
            (6000, Stage::Serving),
        ];
        for (time, stage) in table {
            assert_eq!(cluster.pods()[0].stage(at(time)), stage, "at {time}");
        }
        assert_eq!(cluster.pods()[0].download_remaining(at(1500)), Duration::from_millis(1500));
    }

    #[test]
    fn scaling_down_takes_what_is_not_ready_first_then_the_youngest() {
        let mut cluster = cluster();
        for time in [0, 1, 2] {
            cluster.scale_to(u32::try_from(time).unwrap() + 1, at(time));
        }
        cluster.bind_all(at(7000));
        cluster.scale_to(4, at(7000));
        cluster.scale_to(2, at(7001));
        let gone: Vec<_> =
            cluster.pods().iter().map(|pod| pod.stage(at(7001)) == Stage::Terminating).collect();
        assert_eq!(gone, [false, false, true, true]);
        assert_eq!(cluster.advance(at(7002)), []);
        assert_eq!(cluster.pods().len(), 2, "they have nothing in hand and go at once");
        cluster.scale_to(3, at(7003));
        let names: Vec<_> = cluster.pods().iter().map(|pod| pod.name.as_str()).collect();
        assert_eq!(names, ["phi-4-a-0", "phi-4-b-0", "phi-4-e-0"], "a new pod is another pod");
    }

    #[test]
    fn a_removed_pod_finishes_what_it_can_and_loses_the_rest() {
        let run = |output_tokens| {
            let mut cluster = cluster();
            cluster.scale_to(1, at(0));
            cluster.bind_all(at(1000));
            let request = Request { sent: at(6000), prompt_tokens: 10, output_tokens };
            assert!(offer_to_first(&mut cluster, request, at(6000)));
            cluster.scale_to(0, at(6001));
            assert!(!offer_to_first(&mut cluster, request, at(6001)), "it takes nothing new");
            let early = cluster.advance(at(6100)).len();
            assert_eq!(cluster.pods().len(), 1);
            let served = early + cluster.advance(at(11_001)).len();
            (cluster.pods().len(), served, cluster.lost())
        };
        assert_eq!(run(10), (0, 1, 0));
        assert_eq!(run(1000), (0, 0, 1));
    }

    #[test]
    fn the_listing_says_what_the_api_would() {
        let mut cluster = cluster();
        cluster.scale_to(1, at(0));
        cluster.bind_all(at(1000));
        cluster.scale_to(2, at(5000));
        let gateway = "127.0.9.1:9090".parse().ok();
        let listing = serde_json::to_value(cluster.listing(gateway, at(6500))).unwrap();
        let expected = serde_json::json!({"inferenceSets": [{
            "namespace": "default",
            "name": "phi-4",
            "replicas": 2,
            "readyReplicas": 1,
            "endpoints": [
                {"pod": "phi-4-a-0", "uid": "00000000-0000-4000-8000-000000000000", "address": "127.0.1.1:5000",
                 "phase": "Ready", "since": "2027-01-15T08:00:00Z"},
                {"pod": "phi-4-b-0", "uid": "00000000-0000-4000-8000-000000000001",
                 "phase": "NotReady", "since": "2027-01-15T08:00:05Z"},
            ],
            "gateway": {"address": "127.0.9.1:9090"},
        }]});
        assert_eq!(listing, expected);
    }
}
