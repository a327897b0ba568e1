//! Helm itself, as a user runs it.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

/// Helm, with folders of its own.
#[derive(Clone, Debug)]
pub(crate) struct Helm {
    pub program: PathBuf,
    pub kubeconfig: PathBuf,
    pub home: PathBuf,
    /// The chart under test.
    pub chart: PathBuf,
}

/// The name of the release.
pub(crate) const RELEASE: &str = "keda-kaito-scaler";

impl Helm {
    /// Runs Helm in KEDA's namespace and gives what it says.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(arguments).args(["--namespace", crate::keda::NAMESPACE]);
        command.env("KUBECONFIG", &self.kubeconfig);
        for (variable, folder) in
            [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            command.env(variable, self.home.join(folder));
        }
        let output =
            tokio::task::spawn_blocking(move || command.output()).await.context("Helm was not waited for")?;
        let output = output.with_context(|| format!("failed to run {}", self.program.display()))?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if !output.status.success() {
            bail!("helm {} failed: {}\n{}", arguments.join(" "), said(&output.stderr), said(&output.stdout));
        }
        Ok(said(&output.stdout))
    }

    /// Installs or upgrades the chart under test.
    pub(crate) async fn install(&self, verb: &str, more: &[&str]) -> Result<String> {
        let chart = self.chart.display().to_string();
        let mut arguments = vec![verb, RELEASE, chart.as_str()];
        arguments.extend(more);
        self.run(&arguments).await
    }
}
