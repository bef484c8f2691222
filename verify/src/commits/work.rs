//! What committers do: transactions that read, think and write, and what became of each of them.
//!
//! Each attempt at a transaction has a record, the primary key, that only it ever writes. So its presence says whether
//! the attempt was committed, whatever its committer was told.

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};
use tandem_model::ids::Timestamp;
use tandem_store::{Commit, CommitResult, Error, KeyRange, RangeRead, Read, Snapshot, Store};
use tandem_store_tikv::simulated::SimulatedCluster;
use tokio::time::{Duration, sleep};

use super::hosts::Hosts;
use super::plan::Plan;
use crate::history::{Element, Operation};

/// What each account has at first.
pub const BALANCE: i64 = 100;
/// The most that one transfer moves.
const AMOUNT_MAX: i64 = 30;
/// The most lists and tables that one transaction touches.
const ITEMS_MAX: usize = 4;
/// Wait before a lost commit is asked about again.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// The longest time after which an impatient caller goes.
const LEAVES_AFTER_MS_MAX: u64 = 60;

/// How an attempt ended, for its committer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It is committed, at this time.
    Committed(Timestamp),
    /// Nothing was applied, and never will be.
    Rejected(String),
    /// It was undetermined. Then its record was found, or not.
    Decided(bool),
    /// The committer does not know: it died, or its caller had gone.
    Unknown,
}

/// An attempt at a transaction.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Names it.
    pub id: Element,
    /// Whoever does one thing after the other.
    pub committer: u32,
    /// When it began and ended, on a clock that counts.
    pub invoked: u64,
    /// See [`Attempt::invoked`].
    pub completed: u64,
    /// How it ended.
    pub ended: Ended,
    /// Its record; none if it writes nothing.
    pub record: Option<Bytes>,
    /// What it saw of lists, and appends to them.
    pub operations: Vec<Operation>,
    /// What it moves between accounts.
    pub moves: Vec<(usize, i64)>,
}

/// What all committers share.
#[derive(Debug)]
pub struct Board<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The processes.
    pub hosts: Hosts,
    /// The cluster, for the trace.
    pub cluster: SimulatedCluster,
    /// All attempts that have ended.
    pub attempts: RefCell<Vec<Attempt>>,
    /// What was seen that must not be.
    pub problems: RefCell<Vec<String>>,
    clock: Cell<u64>,
    names: Cell<Element>,
}

impl<'a> Board<'a> {
    /// Nothing has happened yet.
    pub fn new(plan: &'a Plan, cluster: &SimulatedCluster) -> Self {
        Self {
            plan,
            hosts: Hosts::new(cluster, plan),
            cluster: cluster.clone(),
            attempts: RefCell::default(),
            problems: RefCell::default(),
            clock: Cell::new(0),
            names: Cell::new(0),
        }
    }

    /// The next moment.
    pub fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }

    /// Something that must not be was seen.
    pub fn problem(&self, problem: String) {
        self.cluster.note(&problem);
        self.problems.borrow_mut().push(problem);
    }

    fn name(&self) -> Element {
        self.names.set(self.names.get() + 1);
        self.names.get()
    }

    fn done(&self, attempt: Attempt) {
        self.cluster.note(&format!("attempt {} of {}: {:?}", attempt.id, attempt.committer, attempt.ended));
        self.attempts.borrow_mut().push(attempt);
    }
}

/// A transaction that is being made.
#[derive(Debug)]
pub struct Draft<'a, S: Store> {
    store: &'a S,
    view: S::Snapshot,
    commit: Commit,
    attempt: Attempt,
}

impl<'a, S: Store> Draft<'a, S> {
    async fn begin(store: &'a S, attempt: Attempt) -> Result<Self, (Attempt, Error)> {
        match store.snapshot().await {
            Ok(view) => Ok(Self { store, view, commit: Commit::default(), attempt }),
            Err(error) => Err((attempt, error)),
        }
    }

    /// Reads from now on what is true now.
    async fn look_anew(&mut self) -> Result<(), Error> {
        self.view = self.store.snapshot().await?;
        Ok(())
    }

