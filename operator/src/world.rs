//! What the operator knows of the cluster: filled by watches, read by everything that decides.
//!
//! **Invariant:** nothing here calls the API server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use tandem_crds::resources::{Function, FunctionEgress, FunctionRoute, FunctionRuntime, Kind};

use crate::child::ChildKind;
use crate::graph::{Accepted, Graph};
use crate::key::{ObjectKey, Text};
use crate::pods::Reports;

pub mod cache;
pub mod children;
pub mod pods;

pub use cache::{Cache, Held};
pub use children::Children;
pub use pods::{PodView, Pods};

/// See the module.
#[derive(Default)]
pub struct World {
    /// The `FunctionRuntime`s.
    pub runtimes: Cache<FunctionRuntime>,
    /// The `Function`s.
    pub functions: Cache<Function>,
    /// The `FunctionRoute`s.
    pub routes: Cache<FunctionRoute>,
    /// The `FunctionEgress`es.
    pub egresses: Cache<FunctionEgress>,
    /// What the operator has made.
    pub children: Children,
    /// The pods of runtimes and functions.
    pub pods: Pods,
    /// The graph of each namespace, as it was compiled last.
    pub graphs: Shared<BTreeMap<Text, Graph>>,
    /// What the pods of the runtime of each namespace said last.
    pub reports: Shared<BTreeMap<Text, Arc<Reports>>>,
    /// What ready pods of the runtime of each namespace are known to serve.
    pub served: Shared<BTreeMap<Text, Arc<Accepted>>>,
    /// The optional kinds that the cluster knows.
    pub known_kinds: Shared<std::collections::BTreeSet<ChildKind>>,
}

/// A value that several tasks look at for moments.
#[derive(Debug, Default)]
pub struct Shared<T>(Mutex<T>);

impl<T> Shared<T> {
    /// The value. Not to be held over anything that waits.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        // What panicked is logged where it happened; every change here is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    /// The graph of a namespace; nothing before it was compiled.
    pub fn graph(&self, namespace: &str) -> Option<Graph> {
        self.graphs.lock().get(namespace).cloned()
    }

    /// All resources of a namespace.
    pub fn objects(&self, namespace: &str) -> Vec<ObjectKey> {
        let names = [
            (Kind::Runtime, self.runtimes.names(namespace)),
            (Kind::Function, self.functions.names(namespace)),
            (Kind::Route, self.routes.names(namespace)),
            (Kind::Egress, self.egresses.names(namespace)),
        ];
        let keys = names
            .into_iter()
            .flat_map(|(kind, names)| names.into_iter().map(move |name| ObjectKey::new(kind, namespace, name)));
        keys.collect()
    }

    /// Shows the conditions of every resource.
    pub fn each(&self, mut show: impl FnMut(Kind, &[Condition])) {
        self.runtimes.each(|held| {
            let status = held.good().and_then(|one| one.status.as_ref());
            show(Kind::Runtime, status.map(|status| status.conditions.as_slice()).unwrap_or_default());
        });
        self.functions.each(|held| {
            let status = held.good().and_then(|one| one.status.as_ref());
            show(Kind::Function, status.map(|status| status.conditions.as_slice()).unwrap_or_default());
        });
        self.routes.each(|held| {
            let status = held.good().and_then(|one| one.status.as_ref());
            show(Kind::Route, status.map(|status| status.conditions.as_slice()).unwrap_or_default());
        });
        self.egresses.each(|held| {
            let status = held.good().and_then(|one| one.status.as_ref());
            show(Kind::Egress, status.map(|status| status.conditions.as_slice()).unwrap_or_default());
        });
    }

    /// Whether pods of the runtime serve what `select` finds in the graph, as it is there.
    pub fn is_served<T: PartialEq>(
        &self,
        graph: &Graph,
        namespace: &str,
        select: impl for<'x> Fn(&'x Accepted) -> Option<&'x Arc<T>>,
    ) -> bool {
        let wanted = select(&graph.accepted);
        let Some(wanted) = wanted else { return false };
        let served = self.served.lock().get(namespace).cloned();
        served.is_some_and(|served| select(&served).is_some_and(|spec| Arc::ptr_eq(spec, wanted) || spec == wanted))
    }

    /// Whether pods of the runtime know a function. How many workers it has is none of their business.
    pub fn serves_function(&self, namespace: &str, name: &str) -> bool {
        self.served.lock().get(namespace).is_some_and(|served| served.functions.contains_key(name))
    }

    /// Whether the cluster knows `kind`.
    pub fn knows(&self, kind: ChildKind) -> bool {
        !kind.is_optional() || self.known_kinds.lock().contains(&kind)
    }
}
