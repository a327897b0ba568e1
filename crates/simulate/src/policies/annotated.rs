//! A policy through the scaler itself: its annotations, the ScaledObject that they provision,
//! its decisions.

mod sample;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use scaler_core::{
    config::{
        annotations::{self, Decision as Provisioned, Facts, PREFIX, Source, Wake},
        trigger::Trigger,
    },
    decision::{
        activation::{Activation, Activity},
        evaluate::{Observed, evaluate},
    },
    endpoint::{
        page_choice::PageKind,
        pod::{Pod, REJECTION_SPAN, WindowKey},
        staleness::staleness_limit,
        window::Window,
    },
    fleet::{
        model::{Endpoint, InferenceSet, Readiness},
        shortage::Shortage,
    },
    names::{InferenceSetKey, PodUid},
    page::sample::Cumulative,
    provision::{self, Owner, Reach},
    time::Moment,
    wake::{Readability, SourceDemand},
};
use serde_json::Value;

pub use self::sample::IN_FLIGHT;
use super::scaled_object;
use crate::{
    hpa::{Behavior, Metric, Target},
    policy::{Decision, GatewaySeen, PodSeen, Policy, Scaling, Seen},
    world::World,
};

/// The moment at which a trace starts: some day, so that nothing lies before 1970.
const START: Duration = Duration::from_secs(1_700_000_000);

/// The scaler with one InferenceSet's annotations.
#[derive(Debug)]
pub struct Annotated {
    scaling: Scaling,
    trigger: Trigger,
    targets: Vec<Target>,
    windows: Vec<WindowKey>,
    set: InferenceSet,
    /// In the order of creation, and the unique number of each.
    pods: Vec<Pod>,
    uids: Vec<u64>,
    shortage: Shortage,
    activation: Activation,
    /// What the gateway refused.
    refusals: Window,
}

impl Annotated {
    /// What `annotations`, without what stands before them, provision in `world`. Where they
    /// say nothing of the limits, the world's hold.
    pub fn new(annotations: &BTreeMap<String, String>, world: &World) -> Result<Self, String> {
        let mut annotations = annotations.clone();
        let mut default = |key: &str, value: String| {
            annotations.entry(key.to_owned()).or_insert(value);
        };
        default("auto-provision", "true".to_owned());
        default("min-replicas", world.min_replicas.max(1).to_string());
        default("max-replicas", world.max_replicas.to_string());
        default("scale-to-zero", (world.min_replicas == 0).to_string());
        let object = provisioned(&annotations)?;
        let written = &object["spec"]["triggers"][0];
        let metadata = written["metadata"].as_object().into_iter().flatten();
        let metadata = metadata.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)));
        let trigger = Trigger::parse(metadata, None).map_err(|problems| problems.to_string())?;
        let targets =
            trigger.metric_specs().iter().map(|spec| scaled_object::target(written, spec.target)).collect();
        let set = InferenceSet {
            key: trigger.inference_set.clone(),
            replicas: 0,
            ready_replicas: 0,
            endpoints: Vec::new(),
            gateway: None,
        };
        Ok(Self {
            scaling: scaled_object::scaling(&object["spec"]),
            windows: WindowKey::of(&trigger),
            activation: Activation::new(trigger.activation, Moment::from_unix(START)),
            trigger,
            targets,
            set,
            pods: Vec::new(),
            uids: Vec::new(),
            shortage: Shortage::default(),
            refusals: Window::new(REJECTION_SPAN),
        })
    }

    /// Puts `behavior` in the place of the one that provisioning would write.
    pub fn replace_behavior(&mut self, behavior: Behavior) {
        self.scaling.behavior = behavior;
    }

    /// Takes in what can be seen, as the watch and the scrapes would tell it.
    fn observe(&mut self, seen: &Seen<'_>, now: Moment) {
        self.set.replicas = seen.spec_replicas;
        self.set.ready_replicas =
            u32::try_from(seen.pods.iter().filter(|pod| serves(pod)).count()).unwrap_or(u32::MAX);
        // Both are in the order of creation, so that those that are gone are skipped over.
        let uids = std::mem::take(&mut self.uids);
        let mut before = uids.into_iter().zip(std::mem::take(&mut self.pods)).peekable();
        let staleness = self.staleness();
        for pod in seen.pods {
            while before.next_if(|(uid, _)| *uid < pod.uid).is_some() {}
            let known = before.next_if(|(uid, _)| *uid == pod.uid).map(|(_, known)| known);
            let mut ours = known.unwrap_or_else(|| {
                let mut new = Pod::new(endpoint(pod));
                new.keep_windows(&self.windows);
                new
            });
            ours.endpoint.readiness = readiness(pod);
            ours.speak_for(staleness);
            if let Some(page) = pod.page {
                ours.sampled(now, PageKind::Filtered, sample::sample(page, &self.trigger));
            }
            self.pods.push(ours);
            self.uids.push(pod.uid);
        }
        let living = seen.pods.iter().filter(|pod| !pod.draining).count();
        self.shortage.follow(seen.spec_replicas, living, now);
    }

    fn staleness(&self) -> Duration {
        staleness_limit(self.trigger.scrape_interval, self.trigger.page.timeout)
    }

    /// Requests that the gateway holds, and those that it has lately refused.
    fn gateway_demand(&mut self, gateway: GatewaySeen, now: Moment) -> SourceDemand {
        self.refusals.push(now, &Cumulative::of_count(gateway.refused as f64));
        let refused = self.refusals.delta().map_or(0.0, |delta| delta.count());
        SourceDemand { held: f64::from(gateway.held), refused, known: 1, ..SourceDemand::default() }
    }
}