    async fn get(&mut self, key: Bytes) -> Result<Option<Bytes>, Error> {
        let value = self.view.get(&key).await?;
        self.commit.reads.push(Read { key, seen_at: self.view.timestamp(), value: value.clone() });
        Ok(value)
    }

    async fn rows(&mut self, range: KeyRange) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let rows = self.view.scan(&range, usize::MAX, false).await?;
        self.commit.ranges.push(RangeRead { range, seen_at: self.view.timestamp() });
        Ok(rows)
    }

    fn put(&mut self, key: Bytes, value: impl Into<Bytes>) {
        self.commit.writes.push((key, Some(value.into())));
    }

    /// Reads the record, which must not be there, and writes it.
    async fn record(&mut self, home: char) -> Result<(), Error> {
        let key = Bytes::from(format!("{home}~q{:06}", self.attempt.id));
        if self.get(key.clone()).await?.is_some() {
            return Err(Error::Damaged(format!("the record of attempt {} is there before", self.attempt.id)));
        }
        self.put(key.clone(), self.attempt.id.to_string());
        self.attempt.record = Some(key.clone());
        self.commit.primary = key;
        Ok(())
    }

    async fn read_list(&mut self, list: usize) -> Result<Vec<Element>, Error> {
        let value = self.get(list_key(list)).await?;
        let elements = elements_of(value.as_ref());
        self.attempt.operations.push(Operation::Read { key: format!("l{list}"), elements: elements.clone() });
        Ok(elements)
    }

    async fn append_list(&mut self, list: usize) -> Result<(), Error> {
        let mut elements = self.read_list(list).await?;
        elements.push(self.attempt.id);
        self.put(list_key(list), value_of(&elements));
        self.attempt.operations.push(Operation::Append { key: format!("l{list}"), element: self.attempt.id });
        Ok(())
    }

    async fn read_table(&mut self, table: usize) -> Result<usize, Error> {
        let rows = self.rows(KeyRange::prefix(format!("t/{table}/").as_bytes())).await?;
        let elements: Vec<Element> = rows.iter().flat_map(|(_, value)| elements_of(Some(value))).collect();
        self.attempt.operations.push(Operation::Read { key: format!("t{table}"), elements });
        Ok(rows.len())
    }

    async fn append_table(&mut self, table: usize) -> Result<(), Error> {
        let count = self.read_table(table).await?;
        let (id, key) = (self.attempt.id, format!("t/{table}/{count:04}/{}", self.attempt.id));
        self.put(key.into(), value_of(&[id]));
        self.attempt.operations.push(Operation::Append { key: format!("t{table}"), element: id });
        Ok(())
    }
}

/// The key of a list.
pub fn list_key(list: usize) -> Bytes {
    format!("l/{list}").into()
}

/// The key of an account.
pub fn account_key(account: usize) -> Bytes {
    format!("a/{account}").into()
}

/// The key of one of a pair.
pub fn pair_key(pair: usize, side: usize) -> Bytes {
    format!("p/{pair}/{side}").into()
}

/// What is in a list.
pub fn elements_of(value: Option<&Bytes>) -> Vec<Element> {
    let text = value.map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default();
    text.split(',').filter_map(|element| element.parse().ok()).collect()
}

fn value_of(elements: &[Element]) -> String {
    elements.iter().map(Element::to_string).collect::<Vec<_>>().join(",")
}

/// What an account has.
pub fn balance_of(value: Option<&Bytes>) -> Option<i64> {
    value.map_or(Some(BALANCE), |value| String::from_utf8_lossy(value).parse().ok())
}

