//! A manifest as it is read for a check: leniently, with the lines of what is talked about.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use serde_saphyr::Spanned;

/// A Kubernetes object, as much of it as matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Document {
    pub api_version: String,
    pub kind: String,
    pub metadata: Option<Spanned<Metadata>>,
    pub spec: Fields,
    /// Those of a `List`, as `kubectl get` prints it.
    pub items: Vec<Document>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Metadata {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    /// Whatever is written there: an unquoted `true` is a mistake that gets its line.
    pub annotations: BTreeMap<String, Spanned<Value>>,
}

/// A value whose parts know their lines. Anything that is neither a map nor a list is a leaf.
#[derive(Debug)]
pub(super) enum Node {
    Map(Fields),
    List(Vec<Spanned<Node>>),
    Leaf(Value),
}

/// The fields of a map with their lines; none where something else stands there.
#[derive(Debug, Default)]
pub(super) struct Fields(BTreeMap<String, Spanned<Node>>);

impl Fields {
    pub(super) fn get(&self, key: &str) -> Option<&Spanned<Node>> {
        self.0.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Spanned<Node>)> {
        self.0.iter().map(|(key, node)| (key.as_str(), node))
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.value.text()
    }

    pub(super) fn integer(&self, key: &str) -> Option<i64> {
        match &self.get(key)?.value {
            Node::Leaf(value) => value.as_i64(),
            _ => None,
        }
    }

    /// The fields under `key`.
    pub(super) fn fields(&self, key: &str) -> Option<&Fields> {
        match &self.get(key)?.value {
            Node::Map(fields) => Some(fields),
            _ => None,
        }
    }

    /// The maps of the list under `key`, each with its line.
    pub(super) fn maps(&self, key: &str) -> impl Iterator<Item = (u64, &Fields)> {
        let list = match self.get(key).map(|node| &node.value) {
            Some(Node::List(list)) => list.as_slice(),
            _ => &[],
        };
        list.iter().filter_map(|node| match &node.value {
            Node::Map(fields) => Some((node.referenced.line(), fields)),
            _ => None,
        })
    }

    /// The line on which `key` stands; `otherwise` where it is missing.
    pub(super) fn line_of(&self, key: &str, otherwise: u64) -> u64 {
        self.get(key).map_or(otherwise, |node| node.referenced.line())
    }
}

impl Node {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Leaf(value) => value.as_str(),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

/// Takes any value: what the check can't use must not keep it from the rest of the file.
struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Leaf(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some(key) = entries.next_key::<Key>()? {
            match key {
                Key::Text(key) => {
                    fields.insert(key, entries.next_value()?);
                }
                Key::Other => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Node::Map(Fields(fields)))
    }
}

/// A map's key; none of an object that Kubernetes takes is anything but text.
enum Key {
    Text(String),
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = Value::deserialize(deserializer).map_err(de::Error::custom)?;
        Ok(match key {
            Value::String(text) => Self::Text(text),
            _ => Self::Other,
        })
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Node::deserialize(deserializer)? {
            Node::Map(fields) => fields,
            Node::List(_) | Node::Leaf(_) => Self::default(),
        })
    }
}
