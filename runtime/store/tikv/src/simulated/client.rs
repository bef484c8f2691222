//! What one process knows of the cluster, and how its requests find the stores: routing, retries of reads, pages.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tandem_model::ids::Timestamp;
use tandem_store::KeyRange;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::regions::Known;
use super::world::{Dies, Fate, Hears, World};
use super::{Call, Life, Node, SimulatedCluster};
use crate::cluster::{
    CheckTransaction, Cluster, CommitAnswer, CommitKeys, Failure, Prewrite, PrewriteAnswer, ReadFailure, Region,
    RollbackAnswer, RollbackKeys, TransactionStatus,
};

/// How often a read asks before it gives up.
const READ_ATTEMPTS_MAX: u32 = 12;
/// How long a read waits for one answer.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// The first wait before a read asks again; it doubles.
const READ_BACKOFF: Duration = Duration::from_millis(2);
/// After so many attempts the wait no longer grows.
const READ_BACKOFF_DOUBLINGS_MAX: u32 = 8;
/// Rows of one page of a scan.
const PAGE_ROWS: usize = 16;

/// The cluster as one process sees it. Clones are the same process.
#[derive(Clone, Debug)]
pub struct SimulatedClient {
    cluster: SimulatedCluster,
    process: usize,
    /// Regions by their first key, as far as is known here; perhaps stale.
    known: Arc<Mutex<BTreeMap<Bytes, Known>>>,
}

/// What one request of a read to one region gives.
type ReadAnswer<T> = Result<T, ReadFailure>;

impl SimulatedClient {
    pub(super) fn new(cluster: SimulatedCluster, process: usize) -> Self {
        Self { cluster, process, known: Arc::default() }
    }

    /// The number of the process.
    pub fn process(&self) -> usize {
        self.process
    }

    /// The cluster.
    pub fn cluster(&self) -> &SimulatedCluster {
        &self.cluster
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Bytes, Known>> {
        // No code panics while it holds the lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, region: Known) {
        let mut known = self.known();
        known.retain(|_, old| {
            let is_before = old.end.as_ref().is_some_and(|end| *end <= region.start);
            is_before || region.end.as_ref().is_some_and(|end| *end <= old.start)
        });
        known.insert(region.start.clone(), region);
    }

    fn forget(&self, region: &Known) {
        self.known().retain(|_, old| old.region.id != region.region.id);
    }

    /// One request and its answer. The request lives on when its caller has gone.
    async fn send<T: Send + 'static>(
        &self,
        node: Node,
        call: Call,
        effect: impl FnOnce(&mut World) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        self.cluster.until(self.process, Life::Alive).await;
        let fate = self.cluster.lock().fate(self.process, node, call);
        if fate.dies == Some(Dies::Before) {
            self.cluster.set_life(self.process, Life::Dead);
            return std::future::pending().await;
        }
        let (answer, answered) = oneshot::channel();
        self.cluster.lock().in_flight += 1;
        tokio::spawn(deliver(self.cluster.clone(), fate, effect, answer));
        let heard = hear(fate.hears, answered).await;
        if fate.dies == Some(Dies::After) {
            self.cluster.set_life(self.process, Life::Dead);
        }
        self.cluster.until(self.process, Life::Alive).await;
        heard
    }

