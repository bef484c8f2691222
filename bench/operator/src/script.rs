//! The floor: a script that writes the objects of the operator directly, with as many writers as there are for the storm.

use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tandem_crds::resources::{FunctionSpec, Kind};
use tandem_e2e_kubernetes::ControlPlane;
use tandem_e2e_operator::{api, objects};
use tandem_operator::child::{ChildKind, Owner};
use tandem_operator::functions::build::build;
use tandem_operator::functions::revision::{revision, url};
use tandem_operator::functions::validate::Valid;
use tandem_operator::key::ObjectKey;
use tandem_operator::kubeapi::resource_of;
use tandem_operator::names::FIELD_MANAGER;

use crate::Arguments;
use crate::results::{Script, rounded};
use crate::site::server_cpu;

/// Objects that are written before anything is measured.
const WARM_UP: usize = 60;

/// Both scripts, one after the other, each in namespaces of its own.
pub(crate) async fn measure(arguments: &Arguments) -> anyhow::Result<Script> {
    let control_plane = ControlPlane::start().await?;
    let client = api::client(&control_plane.kubeconfig()).await?;
    api::define(&client).await?;
    for beginning in ["warm", "children", "all"] {
        for number in 0..arguments.namespaces {
            api::namespace(&client, &format!("{beginning}-{number:02}")).await?;
        }
    }
    write(arguments, &client, "warm", WARM_UP, true).await?;
    let begun = server_cpu(&control_plane)?;
    let children_seconds = write(arguments, &client, "children", arguments.resources, false).await?;
    let between = server_cpu(&control_plane)?;
    let everything_seconds = write(arguments, &client, "all", arguments.resources, true).await?;
    Ok(Script {
        children_seconds,
        children_server_cpu_seconds: rounded(between - begun),
        everything_seconds,
        everything_server_cpu_seconds: rounded(server_cpu(&control_plane)? - between),
    })
}

async fn write(
    arguments: &Arguments,
    client: &Client,
    beginning: &str,
    count: usize,
    everything: bool,
) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let functions = stream::iter(0..count).map(|number| async move {
        let namespace = format!("{beginning}-{:02}", number % arguments.namespaces);
        let function = objects::function(&namespace, &objects::function_name(number), 1);
        write_one(client, &function, everything).await
    });
    functions.buffer_unordered(arguments.writers).try_for_each(|()| async { Ok(()) }).await?;
    Ok(rounded(begun.elapsed().as_secs_f64()))
}

/// The children of one function, as the operator makes them; with `everything` the function itself, and both statuses.
async fn write_one(client: &Client, function: &Value, everything: bool) -> anyhow::Result<()> {
    let text = |field: &str| function["metadata"][field].as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text("namespace"), text("name"));
    let mut uid = "00000000-0000-0000-0000-000000000000".to_owned();
    if everything {
        uid = api::apply(client, function).await?.metadata.uid.unwrap_or_default();
    }
    let spec: FunctionSpec = serde_json::from_value(function["spec"].clone())?;
    let revision = revision(&spec).unwrap_or_default();
    let owner = Owner { key: ObjectKey::new(Kind::Function, namespace.as_str(), name.as_str()), uid };
    let parameters = PatchParams::apply(FIELD_MANAGER);
    for child in build(&owner, &Valid { spec: spec.into(), revision: Some(revision.clone()) }) {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &child.kind.resource());
        let object = child.to_apply(&child.digest());
        let applied = api.patch(&child.name, &parameters, &Patch::Apply(&object)).await?;
        if everything && child.kind == ChildKind::Deployment {
            let generation = applied.metadata.generation;
            let status = json!({"status": {
                "observedGeneration": generation, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
            }});
            api.patch_status(&child.name, &PatchParams::default(), &Patch::Merge(&status)).await?;
        }
    }
    if everything {
        let status = ready_status(&namespace, &name, &revision);
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource_of(Kind::Function));
        api.patch_status(&name, &parameters.force(), &Patch::Apply(&status)).await?;
    }
    Ok(())
}

/// What the operator says about a function that is ready.
fn ready_status(namespace: &str, name: &str, revision: &str) -> Value {
    let time = "2026-01-01T00:00:00Z";
    json!({
        "apiVersion": tandem_crds::resources::API_VERSION,
        "kind": Kind::Function.name(),
        "metadata": {"name": name},
        "status": {
            "observedGeneration": 1,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Ready", "observedGeneration": 1, "lastTransitionTime": time,
                "message": format!("1 workers of revision {revision} are ready"),
            }],
            "url": url(namespace, name, revision),
            "replicas": 1, "readyWorkers": 1, "activeRevision": revision,
            "selector": format!("app.kubernetes.io/name=tandem-function,app.kubernetes.io/instance={name}"),
            "revisions": [{"revision": revision, "weight": 100, "state": "Active", "since": time}],
        },
    })
}
