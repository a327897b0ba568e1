//! The ScaledObject that is made for an InferenceSet: how it looks ([`build`]) and how to get
//! there from what is in the cluster ([`plan()`]).

mod build;
mod drift;
mod floor;
mod managed_fields;
pub mod objects;
mod plan;

#[cfg(test)]
mod tests;

pub use build::{CERTIFICATES, Reach, build, certificates_in};
pub use floor::{Sleeper, owned_goes_to_zero, sleeper};
pub use plan::{Action, Claim, Plan, Rival, Target, hpa_rival, is_the_replaced_scalers, left_alone, plan};

use super::names::InferenceSetKey;

/// The field manager under which we apply. The replaced scaler wrote under the same name, but
/// by Update.
pub const FIELD_MANAGER: &str = "keda-kaito-scaler";

/// The annotation by which both scalers mark what they made, and its value.
pub const MANAGED_BY: (&str, &str) = ("scaledobject.kaito.sh/managed-by", "keda-kaito-scaler");

/// The name of our trigger in the list of triggers.
pub const TRIGGER_NAME: &str = "keda-kaito-scaler";

/// The ClusterTriggerAuthentication that our triggers, and the replaced scaler's, name.
pub const TRIGGER_AUTHENTICATION: &str = "keda-kaito-scaler-creds";

pub const API_VERSION: &str = "keda.sh/v1alpha1";
pub const KIND: &str = "ScaledObject";
pub const AUTHENTICATION_KIND: &str = "ClusterTriggerAuthentication";

/// The InferenceSet that a ScaledObject is for and belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub key: InferenceSetKey,
    pub uid: String,
    /// Group and version under which the API server serves InferenceSets, `kaito.sh/v1beta1`
    /// where it does.
    pub api_version: String,
}
