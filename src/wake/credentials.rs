//! Tokens for sources that want one, and who gets one.
//!
//! A token that reaches a server can be shown by that server to the API server. So it is never
//! the scaler's own: it belongs to an account whose only right is to get `/metrics`, lives ten
//! minutes, and goes only to a Service that the operator has listed, or that the InferencePool
//! of the InferenceSet names as its endpoint picker. Whoever may write InferencePools and
//! Services, or EndpointSlices, in a namespace can pass a server off as a picker there: what
//! such a server gains is what the account may do.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http::HeaderValue;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{
    Client,
    api::{Api, PostParams},
};
use serde::Deserialize;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::cached::{Answer, Cached, PAUSE};
use crate::{error_chain, tasks::Tasks};
use scaler_core::{
    fleet::ObjectName,
    wake::{Fault, ServicePort, Source, Withheld, fault::owned_by, source::Trust},
};

/// Whose tokens are shown, and to whom besides pickers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialSettings {
    /// The ServiceAccount; without it nobody is shown a token.
    pub account: Option<ObjectName>,
    /// Services that the operator has listed.
    pub listed: BTreeSet<ObjectName>,
}

/// Cheap to clone; all clones share one token. Who reads a source waits for no call of the API
/// while what was answered before is still good.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

struct Inner {
    client: Client,
    settings: CredentialSettings,
    token: Cached<HeaderValue>,
    /// Whether the last request for a token failed.
    fails: AtomicBool,
    /// By pool: which picker it names, `None` where there is no such pool.
    pickers: Mutex<Pickers>,
    /// The calls that are under way.
    calls: Tasks,
}

#[derive(Default)]
struct Pickers {
    by_pool: HashMap<ObjectName, Cached<Option<Arc<str>>>>,
    /// With so many of them, those that nobody asks for any more are dropped.
    crowded: usize,
}

/// What is asked for; the least that the API server gives.
const LIFETIME: Duration = Duration::from_secs(600);
/// The part of its life after which a token, or a pool's word, is renewed.
const RENEWAL: f64 = 0.8;
/// For how long a token is new: a source that does not accept it is itself at fault.
const DOUBT: Duration = Duration::from_secs(60);
/// For how long a pool is believed to name the picker that it did.
const BELIEF: Duration = Duration::from_secs(300);
/// How long a call of the API may take.
const ANSWER: Duration = Duration::from_secs(10);

/// The API of InferencePools, and before it was stable.
const POOLS: [&str; 2] =
    ["/apis/inference.networking.k8s.io/v1", "/apis/inference.networking.x-k8s.io/v1alpha2"];

impl Credentials {
    #[must_use]
    pub fn new(client: Client, settings: CredentialSettings, tasks: &Tasks) -> Self {
        Self(Arc::new(Inner {
            client,
            settings,
            token: Cached::default(),
            fails: AtomicBool::new(false),
            pickers: Mutex::default(),
            // Nobody waits for a call once the process stops.
            calls: tasks.group(CancellationToken::new()),
        }))
    }

    #[must_use]
    pub fn account(&self) -> Option<&ObjectName> {
        self.0.settings.account.as_ref()
    }

    /// The header to show to `source`, on which the series of `pools` are read.
    ///
    /// # Errors
    /// Why it is shown none.
    pub async fn header(&self, source: &Source, pools: &[Arc<str>]) -> Result<HeaderValue, Withheld> {
        let account = self.account().ok_or(Withheld::NoAccount)?;
        let pools = pools.iter().cloned().collect();
        match (Trust::of(source, &pools, &self.0.settings.listed), source.service()) {
            (Trust::Tenant, _) | (_, None) => return Err(Withheld::Tenant),
            (Trust::Listed, Some(_)) => {}
            (Trust::PickerOf(pools), Some(service)) => self.check_owner(&pools, service).await?,
        }
        self.token(account).await
    }

