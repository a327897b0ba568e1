//! What only runs in a cluster: leader election, certificates, KEDA's authentication object.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::ObjectReference;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::gauge::{ConstGauge, Gauge},
    registry::Unit,
};
use rustls::ServerConfig;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{life::Life, notices::Notices, teller::Teller};
use crate::{
    aggregator::TroubleReport,
    cluster::{client::ClusterAccess, directory::Directory, lease::Candidate, store::Store},
    discovery::cluster::Discovery,
    metrics::Metrics,
    pki::{
        authentication::{Authentication, AuthenticationKeeper},
        presented::Presented,
        renewals,
        store::{CertificateKeeper, Settings, Standing},
    },
    provision::{Provisioner, WakeSources},
    readiness::Gate,
    scrape::PageClient,
    wake::{CredentialSettings, Credentials, PROBE_INTERVAL, Prober, Reader, SourcePool},
};
use clock::Clock;
use scaler_core::{
    fleet::{model::FleetEvent, tenancy::Tenancy},
    lease::Timing,
    time::Moment,
    wake::{Answers, Asked, pace::Pace},
};

/// What is asked of the cluster.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The pod's name, for the Lease and for events.
    pub pod: Option<String>,
    pub certificates: Settings,
    /// `None`: this process is the only one, and always writes.
    pub election: Option<Election>,
    pub access: ClusterAccess,
    pub tenancy: Tenancy,
    /// Whose tokens are shown to wake-up sources, and to whom.
    pub credentials: CredentialSettings,
}

/// Troubles that may wait to be written; more at once are more than anybody reads.
const TROUBLES: usize = 256;

/// How the one that writes is elected.
#[derive(Clone, Debug)]
pub struct Election {
    pub namespace: String,
    pub lease: String,
    pub timing: Timing,
}

/// Tries of wake-up sources that may wait to be taken in.
const PROBES: usize = 64;

/// The part that says who writes.
const ELECTION: &str = "leader election";

/// The parts that run.
pub(super) struct Cluster {
    store: Store,
    options: ClusterOptions,
    /// Whether this process may write.
    leads: watch::Receiver<bool>,
    standing: watch::Receiver<Standing>,
    /// Which certificates ScaledObjects are to name.
    named_certificates: watch::Receiver<Option<Arc<str>>>,
    authentication: watch::Receiver<Authentication>,
    pub presented: Arc<Presented>,
    /// What is sent here becomes an event on the ScaledObject.
    pub troubles: mpsc::Sender<TroubleReport>,
    /// What has to be there before anything is served.
    gates: Option<(Gate, Gate)>,
    credentials: Credentials,
    /// Which wake-up sources are to be tried, and what came of it.
    asked: watch::Sender<Arc<Asked>>,
    answers: watch::Sender<Arc<Answers>>,
}

/// Starts discovery, election, certificates and authentication. `Life::writers` gives up the lead,
/// and with it every write.
pub(super) fn begin(
    client: kube::Client,
    options: ClusterOptions,
    fleet: mpsc::Sender<FleetEvent>,
    directory: Directory,
    life: &Life,
) -> Cluster {
    let Life { clock, gates, tasks, writers, cancel } = life;
    let (store, watching) = Store::new(client.clone());
    tasks.part("cluster watches", watching.run(cancel.clone()));
    let discovery = Discovery::new(store.clone(), gates).run(fleet, directory, cancel.clone());
    tasks.part("discovery", discovery);
    let leads = match options.election.clone() {
        Some(election) => {
            let (sender, leads) = watch::channel(false);
            let started = clock.now().since_unix().as_nanos();
            let candidate = Candidate {
                client: client.clone(),
                namespace: election.namespace,
                lease: election.lease,
                // A restarted container keeps its pod's name, and must not take its
                // predecessor's Lease for its own.
                identity: format!("{}_{started:x}", options.pod.as_deref().unwrap_or("keda-kaito-scaler")),
                timing: election.timing,
                clock: *clock,
            };
            tasks.part(ELECTION, candidate.run(sender, writers.clone()));
            leads
        }
        None => {
            let (sender, leads) = watch::channel(true);
            // The sender has to live as long as anybody may ask.
            let writers = writers.clone();
            tasks.part(ELECTION, async move {
                writers.cancelled().await;
                drop(sender);
            });
            leads
        }
    };
    let presented = Arc::new(Presented::default());
    let (certificates, standing) =
        CertificateKeeper::new(&store, options.certificates.clone(), presented.clone(), Clock::wall);
    let (keeper, authentication) = AuthenticationKeeper::new(&store, &options.certificates);
    tasks.part("certificates", certificates.run(leads.clone(), cancel.clone()));
    let keeping = keeper.run(leads.clone(), standing.clone(), cancel.clone());
    tasks.part("authentication object", keeping);
    let (naming, named_certificates) = watch::channel(None);
    let following = renewals::follow(standing.clone(), naming);
    tasks.part("certificate renewals", cancel.clone().run_until_cancelled_owned(following));
    let notices = Arc::new(Notices::new(client.clone(), options.pod.clone()));
    if let Some(pod) = &options.pod {
        let about = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(options.certificates.own_namespace.clone()),
            name: Some(pod.clone()),
            ..ObjectReference::default()
        };
        let (notices, readiness, cancel) = (notices.clone(), gates.readiness(), cancel.clone());
        tasks.job("startup events", async move {
            cancel.run_until_cancelled(notices.of_waiting(readiness, about)).await;
        });
    }
    if options.tenancy == Tenancy::OwnNamespace {
        let (leads, writers) = (leads.clone(), writers.clone());
        let Settings { service, own_namespace, .. } = options.certificates.clone();
        tasks.job("events on refused triggers", async move {
            writers.run_until_cancelled(notices.of_trespasses(leads, &service, &own_namespace)).await;
        });
    }
    let (troubles, reports) = mpsc::channel(TROUBLES);
    let (teller, quiet) = (Teller::new(client.clone(), options.pod.clone()), writers.clone());
    tasks.part("target events", async move {
        quiet.run_until_cancelled(teller.run(reports)).await;
    });
    let certificates = gates.gate("certificates", "not read yet");
    let keda = gates.gate("keda", "the ClusterTriggerAuthentication");
    let gates = Some((certificates, keda));
    Cluster {
        credentials: Credentials::new(client, options.credentials.clone(), tasks),
        store,
        options,
        leads,
        standing,
        named_certificates,
        authentication,
        presented,
        troubles,
        gates,
        asked: watch::Sender::default(),
        answers: watch::Sender::default(),
    }
}

