//! What every reconcile needs: the world, the queue, the writer, the settings.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tandem_crds::resources::Kind;
use tandem_crds::resources::status::{RevisionState, RevisionStatus};
use tokio::time::Instant;

use crate::child::{Child, ChildKind};
use crate::graph::Graph;
use crate::key::{Key, ObjectKey, Text};
use crate::kubeapi::{Error, Writer};
use crate::metrics::Metrics;
use crate::pods::Link;
use crate::queue::Queue;
use crate::rivals::Rivals;
use crate::world::cache::Change;
use crate::world::children::owner_of;
use crate::world::{Shared, World};

/// Shortest pause before a namespace is compiled again: changes that come together are compiled together.
const DEBOUNCE_MIN: Duration = Duration::from_millis(20);
/// Longest pause.
const DEBOUNCE_MAX: Duration = Duration::from_secs(4);
/// All namespaces together may take this part of one processor: one over it.
const DEBOUNCE_COSTS: u32 = 3;
/// How long a status that tells of progress alone is held back: what comes next often overtakes it.
const PROGRESS_PAUSE: Duration = Duration::from_secs(3);

/// What the operator was started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The image of runtimes that name none.
    pub runtime_image: String,
    /// The namespace of the operator, whose pods reach the admin port of runtimes.
    pub operator_namespace: String,
}

/// The clock: tests stop it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// See the module.
pub struct Context {
    /// What is known of the cluster.
    pub world: World,
    /// What is to be done.
    pub queue: Queue,
    /// Who changes the cluster.
    pub writer: Writer,
    /// How runtime pods are reached.
    pub link: Arc<dyn Link>,
    /// What the operator was started with.
    pub settings: Settings,
    /// What is counted.
    pub metrics: Metrics,
    /// What time it is.
    pub clock: Clock,
    /// The rollout of each function, as it was written last.
    pub rollouts: Shared<HashMap<ObjectKey, Vec<RevisionStatus>>>,
    /// Namespaces that are to be compiled.
    pub dirty: Shared<HashSet<Text>>,
    /// Progress that is not written yet, and since when.
    pub progress: Shared<HashMap<ObjectKey, Instant>>,
    /// The `uid` of runtimes that were let go after their state was removed, until a watch says that they are gone.
    pub released: Shared<HashMap<ObjectKey, String>>,
    /// Others who write the same statuses.
    pub rivals: Rivals,
}

impl Context {
    /// A context that knows nothing yet.
    pub fn new(writer: Writer, link: Arc<dyn Link>, settings: Settings, clock: Clock) -> Self {
        Self {
            world: World::default(),
            queue: Queue::default(),
            writer,
            link,
            settings,
            metrics: Metrics::default(),
            clock,
            rollouts: Shared::default(),
            dirty: Shared::default(),
            progress: Shared::default(),
            released: Shared::default(),
            rivals: Rivals::default(),
        }
    }

    /// Compiles a namespace soon: together with what else changes meanwhile. Where many change at a time, each waits longer.
    pub fn touch_graph(&self, namespace: &str) {
        let cost = self.world.graphs.lock().get(namespace).map(|graph| graph.cost).unwrap_or_default();
        let waiting = {
            let mut dirty = self.dirty.lock();
            dirty.insert(namespace.into());
            u32::try_from(dirty.len()).unwrap_or(u32::MAX)
        };
        let pause = cost.saturating_mul(DEBOUNCE_COSTS.saturating_mul(waiting)).clamp(DEBOUNCE_MIN, DEBOUNCE_MAX);
        self.queue.add_after(Key::Graph(namespace.into()), pause);
    }

    /// One of our resources is another one: a new spec is compiled first, and that wakes up whom it concerns. What is on its way
    /// out is not compiled.
    pub fn changed(&self, key: ObjectKey, change: Change, is_leaving: bool) {
        if change == Change::Spec {
            self.touch_graph(&key.namespace);
        }
        if change == Change::Status || change == Change::Spec && is_leaving {
            self.queue.add(Key::Object(key));
        }
    }

    /// How long a status may wait that tells of progress alone; nothing once it has waited.
    pub fn postpone(&self, key: &ObjectKey) -> Option<Duration> {
        let since = *self.progress.lock().entry(key.clone()).or_insert_with(Instant::now);
        PROGRESS_PAUSE.checked_sub(since.elapsed()).filter(|left| !left.is_zero())
    }

    /// Whether nothing can be said about a resource yet: its last edit is not compiled, and it will be woken up when it is. Or
    /// the pods of the runtime have not been asked yet, and a status says already how the resource was: this process has begun a
    /// moment ago, and knows less than the one before did.
    pub fn is_too_early(&self, key: &ObjectKey, graph: &Graph, generation: Option<i64>) -> bool {
        if !graph.has_seen(key.kind, &key.name, generation) {
            return true;
        }
        if graph.runtime.is_none() || self.world.reports.lock().contains_key(&key.namespace) {
            return false;
        }
        let world = &self.world;
        let (namespace, name) = (&*key.namespace, &*key.name);
        let observed = match key.kind {
            Kind::Runtime => {
                world.runtimes.get(namespace, name).and_then(|o| o.good()?.status.as_ref()?.observed_generation)
            }
            Kind::Function => {
                world.functions.get(namespace, name).and_then(|o| o.good()?.status.as_ref()?.observed_generation)
            }
            Kind::Route => {
                world.routes.get(namespace, name).and_then(|o| o.good()?.status.as_ref()?.observed_generation)
            }
            Kind::Egress => {
                world.egresses.get(namespace, name).and_then(|o| o.good()?.status.as_ref()?.observed_generation)
            }
        };
        observed.is_some() && observed == generation
    }

