//! Certificates: read from Secrets, judged, minted, served and renewed without a restart.
//!
//! [`chain`] reads what a Secret holds, [`scaler_core::cert`] decides what to do about it,
//! [`mint`] makes what was decided, [`tls`] turns chains into a server configuration, and
//! [`store`] moves all of it between the API server and the listener. [`authentication`] keeps
//! the object through which KEDA finds the Secrets.

pub mod authentication;
mod call;
pub mod chain;
pub mod mint;
pub mod pem;
pub mod presented;
pub mod renewals;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;
pub mod tls;
