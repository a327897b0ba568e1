//! The same API server, with objects named by their paths, as in
//! `/api/v1/namespaces/keda/secrets/certs`.

use http::Method;
use kube::Client;
use serde_json::Value;

use super::ApiServer;

/// A server with [everything](ApiServer::complete) installed. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct ByPath(ApiServer);

impl ByPath {
    #[must_use]
    pub fn new() -> Self {
        Self(ApiServer::complete())
    }

    #[must_use]
    pub fn client(&self) -> Client {
        self.0.client()
    }

    #[must_use]
    pub fn get(&self, path: &str) -> Option<Value> {
        let state = self.0.state();
        state.objects.get(&state.place_at(path)).cloned()
    }

    /// The objects whose path starts with `prefix`, in order of their creation.
    #[must_use]
    pub fn objects(&self, prefix: &str) -> Vec<Value> {
        let state = self.0.state();
        let created = state.history.iter().filter(|change| change.what == "ADDED");
        let created = created.filter(|change| state.path_of(&change.place).starts_with(prefix));
        created.filter_map(|change| state.objects.get(&change.place).cloned()).collect()
    }

    /// Creates or replaces an object, as another client would.
    pub fn put(&self, path: &str, mut object: Value) {
        let mut state = self.0.state();
        let place = state.place_at(path);
        let metadata = &mut object["metadata"];
        metadata["name"] = place.name.clone().into();
        if !place.namespace.is_empty() {
            metadata["namespace"] = place.namespace.clone().into();
        }
        state.put(place, super::managed::owned_by(object, "kubectl"));
        self.0.announce();
    }

    pub fn delete(&self, path: &str) {
        let mut state = self.0.state();
        let place = state.place_at(path);
        state.remove(&place);
        self.0.announce();
    }

    /// The number of requests so far that contain `part`, as in `PUT /api/v1/…`.
    #[must_use]
    pub fn requests(&self, part: &str) -> usize {
        let requests = self.0.requests();
        requests.iter().filter(|it| format!("{} {}", it.method, it.path).contains(part)).count()
    }

    /// See [`ApiServer::fail`].
    pub fn fail(&self, fault: impl FnMut(&Method, &str) -> Option<u16> + Send + 'static) {
        self.0.fail(fault);
    }

    /// Resolves once `condition` holds; looked at after each request and change.
    pub async fn until(&self, condition: impl Fn(&Self) -> bool) {
        self.0.until(|_| condition(self)).await;
    }
}
