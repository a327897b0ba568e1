//! A simulated fleet: model servers, a gateway, KAITO, KEDA and the HPA, each as much of the
//! real thing as the scaler can see. `demo`, the benches and the tests share it.
//!
//! What decides anything here is pure and takes its time as a parameter, so that a run can be
//! repeated from its seed; only `http`, `keda` and the servers touch a socket.

pub mod api_server;
pub mod cluster;
pub mod endpoints_file;
pub mod fixtures;
pub mod fleet;
pub mod gateway;
pub mod hostile;
pub mod hpa;
pub mod http;
pub mod keda;
pub mod model_server;
pub mod page;
pub mod queueing;
pub mod random;
pub mod traffic;
