//! What only runs in a cluster: leader election, certificates, KEDA's authentication object.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::gauge::ConstGauge,
    registry::Unit,
};
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

use crate::{
    clock::Clock,
    core::{lease::Timing, tenancy::Tenancy, time::Moment},
    kube_client::ClusterAccess,
    lease::Candidate,
    pki::{
        authentication::{Authentication, AuthenticationKeeper},
        presented::Presented,
        store::{Settings, Standing, Store},
    },
    readiness::Gate,
};

/// What is asked of the cluster.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The release's namespace.
    pub namespace: String,
    pub certificates: Settings,
    /// `None`: this process is the only one, and always writes.
    pub election: Option<Election>,
    pub access: ClusterAccess,
    pub tenancy: Tenancy,
}

/// How the one that writes is elected.
#[derive(Clone, Debug)]
pub struct Election {
    pub namespace: String,
    pub lease: String,
    pub timing: Timing,
    /// The pod's name, for people.
    pub pod: String,
}

/// The parts that run.
pub(super) struct Cluster {
    pub client: kube::Client,
    /// Whether this process may write.
    pub leads: watch::Receiver<bool>,
    pub standing: watch::Receiver<Standing>,
    pub authentication: watch::Receiver<Authentication>,
    pub presented: Arc<Presented>,
}

/// Starts election, certificates and authentication.
pub(super) fn begin(
    client: kube::Client,
    options: ClusterOptions,
    clock: Clock,
    tasks: &TaskTracker,
    cancel: &CancellationToken,
) -> Cluster {
    let leads = match options.election {
        Some(election) => {
            let (sender, leads) = watch::channel(false);
            let started = clock.now().since_unix().as_nanos();
            let candidate = Candidate {
                client: client.clone(),
                namespace: election.namespace,
                lease: election.lease,
                // A restarted container keeps its pod's name, and must not take its
                // predecessor's Lease for its own.
                identity: format!("{}_{started:x}", election.pod),
                timing: election.timing,
                clock,
            };
            tasks.spawn(candidate.run(sender, cancel.clone()));
            leads
        }
        None => {
            let (sender, leads) = watch::channel(true);
            // The sender has to live as long as anybody may ask.
            let cancel = cancel.clone();
            tasks.spawn(async move {
                cancel.cancelled().await;
                drop(sender);
            });
            leads
        }
    };
    let presented = Arc::new(Presented::default());
    let (store, standing) =
        Store::new(client.clone(), options.certificates.clone(), presented.clone(), Clock::wall);
    let (keeper, authentication) = AuthenticationKeeper::new(client.clone(), &options.certificates);
    tasks.spawn(store.run(leads.clone(), cancel.clone()));
    tasks.spawn(keeper.run(leads.clone(), standing.clone(), cancel.clone()));
    Cluster { client, leads, standing, authentication, presented }
}

impl Cluster {
    /// Waits until there are certificates to serve with and KEDA can find its own, and gives
    /// the configuration to serve with. What is waited for shows in `gate`.
    ///
    /// KEDA dials in plaintext where the authentication object or its Secrets are missing, and
    /// does not recover by itself: so nothing is served, and nothing provisioned, before.
    pub(super) async fn certified(&self, gate: &Gate) -> Option<Arc<ArcSwap<ServerConfig>>> {
        let (mut standing, mut authentication) = (self.standing.clone(), self.authentication.clone());
        loop {
            let config = {
                let standing = standing.borrow_and_update();
                let authentication = *authentication.borrow_and_update();
                match &standing.config {
                    Some(config) if authentication == Authentication::Live => Some(config.clone()),
                    Some(_) => {
                        gate.waits_for(format!("the ClusterTriggerAuthentication: {authentication}"));
                        None
                    }
                    None => {
                        let missing = standing.missing.as_deref();
                        gate.waits_for(missing.unwrap_or("the certificates have not been read yet"));
                        None
                    }
                }
            };
            if let Some(config) = config {
                info!("certificates and authentication are live");
                return Some(config);
            }
            tokio::select! {
                changed = standing.changed() => changed.ok()?,
                changed = authentication.changed() => changed.ok()?,
            }
        }
    }

    /// Exports when certificates end.
    pub(super) fn collector(&self) -> Box<dyn Collector> {
        Box::new(CertificateCollector { standing: self.standing.clone(), presented: self.presented.clone() })
    }
}

#[derive(Debug)]
struct CertificateCollector {
    standing: watch::Receiver<Standing>,
    presented: Arc<Presented>,
}

impl Collector for CertificateCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let unix = |moment: Moment| moment.since_unix().as_secs_f64();
        let kind = ConstGauge::new(0.0_f64).metric_type();
        let ends = {
            let standing = self.standing.borrow();
            BTreeMap::from([("server", standing.server_end), ("client", standing.client_end)])
        };
        let name = "keda_kaito_scaler_certificate_not_after";
        let help = "When the certificate in the Secret ends, in Unix time";
        let mut family = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), kind)?;
        for (certificate, end) in ends {
            let Some(end) = end else { continue };
            ConstGauge::new(unix(end)).encode(family.encode_family(&[("certificate", certificate)])?)?;
        }
        // None without a connection: an alert must not fire for the want of one.
        if let Some(end) = self.presented.first_end() {
            let name = "keda_kaito_scaler_connection_certificate_not_after";
            let help = "When the first of the client certificates on live connections ends, in Unix time";
            let family = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), kind)?;
            ConstGauge::new(unix(end)).encode(family)?;
        }
        Ok(())
    }
}
