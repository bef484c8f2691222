//! One runtime process, from its start to its end.
//!
//! **Invariant:** a change of the resources takes effect as a whole, or is refused with its problems and nothing changes.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tandem_runtime::metrics::Metrics;
use tandem_runtime::peers::PeerOptions;
use tandem_runtime::runtime::{Options, Runtime};
use tandem_runtime::telemetry;
use tandem_store::Store;
use tracing::{info, warn};

use crate::apply::Apply;
use crate::configuration::LogFormat;
use crate::flags::Flags;
use crate::push::Desk;
use crate::reconfigure::Reconfigure;
use crate::serving::{self, Listeners, Port, Serving};
use crate::settings::{Peers, Settings};
use crate::signals::{Signals, Stop};
use crate::store::{self, Location, Opened};
use crate::topology::{self, Compiled, KEPT_FILE, Source};
use crate::waiting::Waiting;
use crate::watch::Watch;

/// What the names of the store's metrics begin with.
#[cfg(feature = "tikv")]
const STORE_METRICS: &str = "tandem_store";
/// How this program is called in traces.
const SERVICE: &str = "tandem-runtime";
/// How long a store may take to open, whatever it says itself: somebody waits for this process to serve or to end.
const OPEN_WITHIN: Duration = Duration::from_secs(30);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to end, and what ran has ended.
    Drained,
    /// It was told a second time, and did not wait.
    AtOnce,
}

