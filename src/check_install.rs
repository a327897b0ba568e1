//! Whether an installation can work, asked from inside the cluster with the scaler's own
//! account, as `helm test` does: KEDA has to find the certificates, and they have to open a
//! connection to the Service.

mod call;
mod judge;
#[cfg(test)]
mod tests;

use std::{fmt::Display, net::SocketAddr, time::Duration};

use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::api::{Api, DynamicObject, ListParams};
use tokio::time::timeout;

use crate::{
    cluster::api,
    error_chain,
    pki::{
        chain::{Chain, Contents},
        tls,
    },
};
use scaler_core::{cert::Role, provision::TRIGGER_AUTHENTICATION as NAME, time::Moment};

/// How long one question to the API server, or the call of the scaler, may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What one check found: a line for the operator. A problem says what to do about it.
pub type Finding = Result<String, String>;

/// Where things are to be.
#[derive(Clone, Debug)]
pub struct Installation {
    /// The release's namespace, where the Service is.
    pub namespace: String,
    /// Where the scaler puts the Secrets for KEDA.
    pub keda_namespace: String,
    pub service: String,
    /// The Service's port.
    pub grpc_port: u16,
    pub server_secret: String,
    pub client_secret: String,
}

impl Installation {
    fn secret(&self, role: Role) -> &str {
        match role {
            Role::Server => &self.server_secret,
            Role::Client => &self.client_secret,
        }
    }

    /// The name that KEDA dials and verifies.
    fn host(&self) -> String {
        format!("{}.{}.svc.cluster.local", self.service, self.namespace)
    }
}

/// All checks, in the order in which their problems cause one another. `now` is the wall
/// clock's time.
pub async fn check(client: &kube::Client, installation: &Installation, now: Moment) -> Vec<Finding> {
    let mut findings = vec![keda_namespace(client, installation).await];
    let mut chains = Vec::new();
    for role in Role::BOTH {
        let read = read_chain(client, installation, role).await;
        let judged = read.and_then(|chain| {
            let good = judge::chain(&chain, installation, now)?;
            Ok((chain, good))
        });
        findings.push(judged.map(|(chain, good)| {
            chains.push(chain);
            good
        }));
    }
    findings.push(authentication(client, installation).await);
    findings.push(match &chains[..] {
        [server, client_chain] => call(client, installation, server, client_chain).await,
        _ => Err("the scaler was not called: that takes both certificates".into()),
    });
    findings
}

async fn keda_namespace(client: &kube::Client, installation: &Installation) -> Finding {
    let pods: Api<Pod> = Api::all(client.clone());
    let operators = ListParams::default().labels(judge::KEDA_OPERATOR);
    let pods = answer("list KEDA's pods", pods.list(&operators)).await?;
    judge::keda_namespace(&pods.items, &installation.keda_namespace)
}

async fn read_chain(client: &kube::Client, installation: &Installation, role: Role) -> Result<Chain, String> {
    let Installation { keda_namespace, .. } = installation;
    let name = installation.secret(role);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), keda_namespace);
    let secret = answer(format!("read Secret {keda_namespace}/{name}"), secrets.get_opt(name)).await?;
    let secret = secret.ok_or_else(|| {
        format!("Secret {keda_namespace}/{name} does not exist: the chart makes it, so upgrade the release")
    })?;
    Ok(Chain::read(role, secret.data.as_ref().unwrap_or(&Contents::new()), None))
}

async fn authentication(client: &kube::Client, installation: &Installation) -> Finding {
    let resource = api::trigger_authentications();
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let object = answer(format!("read ClusterTriggerAuthentication {NAME}"), api.get_opt(NAME)).await?;
    judge::authentication(object.as_ref(), installation)
}

/// Calls the scaler as KEDA does. The Service's address is read rather than looked up: name
/// lookups need files that a static binary's image does not have.
async fn call(
    client: &kube::Client,
    installation: &Installation,
    server: &Chain,
    client_chain: &Chain,
) -> Finding {
    let Installation { namespace, service, grpc_port, .. } = installation;
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let found = answer(format!("read Service {namespace}/{service}"), services.get_opt(service)).await?;
    let address = SocketAddr::new(judge::address(found.as_ref(), installation)?, *grpc_port);
    let host = installation.host();
    let failed = |problem: &dyn Display| {
        format!(
            "Service {namespace}/{service} ({address}) does not serve KEDA: {problem}; see whether the \
             scaler's pods are ready"
        )
    };
    let config = tls::client_config(server, client_chain).map_err(|error| failed(&error_chain(&error)))?;
    let called = call::scaler(address, &host, config);
    match timeout(LIMIT, called).await {
        Ok(Ok(())) => Ok(format!("{host} ({address}) answers over mutual TLS")),
        Ok(Err(error)) => Err(failed(&error_chain(&error))),
        Err(_) => Err(failed(&format!("no answer in {LIMIT:?}"))),
    }
}

/// The API server's answer, or that it failed to `what`.
async fn answer<T>(what: impl Display, question: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match timeout(LIMIT, question).await {
        Ok(answer) => answer.map_err(|error| format!("failed to {what}: {}", error_chain(&error))),
        Err(_) => Err(format!("failed to {what}: no answer in {LIMIT:?}")),
    }
}