    /// One request to the store that leads a region, as far as is known.
    async fn at<T: Send + 'static>(
        &self,
        known: Known,
        (call, keys): (Call, Vec<Bytes>),
        ahead: bool,
        effect: impl FnOnce(&mut World) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (there, process) = (known.clone(), self.process);
        let serve = move |world: &mut World| {
            world.admit(&there, &keys, call, ahead)?;
            let answer = effect(world);
            let at_ms = world.now_ms();
            world.trace.note(at_ms, format_args!("process {process} {call:?} {keys:?}"));
            Ok(answer)
        };
        let answer = self.send(Node::Store(known.leader), call, serve).await;
        if answer.is_err() {
            self.forget(&known);
        }
        answer
    }

    fn region(&self, region: Region) -> Result<Known, Failure> {
        let known = self.known();
        let found = known.values().find(|known| known.region == region).cloned();
        found.ok_or_else(|| Failure::Region("the region is not known any more".to_owned()))
    }

    async fn find(&self, key: &Bytes) -> Result<Known, Failure> {
        let found = self.known().range(..=key.clone()).next_back().map(|(_, known)| known.clone());
        if let Some(known) = found.filter(|known| known.contains(key)) {
            return Ok(known);
        }
        let key = key.clone();
        let known = self.ask_oracle(Call::Region, move |world| world.regions.of(&key)).await?;
        self.learn(known.clone());
        Ok(known)
    }

    async fn find_below(&self, end: Option<&Bytes>) -> Result<Known, Failure> {
        let found = self.known().values().find(|known| known.reaches(end)).cloned();
        if let Some(known) = found {
            return Ok(known);
        }
        let end = end.cloned();
        let known = self.ask_oracle(Call::Region, move |world| world.regions.below(end.as_ref())).await?;
        self.learn(known.clone());
        Ok(known)
    }

    async fn ask_oracle<T: Send + std::fmt::Debug + 'static>(
        &self,
        call: Call,
        answer: impl FnOnce(&mut World) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let process = self.process;
        let serve = move |world: &mut World| {
            world.admit_oracle()?;
            let answer = answer(world);
            let at_ms = world.now_ms();
            world.trace.note(at_ms, format_args!("process {process} {call:?}: {answer:?}"));
            Ok(answer)
        };
        self.send(Node::Oracle, call, serve).await
    }

    /// The values of keys of one region, and which of the keys those are.
    async fn get_some(
        &self,
        at: Timestamp,
        keys: &[Bytes],
    ) -> Result<(usize, ReadAnswer<Vec<Option<Bytes>>>), Failure> {
        let Some(first) = keys.first() else { return Ok((0, Ok(Vec::new()))) };
        let known = self.find(first).await?;
        let many = keys.iter().take_while(|key| known.contains(key)).count();
        let (asked, store, process) = (keys[..many].to_vec(), known.leader, self.process);
        let read = asked.clone();
        let values = self
            .at(known, (Call::Get, asked), false, move |world| {
                world.regions.was_read(store, at);
                let values = world.rows.get(at, &read);
                let at_ms = world.now_ms();
                world.trace.note(at_ms, format_args!("process {process} at {at}: {values:?}"));
                values
            })
            .await?;
        Ok((many, values))
    }

    /// One page of a scan: its rows, and what is left of the range.
    async fn scan_some(
        &self,
        at: Timestamp,
        range: &KeyRange,
        rows_max: usize,
        reverse: bool,
    ) -> Result<ReadAnswer<Page>, Failure> {
        let known = if reverse { self.find_below(range.end.as_ref()).await? } else { self.find(&range.start).await? };
        let here = KeyRange {
            start: range.start.clone().max(known.start.clone()),
            end: match (&range.end, &known.end) {
                (Some(end), Some(border)) => Some(end.min(border).clone()),
                (end, border) => end.clone().or_else(|| border.clone()),
            },
        };
        let (store, process, asked, border) = (known.leader, self.process, here.clone(), known.clone());
        let rows_max = rows_max.min(PAGE_ROWS);
        let key = if here.is_empty() { known.start.clone() } else { here.start.clone() };
        let rows = self
            .at(known, (Call::Scan, vec![key]), false, move |world| {
                world.regions.was_read(store, at);
                let rows = world.rows.scan(at, &asked, rows_max, reverse);
                let at_ms = world.now_ms();
                world.trace.note(at_ms, format_args!("process {process} scans {asked:?} at {at}: {rows:?}"));
                rows
            })
            .await?;
        Ok(rows.map(|rows| {
            let left = left_of(range, &border, (rows.len() >= rows_max).then(|| rows.last()).flatten(), reverse);
            Page { rows, left }
        }))
    }

    /// Asks until there is an answer, or it has been asked too often.
    async fn persist<T, F: Future<Output = Result<ReadAnswer<T>, Failure>>>(
        &self,
        ask: impl Fn() -> F,
    ) -> Result<T, ReadFailure> {
        let mut why = String::new();
        for attempt in 0..READ_ATTEMPTS_MAX {
            if attempt > 0 {
                sleep(READ_BACKOFF * (1 << attempt.min(READ_BACKOFF_DOUBLINGS_MAX))).await;
            }
            match timeout(READ_TIMEOUT, ask()).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(Failure::Refused(why))) => return Err(ReadFailure::Refused(why)),
                Ok(Err(failure)) => why = failure.to_string(),
                Err(_) => {
                    why = format!("no answer in {READ_TIMEOUT:?}");
                    self.known().clear();
                }
            }
        }
        Err(ReadFailure::Unreachable(why))
    }
}

