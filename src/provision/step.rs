//! From what is known of one InferenceSet to what is to be done and said. Pure: the view is
//! looked at, and nothing else.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    asking::Question,
    notices::{Notice, Subject},
    observed::View,
};
use scaler_core::{
    config::annotations::{Decision, Facts, Source, Wake, decide, sleepless},
    fleet::inference_set::InferenceSetObject,
    names::InferenceSetKey,
    provision::{
        self, Action, Owner, Plan, Reach, Sleeper, build, certificates_in, hpa_rival, left_alone,
        objects::MultiRoleInference, owned_goes_to_zero, plan, sleeper,
    },
};

/// What is to be done for one InferenceSet.
#[derive(Debug)]
pub(super) struct Step {
    pub plan: Plan,
    pub notices: Vec<Notice>,
    /// Where the model may sleep only if its wake-up source can be read.
    pub asks: Option<Question>,
    /// The InferenceSet, for events about what was done.
    pub subject: Subject,
}

/// What holds for all InferenceSets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances<'a> {
    /// `HOST:PORT` under which KEDA reaches the scaler.
    pub scaler_address: &'a str,
    /// Which certificates KEDA finds; `None` while that is not known.
    pub certificates: Option<&'a str>,
}

/// The next step for an InferenceSet, with what is known of its wake-up source; `None` where
/// there is none, or it is going and the garbage collector takes everything of it along.
pub(super) fn step(
    view: &View<'_>,
    key: &InferenceSetKey,
    wake: &Wake,
    circumstances: Circumstances<'_>,
) -> Option<Step> {
    let is_there = |set: &&InferenceSetObject| !set.is_going() && !set.uid().is_empty();
    let set = view.inference_sets.of(key).next().filter(is_there)?;
    let api_version = view.inference_sets.api_version()?.to_owned();
    let owner = Owner { key: key.clone(), uid: set.uid().to_owned(), api_version };
    // Others' included: the plan tells them apart.
    let observed: Vec<&Value> = view.scaled_objects.of(key).map(|object| &object.0).collect();
    let subject = Subject {
        api_version: owner.api_version.clone(),
        kind: "InferenceSet",
        key: key.clone(),
        uid: owner.uid.clone(),
    };

    let (parent, fixed_replicas) = parent(view, key, set);
    let facts = Facts {
        node_count_limit: set.node_count_limit(),
        // While an upgrade changes them, the larger number is the safe one.
        nodes_per_replica: view.workspaces.of(key).map(|it| it.nodes).filter(|&nodes| nodes > 0).max(),
        wake: wake.clone(),
        goes_to_zero: owned_goes_to_zero(&owner, &observed),
        adopting: observed.iter().any(|object| provision::is_the_replaced_scalers(object, &owner)),
        fixed_replicas,
    };
    let on_parent = parent.map(|(parent, source)| {
        let speaker = Subject {
            api_version: view.multi_role_inferences.api_version().unwrap_or_default().to_owned(),
            kind: "MultiRoleInference",
            key: parent.key.clone(),
            uid: parent.uid.clone(),
        };
        (decide(source, pairs(&parent.annotations), &facts), speaker)
    });
    // What the parent says of the role goes before what its child says.
    let (decision, speaker) = match on_parent {
        Some((decision, speaker)) if decision != Decision::Off => (decision, speaker),
        _ => (decide(Source::InferenceSet, pairs(set.annotations()), &facts), subject.clone()),
    };

    let notice = |reason, note: String| Notice { subject: speaker.clone(), reason, note };
    let untouched = Plan { action: Action::Nothing, surplus: Vec::new() };
    let mut asks = None;
    let (plan, notices) = match decision {
        Decision::Off => {
            let sleepers = observed.iter().filter_map(|it| sleeper(it, key, circumstances.scaler_address));
            let mut traps = Vec::new();
            for sleeper in sleepers {
                traps.extend(sleepless(wake).map(|why| trap(key, &sleeper, &why)));
                asks = Some(Question(sleeper.wake_source));
            }
            let left = left_alone(&owner, &observed).into_iter().map(|name| {
                let note = format!(
                    "ScaledObject {name} was made by an earlier release and is left alone, though auto-provision is \
                     off: delete it yourself, or set the annotation"
                );
                notice("LeftAlone", note)
            });
            (plan(&owner, None, &observed, None), left.chain(traps).collect())
        }
        Decision::Waiting => (untouched, Vec::new()),
        Decision::Refused(refusals) => {
            let notices = refusals.iter().map(|refusal| notice(refusal.reason(), refusal.to_string()));
            (untouched, notices.collect())
        }
        Decision::Provision { spec, warnings } => {
            asks = spec.annotations.scale_to_zero.then(|| Question(spec.annotations.wake_source.clone()));
            // Not known is not changed.
            let certificates = circumstances.certificates.or_else(|| certificates_in(&owner, &observed));
            let reach = Reach { scaler_address: circumstances.scaler_address, certificates };
            let desired = build(&owner, &spec, reach);
            let rival = view.hpas.of(key).find_map(|hpa| hpa_rival(&owner, &hpa.0));
            let plan = plan(&owner, Some(&desired), &observed, rival.as_ref());
            let mut notices: Vec<_> =
                warnings.iter().map(|warning| notice(warning.reason(), warning.to_string())).collect();
            if let Action::Conflict(rival) = &plan.action {
                notices.push(notice("Conflict", rival.to_string()));
            }
            (plan, notices)
        }
    };
    Some(Step { plan, notices, asks, subject })
}

/// A ScaledObject of somebody's own that goes to zero, with nothing that is sure to wake it.
fn trap(key: &InferenceSetKey, sleeper: &Sleeper<'_>, why: &str) -> Notice {
    let note = format!(
        "minReplicaCount is 0, or KEDA's default, which is 0, and nothing would wake the model: {why}"
    );
    let subject = Subject {
        api_version: provision::API_VERSION.to_owned(),
        kind: provision::KIND,
        key: InferenceSetKey::new(&key.namespace, sleeper.name),
        uid: sleeper.uid.to_owned(),
    };
    Notice { subject, reason: "NoWakeSource", note }
}

fn pairs(annotations: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    annotations.iter().map(|(key, text)| (key.as_str(), text.as_str()))
}

/// The `MultiRoleInference` that made an InferenceSet, as which role, and the number of
/// replicas that it would put back.
fn parent<'a>(
    view: &'a View<'_>,
    key: &InferenceSetKey,
    set: &InferenceSetObject,
) -> (Option<(&'a MultiRoleInference, Source)>, Option<u32>) {
    let Some((parent, role)) = set.parent() else { return (None, None) };
    let Some(parent) = view.multi_role_inferences.of(key).find(|it| it.key == parent) else {
        return (None, None);
    };
    (Some((parent, Source::Role(role))), parent.fixed_replicas(role))
}
