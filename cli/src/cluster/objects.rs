//! Our objects in a namespace, as the API server has them.

use kube::api::{ApiResource, ListParams};
use kube::core::DynamicObject;
use kube::{Api, ResourceExt};
use serde_json::Value;
use tandem_crds::resources::{Function, FunctionEgress, FunctionRoute, FunctionRuntime, Kind};

use super::Cluster;
use super::error::{Asked, Error};

/// Objects that are asked for at once.
const PAGE: u32 = 500;

/// Everything of ours in a namespace: what exactly stands in each is the business of who reads it, so that an object of a
/// newer version does not hide its neighbours.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    /// The oldest first: that is the one that serves.
    pub(crate) runtimes: Vec<Value>,
    /// By name.
    pub(crate) functions: Vec<Value>,
    /// By name.
    pub(crate) routes: Vec<Value>,
    /// By name.
    pub(crate) egresses: Vec<Value>,
}

impl Objects {
    /// Whether there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        [&self.runtimes, &self.functions, &self.routes, &self.egresses].iter().all(|list| list.is_empty())
    }

    /// The objects of one kind.
    pub(crate) fn of(&self, kind: Kind) -> &[Value] {
        match kind {
            Kind::Runtime => &self.runtimes,
            Kind::Function => &self.functions,
            Kind::Route => &self.routes,
            Kind::Egress => &self.egresses,
        }
    }
}

/// A field of an object that is a text; empty if it is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Whether a condition holds.
pub(crate) fn is_true(condition: &Value) -> bool {
    condition["status"] == "True"
}

fn resource_of(kind: Kind) -> ApiResource {
    match kind {
        Kind::Runtime => ApiResource::erase::<FunctionRuntime>(&()),
        Kind::Function => ApiResource::erase::<Function>(&()),
        Kind::Route => ApiResource::erase::<FunctionRoute>(&()),
        Kind::Egress => ApiResource::erase::<FunctionEgress>(&()),
    }
}

impl Cluster {
    /// Everything of ours in the namespace.
    pub(crate) async fn objects(&self) -> Result<Objects, Error> {
        let (runtimes, functions, routes, egresses) = futures_util::try_join!(
            self.runtimes(),
            self.list(Kind::Function),
            self.list(Kind::Route),
            self.list(Kind::Egress)
        )?;
        Ok(Objects { runtimes, functions, routes, egresses })
    }

    /// The runtimes of the namespace, the oldest first.
    pub(crate) async fn runtimes(&self) -> Result<Vec<Value>, Error> {
        let mut runtimes = self.list(Kind::Runtime).await?;
        // In this form, times are in the order of their texts. The operator breaks a tie by name, too.
        runtimes.sort_by_key(|object| {
            (text(object, "/metadata/creationTimestamp").to_owned(), text(object, "/metadata/name").to_owned())
        });
        Ok(runtimes)
    }

    /// The name of the runtime that serves the namespace.
    pub(crate) async fn runtime(&self) -> Result<String, Error> {
        let runtimes = self.runtimes().await?;
        let first = runtimes.first().map(|runtime| text(runtime, "/metadata/name").to_owned());
        first.ok_or_else(|| Error::NoRuntime { namespace: self.namespace.clone() })
    }

    async fn list(&self, kind: Kind) -> Result<Vec<Value>, Error> {
        let resource = resource_of(kind);
        let asked =
            Asked { verb: "list", group: resource.group.clone(), resource: resource.plural.clone(), name: None };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client(), &self.namespace, &resource);
        let mut found = Vec::new();
        let mut parameters = ListParams::default().limit(PAGE);
        loop {
            let page = self.call(&asked, api.list(&parameters)).await?;
            let objects = page.items.into_iter().map(|mut object| {
                object.managed_fields_mut().clear();
                serde_json::to_value(object).unwrap_or_default()
            });
            found.extend(objects);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters.continue_token = Some(token),
                None => return Ok(found),
            }
        }
    }
}