/// Rows of a scan, and the range that is still to be read.
struct Page {
    rows: Vec<(Bytes, Bytes)>,
    left: Option<KeyRange>,
}

/// What is left of a range after a page that ended with `last`, or else at the border of its region.
fn left_of(range: &KeyRange, region: &Known, last: Option<&(Bytes, Bytes)>, reverse: bool) -> Option<KeyRange> {
    let left = match (last, reverse) {
        (Some((last, _)), true) => KeyRange { start: range.start.clone(), end: Some(last.clone()) },
        (Some((last, _)), false) => {
            let next: Bytes = last.iter().copied().chain(std::iter::once(0)).collect();
            KeyRange { start: next, end: range.end.clone() }
        }
        (None, true) => KeyRange { start: range.start.clone(), end: Some(region.start.clone()) },
        (None, false) => KeyRange { start: region.end.clone()?, end: range.end.clone() },
    };
    (!left.is_empty()).then_some(left)
}

/// Brings a request to its node, and the answer back.
async fn deliver<T: Send>(
    cluster: SimulatedCluster,
    fate: Fate,
    effect: impl FnOnce(&mut World) -> Result<T, Failure> + Send,
    answer: oneshot::Sender<Result<T, Failure>>,
) {
    pass(fate.way_ms).await;
    let result = {
        let mut world = cluster.lock();
        world.in_flight -= 1;
        if fate.lost {
            return;
        }
        if answer.is_closed() {
            world.trace.count("arrived-after-the-caller-had-left");
        }
        effect(&mut world)
    };
    pass(fate.back_ms).await;
    // Whoever asked may have gone.
    let _ = answer.send(result);
}

async fn pass(way_ms: u64) {
    if way_ms == 0 {
        tokio::task::yield_now().await;
    } else {
        sleep(Duration::from_millis(way_ms)).await;
    }
}

async fn hear<T>(hears: Hears, answered: oneshot::Receiver<Result<T, Failure>>) -> Result<T, Failure> {
    match hears {
        Hears::Answer => {
            let lost = |_| Err(Failure::Lost("the connection broke".to_owned()));
            answered.await.unwrap_or_else(lost)
        }
        Hears::Lost(after_ms) => {
            pass(after_ms).await;
            Err(Failure::Lost("the connection broke".to_owned()))
        }
        Hears::Nothing => std::future::pending().await,
    }
}

impl Cluster for SimulatedClient {
    async fn timestamp(&self) -> Result<Timestamp, Failure> {
        self.ask_oracle(Call::Timestamp, World::timestamp).await
    }

    async fn region_of(&self, key: &Bytes) -> Result<Region, Failure> {
        self.find(key).await.map(|known| known.region)
    }