    /// The revisions of a function, as they were written last: by this process, or by the one before.
    pub fn revisions(&self, key: &ObjectKey) -> Vec<RevisionStatus> {
        if let Some(revisions) = self.rollouts.lock().get(key) {
            return revisions.clone();
        }
        let held = self.world.functions.get(&key.namespace, &key.name);
        let status = held.and_then(|held| held.good()?.status.clone());
        status.map(|status| status.revisions).unwrap_or_default()
    }

    /// Remembers the revisions of a function as they were written. Of most functions there is one, of which the status says
    /// enough; and if somebody clears that, it comes out the same.
    pub fn remember_rollout(&self, key: &ObjectKey, revisions: Vec<RevisionStatus>) {
        let is_settled = matches!(revisions.as_slice(), [one] if one.state == RevisionState::Active);
        let mut rollouts = self.rollouts.lock();
        if is_settled {
            rollouts.remove(key);
        } else {
            rollouts.insert(key.clone(), revisions);
        }
    }

    /// Applies what has changed of `children`; then removes what is no longer wanted, except for `kept`.
    ///
    /// **Order:** as the children are listed. The first error ends it, so that nothing is removed before everything that
    /// is wanted is there.
    pub async fn apply(
        &self,
        owner: &ObjectKey,
        children: &[Child],
        kept: &BTreeSet<(ChildKind, String)>,
    ) -> Result<(), Error> {
        for child in children {
            self.apply_one(owner, child).await?;
        }
        let wanted: BTreeSet<_> = children.iter().map(|child| (child.kind, child.name.to_string())).collect();
        for ((kind, name), live) in self.world.children.of(owner) {
            let key = (kind, name.to_string());
            if wanted.contains(&key) || kept.contains(&key) || live.is_deleting {
                continue;
            }
            self.metrics.write(kind.kind(), "delete");
            self.writer.delete(kind, &owner.namespace, &name, &live.uid).await?;
            self.world.children.forget(owner, kind, &name);
        }
        Ok(())
    }

    /// Applies a child if it has changed; removes nothing.
    pub async fn apply_one(&self, owner: &ObjectKey, child: &Child) -> Result<(), Error> {
        let family = self.world.children.of(owner);
        let live = family.get(&(child.kind, child.name.clone()));
        if let Some(live) = live
            && *live.digest == *child.digest()
            && live.marks == child.marks()
            && (!live.is_foreign || self.is_settled(owner, child, &live.contents))
        {
            return Ok(());
        }
        if live.is_none() && owner.kind != Kind::Function {
            self.check_free(owner, child).await?;
        }
        self.metrics.write(child.kind.kind(), "apply");
        let applied = self.writer.apply(&owner.namespace, child, live.is_some()).await?;
        if applied.is_foreign {
            let key = (owner.clone(), child.kind, child.name.to_string());
            self.world.children.settled.lock().insert(key, applied.contents.clone());
        }
        self.world.children.remember(owner, child.kind, &child.name, applied);
        Ok(())
    }

    /// A child that is not known may have the name of somebody else's object, which must not be taken over. Names of a function's
    /// children hold a digest, so that they need no look.
    async fn check_free(&self, owner: &ObjectKey, child: &Child) -> Result<(), Error> {
        let found = self.writer.read(child.kind, &owner.namespace, &child.name).await?;
        if found.is_none_or(|found| owner_of(&found).as_ref() == Some(owner)) {
            return Ok(());
        }
        let kind = child.kind.kind();
        let message = format!("there is a {kind} of that name, which belongs to somebody else");
        Err(Error::Taken { call: format!("apply {kind} {}", child.name), message })
    }

    /// Whether others have written to a child, and it was applied over that already.
    fn is_settled(&self, owner: &ObjectKey, child: &Child, contents: &str) -> bool {
        let key = (owner.clone(), child.kind, child.name.to_string());
        self.world.children.settled.lock().get(&key).is_some_and(|settled| **settled == *contents)
    }

    /// Writes a status, if it is another one than what is known.
    pub async fn write_status<S: serde::Serialize + PartialEq>(
        &self,
        key: &ObjectKey,
        uid: &str,
        known: Option<&S>,
        status: &S,
    ) -> Result<bool, Error> {
        self.progress.lock().remove(key);
        if known == Some(status) {
            return Ok(false);
        }
        let Ok(json) = serde_json::to_value(status) else { return Ok(false) };
        if let Some(pause) = self.rivals.pause(key, &json) {
            self.queue.add_after(Key::Object(key.clone()), pause);
            return Ok(false);
        }
        self.metrics.write(key.kind.name(), "status");
        let answer = match self.writer.status(key, uid, &json).await {
            Ok(answer) => answer,
            // Deleted meanwhile: nobody reads it any more.
            Err(Error::Gone { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        self.rivals.note(key, &json);
        let is_leaving = answer.metadata.deletion_timestamp.is_some();
        let change = match key.kind {
            Kind::Runtime => self.world.runtimes.put(answer),
            Kind::Function => self.world.functions.put(answer),
            Kind::Route => self.world.routes.put(answer),
            Kind::Egress => self.world.egresses.put(answer),
        };
        // The answer may hold an edit that the watch has not told of, and which it will then tell nothing new about.
        if change == Change::Spec {
            self.changed(key.clone(), change, is_leaving);
        }
        Ok(true)
    }
}
