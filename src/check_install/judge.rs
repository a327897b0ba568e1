//! What is right and what is wrong, of what was read.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::core::v1::{EnvVar, Pod, Service};
use kube::{ResourceExt as _, api::DynamicObject};

use super::{Finding, Installation};
use crate::pki::{
    authentication::{references, refers_to},
    chain::Chain,
};
use scaler_core::{
    cert::{DAY, Role},
    provision::TRIGGER_AUTHENTICATION as NAME,
    time::Moment,
};

/// The label by which every way of installing KEDA marks its operator.
pub(super) const KEDA_OPERATOR: &str = "app=keda-operator";

/// Makes KEDA resolve cluster objects elsewhere than in the operator's namespace.
const OBJECT_NAMESPACE: &str = "KEDA_CLUSTER_OBJECT_NAMESPACE";

/// Whether KEDA looks for the Secrets in `expected`. `operators` are the pods with the label.
pub(super) fn keda_namespace(operators: &[Pod], expected: &str) -> Finding {
    let is_over = |pod: &&Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    // One pod for each namespace is enough to name.
    let mut looks_in = BTreeMap::new();
    for pod in operators.iter().filter(|pod| !is_over(pod)) {
        let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
        looks_in.entry(object_namespace(pod)).or_insert(name);
    }
    if looks_in.is_empty() {
        return Err(format!(
            "KEDA's operator was not found: no pod in any namespace has the label {KEDA_OPERATOR}; install KEDA first"
        ));
    }
    for (namespace, pod) in &looks_in {
        if let Some(namespace) = namespace
            && namespace != expected
        {
            return Err(format!(
                "KEDA's operator {pod} reads the Secrets of a ClusterTriggerAuthentication in namespace {namespace}, but \
                 the scaler keeps them in {expected}: set the chart's keda.namespace to {namespace}"
            ));
        }
    }
    Ok(match looks_in.get(&None) {
        Some(pod) => format!(
            "KEDA's operator {pod} takes {OBJECT_NAMESPACE} from an object that is not read here: see that it is {expected}"
        ),
        None => format!("KEDA's operator reads Secrets in namespace {expected}, where the scaler keeps them"),
    })
}

/// The namespace in which the operator in this pod resolves cluster objects; `None` where its
/// environment takes that from somewhere else.
fn object_namespace(pod: &Pod) -> Option<String> {
    let own = pod.namespace();
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let set = containers.flat_map(|one| one.env.iter().flatten()).find(|env| env.name == OBJECT_NAMESPACE);
    let Some(EnvVar { value, value_from, .. }) = set else { return own };
    let Some(source) = value_from else { return value.clone().filter(|value| !value.is_empty()).or(own) };
    let field = source.field_ref.as_ref()?;
    (field.field_path == "metadata.namespace").then_some(own)?
}

/// Whether both ends can use the chain now.
pub(super) fn chain(chain: &Chain, installation: &Installation, now: Moment) -> Finding {
    let role = chain.role;
    let secret = format!("Secret {}/{}", installation.keda_namespace, installation.secret(role));
    let leaf = chain.usable_leaf();
    let leaf = leaf.map_err(|why| format!("{secret}: {why}; see the logs of the scaler's pods"))?;
    let cas = chain.ca(leaf.issuer).map(|ca| ca.facts.validity);
    let validities = [Some(leaf.validity), cas];
    if validities.iter().flatten().any(|validity| validity.has_expired(now)) {
        return Err(format!(
            "{secret}: the {role} certificate has expired; see the logs of the scaler's pods"
        ));
    }
    if validities.iter().flatten().any(|validity| validity.not_before > now) {
        return Err(format!(
            "{secret}: the {role} certificate's time has not come; see that clocks are right"
        ));
    }
    let host = installation.host();
    if role == Role::Server && !leaf.dns_names.contains(&host) {
        let names = leaf.dns_names.join(", ");
        return Err(format!("{secret}: the server certificate is for {names}, but KEDA dials {host}"));
    }
    let days = leaf.validity.remaining(now).as_secs() / DAY.as_secs();
    Ok(format!("{secret}: the {role} certificate is good for {days} days"))
}

pub(super) fn authentication(object: Option<&DynamicObject>, installation: &Installation) -> Finding {
    let Installation { keda_namespace, server_secret, client_secret, .. } = installation;
    match object {
        None => Err(format!(
            "ClusterTriggerAuthentication {NAME} does not exist: the scaler makes it once KEDA is installed and it has \
             certificates; see the logs of its pods"
        )),
        Some(object)
            if !refers_to(
                &object.data["spec"]["secretTargetRef"],
                &references(server_secret, client_secret),
            ) =>
        {
            Err(format!(
                "ClusterTriggerAuthentication {NAME} does not refer to Secrets {server_secret} and {client_secret}: the scaler \
             puts that right unless something else keeps changing it"
            ))
        }
        Some(_) => {
            Ok(format!("ClusterTriggerAuthentication {NAME} refers to both Secrets in {keda_namespace}"))
        }
    }
}

/// The address at which KEDA reaches the Service.
pub(super) fn address(service: Option<&Service>, installation: &Installation) -> Result<IpAddr, String> {
    let Installation { namespace, service: name, .. } = installation;
    let Some(service) = service else {
        return Err(format!(
            "Service {namespace}/{name} does not exist: the chart makes it, so upgrade the release"
        ));
    };
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
    address.parse().map_err(|_| {
        format!("Service {namespace}/{name} has the cluster IP {address:?}, but must have an address: is it the chart's?")
    })
}