/// Why a process failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something was asked for that makes no sense.
    #[error(transparent)]
    Resources(#[from] topology::Error),
    /// Logging cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] telemetry::Error),
    /// Requests to end cannot be heard.
    #[error("failed to listen for signals")]
    Signals(#[source] io::Error),
    /// A port cannot be had, or the store refuses to begin.
    #[error(transparent)]
    Serving(#[from] serving::Error),
    /// A port cannot be answered on yet.
    #[error("failed to answer on {address}")]
    Share {
        /// Which one.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The store says nothing.
    #[error("the {location} did not open within {} s", OPEN_WITHIN.as_secs())]
    StoreSilent {
        /// Which one.
        location: String,
    },
    /// The store failed while it ran.
    #[error("the store has stopped, and what was written last is unknown; the log says why. Start again: it recovers")]
    StoreStopped,
    /// Something on disk cannot be used.
    #[error("failed to {doing} {path}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The topology of the last run cannot be used.
    #[error(transparent)]
    Kept(#[from] topology::KeptError),
}

/// Runs until it is told to end. The flags say which file of settings is looked at again when it changes.
pub async fn run(settings: &Settings, flags: &Flags) -> Result<Ended, Error> {
    let format = match settings.log_format {
        LogFormat::Auto => telemetry::Format::Auto,
        LogFormat::Text => telemetry::Format::Text,
        LogFormat::Json => telemetry::Format::Json,
    };
    let filter = &settings.log_filter;
    let traces = settings.traces.as_deref();
    let _telemetry = telemetry::init_with(telemetry::Setup { service: SERVICE, filter, format, traces })?;
    // Before anybody is told that it serves: whoever is told may stop it at once.
    let mut signals = Signals::listen().map_err(Error::Signals)?;
    tokio::select! {
        biased;
        _ = signals.received() => Ok(Ended::Drained),
        prepared = prepare(settings) => {
            let Prepared { opened, rest } = prepared?;
            let configured = |set_endpoints| Reconfigure::new(flags, settings, set_endpoints);
            match opened {
                Opened::Embedded(store) => serve(store, settings, rest, configured(Box::new(|_| ())), &mut signals).await,
                #[cfg(feature = "tikv")]
                Opened::Tikv(store) => {
                    let (cluster, stats) = (store.cluster().clone(), store.stats().clone());
                    rest.metrics.add(STORE_METRICS, Box::new(move || stats.all()));
                    let set_endpoints = Box::new(move |endpoints: &[String]| cluster.set_endpoints(endpoints));
                    Box::pin(serve(store, settings, rest, configured(set_endpoints), &mut signals)).await
                }
            }
        }
    }
}

/// What has to be there before anything is served.
struct Prepared {
    opened: Opened,
    rest: Rest,
}

struct Rest {
    listeners: Listeners,
    peers: Option<PeerOptions>,
    watch: Watch,
    source: Source,
    compiled: Compiled,
    kept: Option<PathBuf>,
    metrics: Arc<Metrics>,
}

async fn prepare(settings: &Settings) -> Result<Prepared, Error> {
    let watched: Vec<PathBuf> = settings.resources.iter().chain(&settings.bundle).cloned().collect();
    let mut watch = Watch::new(&watched);
    let listeners = Listeners {
        http: Port::bind(settings.http, "listen.http (--http)").await?,
        admin: Port::bind(settings.admin, "listen.admin (--admin)").await?,
    };
    let peers = match &settings.peers {
        Some(peers) => Some(peer_options(peers).await?),
        None => settings.store.peers(),
    };
    let source = source(settings);
    let kept = kept(settings)?;
    let previous = kept.as_deref().map(topology::read_kept).transpose()?.flatten();
    let compiled = match source.compile(previous.as_ref()) {
        // What an operator writes it can write better: there is somebody to tell.
        Err(refused) if source.bundle.is_some() => {
            let member = peers.as_ref().and_then(|peers| peers.name.clone()).unwrap_or_default();
            let waiting = Waiting { source: &source, previous: previous.as_ref(), member };
            waiting.for_better(refused, &listeners.admin, &mut watch).await?
        }
        compiled => compiled?,
    };
    let opening = tokio::time::timeout(OPEN_WITHIN, store::open(&settings.store));
    let silent = |_| Error::StoreSilent { location: settings.store.to_string() };
    let opened = opening.await.map_err(silent)??;
    Ok(Prepared { opened, rest: Rest { listeners, peers, watch, source, compiled, kept, metrics: Metrics::new() } })
}

/// Takes the port for the other runtimes, and says what they are told.
async fn peer_options(peers: &Peers) -> Result<PeerOptions, Error> {
    let port = Port::bind(peers.listen, "listen.peer (--peer)").await?;
    let advertised = peers.advertise.clone().unwrap_or_else(|| port.address().to_string());
    let options = PeerOptions::new(port.into_listener(), format!("http://{advertised}"));
    Ok(PeerOptions { name: peers.member.clone(), ..options })
}

/// Where the topology comes from.
pub fn source(settings: &Settings) -> Source {
    Source {
        resources: settings.resources.clone(),
        bundle: settings.bundle.clone(),
        workers: settings.workers.clone(),
        flows_in_flight_max: settings.flows_in_flight_max,
    }
}

/// Where the topology of the last run is. A store that others share has no such place: they may have changed since.
fn kept(settings: &Settings) -> Result<Option<PathBuf>, Error> {
    let Location::Embedded(directory) = &settings.store else { return Ok(None) };
    std::fs::create_dir_all(directory).map_err(|source| Error::File {
        doing: "make",
        path: directory.clone(),
        source,
    })?;
    Ok(Some(directory.join(KEPT_FILE)))
}

/// Serves a store until it is told to end.
async fn serve<S: Store>(
    store: S,
    settings: &Settings,
    rest: Rest,
    mut reconfigure: Reconfigure<'_>,
    signals: &mut Signals,
) -> Result<Ended, Error> {
    let Rest { listeners, peers, mut watch, source, compiled, kept, metrics } = rest;
    let member = peers.as_ref().and_then(|peers| peers.name.clone()).unwrap_or_default();
    let (desk, mut pushes) = Desk::new(member);
    let has_desk = source.bundle.is_some();
    let mut apply = Apply::new(source, kept, desk.clone(), &compiled);
    let options = Options { peers, metrics, ..Options::default() };
    let pages = |runtime: &Runtime<S>| if has_desk { desk.router(runtime.clone()) } else { Router::new() };
    let serving = Serving::start_with(options, store, compiled.topology, listeners, pages).await?;
    apply.keep()?;
    if let Some(path) = &settings.ready_file {
        serving.write_ready_file(path).map_err(|source| Error::File { doing: "write", path: path.clone(), source })?;
    }
    let (http, admin) = (serving.http(), serving.admin());
    info!(%http, %admin, store = %settings.store, "requests are taken");
    loop {
        tokio::select! {
            biased;
            stop = signals.received() => return Ok(drain(&serving, settings.drain_grace, stop, signals).await),
            () = serving.runtime().store_stopped() => return Err(Error::StoreStopped),
            () = reconfigure.changed() => reconfigure.apply(),
            () = watch.changed() => apply.reload(serving.runtime()),
            Some(bundle) = pushes.recv() => apply.push(bundle, serving.runtime()),
        }
    }
}

/// Stops taking requests and lets flows end. A second Ctrl-C does not wait.
async fn drain<S: Store>(serving: &Serving<S>, grace: Duration, stop: Stop, signals: &mut Signals) -> Ended {
    info!(?stop, grace_seconds = grace.as_secs_f64(), "no more requests are taken");
    tokio::select! {
        () = serving.stop(grace) => {
            info!("drained");
            Ended::Drained
        }
        () = signals.interrupted() => {
            warn!("not waiting for flows that run; their requests can be repeated");
            Ended::AtOnce
        }
    }
}

/// An error and its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
