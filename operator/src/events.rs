//! Events: what people should see on an object, on transitions only.
//!
//! An object that comes up without trouble makes no event: its status says it all, and ten thousand of them would only load the
//! API server.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};
use tandem_crds::resources::API_VERSION;
use tracing::debug;

use crate::context::Context;
use crate::key::ObjectKey;
use crate::names::FIELD_MANAGER;
use crate::reasons::{Effect, Reason};

/// Longest note of an event, in characters.
const NOTE_CHARACTERS_MAX: usize = 900;

/// Makes the event for a change of conditions, if it is worth one. One that cannot be made is no reason to do anything again.
pub async fn transition(context: &Context, key: &ObjectKey, uid: &str, before: &[Condition], after: &[Condition]) {
    let Some((type_, condition)) = worth_telling(before, after) else { return };
    let event = event(context, key, uid, type_, condition);
    if let Err(error) = context.writer.event(&key.namespace, &event).await {
        debug!(%key, %error, "no event");
    }
}

/// The condition to tell of: trouble that is new, or the end of trouble.
fn worth_telling<'a>(before: &[Condition], after: &'a [Condition]) -> Option<(&'static str, &'a Condition)> {
    let find = |list: &'a [Condition], type_: &str| list.iter().find(|condition| condition.type_ == type_);
    let reason = |condition: Option<&Condition>| condition.map(|condition| condition.reason.clone());
    let previous = |type_: &str| reason(before.iter().find(|condition| condition.type_ == type_));
    let ready = find(after, "Ready")?;
    if let Some(stalled) = find(after, "Stalled") {
        return (previous("Stalled").as_ref() != Some(&stalled.reason)).then_some(("Warning", stalled));
    }
    let was = previous("Ready");
    if was.as_ref() == Some(&ready.reason) {
        return None;
    }
    let is_trouble = |name: &str| {
        Reason::named(name).is_some_and(|reason| match reason.effect {
            Effect::Stalled => true,
            Effect::Waiting => !matches!(name, "NoRuntime" | "FunctionMissing" | "RuntimeNotReady" | "ScaledToZero"),
            Effect::Ready | Effect::Moving => false,
        })
    };
    if is_trouble(&ready.reason) {
        return Some(("Warning", ready));
    }
    let was_trouble = was.is_some_and(|was| is_trouble(&was)) || previous("Stalled").is_some();
    (was_trouble && ready.status == "True").then_some(("Normal", ready))
}

fn event(context: &Context, key: &ObjectKey, uid: &str, type_: &str, condition: &Condition) -> Value {
    let now = (context.clock)();
    let note: String = condition.message.chars().take(NOTE_CHARACTERS_MAX).collect();
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": format!("{}.{:x}", key.name, now.as_nanosecond()),
            "namespace": &*key.namespace,
        },
        "eventTime": format!("{now:.6}"),
        "reportingController": "tandem.dev/operator",
        "reportingInstance": FIELD_MANAGER,
        "action": "Reconcile",
        "reason": condition.reason,
        "type": type_,
        "note": note,
        "regarding": {
            "apiVersion": API_VERSION, "kind": key.kind.name(), "namespace": &*key.namespace, "name": &*key.name, "uid": uid,
        },
    })
}
