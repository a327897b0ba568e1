//! Which objects a list or a watch asks for: those of one name, or those with a label.

use serde_json::Value;

use crate::http::query_values;

/// `metadata.name=NAME`, and `KEY`, `KEY=VALUE` or `KEY in (VALUE,…)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selector {
    name: Option<String>,
    label: Option<(String, Vec<String>)>,
}

impl Selector {
    /// # Errors
    /// What the query asks for and is not simulated: whoever asks must not get everything.
    pub(super) fn of(query: &str) -> Result<Self, String> {
        let first = |key: &str| query_values(query, key).into_iter().next();
        let name = first("fieldSelector").map(|field| match field.strip_prefix("metadata.name=") {
            Some(name) => Ok(name.to_owned()),
            None => Err(format!("the fieldSelector {field} is not simulated")),
        });
        let label = first("labelSelector").map(|label| {
            let (key, values) = if let Some((key, values)) = label.split_once(" in (") {
                (key, values.trim_end_matches(')').split(',').collect())
            } else if let Some((key, value)) = label.split_once('=') {
                (key, vec![value])
            } else {
                (&*label, vec![])
            };
            let values: Vec<String> = values.into_iter().map(|value| value.trim().to_owned()).collect();
            let understood = |text: &str| !text.contains([' ', '!', '=', ',', '(', ')']);
            if understood(key) && values.iter().all(|value| understood(value)) {
                Ok((key.to_owned(), values))
            } else {
                Err(format!("the labelSelector {label} is not simulated"))
            }
        });
        Ok(Self { name: name.transpose()?, label: label.transpose()? })
    }

    pub(super) fn covers(&self, object: &Value) -> bool {
        let named = self.name.as_ref().is_none_or(|name| object["metadata"]["name"] == **name);
        let labelled = self.label.as_ref().is_none_or(|(key, values)| {
            let label = &object["metadata"]["labels"][key];
            label.is_string() && (values.is_empty() || values.iter().any(|value| label == value))
        });
        named && labelled
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn covers_what_is_asked_for_and_refuses_what_it_does_not_know() {
        let object = json!({"metadata": {"name": "a", "labels": {"k.io/l": "v"}}});
        for (query, covered) in [
            ("watch=true", true),
            ("fieldSelector=metadata.name%3Da", true),
            ("fieldSelector=metadata.name%3Db", false),
            ("labelSelector=k.io%2Fl", true),
            ("labelSelector=k.io%2Fm", false),
            ("labelSelector=k.io%2Fl%3Dv", true),
            ("labelSelector=k.io%2Fl%3Dw", false),
            ("labelSelector=k.io%2Fl+in+%28u%2Cv%29", true),
            ("labelSelector=k.io%2Fl+in+(u,w)", false),
        ] {
            assert_eq!(Selector::of(query).unwrap().covers(&object), covered, "{query}");
        }
        for query in [
            "fieldSelector=status.phase%3Da",
            "labelSelector=%21k",
            "labelSelector=a%3Db,c%3Dd",
            "labelSelector=k+notin+(a)",
        ] {
            assert!(Selector::of(query).unwrap_err().contains("is not simulated"), "{query}");
        }
    }
}