/// What a transaction does.
#[derive(Clone, Debug)]
enum Task {
    Transfer { from: usize, to: usize, amount: i64, also_reads: Option<usize> },
    Lists { items: Vec<(Item, bool)>, anew: bool, judged: bool },
    Pair { pair: usize, side: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    List(usize),
    Table(usize),
}

fn task(plan: &Plan, random: &mut SmallRng) -> Task {
    match random.random_range(0..10) {
        0..3 if plan.accounts > 1 => {
            let from = random.random_range(0..plan.accounts);
            let to = (from + random.random_range(1..plan.accounts)) % plan.accounts;
            let also_reads = random.random_bool(0.5).then(|| random.random_range(0..plan.lists));
            Task::Transfer { from, to, amount: random.random_range(1..=AMOUNT_MAX), also_reads }
        }
        3 => Task::Pair { pair: random.random_range(0..plan.pairs), side: random.random_range(0..2) },
        _ => {
            let all = (0..plan.lists).map(Item::List).chain((0..plan.tables).map(Item::Table));
            let many = random.random_range(1..=ITEMS_MAX);
            let mut items: Vec<_> = all.choose_multiple(random, many);
            items.sort();
            let looks = random.random_bool(0.25);
            let items = items.into_iter().map(|item| (item, !looks && random.random_bool(0.5))).collect();
            Task::Lists { items, anew: random.random_bool(0.15), judged: random.random() }
        }
    }
}

/// One who does one transaction after the other.
pub async fn committer(board: &Board<'_>, place: usize, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut number = u32::try_from(board.name()).unwrap_or(u32::MAX);
    for _ in 0..board.plan.transactions {
        sleep(Duration::from_millis(random.random_range(0..=board.plan.think_ms_max))).await;
        let task = task(board.plan, &mut random);
        if transact(board, place, number, &task, &mut random).await == Ended::Unknown {
            // Whoever was told nothing must not go on under the same name.
            number = u32::try_from(board.name()).unwrap_or(u32::MAX);
        }
    }
}

async fn transact(board: &Board<'_>, place: usize, committer: u32, task: &Task, random: &mut SmallRng) -> Ended {
    let host = board.hosts.at(place);
    let (id, invoked) = (board.name(), board.tick());
    let (record, operations, moves) = (None, Vec::new(), Vec::new());
    let attempt = Attempt { id, committer, invoked, completed: 0, ended: Ended::Unknown, record, operations, moves };
    let leaves = random.random_ratio(board.plan.leaving_percent, 100);
    let leaves_after = Duration::from_millis(random.random_range(0..=LEAVES_AFTER_MS_MAX));
    let think_ms = random.random_range(0..=board.plan.think_ms_max);
    let unsent = RefCell::new(Some(attempt.clone()));
    let left = async {
        sleep(leaves_after).await;
        if !leaves {
            std::future::pending::<()>().await;
        }
    };
    let mut done = tokio::select! {
        biased;
        () = host.died() => unknown(board, &unsent),
        () = left => unknown(board, &unsent),
        done = attempt_at(board, &host.store, attempt, (task, think_ms), &unsent) => done,
    };
    done.completed = board.tick();
    let ended = done.ended.clone();
    board.done(done);
    ended
}

/// What is known of an attempt whose committer is gone: what it would have written, if it came so far.
fn unknown(board: &Board<'_>, unsent: &RefCell<Option<Attempt>>) -> Attempt {
    board.cluster.note("a committer is gone");
    let attempt = unsent.borrow_mut().take();
    attempt.unwrap_or_else(|| unreachable!("it is put there before and taken only here"))
}

async fn attempt_at<S: Store>(
    board: &Board<'_>,
    store: &S,
    attempt: Attempt,
    (task, think_ms): (&Task, u64),
    unsent: &RefCell<Option<Attempt>>,
) -> Attempt {
    let mut draft = match Draft::begin(store, attempt).await {
        Ok(draft) => draft,
        Err((attempt, error)) => return Attempt { ended: Ended::Rejected(error.to_string()), ..attempt },
    };
    let prepared = prepare(&mut draft, task).await;
    sleep(Duration::from_millis(think_ms)).await;
    let Draft { commit, mut attempt, .. } = draft;
    match prepared {
        Err(error @ (Error::Damaged(_) | Error::Stopped(_))) => {
            board.problem(format!("attempt {}: {error}", attempt.id));
            return Attempt { ended: Ended::Rejected(error.to_string()), ..attempt };
        }
        Err(error) => return Attempt { ended: Ended::Rejected(error.to_string()), ..attempt },
        Ok(Next::Nothing(at)) => return Attempt { ended: Ended::Committed(at), record: None, ..attempt },
        Ok(Next::Commit) => {}
    }
    *unsent.borrow_mut() = Some(attempt.clone());
    attempt.ended = match store.commit(commit).await {
        Ok(CommitResult::Committed(at)) => Ended::Committed(at),
        Ok(CommitResult::Conflict(keys)) => {
            if keys.is_empty() {
                board.problem(format!("attempt {}: a conflict about nothing", attempt.id));
            }
            Ended::Rejected(format!("conflict: {keys:?}"))
        }
        Ok(CommitResult::Undetermined(why)) => {
            if why.contains("the commit has failed") {
                board.problem(format!("attempt {}: {why}", attempt.id));
            }
            board.cluster.note(&format!("attempt {} is undetermined: {why}", attempt.id));
            Ended::Decided(is_there(store, attempt.record.as_ref()).await)
        }
        Err(error) => Ended::Rejected(error.to_string()),
    };
    attempt
}

/// Reads a record until there is an answer.
pub async fn is_there<S: Store>(store: &S, record: Option<&Bytes>) -> bool {
    let Some(record) = record else { return false };
    loop {
        if let Ok(view) = store.snapshot().await
            && let Ok(value) = view.get(record).await
        {
            return value.is_some();
        }
        sleep(ASK_AGAIN).await;
    }
}

/// What comes after the reads.
enum Next {
    Commit,
    /// It was all read at one time.
    Nothing(Timestamp),
}

async fn prepare<S: Store>(draft: &mut Draft<'_, S>, task: &Task) -> Result<Next, Error> {
    match task {
        Task::Transfer { from, to, amount, also_reads } => {
            draft.record('a').await?;
            transfer(draft, (*from, *to), *amount, *also_reads).await?;
        }
        Task::Lists { items, anew, judged } => {
            let writes = items.iter().any(|(_, appends)| *appends);
            if writes {
                let home = if matches!(items[0].0, Item::List(_)) { 'l' } else { 't' };
                draft.record(home).await?;
            }
            lists(draft, items, *anew && (writes || *judged)).await?;
            if !writes && !judged {
                return Ok(Next::Nothing(draft.view.timestamp()));
            }
        }
        Task::Pair { pair, side } => {
            draft.record('p').await?;
            let mine = draft.get(pair_key(*pair, *side)).await?.is_some();
            let other = draft.get(pair_key(*pair, 1 - *side)).await?.is_some();
            if mine {
                draft.commit.writes.push((pair_key(*pair, *side), None));
            } else if !other {
                draft.put(pair_key(*pair, *side), "taken");
            }
        }
    }
    Ok(Next::Commit)
}

async fn transfer<S: Store>(
    draft: &mut Draft<'_, S>,
    (from, to): (usize, usize),
    amount: i64,
    also_reads: Option<usize>,
) -> Result<(), Error> {
    let damaged = || Error::Damaged("an account has no balance".to_owned());
    let has = balance_of(draft.get(account_key(from)).await?.as_ref()).ok_or_else(damaged)?;
    let other = balance_of(draft.get(account_key(to)).await?.as_ref()).ok_or_else(damaged)?;
    if let Some(list) = also_reads {
        draft.read_list(list).await?;
    }
    let amount = amount.min(has);
    draft.put(account_key(from), (has - amount).to_string());
    draft.put(account_key(to), (other + amount).to_string());
    draft.attempt.moves = vec![(from, -amount), (to, amount)];
    Ok(())
}

async fn lists<S: Store>(draft: &mut Draft<'_, S>, items: &[(Item, bool)], anew: bool) -> Result<(), Error> {
    for (place, (item, appends)) in items.iter().enumerate() {
        if anew && place == 1 {
            draft.look_anew().await?;
        }
        match (*item, *appends) {
            (Item::List(list), false) => drop(draft.read_list(list).await?),
            (Item::List(list), true) => draft.append_list(list).await?,
            (Item::Table(table), false) => drop(draft.read_table(table).await?),
            (Item::Table(table), true) => draft.append_table(table).await?,
        }
    }
    Ok(())
}