impl Policy for Annotated {
    fn scaling(&self) -> Scaling {
        self.scaling.clone()
    }

    fn decide(&mut self, seen: &Seen<'_>) -> Decision {
        let now = Moment::from_unix(START + Duration::from_micros(seen.now_us));
        self.observe(seen, now);
        let gateway = seen.gateway.map(|gateway| self.gateway_demand(gateway, now));
        let staleness = self.staleness();
        let observed = Observed {
            set: &self.set,
            pods: &self.pods,
            missing: self.shortage.missing(),
            staleness,
            gateway,
            heard: now,
        };
        let snapshot = evaluate(&self.trigger, &observed, &mut self.activation, now);
        let values = snapshot.values.iter().map(|value| value.as_ref().ok().map(|value| value.number()));
        let metrics = values.zip(&self.targets).map(|(total, target)| Metric { total, target: *target });
        let active = match snapshot.activity {
            Activity::Active(_) => Some(true),
            Activity::Inactive => Some(false),
            Activity::Unknown => None,
        };
        Decision::Scaler { metrics: metrics.collect(), active }
    }
}

/// The ScaledObject that the annotations provision.
fn provisioned(annotations: &BTreeMap<String, String>) -> Result<Value, String> {
    let whole: Vec<_> = annotations.iter().map(|(key, value)| (format!("{PREFIX}{key}"), value)).collect();
    let whole = whole.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let facts = Facts { wake: Wake::Tried(Readability::Readable), ..Facts::default() };
    let spec = match annotations::decide(Source::InferenceSet, whole, &facts) {
        Provisioned::Provision { spec, .. } => spec,
        Provisioned::Refused(refusals) => {
            let each: Vec<_> = refusals.iter().map(ToString::to_string).collect();
            return Err(each.join("; "));
        }
        Provisioned::Off => return Err("the annotations do not ask for autoscaling".to_owned()),
        Provisioned::Waiting => return Err("the annotations do not say how far to scale".to_owned()),
    };
    let owner = Owner {
        key: InferenceSetKey::new("default", "model"),
        uid: String::new(),
        api_version: "kaito.sh/v1beta1".to_owned(),
    };
    Ok(provision::build(&owner, &spec, Reach { scaler_address: "scaler:10450", certificates: None }, None))
}

fn serves(pod: &PodSeen<'_>) -> bool {
    pod.ready_us.is_some() && !pod.draining
}

fn readiness(pod: &PodSeen<'_>) -> Readiness {
    match (pod.draining, pod.ready_us) {
        (true, _) => Readiness::Terminating,
        (false, Some(_)) => Readiness::Ready,
        (false, None) => Readiness::NotReady,
    }
}

fn endpoint(pod: &PodSeen<'_>) -> Endpoint {
    let name: Arc<str> = format!("model-{}", pod.uid).into();
    Endpoint {
        uid: PodUid(name.clone()),
        pod: name,
        address: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5000)),
        readiness: readiness(pod),
        since: Moment::from_unix(START + Duration::from_micros(pod.created_us)),
    }
}
