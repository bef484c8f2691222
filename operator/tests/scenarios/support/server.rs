//! An API server in memory that speaks get, list, watch, apply, merge patch, create and delete, as far as the operator needs it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Body;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::watching;

/// Resource (`apps/deployments`), namespace, name.
pub(crate) type Place = (String, String, String);
/// What a fault makes of a call: nothing, or an answer with this status.
pub(crate) type Fault = Box<dyn FnMut(&Call) -> Option<u16> + Send>;

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) resource: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) metadata_only: bool,
}

impl Call {
    pub(crate) fn is_write(&self) -> bool {
        self.method != Method::GET
    }
}

/// A change, for those who watch.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) type_: &'static str,
    pub(crate) resource: String,
    pub(crate) object: Value,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) version: u64,
    pub(crate) objects: BTreeMap<Place, Value>,
    pub(crate) changes: Vec<Change>,
    /// Writes of the operator: `PATCH apps/statefulsets shop/default`.
    pub(crate) writes: Vec<String>,
    pub(crate) fault: Option<Fault>,
    /// After so many writes nothing is answered any more.
    pub(crate) crash_after: Option<usize>,
    pub(crate) has_crashed: bool,
    pub(crate) uids: u64,
    /// A namespace in which nothing new can be made, because it is being deleted.
    pub(crate) ending: Option<String>,
    /// The cache of the API server knows nothing newer than this version: watches are silent about it, and lists that may be old
    /// are.
    pub(crate) behind: Option<u64>,
    /// Nodes cannot prepare the pods of runtimes: something that they mount is not there.
    pub(crate) is_mount_missing: bool,
    /// What the container of every purge ended with and said, as long as it fails.
    pub(crate) purge_fails: Option<(i64, String)>,
}

impl State {
    /// What there was at a version.
    pub(crate) fn at(&self, version: u64) -> BTreeMap<Place, Value> {
        let mut objects = BTreeMap::new();
        for change in self.changes.iter().take_while(|change| change.version <= version) {
            let text = |field: &str| change.object["metadata"][field].as_str().unwrap_or_default().to_owned();
            let place = (change.resource.clone(), text("namespace"), text("name"));
            if change.type_ == "DELETED" {
                objects.remove(&place);
            } else {
                objects.insert(place, change.object.clone());
            }
        }
        objects
    }
}

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct ApiServer {
    state: Arc<Mutex<State>>,
    pub(crate) changed: Arc<Notify>,
}

