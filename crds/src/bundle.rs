//! What an operator hands to the runtimes of a namespace: the resources that count, and where workers of functions are.
//!
//! A runtime has no rights in a cluster; this is all that it learns. It compiles the resources by itself, with the code
//! that `tandem check` uses, so that a bundle has no meaning of its own.
//!
//! **Invariant:** equal contents have equal revisions, whoever made them and in whatever order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::load::{Resources, Sourced};
use crate::resources::Kind;

/// `apiVersion` of a bundle.
pub const API_VERSION: &str = "config.tandem.dev/v1alpha1";
/// `kind` of a bundle.
pub const KIND: &str = "TopologyBundle";
/// Largest bundle, in bytes, before it is compressed.
pub const BYTES_MAX: u64 = 32 << 20;
/// All weights of a function together.
pub const WEIGHT_SUM: u32 = 100;

/// What compressed bytes begin with.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Hexadecimal digits of a revision.
const REVISION_DIGITS: usize = 16;

/// Resources, and the workers of functions that have an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Bundle {
    /// [`API_VERSION`].
    api_version: String,
    /// [`KIND`].
    kind: String,
    /// Names the contents; see [`Bundle::revision`].
    revision: String,
    /// See [`Bundle::sequence`].
    sequence: u64,
    /// Objects with `apiVersion`, `kind`, `metadata` (`name` and `namespace` only) and `spec`, in the order of kind and name.
    resources: Vec<Json>,
    /// By function; in the order of revisions.
    workers: BTreeMap<String, Vec<Workers>>,
}

/// Workers of one revision of a function.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Workers {
    /// The revision of the function's code.
    pub revision: String,
    /// `http://HOST:PORT`. Every address that the name has is a worker.
    pub url: String,
    /// Percent of the new flows that it gets. With 0 it is connected and shaken hands with, and gets none.
    pub weight: u32,
}

