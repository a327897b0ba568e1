//! The one client of the Kubernetes API that all parts share.

use std::{
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderValue, header::USER_AGENT};
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep};
use tower::{Layer, Service};

/// How the API is reached, and how hard.
#[derive(Clone, Debug)]
pub struct ClusterAccess {
    /// Flag `--kubeconfig`. Without it: the environment's kubeconfig where there is one, else
    /// the pod's own account.
    pub kubeconfig: Option<PathBuf>,
    /// Flags `--kube-client-qps` and `--kube-client-burst`.
    pub rate: Rate,
}

#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("failed to read the kubeconfig {path}")]
    Kubeconfig { path: PathBuf, source: KubeconfigError },
    #[error("there is neither a kubeconfig nor an account of a pod")]
    NoCluster { source: InferConfigError },
    #[error("failed to make a client of the Kubernetes API")]
    Client { source: kube::Error },
}

/// A client as `access` says. Nothing is asked of the API yet.
pub async fn connect(access: &ClusterAccess) -> Result<Client, ConnectError> {
    let mut config = match &access.kubeconfig {
        Some(path) => {
            let failed = |source| ConnectError::Kubeconfig { path: path.clone(), source };
            let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)?
        }
        None => Config::infer().await.map_err(|source| ConnectError::NoCluster { source })?,
    };
    let agent = HeaderValue::from_static(concat!("keda-kaito-scaler/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
    // kube would try again up to 15 times in silence, for minutes; who calls knows better when
    // to try again, and says that it does.
    config.default_retry = false;
    // Longer than a watch is silent between its bookmarks; without it a connection that went
    // dead would be waited for until the kernel gives up.
    config.read_timeout = Some(READ_TIMEOUT);
    let builder = ClientBuilder::try_from(config).map_err(|source| ConnectError::Client { source })?;
    Ok(builder.with_layer(&access.rate).build())
}

const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// How many requests a client may make: at most `burst` at once, and `per_second` on average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Not above zero: without limit.
    pub per_second: f64,
    pub burst: u32,
}

impl Default for Rate {
    fn default() -> Self {
        Self { per_second: 50.0, burst: 100 }
    }
}

impl<S> Layer<S> for Rate {
    type Service = RateLimited<S>;

    fn layer(&self, inner: S) -> RateLimited<S> {
        RateLimited { inner, bucket: Bucket::new(*self), wait: None }
    }
}

/// A service that is ready no more often than its [`Rate`] says. Requests wait their turn in
/// front of it, in the client's own queue.
#[derive(Debug)]
pub struct RateLimited<S> {
    inner: S,
    bucket: Bucket,
    wait: Option<Pin<Box<Sleep>>>,
}

impl<R, S: Service<R>> Service<R> for RateLimited<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        loop {
            if let Some(wait) = &mut self.wait {
                ready!(wait.as_mut().poll(cx));
                self.wait = None;
            }
            let wait = self.bucket.wait(Instant::now());
            if wait.is_zero() {
                return self.inner.poll_ready(cx);
            }
            self.wait = Some(Box::pin(sleep(wait)));
        }
    }

    fn call(&mut self, request: R) -> S::Future {
        self.bucket.take(Instant::now());
        self.inner.call(request)
    }
}

/// A bucket of tokens, kept as the time at which it would be full again.
#[derive(Debug)]
struct Bucket {
    /// Zero: every request passes.
    interval: Duration,
    /// For how long the bucket may be short of full and still have a token.
    slack: Duration,
    full_at: Option<Instant>,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        let interval = Duration::try_from_secs_f64(rate.per_second.recip()).unwrap_or_default();
        Self { interval, slack: interval.saturating_mul(rate.burst.max(1) - 1), full_at: None }
    }

    /// How long it takes from `now` until there is a token.
    fn wait(&self, now: Instant) -> Duration {
        let missing = self.full_at.map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now));
        missing.saturating_sub(self.slack)
    }

    fn take(&mut self, now: Instant) {
        self.full_at = Some(self.full_at.map_or(now, |full_at| full_at.max(now)) + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{Arc, Mutex},
    };

    use http::{Request, Response};
    use http_body_util::Full;
    use kube::client::Body;

    use super::*;

    /// When each of `calls` requests, made at once, reaches the server.
    async fn reached(rate: Rate, calls: usize) -> Vec<Duration> {
        let times = Arc::new(Mutex::new(Vec::new()));
        let (start, seen) = (Instant::now(), times.clone());
        let service = tower::service_fn(move |_: Request<Body>| {
            seen.lock().unwrap().push(start.elapsed());
            std::future::ready(Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::from("{}"))))
        });
        let client = Client::new(rate.layer(service), "default");
        let call = || client.request_text(Request::get("/version").body(Vec::new()).unwrap());
        for answer in futures::future::join_all((0..calls).map(|_| call())).await {
            answer.unwrap();
        }
        let mut times = times.lock().unwrap();
        std::mem::take(&mut *times)
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_the_rest_waits_its_turn() {
        let times = reached(Rate { per_second: 10.0, burst: 3 }, 6).await;
        // The timer's grain is a millisecond.
        let tenths: Vec<_> = times.iter().map(|time| time.as_millis() / 100).collect();
        assert_eq!(tenths, [0, 0, 0, 1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nothing_waits() {
        for per_second in [0.0, -1.0, f64::INFINITY] {
            let times = reached(Rate { per_second, burst: 0 }, 50).await;
            assert!(times.iter().all(Duration::is_zero), "{per_second}: {times:?}");
        }
    }

    #[test]
    fn an_idle_bucket_fills_up_and_not_beyond() {
        let mut bucket = Bucket::new(Rate { per_second: 2.0, burst: 2 });
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        for (millis, wait) in
            [(0, 0), (0, 0), (0, 500), (500, 0), (600, 400), (60_000, 0), (60_000, 0), (60_000, 500)]
        {
            let expected = Duration::from_millis(wait);
            assert_eq!(bucket.wait(at(millis)), expected, "at {millis} ms");
            if expected.is_zero() {
                bucket.take(at(millis));
            }
        }
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_named_has_to_be_there() {
        let path = PathBuf::from("/nowhere/kubeconfig");
        let access = ClusterAccess { kubeconfig: Some(path), rate: Rate::default() };
        let error = connect(&access).await.err().unwrap().to_string();
        assert_eq!(error, "failed to read the kubeconfig /nowhere/kubeconfig");
    }

    #[tokio::test]
    async fn requests_say_who_makes_them() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kubeconfig");
        let kubeconfig = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": server}}],
            "users": [{"name": "me", "user": {}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        });
        std::fs::write(&path, kubeconfig.to_string()).unwrap();
        let client = connect(&ClusterAccess { kubeconfig: Some(path), rate: Rate::default() }).await.unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            // Overloaded: what the client does not try again by itself.
            let answer = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            String::from_utf8(request).unwrap().to_lowercase()
        };
        let (request, answer) = tokio::join!(serve, client.apiserver_version());
        assert!(request.contains("\r\nuser-agent: keda-kaito-scaler/"), "{request}");
        assert!(matches!(answer, Err(kube::Error::Api(status)) if status.code == 429));
    }
}
