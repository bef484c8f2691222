//! The bundle: what the pods of a runtime are told, as a file and by a push.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tandem_crds::resources::{API_VERSION, Kind};

use crate::child::digest;
use crate::graph::Accepted;

/// `apiVersion` of a bundle.
pub const BUNDLE_API_VERSION: &str = "config.tandem.dev/v1alpha1";
/// `kind` of a bundle.
pub const BUNDLE_KIND: &str = "TopologyBundle";
/// Largest bundle that is read back, in bytes: no ConfigMap unpacks to more.
const BUNDLE_BYTES_MAX: u64 = 64 << 20;

/// Resources of a namespace, and where their workers are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    /// [`BUNDLE_API_VERSION`]
    pub api_version: String,
    /// [`BUNDLE_KIND`]
    pub kind: String,
    /// A digest of the rest.
    pub revision: String,
    /// The resources, by kind and name: `apiVersion`, `kind`, `metadata`, `spec`.
    pub resources: Vec<Value>,
    /// Where the workers of functions with an image are.
    pub workers: BTreeMap<String, Vec<WorkerRevision>>,
}

/// One revision of the workers of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRevision {
    /// Its name.
    pub revision: String,
    /// Where it is: a name that stands for every worker.
    pub url: String,
    /// How many of a hundred new flows begin with it.
    pub weight: i32,
}

/// A bundle, and the forms in which it is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    /// The bundle.
    pub bundle: Bundle,
    /// As JSON, for a push.
    pub json: Bytes,
    /// Compressed, for a ConfigMap.
    pub compressed: Bytes,
}

impl Bundle {
    /// The bundle of what serves in `namespace`.
    pub fn new(namespace: &str, accepted: &Accepted, workers: BTreeMap<String, Vec<WorkerRevision>>) -> Self {
        let mut resources = Vec::new();
        let mut add = |kind: Kind, name: &str, spec: Result<Value, serde_json::Error>| {
            // Specs came from JSON; what cannot be written again cannot have been read.
            if let Ok(spec) = spec {
                let metadata = json!({"name": name, "namespace": namespace});
                resources
                    .push(json!({"apiVersion": API_VERSION, "kind": kind.name(), "metadata": metadata, "spec": spec}));
            }
        };
        for (name, spec) in &accepted.functions {
            add(Kind::Function, name, serde_json::to_value(spec));
        }
        for (name, spec) in &accepted.routes {
            add(Kind::Route, name, serde_json::to_value(spec));
        }
        for (name, spec) in &accepted.egresses {
            add(Kind::Egress, name, serde_json::to_value(spec));
        }
        if let Some((name, spec)) = &accepted.runtime {
            add(Kind::Runtime, name, serde_json::to_value(spec));
        }
        let mut bundle = Self {
            api_version: BUNDLE_API_VERSION.to_owned(),
            kind: BUNDLE_KIND.to_owned(),
            revision: String::new(),
            resources,
            workers,
        };
        bundle.revision = digest(&serde_json::to_vec(&bundle).unwrap_or_default());
        bundle
    }

    /// In the forms in which it is sent.
    pub fn pack(self) -> Packed {
        let json = serde_json::to_vec(&self).unwrap_or_default();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        // Writing to memory cannot fail.
        let compressed = encoder.write_all(&json).and_then(|()| encoder.finish()).unwrap_or_default();
        Packed { bundle: self, json: json.into(), compressed: compressed.into() }
    }

    /// Reads what [`Bundle::pack`] compressed; nothing if it is something else.
    pub fn unpack(compressed: &[u8]) -> Option<Self> {
        let mut json = Vec::new();
        GzDecoder::new(compressed).take(BUNDLE_BYTES_MAX).read_to_end(&mut json).ok()?;
        let bundle: Self = serde_json::from_slice(&json).ok()?;
        (bundle.kind == BUNDLE_KIND).then_some(bundle)
    }

    /// The specs in it. What cannot be read is left out: another version wrote it.
    pub fn accepted(&self) -> Accepted {
        let mut accepted = Accepted::default();
        for resource in &self.resources {
            let kind = resource["kind"].as_str().and_then(Kind::from_name);
            let (Some(kind), Some(name)) = (kind, resource["metadata"]["name"].as_str()) else { continue };
            let spec = resource["spec"].clone();
            let name = name.into();
            match kind {
                Kind::Runtime => {
                    let spec = serde_json::from_value(spec).ok();
                    accepted.runtime = spec.map(|spec| (name, std::sync::Arc::new(spec)));
                }
                Kind::Function => insert(&mut accepted.functions, name, spec),
                Kind::Route => insert(&mut accepted.routes, name, spec),
                Kind::Egress => insert(&mut accepted.egresses, name, spec),
            }
        }
        accepted
    }
}

fn insert<T: serde::de::DeserializeOwned>(
    into: &mut BTreeMap<crate::key::Text, std::sync::Arc<T>>,
    name: crate::key::Text,
    spec: Value,
) {
    if let Ok(spec) = serde_json::from_value(spec) {
        into.insert(name, std::sync::Arc::new(spec));
    }
}
