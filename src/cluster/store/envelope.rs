//! Objects as they come in: who they are, and as much of them as is used.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use scaler_core::fleet::{ObjectName, collection::Object};

/// One object of a list or of a watch event. One that can't be read still says who it is, so
/// that it neither ends the watch nor takes the rest of its list with it.
#[derive(Clone, Debug)]
pub(super) struct Envelope<T: Object> {
    pub name: ObjectName,
    /// `metadata.resourceVersion`: where a watch goes on from; empty where it is missing.
    pub version: String,
    /// The object itself, unless it plays no part; or which of its fields is wrong and how.
    pub object: Result<Option<T>, String>,
}

impl<'de, T: Object> Deserialize<'de> for Envelope<T> {
    /// By way of a [`Value`] that is dropped at once: at no time is more than one whole object
    /// in memory.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let metadata = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
        Ok(Self {
            name: ObjectName::new(metadata("namespace"), metadata("name")),
            version: metadata("resourceVersion").to_owned(),
            object: serde_path_to_error::deserialize(value).map(T::read).map_err(|error| error.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use kube::core::WatchEvent;

    use super::*;
    use scaler_core::fleet::inference_set::InferenceSetObject;

    #[test]
    fn a_broken_object_still_says_who_it_is() {
        let text = r#"{"type": "MODIFIED", "object": {
            "metadata": {"namespace": "team-a", "name": "demo", "resourceVersion": "42"},
            "spec": {"replicas": "two"}}}"#;
        let WatchEvent::Modified(object) =
            serde_json::from_str::<WatchEvent<Envelope<InferenceSetObject>>>(text).unwrap()
        else {
            panic!("another event")
        };
        assert_eq!((object.name, &*object.version), (ObjectName::new("team-a", "demo"), "42"));
        let fault = object.object.unwrap_err();
        assert!(fault.contains("spec.replicas") && fault.contains("\"two\""), "{fault}");
    }

    #[test]
    fn what_is_no_object_at_all_has_no_name() {
        for text in ["7", "{}", r#"{"metadata": []}"#, r#"{"metadata": {"name": 3}}"#] {
            let object: Envelope<InferenceSetObject> = serde_json::from_str(text).unwrap();
            assert_eq!(object.name, ObjectName::new("", ""));
            assert!(object.object.is_err());
        }
    }
}
