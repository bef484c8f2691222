//! Which resources are ready, and since when: as one who watches them sees it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use futures_util::StreamExt;
use kube::api::{Api, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use serde_json::Value;
use tandem_crds::resources::{API_VERSION, Kind};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api;

/// Kind, namespace and name.
pub type Name = (&'static str, String, String);

/// A resource as it was seen last.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `metadata.generation`
    pub generation: i64,
    /// `status.observedGeneration`
    pub observed: i64,
    /// Whether `Ready` is true for this generation.
    pub is_ready: bool,
    /// Reason of `Ready`.
    pub reason: String,
    /// `status.activeRevision`
    pub active: String,
    /// How often something was seen of it.
    pub times: u32,
    /// When it was ready first.
    pub first_ready: Option<Instant>,
    /// When it became as it is now.
    pub at: Instant,
}

/// See the module. It watches as long as it lives.
pub struct Tracker {
    state: Arc<State>,
    _guard: DropGuard,
}

#[derive(Default)]
struct State {
    seen: Mutex<HashMap<Name, Seen>>,
    changed: Notify,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tracker {
    /// Begins to watch all of our kinds.
    pub fn start(client: &Client) -> Self {
        let state = Arc::new(State::default());
        let end = CancellationToken::new();
        for kind in Kind::ALL {
            let plural = format!("{}s", kind.name().to_lowercase()).replace("egresss", "egresses");
            let api: Api<DynamicObject> =
                Api::all_with(client.clone(), &api::resource(API_VERSION, kind.name(), &plural));
            let (state, end) = (Arc::clone(&state), end.clone());
            tokio::spawn(async move { end.run_until_cancelled(watch(kind.name(), api, state)).await });
        }
        Self { state, _guard: end.drop_guard() }
    }

    /// A resource as it was seen last.
    pub fn get(&self, name: &Name) -> Option<Seen> {
        self.state.lock().get(name).cloned()
    }

    /// All resources.
    pub fn all(&self) -> HashMap<Name, Seen> {
        self.state.lock().clone()
    }

    /// How many are ready, of how many.
    pub fn count(&self) -> (usize, usize) {
        let seen = self.state.lock();
        (seen.values().filter(|seen| seen.is_ready).count(), seen.len())
    }

    /// Waits until `holds` is true of what was seen.
    pub async fn until(
        &self,
        what: &str,
        longest: Duration,
        holds: impl Fn(&HashMap<Name, Seen>) -> bool,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let changed = self.state.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if holds(&self.state.lock()) {
                return Ok(());
            }
            if begun.elapsed() > longest {
                bail!("{what}: not within {longest:?}; {}", self.laggards());
            }
            let _ = tokio::time::timeout(Duration::from_secs(1), changed).await;
        }
    }

    /// Waits until so many resources are there, and all of them are ready.
    pub async fn all_ready(&self, count: usize, longest: Duration) -> anyhow::Result<()> {
        let all = |seen: &HashMap<Name, Seen>| seen.len() == count && seen.values().all(|seen| seen.is_ready);
        self.until(&format!("{count} ready resources"), longest, all).await
    }

    fn laggards(&self) -> String {
        const SHOWN: usize = 5;
        let seen = self.state.lock();
        let late: Vec<String> = seen
            .iter()
            .filter(|(_, seen)| !seen.is_ready)
            .map(|((kind, namespace, name), seen)| format!("{kind} {namespace}/{name}: {}", seen.reason))
            .collect();
        let some = late.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
        format!("{} of {} are not ready: {some}", late.len(), seen.len())
    }
}

async fn watch(kind: &'static str, api: Api<DynamicObject>, state: Arc<State>) {
    let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
    let mut listed = std::collections::HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                listed.insert(note(kind, &object, &state));
            }
            Ok(Event::InitDone) => state.lock().retain(|name, _| name.0 != kind || listed.contains(name)),
            Ok(Event::Apply(object)) => {
                note(kind, &object, &state);
            }
            Ok(Event::Delete(object)) => {
                state.lock().remove(&name_of(kind, &object));
            }
            Err(_) => {}
        }
        state.changed.notify_waiters();
    }
}

fn name_of(kind: &'static str, object: &DynamicObject) -> Name {
    (kind, object.namespace().unwrap_or_default(), object.name_any())
}

fn note(kind: &'static str, object: &DynamicObject, state: &State) -> Name {
    let status = &object.data["status"];
    let generation = object.metadata.generation.unwrap_or_default();
    let observed = status["observedGeneration"].as_i64().unwrap_or_default();
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
    let is_ready = observed == generation && ready.is_some_and(|ready| ready["status"] == "True");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = name_of(kind, object);
    let mut seen = state.lock();
    let before = seen.get(&name);
    let first = before.and_then(|before| before.first_ready);
    let times = before.map(|before| before.times).unwrap_or_default() + 1;
    let now = Instant::now();
    let next = Seen {
        generation,
        observed,
        is_ready,
        reason: ready.map(|ready| text(&ready["reason"])).unwrap_or_default(),
        active: text(&status["activeRevision"]),
        times,
        first_ready: first.or_else(|| is_ready.then_some(now)),
        at: now,
    };
    seen.insert(name.clone(), next);
    name
}
