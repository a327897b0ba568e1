//! Everything that a run has at work.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::{
    api::{Api, DEPLOYMENT, POD, SCALED_OBJECT, SERVICE_ACCOUNT, label, number, text, until_asked},
    control_plane::{ControlPlane, FAST_SYNC, Folders},
    gateways::Gateways,
    helm::{Helm, RELEASE},
    kaito::Kaito,
    keda::{self, Keda, Release, apply_folder, established},
    kubelet::{Kubelet, Parts},
    models::Models,
    proxy,
    report::Report,
    sandbox::Hosts,
    stage::{LATER, SOON},
    vllm::Installation,
};

/// What a run is made with.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub folders: Folders,
    pub keda: Release,
    /// The program under test.
    pub scaler: PathBuf,
    pub helm: PathBuf,
    pub chart: PathBuf,
    /// This crate's own files: the CRDs of KAITO.
    pub files: PathBuf,
    /// A real vLLM, where there is one.
    pub vllm: Option<Installation>,
}

/// A cluster with KEDA, KAITO's stand-in and the scaler.
#[derive(Debug)]
pub(crate) struct World {
    pub setup: Setup,
    pub plane: ControlPlane,
    pub api: Api,
    pub keda: Keda,
    pub helm: Helm,
    pub kubelet: Arc<Kubelet>,
    pub models: Arc<Models>,
    pub gateways: Arc<Gateways>,
    pub report: Arc<Report>,
    /// When the scaler's calls may have been refused.
    excuses: Mutex<Vec<(jiff::Timestamp, jiff::Timestamp)>>,
}

impl World {
    /// Brings up everything, the scaler first: it has to bear that neither KEDA nor KAITO is
    /// there yet.
    pub(crate) async fn start(
        setup: Setup,
        hosts: Hosts,
        report: Arc<Report>,
        tasks: &TaskTracker,
    ) -> Result<Self> {
        let begun = Instant::now();
        let plane = ControlPlane::start(setup.folders.clone()).await?;
        let api = plane.api.clone();
        report.add("bring-up", "API server and controllers ready", "s", &[begun.elapsed().as_secs_f64()]);
        setup.keda.make_namespace(&api).await?;
        account(&api, keda::NAMESPACE).await?;
        proxy::start(&api, hosts, tasks);
        let (models, gateways) = (Models::new(), Arc::new(Gateways::default()));
        let parts = Parts {
            api: api.clone(),
            scaler: setup.scaler.clone(),
            certificate: plane.certificate().to_owned(),
            folder: setup.folders.state.join("accounts"),
            logs: setup.folders.logs.clone(),
            models: models.clone(),
            gateways: gateways.clone(),
        };
        let kubelet = Kubelet::start(parts, tasks);
        let helm = Helm {
            program: setup.helm.clone(),
            kubeconfig: setup.folders.state.join("admin.kubeconfig"),
            home: setup.folders.state.join("helm"),
            chart: setup.chart.clone(),
        };
        helm.install("install", &["--set", "wakeSource.rbac.create=true"]).await?;
        until_asked("the scaler's pods run", SOON, || async {
            let running = kubelet.processes().len();
            (running == 2).then_some(()).ok_or_else(|| format!("{running} of 2"))
        })
        .await?;

        let installed = Instant::now();
        setup.keda.install_crds(&api).await?;
        apply_folder(&api, &setup.files.join("crds"), |_| true).await?;
        established(&api).await?;
        // The HPA controller learns of new kinds only every 30 s, and at its start.
        plane.set_hpa_sync(FAST_SYNC).await?;
        Kaito::start(&api, &models, tasks);
        let keda = setup.keda.start(&plane, &setup.folders).await?;
        let excuses = Mutex::default();
        let world = Self { setup, plane, api, keda, helm, kubelet, models, gateways, report, excuses };
        world.scaler_available(2).await?;
        let took = installed.elapsed().as_secs_f64();
        world.report.add("bring-up", "CRDs installed → scaler available", "s", &[took]);
        world.report.add(
            "bring-up",
            "from nothing to everything ready",
            "s",
            &[begun.elapsed().as_secs_f64()],
        );
        Ok(world)
    }

    /// Waits until so many of the scaler's pods are available, and no other is left.
    pub(crate) async fn scaler_available(&self, pods: i64) -> Result<()> {
        let deployment = DEPLOYMENT.named(keda::NAMESPACE, RELEASE);
        let what = format!("has {pods} pods available, all of the newest revision");
        self.api
            .until(&deployment, &what, LATER, |deployment| {
                let deployment = deployment.ok_or("not there")?;
                let is_seen = number(deployment, "/status/observedGeneration")
                    == number(deployment, "/metadata/generation");
                let counts = ["replicas", "updatedReplicas", "availableReplicas"]
                    .map(|count| number(deployment, &format!("/status/{count}")).unwrap_or(0));
                (is_seen && counts == [pods; 3])
                    .then_some(())
                    .ok_or_else(|| format!("replicas, updated, available: {counts:?}"))
            })
            .await
    }

