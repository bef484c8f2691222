//! A cluster that lives as long as its handle.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use crate::binaries::{Binaries, builder};
use crate::control::{Failpoint, Figures, Met, StoreRegions, Unanswered, ask};
use crate::go::Builder;
use crate::plan::{Plan, Tls, free_address};
use crate::processes::{Guard, Process};
use crate::slots::{self, hex};
use crate::{Error, Proxy};

/// Names PD endpoints of a cluster that somebody else runs, separated by commas.
pub const ENDPOINTS_VARIABLE: &str = "TANDEM_PD_ENDPOINTS";
/// Set, temporary directories of clusters stay.
pub const KEEP_VARIABLE: &str = "TANDEM_TIKV_KEEP";

/// How many stores there are where nobody says otherwise.
const STORES: usize = 3;
/// How long a cluster may take to start, on a machine that does other things.
const READY_MAX: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Ports are looked for before they are used; somebody else may be faster.
const ATTEMPTS: usize = 3;
/// What a process says that came too late for its port.
const PORT_TAKEN: &str = "address already in use";

/// What kind of cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many stores.
    pub stores: usize,
    /// Raw keys at which the key space is cut into regions; these go to the stores in turn.
    pub splits: Vec<Vec<u8>>,
    /// Where to keep data; a temporary directory otherwise. Data that is there already is used.
    pub directory: Option<PathBuf>,
    /// Certificates on both sides, made for this cluster.
    pub tls: bool,
    /// Clients go through proxies: see [`Cluster::pd_proxy`] and [`Cluster::store_proxy`].
    pub proxied: bool,
    /// Where to build and to find Go.
    pub builder: Builder,
}

impl Default for Options {
    fn default() -> Self {
        Self { stores: STORES, splits: Vec::new(), directory: None, tls: false, proxied: false, builder: builder() }
    }
}

impl Options {
    /// So many stores.
    #[must_use]
    pub fn stores(mut self, stores: usize) -> Self {
        self.stores = stores;
        self
    }

    /// Regions for the slots behind a prefix of keys. May be called for several prefixes.
    #[must_use]
    pub fn slots_behind(mut self, prefix: &[u8]) -> Self {
        self.splits.extend(slots::cuts(prefix, slots::SLOTS, slots::REGIONS));
        self
    }

    /// Certificates on both sides.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Proxies in front of PD and of the stores.
    #[must_use]
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }
}

/// PD and stores. Started by [`Cluster::start`], they end when this is dropped, or when this process ends in any way.
#[derive(Debug)]
pub struct Cluster(Kind);

#[derive(Debug)]
enum Kind {
    Ours(Box<Ours>),
    Outside(Vec<String>),
}

#[derive(Debug)]
struct Ours {
    // In this order, so that processes are gone before the guard removes their directory.
    pd: Mutex<Option<Process>>,
    stores: Vec<Mutex<Option<Process>>>,
    proxies: Vec<Proxy>,
    guard: Guard,
    directory: PathBuf,
    plan: Plan,
    binaries: Binaries,
}