impl ApiServer {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A client of it.
    pub(crate) fn client(&self) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let server = server.clone();
            async move { Ok::<_, std::convert::Infallible>(server.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let call = read(&request);
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let refused = {
            let mut state = self.lock();
            if state.has_crashed {
                return status(500, "crashed", "InternalError");
            }
            state.fault.as_mut().and_then(|fault| fault(&call))
        };
        if let Some(code) = refused {
            return status(code, "injected", if code == 409 { "Conflict" } else { "Injected" });
        }
        if call.query.contains_key("watch") {
            return watching::stream(self.clone(), call);
        }
        let answer = self.handle(&call, &body);
        if call.is_write() {
            let mut state = self.lock();
            let name = call.name.clone().unwrap_or_default();
            let part = call.subresource.as_deref().map(|part| format!("/{part}")).unwrap_or_default();
            let place = format!("{}/{name}", call.namespace.clone().unwrap_or_default());
            state.writes.push(format!("{} {}{part} {place}", call.method, call.resource));
            if state.crash_after.is_some_and(|most| state.writes.len() >= most) {
                state.has_crashed = true;
                return status(500, "crashed", "InternalError");
            }
        }
        answer
    }

    fn handle(&self, call: &Call, body: &[u8]) -> Response<Body> {
        let answer = match (call.method.as_str(), &call.name) {
            ("GET", _) if call.resource.starts_with("discovery:") => discover(&call.resource),
            ("GET", None) => return watching::list(self, call),
            ("GET", Some(_)) => self.get(call),
            ("PATCH", Some(_)) => self.patch(call, &serde_json::from_slice(body).unwrap()),
            ("POST", None) => {
                let object: Value = serde_json::from_slice(body).unwrap();
                let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                let call = Call { name: Some(name), ..call.clone() };
                self.patch(&call, &object)
            }
            ("DELETE", Some(name)) => self.delete(call, name),
            other => panic!("the operator must not call {other:?} on {call:?}"),
        };
        match answer {
            Ok(object) => json_response(&object),
            Err((code, reason)) => status(code, reason, reason),
        }
    }

    fn get(&self, call: &Call) -> Result<Value, (u16, &'static str)> {
        self.lock().objects.get(&place(call)).cloned().ok_or((404, "NotFound"))
    }

    fn patch(&self, call: &Call, patch: &Value) -> Result<Value, (u16, &'static str)> {
        let place = place(call);
        let old = self.lock().objects.get(&place).cloned();
        let is_apply = patch.get("apiVersion").is_some();
        let mut new = match (&call.subresource, &old) {
            (Some(_), None) => return Err((404, "NotFound")),
            (Some(part), Some(old)) => {
                check_uid(old, patch)?;
                let mut new = old.clone();
                new[part.as_str()] = patch[part.as_str()].clone();
                new
            }
            (None, None) if !is_apply => return Err((404, "NotFound")),
            (None, None) => patch.clone(),
            (None, Some(old)) if !is_apply => {
                check_version(old, patch)?;
                merged(old, patch)
            }
            (None, Some(old)) => {
                let mut new = patch.clone();
                for field in
                    ["uid", "resourceVersion", "creationTimestamp", "generation", "deletionTimestamp", "finalizers"]
                {
                    if let Some(value) = old["metadata"].get(field) {
                        new["metadata"][field] = value.clone();
                    }
                }
                if let Some(status) = old.get("status") {
                    new["status"] = status.clone();
                }
                new
            }
        };
        new["metadata"]["namespace"] = place.1.clone().into();
        if old.is_none() && self.lock().ending.as_ref() == Some(&place.1) {
            return Err((403, "forbidden: unable to create new content in it because it is being terminated"));
        }
        let is_over = new["metadata"].get("deletionTimestamp").is_some() && !has_finalizers(&new);
        let stored = self.store(&place, old.as_ref(), new);
        if is_over {
            self.remove(&place);
        }
        Ok(stored)
    }

    /// Stores an object as the server does: with a version if it is another one, with a generation if its spec is.
    pub(crate) fn store(&self, place: &Place, old: Option<&Value>, mut new: Value) -> Value {
        if old == Some(&new) {
            return new;
        }
        let mut state = self.lock();
        state.version += 1;
        if old.is_none() {
            state.uids += 1;
            new["metadata"]["uid"] = format!("uid-{}", state.uids).into();
            new["metadata"]["generation"] = 1.into();
            let seconds = state.uids;
            new["metadata"]["creationTimestamp"] =
                jiff::Timestamp::from_second(i64::try_from(seconds).unwrap()).unwrap().to_string().into();
        } else if old.is_some_and(|old| old.get("spec") != new.get("spec")) {
            let generation = new["metadata"]["generation"].as_i64().unwrap_or(1);
            new["metadata"]["generation"] = (generation + 1).into();
        }
        new["metadata"]["resourceVersion"] = state.version.to_string().into();
        let type_ = if old.is_some() { "MODIFIED" } else { "ADDED" };
        let (version, resource) = (state.version, place.0.clone());
        state.changes.push(Change { version, type_, resource, object: new.clone() });
        state.objects.insert(place.clone(), new.clone());
        drop(state);
        self.changed.notify_waiters();
        super::pods::run_workload(self, place, &new);
        new
    }

    fn delete(&self, call: &Call, name: &str) -> Result<Value, (u16, &'static str)> {
        let _ = name;
        let place = place(call);
        self.remove(&place).ok_or((404, "NotFound"))?;
        Ok(json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
    }

    /// The cache knows everything again.
    pub(crate) fn catch_up(&self) {
        self.lock().behind = None;
        self.changed.notify_waiters();
    }

    /// Removes an object and what it owns, as soon as it has no finalizers.
    pub(crate) fn remove(&self, place: &Place) -> Option<Value> {
        let held = self.lock().objects.get(place).cloned()?;
        if has_finalizers(&held) {
            let mut going = held.clone();
            going["metadata"]["deletionTimestamp"] = "2027-01-15T08:00:00Z".into();
            return Some(self.store(place, Some(&held), going));
        }
        let mut state = self.lock();
        let mut object = state.objects.remove(place)?;
        state.version += 1;
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        let (version, resource) = (state.version, place.0.clone());
        state.changes.push(Change { version, type_: "DELETED", resource, object: object.clone() });
        let uid = object["metadata"]["uid"].clone();
        let owned = state.objects.iter().filter(|(_, child)| child["metadata"]["ownerReferences"][0]["uid"] == uid);
        let owned: Vec<Place> = owned.map(|(place, _)| place.clone()).collect();
        drop(state);
        self.changed.notify_waiters();
        for place in owned {
            self.remove(&place);
        }
        Some(object)
    }
}

fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
}

fn check_version(old: &Value, patch: &Value) -> Result<(), (u16, &'static str)> {
    let version = patch["metadata"].get("resourceVersion");
    let is_other = version.is_some_and(|version| *version != old["metadata"]["resourceVersion"]);
    if is_other { Err((409, "the object has been modified")) } else { Ok(()) }
}

fn check_uid(old: &Value, patch: &Value) -> Result<(), (u16, &'static str)> {
    let is_other = patch["metadata"].get("uid").is_some_and(|uid| *uid != old["metadata"]["uid"]);
    if is_other { Err((409, "Conflict")) } else { Ok(()) }
}

fn merged(old: &Value, patch: &Value) -> Value {
    match (old, patch) {
        (Value::Object(old), Value::Object(patch)) => {
            let mut new = old.clone();
            for (key, value) in patch {
                match value {
                    Value::Null => drop(new.remove(key)),
                    value => drop(new.insert(key.clone(), merged(old.get(key).unwrap_or(&Value::Null), value))),
                }
            }
            Value::Object(new)
        }
        _ => patch.clone(),
    }
}

fn place(call: &Call) -> Place {
    (call.resource.clone(), call.namespace.clone().unwrap_or_default(), call.name.clone().unwrap_or_default())
}

/// Only what every cluster has: no PodMonitors, no HTTPRoutes.
fn discover(_: &str) -> Result<Value, (u16, &'static str)> {
    Err((404, "NotFound"))
}

pub(crate) fn json_response(object: &Value) -> Response<Body> {
    Response::builder().header("content-type", "application/json").body(Body::from(object.to_string())).unwrap()
}

fn status(code: u16, message: &str, reason: &str) -> Response<Body> {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code,
    });
    let mut response = json_response(&body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

/// What a request asks for, by its path.
fn read(request: &Request<kube::client::Body>) -> Call {
    let mut parts: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    let query = request.uri().query().unwrap_or_default();
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    let decoded = |text: &str| text.replace("%2F", "/").replace("%3D", "=").replace("%2C", ",");
    let query: BTreeMap<_, _> = query.map(|(key, value)| (key.to_owned(), decoded(value))).collect();
    let accept = request.headers().get("accept").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let metadata_only = accept.contains("PartialObjectMetadata");
    let group = match parts.remove(0) {
        "api" => String::new(),
        _ => format!("{}/", parts.remove(0)),
    };
    parts.remove(0); // the version
    let method = request.method().clone();
    if parts.is_empty() {
        let resource = format!("discovery:{group}");
        return Call { method, resource, namespace: None, name: None, subresource: None, query, metadata_only };
    }
    let namespace = (parts[0] == "namespaces" && parts.len() > 2).then(|| {
        parts.remove(0);
        parts.remove(0).to_owned()
    });
    let resource = format!("{group}{}", parts.remove(0));
    let mut rest = parts.into_iter().map(str::to_owned);
    let (name, subresource) = (rest.next(), rest.next());
    Call { method, resource, namespace, name, subresource, query, metadata_only }
}