/// Why a bundle cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not what they seem.
    #[error("the bundle cannot be decompressed")]
    Gzip(#[source] io::Error),
    /// It is larger than anything that was meant.
    #[error("the bundle has more than {BYTES_MAX} bytes")]
    TooLarge,
    /// It is no JSON, or not of this shape.
    #[error("the bundle is not what {API_VERSION} says")]
    Shape(#[source] serde_json::Error),
    /// It is something else, or of another version.
    #[error("it is {kind:?} of {api_version:?}, not {KIND} of {API_VERSION}")]
    Version {
        /// What it says it is.
        kind: String,
        /// Of which version.
        api_version: String,
    },
    /// It was changed on the way.
    #[error("the bundle says that it is revision {said}, and its contents are revision {found}")]
    Revision {
        /// What it says.
        said: String,
        /// What follows from its contents.
        found: String,
    },
    /// A resource in it is none.
    #[error("{name:?} is no {kind}")]
    Resource {
        /// What it says it is.
        kind: String,
        /// Its name.
        name: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A resource of a kind that nobody knows.
    #[error("there is no kind {0:?}")]
    UnknownKind(String),
    /// The weights of a function are not percent.
    #[error("the weights of function {function} sum up to {sum}, not to {WEIGHT_SUM}")]
    Weights {
        /// Which one.
        function: String,
        /// What they are together.
        sum: u64,
    },
    /// Two revisions with one name.
    #[error("function {function} has revision {revision} twice")]
    TwiceTheSame {
        /// Which one.
        function: String,
        /// The revision.
        revision: String,
    },
}

impl Bundle {
    /// A bundle of these resources. What is not part of an application (status, labels, who changed it when) is left out.
    pub fn new(
        resources: &Resources,
        workers: BTreeMap<String, Vec<Workers>>,
        sequence: u64,
    ) -> Result<Self, serde_json::Error> {
        let mut objects = Vec::new();
        add(&mut objects, Kind::Function, &resources.functions)?;
        add(&mut objects, Kind::Egress, &resources.egresses)?;
        add(&mut objects, Kind::Route, &resources.routes)?;
        add(&mut objects, Kind::Runtime, &resources.runtimes)?;
        objects.sort_by_cached_key(|object| {
            (text(object, "/kind"), text(object, "/metadata/namespace"), text(object, "/metadata/name"))
        });
        let mut bundle = Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            revision: String::new(),
            sequence,
            resources: objects,
            workers,
        };
        bundle.workers.values_mut().for_each(|workers| workers.sort());
        bundle.revision = bundle.digest()?;
        Ok(bundle)
    }

    /// Names the contents: two bundles with the same revision are the same.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Its place in the order of the bundles of one namespace: each is greater than those before it. A file that is
    /// mounted lags behind what was pushed; a runtime does not go back to what it says then. Not part of the contents.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Where the workers of functions are that have an image.
    pub fn workers(&self) -> &BTreeMap<String, Vec<Workers>> {
        &self.workers
    }

    /// The resources, for the compiler.
    pub fn resources(&self) -> Result<Resources, Error> {
        let mut resources = Resources::default();
        for object in &self.resources {
            let name = text(object, "/kind");
            match Kind::from_name(&name) {
                Some(Kind::Function) => resources.functions.push(decode(object)?),
                Some(Kind::Route) => resources.routes.push(decode(object)?),
                Some(Kind::Egress) => resources.egresses.push(decode(object)?),
                Some(Kind::Runtime) => resources.runtimes.push(decode(object)?),
                None => return Err(Error::UnknownKind(name)),
            }
        }
        Ok(resources)
    }

    /// As JSON, compressed: a `ConfigMap` holds at most a mebibyte.
    pub fn to_gzip(&self) -> Result<Vec<u8>, Error> {
        // The header holds no time, so that equal bundles are equal bytes.
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&self.to_json()?).map_err(Error::Gzip)?;
        encoder.finish().map_err(Error::Gzip)
    }

    /// As JSON.
    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self).map_err(Error::Shape)
    }

    /// Reads JSON, compressed or not, and checks that it is whole.
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        let mut json = Vec::new();
        if bytes.starts_with(&GZIP_MAGIC) {
            GzDecoder::new(bytes).take(BYTES_MAX + 1).read_to_end(&mut json).map_err(Error::Gzip)?;
        }
        let json = if json.is_empty() { bytes } else { &json };
        if json.len() as u64 > BYTES_MAX {
            return Err(Error::TooLarge);
        }
        let bundle: Self = serde_json::from_slice(json).map_err(Error::Shape)?;
        if bundle.api_version != API_VERSION || bundle.kind != KIND {
            return Err(Error::Version { kind: bundle.kind, api_version: bundle.api_version });
        }
        let found = bundle.digest().map_err(Error::Shape)?;
        if found != bundle.revision {
            return Err(Error::Revision { said: bundle.revision, found });
        }
        bundle.check_weights()?;
        Ok(bundle)
    }

    fn check_weights(&self) -> Result<(), Error> {
        for (function, workers) in &self.workers {
            let sum: u64 = workers.iter().map(|workers| u64::from(workers.weight)).sum();
            if sum != u64::from(WEIGHT_SUM) {
                return Err(Error::Weights { function: function.clone(), sum });
            }
            let mut revisions = BTreeSet::new();
            if let Some(twice) = workers.iter().find(|workers| !revisions.insert(&workers.revision)) {
                let (function, revision) = (function.clone(), twice.revision.clone());
                return Err(Error::TwiceTheSame { function, revision });
            }
        }
        Ok(())
    }

    fn digest(&self) -> Result<String, serde_json::Error> {
        // Maps of JSON are in the order of their keys here.
        let contents = serde_json::to_vec(&(&self.resources, &self.workers))?;
        let mut digest = blake3::hash(&contents).to_hex().to_string();
        digest.truncate(REVISION_DIGITS);
        Ok(digest)
    }
}

fn add<T: Serialize>(objects: &mut Vec<Json>, kind: Kind, resources: &[Sourced<T>]) -> Result<(), serde_json::Error> {
    for sourced in resources {
        let mut object = serde_json::to_value(&sourced.resource)?;
        let mut metadata = serde_json::Map::new();
        for field in ["name", "namespace"] {
            if let Some(value) = object.pointer(&format!("/metadata/{field}")) {
                metadata.insert(field.to_owned(), value.clone());
            }
        }
        let spec = object.get_mut("spec").map(Json::take).unwrap_or_default();
        objects.push(serde_json::json!({
            "apiVersion": crate::resources::API_VERSION, "kind": kind.name(), "metadata": metadata, "spec": spec,
        }));
    }
    Ok(())
}

fn decode<T: DeserializeOwned>(object: &Json) -> Result<Sourced<T>, Error> {
    let resource = T::deserialize(object).map_err(|source| Error::Resource {
        kind: text(object, "/kind"),
        name: text(object, "/metadata/name"),
        source,
    })?;
    Ok(Sourced::new(resource))
}

