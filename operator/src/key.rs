//! What is reconciled: one resource, the graph of one namespace, or the runtime pods of one namespace.

use std::fmt;
use std::sync::Arc;

use tandem_crds::resources::Kind;

/// A text that many maps hold.
pub type Text = Arc<str>;

/// One resource of ours.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: Text,
    /// Its name.
    pub name: Text,
}

impl ObjectKey {
    /// The `kind` of that namespace and name.
    pub fn new(kind: Kind, namespace: impl Into<Text>, name: impl Into<Text>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.name(), self.namespace, self.name)
    }
}

/// A unit of work.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// All resources of a namespace as one graph: compiled together.
    Graph(Text),
    /// The runtime pods of a namespace: told their topology, and asked how they are.
    Pods(Text),
    /// One resource and its children.
    Object(ObjectKey),
}

impl Key {
    /// For labels of metrics: a closed set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Graph(_) => "Graph",
            Self::Pods(_) => "Pods",
            Self::Object(object) => object.kind.name(),
        }
    }

    /// The namespace that it is in.
    pub fn namespace(&self) -> &Text {
        match self {
            Self::Graph(namespace) | Self::Pods(namespace) => namespace,
            Self::Object(object) => &object.namespace,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Graph(namespace) => write!(f, "graph of {namespace}"),
            Self::Pods(namespace) => write!(f, "runtime pods of {namespace}"),
            Self::Object(object) => object.fmt(f),
        }
    }
}