    /// Whether one of `pools` names the Service as its picker.
    async fn check_owner(&self, pools: &[Arc<str>], picker: &ServicePort) -> Result<(), Withheld> {
        let mut last = Withheld::Tenant;
        for pool in pools {
            let name = ObjectName { namespace: picker.service.namespace.clone(), name: pool.clone() };
            let named = self.picker_of(&name).await.map_err(Withheld::NoAnswer)?;
            match owned_by(pool, named.as_deref(), &picker.service.name) {
                Ok(()) => return Ok(()),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    async fn picker_of(&self, pool: &ObjectName) -> Result<Option<Arc<str>>, Arc<str>> {
        let cached = self.0.pickers.lock().unwrap_or_else(PoisonError::into_inner).of(pool);
        cached.get(&self.0.calls, || self.clone().ask_picker(pool.clone())).await
    }

    async fn ask_picker(self, pool: ObjectName) -> Result<Answer<Option<Arc<str>>>, Arc<str>> {
        let picker = self.ask_pool(&pool).await?;
        let is_named = picker.is_some();
        // What may yet be made is looked for again soon.
        let (renew_after, good_for) =
            if is_named { (BELIEF.mul_f64(RENEWAL), BELIEF) } else { (PAUSE, PAUSE) };
        // An API server that is away takes nothing back.
        Ok(Answer { value: picker, renew_after, good_for, outlives_failure: is_named })
    }

    async fn ask_pool(&self, pool: &ObjectName) -> Result<Option<Arc<str>>, Arc<str>> {
        let problem = |text: String| Arc::from(format!("the InferencePool {pool} can't be read: {text}"));
        for api in POOLS {
            let path = format!("{api}/namespaces/{}/inferencepools/{}", pool.namespace, pool.name);
            let request =
                http::Request::get(path).body(Vec::new()).map_err(|error| problem(error.to_string()))?;
            match timeout(ANSWER, self.0.client.request::<PoolObject>(request)).await {
                Ok(Ok(pool)) => return Ok(pool.picker()),
                // Neither the kind nor the object is there; the API server answers both alike.
                Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
                Ok(Err(error)) => return Err(problem(error_chain(&error))),
                Err(_) => return Err(problem(format!("no answer within {ANSWER:?}"))),
            }
        }
        Ok(None)
    }

    async fn token(&self, account: &ObjectName) -> Result<HeaderValue, Withheld> {
        let ask = || self.ask_token(account);
        self.0.token.get(&self.0.calls, ask).await.map_err(Withheld::NoAnswer)
    }

    /// Takes note that a source did not accept `header`. Where that is no longer a new token it
    /// may have been taken back, with its account for example: then this waits for another one,
    /// while others go on with what they have.
    pub async fn refused(&self, header: &HeaderValue) {
        let Some(account) = self.account() else { return };
        let is_doubtful =
            |token: &HeaderValue, asked_at: Instant| token == header && asked_at.elapsed() >= DOUBT;
        self.0.token.renew(is_doubtful, &self.0.calls, || self.ask_token(account)).await;
    }

    fn ask_token(
        &self,
        account: &ObjectName,
    ) -> impl Future<Output = Result<Answer<HeaderValue>, Arc<str>>> + Send + use<> {
        let (credentials, account) = (self.clone(), account.clone());
        async move {
            let asked = credentials.request(&account).await;
            let failed_before = credentials.0.fails.swap(asked.is_err(), Relaxed);
            match &asked {
                Ok(_) if failed_before => info!(%account, "tokens are given out again"),
                Err(problem) if !failed_before => warn!(%account, %problem, "no token is given out"),
                _ => {}
            }
            let (value, lifetime) = asked?;
            let renew_after = lifetime.mul_f64(RENEWAL);
            Ok(Answer { value, renew_after, good_for: lifetime, outlives_failure: false })
        }
    }

    async fn request(&self, account: &ObjectName) -> Result<(HeaderValue, Duration), Arc<str>> {
        let problem = |text: String| Arc::from(format!("no token for the ServiceAccount {account}: {text}"));
        let seconds = i64::try_from(LIFETIME.as_secs()).ok();
        let spec = TokenRequestSpec { expiration_seconds: seconds, ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.0.client.clone(), &account.namespace);
        let params = PostParams::default();
        let answer = timeout(ANSWER, accounts.create_token_request(&account.name, &params, &request));
        let answer = answer.await.map_err(|_| problem(format!("no answer within {ANSWER:?}")))?;
        let answer = answer.map_err(|error| problem(error_chain(&error)))?;
        let token = answer.status.and_then(|status| status.token).unwrap_or_default();
        let mut header = HeaderValue::try_from(format!("Bearer {token}"))
            .ok()
            .filter(|_| !token.is_empty())
            .ok_or_else(|| problem("the answer holds none".to_owned()))?;
        header.set_sensitive(true);
        // The API server may give out shorter ones than asked for.
        let granted = answer
            .spec
            .and_then(|spec| spec.expiration_seconds)
            .and_then(|seconds| u64::try_from(seconds).ok());
        let lifetime = granted.map_or(LIFETIME, Duration::from_secs).min(LIFETIME);
        Ok((header, lifetime))
    }

    /// What its user is told of `fault`.
    #[must_use]
    pub fn explain(&self, fault: &Fault, source: &Source) -> String {
        fault.explain(source, self.account())
    }
}

impl Pickers {
    fn of(&mut self, pool: &ObjectName) -> Cached<Option<Arc<str>>> {
        if let Some(cached) = self.by_pool.get(pool) {
            return cached.clone();
        }
        if self.by_pool.len() >= self.crowded {
            let now = Instant::now();
            self.by_pool.retain(|_, cached| cached.is_recent(now));
            self.crowded = 2 * self.by_pool.len() + 64;
        }
        self.by_pool.entry(pool.clone()).or_default().clone()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

/// The fields of an InferencePool that are used.
#[derive(Debug, Deserialize)]
struct PoolObject {
    #[serde(default)]
    spec: PoolSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PoolSpec {
    endpoint_picker_ref: Option<PickerRef>,
    /// What v1alpha2 calls it.
    extension_ref: Option<PickerRef>,
}

#[derive(Debug, Deserialize)]
struct PickerRef {
    kind: Option<String>,
    name: Arc<str>,
}

impl PoolObject {
    /// The Service that it names.
    fn picker(self) -> Option<Arc<str>> {
        let picker = self.spec.endpoint_picker_ref.or(self.spec.extension_ref)?;
        let is_service = picker.kind.is_none_or(|kind| kind.is_empty() || kind == "Service");
        is_service.then_some(picker.name)
    }
}