impl Cluster {
    /// Waits until there are certificates to serve with and KEDA can find its own, and gives
    /// the configuration to serve with. What is waited for shows in the gates.
    ///
    /// KEDA dials in plaintext where the authentication object or its Secrets are missing, and
    /// does not recover by itself: so nothing is served, and nothing provisioned, before.
    pub(super) async fn certified(&mut self) -> Option<Arc<ArcSwap<ServerConfig>>> {
        let (certificates, keda) = self.gates.take()?;
        let config = loop {
            let seen = {
                let standing = self.standing.borrow_and_update();
                let missing = standing.missing.as_deref();
                standing.config.clone().ok_or_else(|| missing.unwrap_or("not read yet").to_owned())
            };
            match seen {
                Ok(config) => break config,
                Err(missing) => certificates.waits_for(missing),
            }
            self.standing.changed().await.ok()?;
        };
        certificates.open();
        loop {
            let authentication = *self.authentication.borrow_and_update();
            if authentication == Authentication::Live {
                break;
            }
            keda.waits_for(format!("the ClusterTriggerAuthentication: {authentication}"));
            self.authentication.changed().await.ok()?;
        }
        keda.open();
        info!("certificates and authentication are live");
        Some(config)
    }

    /// Provisions ScaledObjects that name the scaler's Service at `port`, once `served` is
    /// cancelled: then KEDA can reach it.
    pub(super) fn provision(
        &self,
        port: u16,
        served: CancellationToken,
        metrics: Metrics,
        cancel: CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        let Settings { service, own_namespace, .. } = &self.options.certificates;
        let provisioner = Provisioner {
            store: self.store.clone(),
            scaler_address: format!("{service}.{own_namespace}.svc.cluster.local:{port}"),
            certificates: self.named_certificates.clone(),
            instance: self.options.pod.clone(),
            metrics,
            wake_sources: WakeSources { asked: self.asked.clone(), answers: self.answers.subscribe() },
            writes_per_second: Provisioner::WRITES_PER_SECOND,
        };
        provisioner.run(served.cancelled_owned(), self.leads.clone(), cancel)
    }

    /// Whose tokens wake-up sources are shown, and to whom.
    pub(super) fn credentials(&self) -> Credentials {
        self.credentials.clone()
    }

    /// Tries the wake-up sources that are asked about.
    pub(super) fn probe(
        &self,
        client: PageClient,
        directory: Directory,
        life: &Life,
    ) -> impl Future<Output = ()> + use<> {
        let reader = Reader::new(client, Some(self.credentials()));
        let (sender, reports) = mpsc::channel(PROBES);
        let pace = Pace { asleep: PROBE_INTERVAL, awake: PROBE_INTERVAL, ..Pace::default() };
        let pools = directory.pools();
        let pool =
            SourcePool::new("probes", reader.clone(), life.clock, directory, pace, Gauge::default(), sender);
        let (asked, answers) = (self.asked.subscribe(), self.answers.clone());
        Prober::new(reader, (pool, reports), pools, asked, answers).run(life.cancel.clone())
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
        let ends = self.presented.ends();
        if !ends.is_empty() {
            let name = "keda_kaito_scaler_connections_certificate_not_after";
            let help = "When the client certificate on a live connection ends, in Unix time";
            let mut family = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), kind)?;
            for (connection, end) in ends {
                ConstGauge::new(unix(end)).encode(family.encode_family(&[("connection", connection)])?)?;
            }
        }
        Ok(())
    }
}