    /// The scaler's pods by name, with their addresses.
    pub(crate) async fn scaler_pods(&self) -> Result<BTreeMap<String, String>> {
        let pods = self.api.list(POD, keda::NAMESPACE).await?;
        let own = pods.iter().filter(|pod| label(pod, "app.kubernetes.io/name") == "keda-kaito-scaler");
        Ok(own.map(|pod| (text(pod, "/metadata/name"), text(pod, "/status/podIP"))).collect())
    }

    /// What one of the scaler's pods says at a path of its pages.
    pub(crate) async fn page(&self, address: &str, path: &str) -> Result<String> {
        let answer =
            reqwest::get(format!("http://{address}:10451{path}")).await.context("the pod does not answer")?;
        answer.error_for_status().context("the pod refuses")?.text().await.context("the pod does not answer")
    }

    /// The targets that any of the scaler's pods serves, with the pod that does.
    pub(crate) async fn targets(&self) -> Result<Vec<(String, Value)>> {
        let mut targets = vec![];
        for (pod, address) in self.scaler_pods().await? {
            // One that starts or ends serves nobody.
            let Ok(page) = self.page(&address, "/debug/targets").await else { continue };
            let listed: Vec<Value> = serde_json::from_str(&page).context("/debug/targets is no JSON")?;
            targets.extend(listed.into_iter().map(|target| (pod.clone(), target)));
        }
        Ok(targets)
    }

    /// How many StreamIsActive calls each of the scaler's pods serves.
    pub(crate) async fn streams(&self) -> Result<BTreeMap<String, u64>> {
        let mut streams = BTreeMap::new();
        for (pod, address) in self.scaler_pods().await? {
            // One that starts or ends serves nobody.
            let Ok(page) = self.page(&address, "/metrics").await else { continue };
            let open = page.lines().find_map(|line| line.strip_prefix("keda_kaito_scaler_open_streams "));
            streams.insert(pod, open.and_then(|open| open.parse().ok()).unwrap_or(0));
        }
        Ok(streams)
    }

    /// Waits until KEDA has a stream open for each ScaledObject, whichever pod serves it.
    pub(crate) async fn streams_are_open(&self, limit: Duration) -> Result<Instant> {
        until_asked("KEDA has a stream open for each ScaledObject", limit, || async {
            let objects = self.api.list(SCALED_OBJECT, "").await.map_err(|error| format!("{error:#}"))?;
            let live = |object: &&Value| object.pointer("/metadata/deletionTimestamp").is_none();
            let live = objects.iter().filter(live).count();
            let open = self.streams().await.map_err(|error| format!("{error:#}"))?;
            let all = usize::try_from(open.values().sum::<u64>()).unwrap_or(usize::MAX);
            (all == live).then(Instant::now).ok_or_else(|| format!("{open:?} for {live}"))
        })
        .await
    }

    /// Does something under which the scaler may be refused: its rights are taken, or the API
    /// server starts and does not know anybody's yet.
    pub(crate) async fn excused<T>(&self, meanwhile: impl Future<Output = Result<T>>) -> Result<T> {
        let begun = jiff::Timestamp::now();
        let done = meanwhile.await;
        let mut excuses = self.excuses.lock().unwrap_or_else(PoisonError::into_inner);
        excuses.push((begun, jiff::Timestamp::now()));
        done
    }

    /// What in the scaler's logs must not be there: refused calls and panics.
    pub(crate) fn complaints(&self) -> Result<Vec<String>> {
        let mut found = vec![];
        let excuses = self.excuses.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let logs = &self.setup.folders.logs;
        for file in std::fs::read_dir(logs).with_context(|| format!("failed to read {}", logs.display()))? {
            let path = file.context("failed to read a folder")?.path();
            if !path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("pod-keda-kaito-scaler"))
            {
                continue;
            }
            let log = std::fs::read_to_string(&path)
                .with_context(|| format!("failed to read {}", path.display()))?;
            let is_excused = |line: &str| {
                let at = line.split_whitespace().next().and_then(|at| at.parse::<jiff::Timestamp>().ok());
                let at_such_a_time =
                    at.is_some_and(|at| excuses.iter().any(|(from, to)| (*from..=*to).contains(&at)));
                at_such_a_time || line.contains("because it is being terminated")
            };
            let is_bad = |line: &&str| {
                let lower = line.to_lowercase();
                lower.contains("panicked") || (lower.contains("forbidden") && !is_excused(line))
            };
            found
                .extend(log.lines().filter(is_bad).take(3).map(|line| format!("{}: {line}", path.display())));
        }
        Ok(found)
    }
}

/// Waits until pods may be made in `namespace`.
pub(crate) async fn account(api: &Api, namespace: &str) -> Result<()> {
    let account = SERVICE_ACCOUNT.named(namespace, "default");
    api.until(&account, "exists", SOON, |account| account.map(drop).ok_or_else(|| "not there".into())).await
}
