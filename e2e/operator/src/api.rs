//! The API server: a client, definitions, namespaces, writes, and what it has counted.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tandem_crds::resources::Kind;

/// Who the load is, among the managers of fields.
pub const FIELD_MANAGER: &str = "load";
/// Definitions must be served by then.
const SERVED_WITHIN: Duration = Duration::from_mins(1);
/// How often something is looked at that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A client by a kubeconfig.
pub async fn client(kubeconfig: &Path) -> anyhow::Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// A kind by `apiVersion`, `kind` and plural.
pub fn resource(api_version: &str, kind: &str, plural: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// The kind of an object.
pub fn resource_of(object: &Value) -> ApiResource {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let kind = text("kind");
    let plural = match kind.to_lowercase() {
        name if name.ends_with('s') => format!("{name}es"),
        name if name.ends_with('y') => format!("{}ies", name.trim_end_matches('y')),
        name => format!("{name}s"),
    };
    resource(text("apiVersion"), kind, &plural)
}

fn name_of(object: &Value) -> (&str, &str) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    (text("namespace"), text("name"))
}

fn api_of(client: &Client, object: &Value) -> Api<DynamicObject> {
    match name_of(object).0 {
        "" => Api::all_with(client.clone(), &resource_of(object)),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource_of(object)),
    }
}

/// What `kubectl apply --server-side` does.
pub async fn apply(client: &Client, object: &Value) -> anyhow::Result<DynamicObject> {
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let (_, name) = name_of(object);
    api_of(client, object)
        .patch(name, &parameters, &Patch::Apply(object))
        .await
        .with_context(|| format!("apply {} {name}", object["kind"]))
}

/// Applies all, so many at a time.
pub async fn apply_all(client: &Client, objects: &[Value], writers: usize) -> anyhow::Result<()> {
    let owned = stream::iter(objects.to_vec());
    let applied = owned.map(|object| async move { apply(client, &object).await }).buffer_unordered(writers);
    applied.try_for_each(|_| async { Ok(()) }).await
}

/// An object as it is; nothing if it is not there.
pub async fn get(client: &Client, object: &Value) -> anyhow::Result<Option<DynamicObject>> {
    Ok(api_of(client, object).get_opt(name_of(object).1).await?)
}

/// Changes fields of an object.
pub async fn merge(client: &Client, object: &Value, patch: &Value) -> anyhow::Result<DynamicObject> {
    let (_, name) = name_of(object);
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    Ok(api_of(client, object).patch(name, &parameters, &Patch::Merge(patch)).await?)
}

/// Removes an object; it is no error if it is gone.
pub async fn delete(client: &Client, object: &Value) -> anyhow::Result<()> {
    match api_of(client, object).delete(name_of(object).1, &kube::api::DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// All objects of a kind that match labels, by namespace and name.
pub async fn list(
    client: &Client,
    resource: &ApiResource,
    labels: &str,
) -> anyhow::Result<BTreeMap<(String, String), DynamicObject>> {
    const PAGE: u32 = 500;
    let api: Api<DynamicObject> = Api::all_with(client.clone(), resource);
    let mut found = BTreeMap::new();
    let mut parameters = ListParams::default().labels(labels).limit(PAGE);
    loop {
        let page = api.list(&parameters).await?;
        let next = page.metadata.continue_.clone().filter(|next| !next.is_empty());
        for object in page.items {
            let name = object.metadata.name.clone().unwrap_or_default();
            found.insert((object.metadata.namespace.clone().unwrap_or_default(), name), object);
        }
        match next {
            Some(next) => parameters = parameters.continue_token(&next),
            None => return Ok(found),
        }
    }
}

/// Installs the definitions of our kinds, and waits until they are served.
pub async fn define(client: &Client) -> anyhow::Result<()> {
    for kind in Kind::ALL {
        apply(client, &serde_json::to_value(kind.definition())?).await?;
    }
    let begun = Instant::now();
    loop {
        match client.list_api_group_resources(tandem_crds::resources::API_VERSION).await {
            Ok(list) if Kind::ALL.iter().all(|kind| list.resources.iter().any(|known| known.kind == kind.name())) => {
                return Ok(());
            }
            _ if begun.elapsed() > SERVED_WITHIN => bail!("the definitions are not served"),
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Makes a namespace.
pub async fn namespace(client: &Client, name: &str) -> anyhow::Result<()> {
    apply(client, &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await.map(drop)
}

/// A line of `apiserver_request_total`: group, resource, subresource, verb.
pub type Call = [String; 4];

/// How often the API server was called since it has started, watches and failures included.
pub async fn calls(client: &Client) -> anyhow::Result<BTreeMap<Call, u64>> {
    let text = client.request_text(http::Request::get("/metrics").body(Vec::new())?).await?;
    let mut calls = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{")) {
        let Some((labels, value)) = line.rsplit_once("} ") else { continue };
        let of = |name: &str| {
            let (_, rest) = labels.split_once(&format!("{name}=\""))?;
            Some(rest.split_once('"')?.0.to_owned())
        };
        // `resource` is also the end of `subresource`.
        let plain = labels.split(',').find_map(|label| label.strip_prefix("resource=\"")).unwrap_or_default();
        let call = [
            of("group").unwrap_or_default(),
            plain.trim_end_matches('"').to_owned(),
            of("subresource").unwrap_or_default(),
            of("verb").unwrap_or_default(),
        ];
        let count: f64 = value.trim().parse().unwrap_or_default();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let count = count as u64;
        *calls.entry(call).or_default() += count;
    }
    Ok(calls)
}