    async fn prewrite(&self, region: Region, request: Prewrite) -> Result<PrewriteAnswer, Failure> {
        let known = self.region(region)?;
        let (store, process) = (known.leader, self.process);
        let keys = request.mutations.iter().map(|(key, _)| key.clone()).collect();
        let ahead = request.one_phase.is_some();
        let prewrite = move |world: &mut World| {
            let refused = world.faults.one_phase_refused;
            let may_be_one = !(ahead && world.chance(refused));
            let read_until = world.regions.read_until(store);
            let answer = world.rows.prewrite(&request, read_until, may_be_one);
            if answer == PrewriteAnswer::OnePhaseRefused {
                world.trace.count("one-phase-refused");
            }
            let (at_ms, start) = (world.now_ms(), request.start);
            world.trace.note(at_ms, format_args!("process {process} prewrites {start}: {answer:?}"));
            answer
        };
        self.at(known, (Call::Prewrite, keys), ahead, prewrite).await
    }

    async fn commit(&self, region: Region, request: CommitKeys) -> Result<CommitAnswer, Failure> {
        let known = self.region(region)?;
        let (keys, process) = (request.keys.clone(), self.process);
        let commit = move |world: &mut World| {
            let pushed = world.faults.commit_pushed;
            if std::mem::take(&mut world.pushes_next) || world.chance(pushed) {
                let latest = world.latest();
                let pushed = world.rows.push(request.start, &request.keys, latest);
                world.trace.count_many("commit-pushed", pushed as u64);
            }
            let answer = world.rows.commit(&request);
            let (at_ms, start, at) = (world.now_ms(), request.start, request.at);
            world.trace.note(at_ms, format_args!("process {process} commits {start} at {at}: {answer:?}"));
            answer
        };
        self.at(known, (Call::Commit, keys), false, commit).await
    }

    async fn rollback(&self, region: Region, request: RollbackKeys) -> Result<RollbackAnswer, Failure> {
        let known = self.region(region)?;
        let (keys, process) = (request.keys.clone(), self.process);
        let roll_back = move |world: &mut World| {
            let answer = world.rows.rollback(&request);
            let (at_ms, start) = (world.now_ms(), request.start);
            world.trace.note(at_ms, format_args!("process {process} rolls back {start}: {answer:?}"));
            answer
        };
        self.at(known, (Call::Rollback, keys), false, roll_back).await
    }

    async fn check_transaction(&self, region: Region, request: CheckTransaction) -> Result<TransactionStatus, Failure> {
        let known = self.region(region)?;
        let (keys, process) = (vec![request.primary.clone()], self.process);
        let check = move |world: &mut World| {
            let status = world.rows.check(&request);
            let at_ms = world.now_ms();
            world.trace.note(at_ms, format_args!("process {process} asks {request:?}: {status:?}"));
            status
        };
        self.at(known, (Call::Check, keys), false, check).await
    }

    async fn batch_get(&self, at: Timestamp, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, ReadFailure> {
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by_key(|index| &keys[*index]);
        let sorted: Vec<Bytes> = order.iter().map(|index| keys[*index].clone()).collect();
        let (mut values, mut done) = (vec![None; keys.len()], 0);
        while done < sorted.len() {
            let ask = || async {
                let (many, values) = self.get_some(at, &sorted[done..]).await?;
                Ok(values.map(|values| (many, values)))
            };
            let (many, found) = self.persist(ask).await?;
            for (index, value) in order[done..done + many].iter().zip(found) {
                values[*index] = value;
            }
            done += many;
        }
        Ok(values)
    }

    async fn scan(
        &self,
        at: Timestamp,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<(Bytes, Bytes)>, ReadFailure> {
        let mut rows: Vec<(Bytes, Bytes)> = Vec::new();
        let mut left = (!range.is_empty()).then(|| range.clone());
        while let Some(range) = left.take_if(|_| rows.len() < limit) {
            let rows_max = limit - rows.len();
            let page = self.persist(|| self.scan_some(at, &range, rows_max, reverse)).await?;
            rows.extend(page.rows);
            left = page.left;
        }
        Ok(rows)
    }

    async fn safe_point(&self) -> Result<Timestamp, Failure> {
        self.ask_oracle(Call::SafePoint, |world| world.safe_point).await
    }
}
