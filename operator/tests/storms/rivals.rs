//! Somebody else who writes statuses: clears them, fills them, and writes again what the operator has set right.

use std::time::{Duration, Instant};

use anyhow::ensure;
use kube::Client;
use serde_json::{Value, json};
use tandem_crds::resources::{API_VERSION, Kind};
use tandem_e2e_kubernetes::control_plane::Options;
use tandem_e2e_operator::{Operator, api, objects};

use super::site::{SOON, Site, apply_patiently};

const FUNCTIONS: usize = 4;
const ROUTES: usize = 2;
const WRITERS: usize = 4;
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the other one goes on at least, and until it has undone so much.
const FIGHT: Duration = Duration::from_secs(6);
const ROUNDS_MIN: u32 = 3;
/// Without pauses there would be hundreds.
const WRITES_MAX: f64 = 8.0;
/// A message as long as a schema allows.
const MESSAGE: usize = 32_768;

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_others_write_is_set_right_and_not_fought_over() -> anyhow::Result<()> {
    let Some(site) = Site::start("rivals", 1, Options::default()).await? else { return Ok(()) };
    let all = objects::shops(FUNCTIONS, ROUTES, 1);
    let operator = site.operator(&[]).await?;
    apply_patiently(site.client.clone(), all.clone(), WRITERS).await?;
    site.tracker.all_ready(all.len(), SOON).await?;
    site.settle(&operator).await?;
    // Nobody has touched the status of the last one before it is fought over: no pause is left of another time.
    let [others @ .., last] = all.as_slice() else { anyhow::bail!("nothing was made") };
    for object in others {
        write(&site.client, object, &json!({"status": null})).await?;
    }
    restored(&site, &all).await?;
    for object in others {
        fill(&site.client, object).await?;
    }
    restored(&site, &all).await?;
    fight(&site, &operator, last).await?;
    restored(&site, &all).await?;
    site.settle(&operator).await
}

/// Writes a status over what is there.
async fn write(client: &Client, object: &Value, patch: &Value) -> anyhow::Result<Value> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind =
        Kind::from_name(&text(&object["kind"])).map(|kind| kind.definition().spec.names.plural).unwrap_or_default();
    let (namespace, name) = (text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
    let place = format!("/apis/{API_VERSION}/namespaces/{namespace}/{kind}/{name}/status?fieldManager=rival");
    let request = http::Request::patch(place).header("content-type", "application/merge-patch+json");
    Ok(client.request(request.body(serde_json::to_vec(patch)?)?).await?)
}

/// As many conditions as there may be, none of which is true.
async fn fill(client: &Client, object: &Value) -> anyhow::Result<()> {
    let kind = Kind::from_name(object["kind"].as_str().unwrap_or_default()).unwrap_or(Kind::Function);
    let definition = json!(kind.definition());
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"];
    let conditions = &schema["conditions"];
    let most = conditions["maxItems"].as_u64().unwrap_or(64);
    let length = conditions["items"]["properties"]["message"]["maxLength"].as_u64();
    let message = "x".repeat(length.and_then(|length| usize::try_from(length).ok()).unwrap_or(MESSAGE));
    let one = |index: u64| {
        let type_ = if index == 0 { "Stalled".to_owned() } else { format!("Other{index}") };
        json!({
            "type": type_, "status": "True", "reason": "Nonsense", "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let conditions: Vec<Value> = (0..most).map(one).collect();
    write(client, object, &json!({"status": {"conditions": conditions}})).await.map(drop)
}

/// Waits until everything says that it is ready, and nothing that it is stalled.
async fn restored(site: &Site, all: &[Value]) -> anyhow::Result<()> {
    let begun = Instant::now();
    for object in all {
        loop {
            let found = api::get(&site.client, object).await?.map(|object| object.data).unwrap_or_default();
            let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let says = |type_: &str| conditions.iter().any(|c| c["type"] == type_ && c["status"] == "True");
            if says("Ready") && !says("Stalled") && !found["status"]["observedGeneration"].is_null() {
                break;
            }
            ensure!(begun.elapsed() < SOON, "{} is not set right: {conditions:?}", object["metadata"]["name"]);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

/// Undoes what the operator writes as soon as it is there.
async fn fight(site: &Site, operator: &Operator, object: &Value) -> anyhow::Result<()> {
    let before = operator.writes()?;
    let (begun, mut rounds) = (Instant::now(), 0);
    while begun.elapsed() < FIGHT || rounds < ROUNDS_MIN {
        ensure!(begun.elapsed() < SOON, "only {rounds} rounds");
        let found = api::get(&site.client, object).await?.map(|object| object.data).unwrap_or_default();
        let mut conditions = found["status"]["conditions"].clone();
        for ready in conditions
            .as_array_mut()
            .into_iter()
            .flatten()
            .filter(|one| one["type"] == "Ready" && one["status"] == "True")
        {
            (ready["status"], ready["reason"]) = (json!("False"), json!("Nonsense"));
            rounds += 1;
        }
        write(&site.client, object, &json!({"status": {"conditions": conditions}})).await?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let writes = operator.writes()? - before;
    ensure!(writes <= WRITES_MAX, "{writes} writes in {rounds} rounds");
    Ok(())
}
