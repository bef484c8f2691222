//! How a runtime is put together and begins.

use std::sync::Arc;
use std::time::Duration;

use tandem_model::ids::EgressName;
use tandem_model::topology::Topology;
use tandem_store::Store;
use tandem_store::keys::Layout;
use tokio_util::sync::CancellationToken;

use super::{EgressRecord, Options, Runtime};
use crate::courier::Courier;
use crate::egress::Egresses;
use crate::engine::{Engine, Parts};
use crate::host::Host;
use crate::members::{self, Member, MemberId, Membership};
use crate::metrics::{Metrics, StoreFailure};
use crate::partition::{Partition, ReleasedMessage, Releases, Sharing};
use crate::peers::{PeerOptions, Peers, serve};
use crate::sweeper::Sweeper;
use crate::tasks::{self, TaskKind};

/// Passes on what commits release.
struct Released {
    courier: Arc<Courier>,
    egresses: Arc<Egresses>,
    metrics: Arc<Metrics>,
    store_stopped: CancellationToken,
}

impl Releases for Released {
    fn messages(&self, messages: Vec<ReleasedMessage>) {
        self.courier.released(messages);
    }

    fn egress(&self, egress: &EgressName, record: EgressRecord) {
        self.metrics.egress_records(egress, 1);
        self.egresses.released(egress, record);
    }

    fn group_committed(&self, flows: usize, took: Duration) {
        self.metrics.group_committed(flows, took.as_secs_f64());
    }

    fn store_failed(&self, error: &tandem_store::Error) {
        self.metrics.store_error(StoreFailure::from(error));
        if matches!(error, tandem_store::Error::Stopped(_) | tandem_store::Error::Damaged(_)) {
            self.store_stopped.cancel();
        }
    }
}

impl<S: Store> Runtime<S> {
    /// Starts a runtime on a store: reserves its versions, begins to deliver messages that wait, and connects to the
    /// workers of the topology.
    ///
    /// The number of slots in the topology must be the one that the store's data was laid out with, for ever.
    pub async fn start(options: Options, store: S, topology: Topology) -> Result<Self, tandem_store::Error> {
        let layout = Layout::new(topology.slots);
        let metrics = options.metrics;
        let peers = match &options.peers {
            Some(shared) => Peers::new(topology.slots, Arc::clone(&shared.dial), Arc::clone(&metrics)),
            None => Peers::alone(topology.slots, Arc::clone(&metrics)),
        };
        let courier = Courier::new(layout, Arc::clone(&metrics), Arc::clone(&peers));
        let egresses = Arc::new(Egresses::default());
        let store_stopped = CancellationToken::new();
        let releases = Arc::new(Released {
            courier: Arc::clone(&courier),
            egresses: Arc::clone(&egresses),
            metrics: Arc::clone(&metrics),
            store_stopped: store_stopped.clone(),
        });
        let sharing = if options.peers.is_some() { Sharing::Shared } else { Sharing::Alone };
        let partition = Partition::open(store.clone(), layout, releases, sharing).await?;
        let (host, topology) = (Host::new(Arc::clone(&metrics), options.dial), Arc::new(topology));
        let engine = Engine::new(Parts {
            store,
            layout,
            clock: options.clock,
            topology: Arc::clone(&topology),
            partition,
            host: Arc::clone(&host),
            courier,
            egresses,
            peers,
            metrics,
            store_stopped,
            seed: options.seed,
        });
        let runtime = Self { engine };
        host.set_topology(&topology);
        if let Some(shared) = options.peers {
            runtime.join(shared).await?;
        }
        runtime.spawn_tasks();
        Ok(runtime)
    }

    /// Becomes one of several runtimes on the store.
    async fn join(&self, shared: PeerOptions) -> Result<(), tandem_store::Error> {
        let engine = &self.engine;
        let id = MemberId(engine.partition.incarnation());
        engine.peers.introduce(id);
        let name = shared.name.unwrap_or_else(|| format!("runtime-{id}"));
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let me = Member { id, name, address: shared.address, version, draining: false, beat: 0 };
        let (beat, dead_after) = (shared.beat, shared.dead_after);
        let settings = members::Settings { beat, dead_after, linger: shared.linger, slots: engine.layout.slots() };
        if let Some(listener) = shared.listener {
            tasks::spawn(TaskKind::Server, serve::listen(self.clone(), listener, engine.stop.clone()));
        }
        let weak = Arc::downgrade(engine);
        let warm = Box::new(move || weak.upgrade().is_none_or(|engine| Self { engine }.has_workers()));
        let (store, peers) = (engine.store.clone(), Arc::clone(&engine.peers));
        let membership = Membership::join(store, settings, me, peers, warm).await;
        let membership = membership.inspect_err(|_| engine.stop.cancel())?;
        tasks::spawn(TaskKind::Members, Arc::clone(&membership).run(engine.stop.clone()));
        // Nobody else sets it.
        let _ = engine.membership.set(membership);
        Ok(())
    }

    fn spawn_tasks(&self) {
        let engine = &self.engine;
        // However it ends, nothing can be committed from then on.
        let (ended, stop) = (engine.store_stopped.clone().drop_guard(), engine.stop.clone());
        let partition = Arc::clone(&engine.partition);
        tasks::spawn(TaskKind::Committer, async move {
            let _ended = ended;
            partition.run_committer(stop).await;
        });
        if engine.partition.is_shared() {
            let partition = Arc::clone(&engine.partition);
            tasks::spawn(TaskKind::Numbers, partition.run_numbers(engine.stop.clone()));
        }
        tasks::spawn(TaskKind::Courier, Arc::clone(&engine.courier).run(Arc::clone(engine)));
        tasks::spawn(TaskKind::Sweeper, Sweeper::new(Arc::clone(engine)).run());
    }
}
