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

impl Packed {
    /// Names the contents.
    pub fn revision(&self) -> &str {
        self.bundle.revision()
    }

    /// What was read from a ConfigMap: its bytes stay as they are.
    pub fn read(compressed: Vec<u8>) -> Result<Self, Error> {
        let bundle = Bundle::read(&compressed)?;
        let json = bundle.to_json()?.into();
        Ok(Self { bundle, json, compressed: compressed.into() })
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
    let after = before.map(|packed| packed.bundle.sequence() + 1).unwrap_or_default();
    // The clock lets a bundle come after those that nobody remembers, because somebody deleted the ConfigMap.
    let bundle =
        Bundle::new(&resources(namespace, accepted), workers, after.max(now_ms)).map_err(Error::Shape)?;
    if let Some(before) = before.filter(|before| before.revision() == bundle.revision()) {
        return Ok(Arc::clone(before));
    }
    let (json, compressed) = (bundle.to_json()?.into(), bundle.to_gzip()?.into());
    Ok(Arc::new(Packed { bundle, json, compressed }))
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
