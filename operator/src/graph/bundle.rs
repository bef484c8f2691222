//! What serves, as the bundle that runtimes read, in the forms in which it is sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use kube::Resource;
use tandem_crds::bundle::{Bundle, Error, Workers};
use tandem_crds::load::{Resources, Sourced};
use tandem_crds::resources::{Function, FunctionEgress, FunctionRoute, FunctionRuntime};

use crate::graph::Accepted;
use crate::key::Text;

/// A bundle in the form in which it is stored and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Names the contents.
    pub revision: String,
    /// Its place in the order of bundles.
    pub sequence: u64,
    /// JSON, compressed.
    pub compressed: Bytes,
}

impl Packed {
    /// What was read from a ConfigMap, and what is in it. The bytes stay as they are.
    pub fn read(compressed: Vec<u8>) -> Result<(Self, Bundle), Error> {
        let bundle = Bundle::read(&compressed)?;
        let revision = bundle.revision().to_owned();
        Ok((Self { revision, sequence: bundle.sequence(), compressed: compressed.into() }, bundle))
    }
}

/// The bundle of what serves in `namespace`. The one before stays if it says the same; otherwise the new one comes after it.
pub fn pack(
    namespace: &str,
    accepted: &Accepted,
    workers: BTreeMap<String, Vec<Workers>>,
    before: Option<&Arc<Packed>>,
    now_ms: u64,
) -> Result<Arc<Packed>, Error> {
    let after = before.map(|packed| packed.sequence + 1).unwrap_or_default();
    // The clock lets a bundle come after those that nobody remembers, because somebody deleted the ConfigMap.
    let sequence = after.max(now_ms);
    let bundle = Bundle::new(&resources(namespace, accepted), workers, sequence).map_err(Error::Shape)?;
    if let Some(before) = before.filter(|before| before.revision == bundle.revision()) {
        return Ok(Arc::clone(before));
    }
    let compressed = bundle.to_gzip()?.into();
    Ok(Arc::new(Packed { revision: bundle.revision().to_owned(), sequence, compressed }))
}

fn resources(namespace: &str, accepted: &Accepted) -> Resources {
    fn placed<T: Resource>(mut resource: T, namespace: &str) -> Sourced<T> {
        resource.meta_mut().namespace = Some(namespace.to_owned());
        Sourced::new(resource)
    }
    let runtime = accepted.runtime.iter();
    Resources {
        runtimes: runtime.map(|(n, s)| placed(FunctionRuntime::new(n, (**s).clone()), namespace)).collect(),
        functions: accepted.functions.iter().map(|(n, s)| placed(Function::new(n, (**s).clone()), namespace)).collect(),
        routes: accepted.routes.iter().map(|(n, s)| placed(FunctionRoute::new(n, (**s).clone()), namespace)).collect(),
        egresses: accepted
            .egresses
            .iter()
            .map(|(n, s)| placed(FunctionEgress::new(n, (**s).clone()), namespace))
            .collect(),
        undecoded: Vec::new(),
    }
}

/// The specs in a bundle; none if another version wrote it in a way that cannot be read.
pub fn accepted(bundle: &Bundle) -> Accepted {
    let Ok(resources) = bundle.resources() else { return Accepted::default() };
    let name = |meta: &kube::api::ObjectMeta| Text::from(meta.name.as_deref().unwrap_or_default());
    let runtime = resources.runtimes.into_iter().next().map(|one| one.resource);
    let functions = resources.functions.into_iter().map(|one| one.resource);
    let routes = resources.routes.into_iter().map(|one| one.resource);
    let egresses = resources.egresses.into_iter().map(|one| one.resource);
    Accepted {
        runtime: runtime.map(|runtime| (name(&runtime.metadata), Arc::new(runtime.spec))),
        functions: functions.map(|function| (name(&function.metadata), Arc::new(function.spec))).collect(),
        routes: routes.map(|route| (name(&route.metadata), Arc::new(route.spec))).collect(),
        egresses: egresses.map(|egress| (name(&egress.metadata), Arc::new(egress.spec))).collect(),
    }
}