impl Cluster {
    /// Starts PD and stores, and waits until PD knows a leader for each region. Builds them first where that was never done.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let builder = options.builder.clone();
        let built = tokio::task::spawn_blocking(move || Binaries::built_by(&builder)).await;
        let binaries = built.map_err(std::io::Error::other).map_err(Error::io("build"))??;
        let mut attempt = 1;
        loop {
            let error = match Ours::start(&options, &binaries).await {
                Ok(ours) => return Ok(Self(Kind::Ours(Box::new(ours)))),
                Err(error) => error,
            };
            let unlucky = matches!(&error, Error::Ended { tail, .. } if tail.contains(PORT_TAKEN));
            if !unlucky || attempt == ATTEMPTS || options.directory.is_some() {
                return Err(error);
            }
            attempt += 1;
        }
    }

    /// The cluster that `TANDEM_PD_ENDPOINTS` names, if it does. It is used as it is: nothing can be killed or made to fail.
    pub fn of_environment() -> Option<Self> {
        Self::of_endpoints(&std::env::var(ENDPOINTS_VARIABLE).ok()?)
    }

    fn of_endpoints(list: &str) -> Option<Self> {
        let all: Vec<String> = list.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect();
        (!all.is_empty()).then(|| Self(Kind::Outside(all)))
    }

    /// Where clients find PD.
    pub fn pd_endpoints(&self) -> Vec<String> {
        match &self.0 {
            Kind::Ours(ours) => vec![ours.plan.pd.advertise.to_string()],
            Kind::Outside(endpoints) => endpoints.clone(),
        }
    }

    /// Whether the stores are real TiKV, or at least not ours: then there are no fail points, and nobody is killed.
    pub fn is_outside(&self) -> bool {
        matches!(self.0, Kind::Outside(_))
    }

    /// How many stores were started; 0 for a cluster of somebody else.
    pub fn stores(&self) -> usize {
        match &self.0 {
            Kind::Ours(ours) => ours.stores.len(),
            Kind::Outside(_) => 0,
        }
    }

    /// The id of PD's process, while it runs. None for a cluster of somebody else.
    pub fn pd_process(&self) -> Option<u32> {
        match &self.0 {
            Kind::Ours(ours) => lock(&ours.pd).as_ref().map(Process::id),
            Kind::Outside(_) => None,
        }
    }

    /// The ids of the processes of those stores that run. None for a cluster of somebody else.
    pub fn store_processes(&self) -> Vec<u32> {
        match &self.0 {
            Kind::Ours(ours) => ours.stores.iter().filter_map(|store| lock(store).as_ref().map(Process::id)).collect(),
            Kind::Outside(_) => Vec::new(),
        }
    }

    /// What clients need for TLS.
    pub fn tls(&self) -> Option<&Tls> {
        match &self.0 {
            Kind::Ours(ours) => ours.plan.tls.as_ref(),
            Kind::Outside(_) => None,
        }
    }

    /// Where data and logs are.
    pub fn directory(&self) -> Option<&Path> {
        match &self.0 {
            Kind::Ours(ours) => Some(&ours.directory),
            Kind::Outside(_) => None,
        }
    }

    /// Kills a store with SIGKILL. Its regions are not there until it is started again.
    pub fn kill_store(&self, store: usize) -> Result<(), Error> {
        self.ours("kill a store")?.slot(store)?.take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Starts a store again, which was killed or not, with its data, and waits until it answers.
    pub async fn restart_store(&self, store: usize) -> Result<(), Error> {
        self.kill_store(store)?;
        let ours = self.ours("start a store")?;
        *ours.slot(store)? = Some(ours.spawn_store(store)?);
        ours.await_store(store).await
    }

    /// Freezes a store: connections stay open and nobody answers.
    pub fn pause_store(&self, store: usize) -> Result<(), Error> {
        signal(self.ours("pause a store")?.slot(store)?.as_ref(), "STOP")
    }

    /// Lets a frozen store go on.
    pub fn resume_store(&self, store: usize) -> Result<(), Error> {
        signal(self.ours("resume a store")?.slot(store)?.as_ref(), "CONT")
    }

    /// Kills PD with SIGKILL.
    pub fn kill_pd(&self) -> Result<(), Error> {
        lock(&self.ours("kill PD")?.pd).take().map_or(Ok(()), |mut process| process.kill())
    }

    /// Starts PD again, which was killed or not, and waits until it knows the leader of each region.
    pub async fn restart_pd(&self) -> Result<(), Error> {
        self.kill_pd()?;
        let ours = self.ours("start PD")?;
        *lock(&ours.pd) = Some(ours.spawn_pd()?);
        for store in 0..ours.stores.len() {
            // A store that is down cannot say whether PD knows it.
            if ours.slot(store)?.is_some() {
                ours.await_store(store).await?;
            }
        }
        Ok(())
    }

    /// Freezes PD.
    pub fn pause_pd(&self) -> Result<(), Error> {
        signal(lock(&self.ours("pause PD")?.pd).as_ref(), "STOP")
    }

    /// Lets a frozen PD go on.
    pub fn resume_pd(&self) -> Result<(), Error> {
        signal(lock(&self.ours("resume PD")?.pd).as_ref(), "CONT")
    }

    /// Sets a fail point at a store, in place of the one of that name and prefix. A restart of the store takes it away.
    pub async fn failpoint(&self, store: usize, failpoint: &Failpoint) -> Result<(), Error> {
        self.ask_store(store, Method::POST, "/failpoints", Some(failpoint)).await.map(drop)
    }

    /// Sets a fail point at each store.
    pub async fn failpoint_everywhere(&self, failpoint: &Failpoint) -> Result<(), Error> {
        for store in 0..self.stores() {
            self.failpoint(store, failpoint).await?;
        }
        Ok(())
    }

    /// Takes a fail point away and lets go on what it holds. Returns what it met, if it was set.
    pub async fn clear_failpoint(&self, store: usize, failpoint: &Failpoint) -> Result<Option<Met>, Error> {
        let taken: Vec<Met> = self.ask_json(store, Method::DELETE, &failpoint.query()).await?;
        Ok(taken.into_iter().next())
    }

    /// Takes a fail point away at each store. Returns at how many requests it fired.
    pub async fn clear_failpoint_everywhere(&self, failpoint: &Failpoint) -> Result<u64, Error> {
        let mut fired = 0;
        for store in 0..self.stores() {
            fired += self.clear_failpoint(store, failpoint).await?.map_or(0, |met| met.fired);
        }
        Ok(fired)
    }

    /// Takes all fail points of a store away, those of other tests, too.
    pub async fn clear_failpoints(&self, store: usize) -> Result<Vec<Met>, Error> {
        self.ask_json(store, Method::DELETE, "/failpoints").await
    }

    /// The fail points that are set at a store.
    pub async fn failpoints(&self, store: usize) -> Result<Vec<Met>, Error> {
        self.ask_json(store, Method::GET, "/failpoints").await
    }

    /// The names of all fail points there are.
    pub async fn failpoint_names(&self) -> Result<Vec<String>, Error> {
        self.ask_json(0, Method::GET, "/failpoints/names").await
    }

    /// What a store has done.
    pub async fn figures(&self, store: usize) -> Result<Figures, Error> {
        self.ask_json(store, Method::GET, "/figures").await
    }

    /// What all stores have done.
    pub async fn all_figures(&self) -> Result<Figures, Error> {
        let mut sum = Figures::default();
        for store in 0..self.stores() {
            sum = sum.plus(&self.figures(store).await?);
        }
        Ok(sum)
    }

    /// The regions of a store.
    pub async fn regions(&self, store: usize) -> Result<StoreRegions, Error> {
        self.ask_json(store, Method::GET, "/regions").await
    }

    /// Splits the region that a raw key lies in, and waits until PD knows it. Both parts stay at the store.
    pub async fn split(&self, key: &[u8]) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Split {
            key: String,
        }
        let key = hex(key);
        for store in 0..self.stores() {
            if self.regions(store).await?.inside(&key) {
                self.ask_store(store, Method::POST, "/split", Some(&Split { key })).await?;
                return self.ours("split a region")?.await_store(store).await;
            }
        }
        // Somebody has split there before.
        self.ours("split a region").map(drop)
    }

    /// The proxy between clients and PD, of a cluster with proxies. PD itself also uses it: when it is cut, PD steps down as
    /// leader after some seconds.
    pub fn pd_proxy(&self) -> Option<&Proxy> {
        self.ours("use a proxy").ok()?.proxies.first()
    }

    /// The proxy between clients and a store, of a cluster with proxies.
    pub fn store_proxy(&self, store: usize) -> Option<&Proxy> {
        self.ours("use a proxy").ok()?.proxies.get(store + 1)
    }

    fn ours(&self, wanted: &'static str) -> Result<&Ours, Error> {
        match &self.0 {
            Kind::Ours(ours) => Ok(ours),
            Kind::Outside(_) => Err(Error::NotOurs(wanted)),
        }
    }

    async fn ask_store(
        &self,
        store: usize,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Bytes, Error> {
        let ours = self.ours("use a control port")?;
        drop(ours.slot(store)?);
        let request = format!("{method} {path}");
        let answer = ask(ours.plan.stores[store].second, method, path, body).await;
        answer.map_err(|error| Error::Refused { store, request, answer: error.to_string() })
    }

    async fn ask_json<T: DeserializeOwned>(&self, store: usize, method: Method, path: &str) -> Result<T, Error> {
        let request = format!("{method} {path}");
        let answer = self.ask_store(store, method, path, None::<&()>).await?;
        let read = serde_json::from_slice(&answer);
        read.map_err(|error| Error::Refused { store, request, answer: Unanswered::from(error).to_string() })
    }
}

