//! The only writer: applies children, deletes orphans, patches statuses.
//!
//! **Invariant:** nothing else in the operator changes a cluster, except for the lease and the certificate of the webhook.

use std::time::Duration;

use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions,
};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tandem_crds::resources::{API_VERSION, GROUP, Kind, VERSION};
use tracing::field::Empty;
use tracing::{Instrument as _, info_span};

use crate::child::{Child, ChildKind, Live};
use crate::conditions;
use crate::key::ObjectKey;
use crate::names::FIELD_MANAGER;

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Events that are looked at.
const EVENTS_MAX: u32 = 50;

/// Why a call failed, by what helps.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
pub enum Error {
    /// It may work later.
    #[error("failed to {call}")]
    Transient {
        /// What was tried: `apply Service cart`.
        call: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// It took too long.
    #[error("failed to {call}: no answer in time")]
    Timeout {
        /// What was tried.
        call: String,
    },
    /// The operator lacks a right, or a quota is used up.
    #[error("failed to {call}: {message}")]
    Forbidden {
        /// What was tried.
        call: String,
        /// What the API server says.
        message: String,
    },
    /// The API server refuses what was sent.
    #[error("failed to {call}: {message}")]
    Rejected {
        /// What was tried.
        call: String,
        /// What the API server says.
        message: String,
    },
    /// Somebody else owns fields of an object of that name.
    #[error("failed to {call}: {message}")]
    Taken {
        /// What was tried.
        call: String,
        /// What the API server says.
        message: String,
    },
    /// The object, its namespace or its definition is gone.
    #[error("failed to {call}: {message}")]
    Gone {
        /// What was tried.
        call: String,
        /// What the API server says.
        message: String,
    },
}

impl Error {
    /// Translates an error of the client, once.
    pub fn new(call: String, source: kube::Error) -> Self {
        let kube::Error::Api(status) = &source else { return Self::Transient { call, source: Box::new(source) } };
        let message = status.message.clone();
        match status.code {
            403 if message.contains("because it is being terminated") => Self::Gone { call, message },
            401 | 403 => Self::Forbidden { call, message },
            404 | 410 => Self::Gone { call, message },
            409 if message.contains("conflict with") => Self::Taken { call, message },
            400 | 405 | 413 | 415 | 422 => Self::Rejected { call, message },
            _ => Self::Transient { call, source: Box::new(source) },
        }
    }

    /// Whether it says nothing about the object that it was for.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transient { .. } | Self::Timeout { .. } | Self::Gone { .. } => true,
            Self::Forbidden { .. } | Self::Rejected { .. } | Self::Taken { .. } => false,
        }
    }

    /// What people are told: without what differs from call to call.
    pub fn message(&self) -> String {
        match self {
            Self::Transient { source, .. } => match &**source {
                kube::Error::Api(status) => format!("{self}: {}", status.message),
                _ => format!("{self}: the API server cannot be reached"),
            },
            Self::Timeout { .. }
            | Self::Forbidden { .. }
            | Self::Rejected { .. }
            | Self::Taken { .. }
            | Self::Gone { .. } => self.to_string(),
        }
    }
}

/// The writer.
#[derive(Clone)]
pub struct Writer {
    client: Client,
}

impl Writer {
    /// A writer through `client`.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The client, for those who read.
    pub fn client(&self) -> &Client {
        &self.client
    }

