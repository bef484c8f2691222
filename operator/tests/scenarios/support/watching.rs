//! Lists and watches.

use std::collections::BTreeMap;

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};

use super::server::{ApiServer, Call, json_response};

fn matches(call: &Call, resource: &str, object: &Value) -> bool {
    let metadata = &object["metadata"];
    let is_here = call.namespace.as_ref().is_none_or(|namespace| metadata["namespace"] == namespace.as_str());
    let selector = call.query.get("labelSelector").map(String::as_str).unwrap_or_default();
    let pairs = selector.split(',').filter_map(|pair| pair.split_once('='));
    call.resource == resource && is_here && pairs.into_iter().all(|(key, value)| metadata["labels"][key] == value)
}

fn shown(call: &Call, object: &Value) -> Value {
    if !call.metadata_only {
        return object.clone();
    }
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"]})
}

pub(crate) fn list(server: &ApiServer, call: &Call) -> Response<Body> {
    let state = server.lock();
    // Who asks for a version, even for any, may be given an old list; who asks for none is given what there is.
    let allows_old = call.query.get("resourceVersion").is_some_and(|version| !version.is_empty());
    let behind = state.behind.filter(|_| allows_old);
    let objects = behind.map_or_else(|| state.objects.clone(), |version| state.at(version));
    let version = behind.unwrap_or(state.version);
    let items: Vec<Value> = objects
        .iter()
        .filter(|((resource, _, _), object)| matches(call, resource, object))
        .map(|(_, object)| shown(call, object))
        .collect();
    let metadata = json!({"resourceVersion": version.to_string()});
    json_response(&json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items}))
}

/// Every change after the version that was asked for, as it comes.
pub(crate) fn stream(server: ApiServer, call: Call) -> Response<Body> {
    let since: u64 = call.query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or_default();
    let changes = futures_util::stream::unfold((server, call, since), |(server, call, since)| async move {
        loop {
            let changed = server.changed.clone();
            let changed = changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some((version, line)) = next(&server, &call, since) {
                return Some((Ok::<_, std::convert::Infallible>(line), (server, call, version)));
            }
            if server.lock().has_crashed {
                return None;
            }
            changed.await;
        }
    });
    Response::builder().header("content-type", "application/json").body(Body::from_stream(changes)).unwrap()
}

fn next(server: &ApiServer, call: &Call, since: u64) -> Option<(u64, Bytes)> {
    let state = server.lock();
    let from = state.changes.partition_point(|change| change.version <= since);
    let until = state.behind.map_or(state.changes.len(), |known| state.changes.partition_point(|c| c.version <= known));
    let change =
        state.changes.get(from..until)?.iter().find(|change| matches(call, &change.resource, &change.object))?;
    let event = BTreeMap::from([("type", Value::from(change.type_)), ("object", shown(call, &change.object))]);
    Some((change.version, Bytes::from(serde_json::to_string(&event).unwrap() + "\n")))
}