impl Ours {
    async fn start(options: &Options, binaries: &Binaries) -> Result<Self, Error> {
        let temporary = options.directory.is_none();
        let directory = options.directory.clone().unwrap_or_else(temporary_directory);
        let mut plan = match Plan::load(&directory)? {
            Some(plan) => plan,
            None => Plan::new(options.stores, &options.splits, options.tls.then(|| Tls::inside(&directory)))?,
        };
        let proxies = if options.proxied { put_proxies(&mut plan)? } else { Vec::new() };
        plan.prepare(&directory, binaries)?;
        plan.save(&directory)?;
        let removed = (temporary && std::env::var_os(KEEP_VARIABLE).is_none()).then_some(directory.as_path());
        let guard = Guard::start(removed).map_err(Error::io("start the shell that clears up"))?;
        let stores = plan.stores.iter().map(|_| Mutex::new(None)).collect();
        let ours = Self { pd: Mutex::new(None), stores, proxies, guard, directory, plan, binaries: binaries.clone() };
        *lock(&ours.pd) = Some(ours.spawn_pd()?);
        for store in 0..ours.stores.len() {
            *ours.slot(store)? = Some(ours.spawn_store(store)?);
        }
        for store in 0..ours.stores.len() {
            ours.await_store(store).await?;
        }
        Ok(ours)
    }