    fn api(&self, resource: &ApiResource, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, resource)
    }

    /// Applies a child. With `force` fields that others have written are taken back: only for objects that are ours already.
    pub async fn apply(&self, namespace: &str, child: &Child, force: bool) -> Result<Live, Error> {
        let call = format!("apply {} {}", child.kind.kind(), child.name);
        let parameters = PatchParams { force, ..PatchParams::apply(FIELD_MANAGER) };
        let object = child.to_apply(&child.digest());
        let api = self.api(&child.kind.resource(), namespace);
        let applied = timed(call, api.patch(&child.name, &parameters, &Patch::Apply(&object))).await?;
        Ok(Live::read(child.kind, &applied))
    }

    /// Deletes a child, if it is still the one that was seen. It is no error if it is gone.
    pub async fn delete(&self, kind: ChildKind, namespace: &str, name: &str, uid: &str) -> Result<(), Error> {
        let call = format!("delete {} {name}", kind.kind());
        let preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::background() };
        let api = self.api(&kind.resource(), namespace);
        match timed(call, api.delete(name, &parameters)).await {
            Ok(_) | Err(Error::Gone { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes the status of one of our resources, if it is still the one that was seen.
    pub async fn status(&self, key: &ObjectKey, uid: &str, status: &Value) -> Result<DynamicObject, Error> {
        let call = format!("write the status of {} {}", key.kind.name(), key.name);
        let object = json!({
            "apiVersion": API_VERSION,
            "kind": key.kind.name(),
            "metadata": {"name": &*key.name, "uid": uid},
            "status": status,
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let api = self.api(&resource_of(key.kind), &key.namespace);
        let answer: DynamicObject =
            match timed(call.clone(), api.patch_status(&key.name, &parameters, &Patch::Apply(&object))).await {
                Ok(answer) => answer,
                // Others may have filled the list of conditions, so that ours find no place.
                Err(Error::Rejected { .. }) => return self.replace_status(call, key, &object).await,
                Err(error) => return Err(error),
            };
        let Some(conditions) = conditions::without_strays(&answer.data["status"], status) else { return Ok(answer) };
        // What another manager has added stays after an apply, and a condition of ours that we do not say would lie.
        let metadata = json!({"uid": uid, "resourceVersion": answer.metadata.resource_version});
        let patch = json!({"metadata": metadata, "status": {"conditions": conditions}});
        self.replace_status(call, key, &patch).await
    }

    /// Writes fields of a status over what anybody has written there; lists become exactly those of `patch`.
    async fn replace_status(&self, call: String, key: &ObjectKey, patch: &Value) -> Result<DynamicObject, Error> {
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let api = self.api(&resource_of(key.kind), &key.namespace);
        timed(call, api.patch_status(&key.name, &parameters, &Patch::Merge(patch))).await
    }

    /// Replaces the finalizers of one of our resources, if nobody has changed it since.
    pub async fn finalizers(&self, key: &ObjectKey, version: &str, finalizers: &[String]) -> Result<(), Error> {
        let call = format!("write the finalizers of {} {}", key.kind.name(), key.name);
        let patch = json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}});
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let api = self.api(&resource_of(key.kind), &key.namespace);
        match timed(call, api.patch_metadata(&key.name, &parameters, &Patch::Merge(&patch))).await {
            Ok(_) | Err(Error::Gone { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The volume claim of that name; nothing if there is none.
    pub async fn claim(&self, namespace: &str, name: &str) -> Result<Option<DynamicObject>, Error> {
        timed(format!("read PersistentVolumeClaim {name}"), self.api(&claims(), namespace).get_opt(name)).await
    }

    /// Deletes a volume claim, and with it what is on the volume, if it is still the one that was seen.
    pub async fn delete_claim(&self, namespace: &str, name: &str, uid: &str) -> Result<(), Error> {
        let preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        let api = self.api(&claims(), namespace);
        match timed(format!("delete PersistentVolumeClaim {name}"), api.delete(name, &parameters)).await {
            Ok(_) | Err(Error::Gone { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Why the controller of a workload cannot make pods: what its last event says. A StatefulSet says it nowhere else.
    pub async fn creation_failure(
        &self,
        kind: ChildKind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<String>, Error> {
        let call = format!("list the events of {} {name}", kind.kind());
        let fields = format!("regarding.kind={},regarding.name={name},reason=FailedCreate", kind.kind());
        let api = self.api(&events(), namespace);
        let found = timed(call, api.list(&ListParams::default().fields(&fields).limit(EVENTS_MAX))).await?;
        let time = |event: &DynamicObject| {
            let times = [
                &event.data["series"]["lastObservedTime"],
                &event.data["deprecatedLastTimestamp"],
                &event.data["eventTime"],
            ];
            times.into_iter().find_map(|time| time.as_str()).unwrap_or_default().to_owned()
        };
        let last = found.items.into_iter().max_by_key(time);
        Ok(last.and_then(|event| event.data["note"].as_str().map(str::to_owned)))
    }

    /// Makes an event.
    pub async fn event(&self, namespace: &str, event: &Value) -> Result<(), Error> {
        let resource = events();
        let call = "make an event".to_owned();
        let object = serde_json::from_value(event.clone())
            .map_err(|source| Error::new(call.clone(), kube::Error::SerdeError(source)))?;
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        timed(call, self.api(&resource, namespace).create(&parameters, &object)).await.map(|_: DynamicObject| ())
    }

    /// A child as it is; nothing if it does not exist.
    pub async fn read(&self, kind: ChildKind, namespace: &str, name: &str) -> Result<Option<DynamicObject>, Error> {
        let call = format!("read {} {name}", kind.kind());
        let api = self.api(&kind.resource(), namespace);
        timed(call, api.get_opt(name)).await
    }
}

fn claims() -> ApiResource {
    ApiResource::erase::<k8s_openapi::api::core::v1::PersistentVolumeClaim>(&())
}

fn events() -> ApiResource {
    ApiResource {
        group: "events.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "events.k8s.io/v1".to_owned(),
        kind: "Event".to_owned(),
        plural: "events".to_owned(),
    }
}

/// How the API calls one of our kinds.
pub fn resource_of(kind: Kind) -> ApiResource {
    let plural = match kind {
        Kind::Runtime => "functionruntimes",
        Kind::Function => "functions",
        Kind::Route => "functionroutes",
        Kind::Egress => "functionegresses",
    };
    ApiResource {
        group: GROUP.to_owned(),
        version: VERSION.to_owned(),
        api_version: API_VERSION.to_owned(),
        kind: kind.name().to_owned(),
        plural: plural.to_owned(),
    }
}

/// The revision of an object, for comparisons: those of newer servers are numbers that grow.
pub fn version_of(object: &DynamicObject) -> Option<u64> {
    object.resource_version()?.parse().ok()
}

async fn timed<T>(call: String, future: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Error> {
    let span = info_span!("call", otel.name = call, otel.kind = "client", otel.status_code = Empty, error = Empty);
    let result = match tokio::time::timeout(CALL_TIMEOUT, future.instrument(span.clone())).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::new(call, error)),
        Err(_) => Err(Error::Timeout { call }),
    };
    if let Err(error) = &result {
        span.record("otel.status_code", "ERROR");
        span.record("error", error.message());
    }
    result
}