fn text(object: &Json, pointer: &str) -> String {
    object.pointer(pointer).and_then(Json::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]
mod tests {
    use super::*;
    use crate::compile::compile;
    use crate::load::load_text;

    const FUNCTIONS: &str = "apiVersion: tandem.dev/v1alpha1\nkind: Function\nmetadata: {name: order, namespace: shop}\n\
                             spec: {image: a}\n---\napiVersion: tandem.dev/v1alpha1\nkind: Function\n\
                             metadata: {name: cart, namespace: shop, labels: {a: b}}\nspec: {image: b}\n";
    const ROUTE: &str = "apiVersion: tandem.dev/v1alpha1\nkind: FunctionRoute\nmetadata: {name: place, namespace: shop}\n\
                         spec: {http: {method: POST, path: '/o/{id}'}, to: {function: order, handler: place}, \
                         key: request.path.id}\n";

    fn resources(texts: &[&str]) -> Resources {
        let loaded = load_text("test", &texts.join("---\n"));
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        loaded.resources
    }

    fn workers(weights: &[(&str, u32)]) -> BTreeMap<String, Vec<Workers>> {
        let of = |(revision, weight): &(&str, u32)| Workers {
            revision: (*revision).to_owned(),
            url: format!("http://order-{revision}:9000"),
            weight: *weight,
        };
        BTreeMap::from([("order".to_owned(), weights.iter().map(of).collect())])
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let resources = resources(&[FUNCTIONS, ROUTE]);
        let bundle = Bundle::new(&resources, workers(&[("b", 10), ("a", 90)]), 7).unwrap();
        for bytes in [bundle.to_json().unwrap(), bundle.to_gzip().unwrap()] {
            let read = Bundle::read(&bytes).unwrap();
            assert_eq!(read, bundle);
            let (of_file, of_bundle) = (compile(&resources, None), compile(&read.resources().unwrap(), None));
            assert_eq!(of_bundle.unwrap().topology, of_file.unwrap().topology);
        }
        assert_eq!(bundle.workers()["order"][0].revision, "a");
    }

    #[test]
    fn order_and_labels_do_not_count_and_everything_else_does() {
        let mut sequence = 0;
        let mut revision = |texts: &[&str], weights: &[(&str, u32)]| {
            sequence += 1;
            Bundle::new(&resources(texts), workers(weights), sequence).unwrap().revision().to_owned()
        };
        let first = revision(&[FUNCTIONS, ROUTE], &[("a", 90), ("b", 10)]);
        assert_eq!(first.len(), REVISION_DIGITS);
        let unlabelled = FUNCTIONS.replace(", labels: {a: b}", "");
        assert_eq!(revision(&[ROUTE, &unlabelled], &[("b", 10), ("a", 90)]), first);
        assert_ne!(revision(&[FUNCTIONS, ROUTE], &[("a", 80), ("b", 20)]), first);
        assert_ne!(revision(&[FUNCTIONS], &[("a", 90), ("b", 10)]), first);
        assert_ne!(revision(&[&FUNCTIONS.replace("image: b", "image: c"), ROUTE], &[("a", 90), ("b", 10)]), first);
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let bundle = Bundle::new(&resources(&[FUNCTIONS]), workers(&[("a", 100)]), 1).unwrap();
        let json = String::from_utf8(bundle.to_json().unwrap()).unwrap();
        let refused = |text: &str| Bundle::read(text.as_bytes()).unwrap_err().to_string();
        assert!(refused(&json.replace("\"image\":\"a\"", "\"image\":\"z\"")).contains("its contents are revision"));
        assert!(
            refused(&json.replace("v1alpha1\",\"kind\":\"Topo", "v2\",\"kind\":\"Topo"))
                .contains("config.tandem.dev/v2")
        );
        assert!(refused("{").contains("is not what"));
        let mut bytes = bundle.to_gzip().unwrap();
        bytes.truncate(bytes.len() / 2);
        assert!(matches!(Bundle::read(&bytes), Err(Error::Gzip(_))));
        let uneven = Bundle::new(&resources(&[FUNCTIONS]), workers(&[("a", 99)]), 1).unwrap();
        assert!(matches!(Bundle::read(&uneven.to_json().unwrap()), Err(Error::Weights { sum: 99, .. })));
        let twice = Bundle::new(&resources(&[FUNCTIONS]), workers(&[("a", 50), ("a", 50)]), 1).unwrap();
        assert!(matches!(Bundle::read(&twice.to_json().unwrap()), Err(Error::TwiceTheSame { .. })));
    }
}