    fn slot(&self, store: usize) -> Result<MutexGuard<'_, Option<Process>>, Error> {
        let count = self.stores.len();
        self.stores.get(store).map(lock).ok_or(Error::NoSuchStore { store, count })
    }

    fn spawn_pd(&self) -> Result<Process, Error> {
        let command = self.plan.pd_command(&self.directory, &self.binaries);
        Process::spawn("PD".to_owned(), command, &self.directory.join("pd.log"), &self.guard)
    }

    fn spawn_store(&self, store: usize) -> Result<Process, Error> {
        let command = self.plan.store_command(store, &self.directory, &self.binaries);
        let log = self.directory.join(format!("store-{store}.log"));
        Process::spawn(format!("store {store}"), command, &log, &self.guard)
    }

    async fn await_store(&self, store: usize) -> Result<(), Error> {
        await_store(store, self.plan.stores[store].second, || {
            lock(&self.pd).as_mut().map_or(Ok(()), Process::check)?;
            self.slot(store)?.as_mut().map_or(Ok(()), Process::check)
        })
        .await
    }
}

/// Waits until a store answers and PD knows a leader for each of its regions; gives up early where `check` does.
pub(crate) async fn await_store(
    store: usize,
    control: SocketAddr,
    check: impl Fn() -> Result<(), Error>,
) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        let last = match ask(control, Method::GET, "/regions", None::<&()>).await {
            Ok(answer) => match serde_json::from_slice::<StoreRegions>(&answer) {
                Ok(now) if now.regions.iter().all(|region| region.known) => return Ok(()),
                Ok(_) => "PD does not know the leaders of all of its regions".to_owned(),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        check()?;
        if begun.elapsed() > READY_MAX {
            return Err(Error::NotReady { what: format!("store {store}"), waited: begun.elapsed(), last });
        }
        sleep(LOOK_EVERY).await;
    }
}

fn signal(process: Option<&Process>, name: &str) -> Result<(), Error> {
    process.map_or(Ok(()), |process| process.signal(name))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts a proxy in front of PD and of each store.
fn put_proxies(plan: &mut Plan) -> Result<Vec<Proxy>, Error> {
    let mut proxies = Vec::new();
    for address in [&mut plan.pd].into_iter().chain(&mut plan.stores) {
        // Kept over restarts of the cluster: clients and PD remember it.
        if address.advertise == address.listen {
            address.advertise = free_address()?;
        }
        proxies.push(Proxy::listen(address.advertise, address.listen)?);
    }
    Ok(proxies)
}

fn temporary_directory() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("tandem-tikv-{}-{count}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cluster_of_somebody_else_is_named_but_not_touched() {
        assert!(Cluster::of_endpoints(" , ").is_none());
        let cluster = Cluster::of_endpoints("pd-0:2379, pd-1:2379").unwrap();
        assert_eq!(cluster.pd_endpoints(), ["pd-0:2379", "pd-1:2379"]);
        assert!(cluster.is_outside());
        assert!(matches!(cluster.kill_store(0), Err(Error::NotOurs(_))));
        assert!(matches!(cluster.restart_pd().await, Err(Error::NotOurs(_))));
        assert!(matches!(cluster.figures(0).await, Err(Error::NotOurs(_))));
        assert!(matches!(cluster.split(b"t").await, Err(Error::NotOurs(_))));
    }
}
