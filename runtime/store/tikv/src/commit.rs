//! The commit: prewrite, validate at the commit timestamp, commit.
//!
//! ```text
//! start ─▶ prewrite all ─▶ v from PD ─▶ read again at v ─▶ commit the primary at v ─▶ answer ─▶ the others
//!     └──▶ one phase: all in one region, and nothing was only read
//! ```
//!
//! **What is known at each moment.** Only this code ever sends the commit of its primary, and only after everything else
//! has succeeded. So:
//!
//! - until then, whatever happens to a prewrite of two phases, the transaction is not committed, and never will be once
//!   this code has given up: a prewrite that arrives late leaves a lock, and locks die;
//! - once the commit of the primary was sent and its answer is lost, the primary's lock was there. Either it is asked
//!   for and rolled back by force if it is still there, which decides; or nobody can be reached, and the answer is
//!   [`CommitResult::Undetermined`]. Whoever reads the primary afterwards meets the committed value, or the lock, which
//!   he waits for and then rolls back. After that no late commit can succeed;
//! - a prewrite in one phase is a commit. If its answer is lost, a question for the fate of the transaction leaves a
//!   record at the primary by which the prewrite is refused if it has not arrived yet. If that cannot be asked either,
//!   the prewrite may arrive after somebody has read that the primary is absent. It carries a limit, the greatest
//!   timestamp at which it may commit, and a store commits in one phase only above every timestamp that the region was
//!   read at. So after a read above the limit it can only become locks, and locks die. [`crate::store`] therefore gives
//!   out no snapshot at or below the limit of a transaction that was answered as undetermined.
//!
//! **Invariant:** an error other than `Undetermined` is only answered if the transaction cannot commit any more.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tandem_model::ids::Timestamp;
use tandem_model::mechanism::{Mechanism, works};
use tandem_store::{Commit, CommitResult, Error};
use tokio::sync::{Semaphore, watch};

use crate::claims::Claims;
use crate::cluster::{CheckTransaction, Cluster, Failure, FoundLock, ReadFailure, TransactionStatus};
use crate::finish::{self, Primary};
use crate::pending::Pending;
use crate::plan::{Plan, Unplanned};
use crate::prewrite::{self, Prewritten, Transaction};
use crate::resolve;
use crate::retry::{Deadline, Timeouts};
use crate::stats::Stats;
use crate::validate::{Invalid, Validator};

/// A transaction in one phase is not larger: it is one entry in a log.
const ONE_PHASE_BYTES_MAX: usize = crate::batches::BYTES_MAX;
/// How long to find out about a lost answer, after the time of the commit itself.
const DECIDE_TIME: Duration = Duration::from_secs(5);
/// Commits that begin again because of keys that they did not read take turns, so that somebody gets through.
const TURNS: usize = 64;

/// Everything that commits of one store share.
#[derive(Debug)]
pub(crate) struct Committer<C> {
    pub(crate) cluster: C,
    pub(crate) claims: Claims,
    pub(crate) pending: Arc<Pending>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) timeouts: Timeouts,
    /// No snapshot may be taken at or below it.
    pub(crate) floor: AtomicU64,
    /// Whoever works for this store in the background ends with it.
    pub(crate) alive: watch::Sender<()>,
    turns: Vec<Semaphore>,
}

/// How one attempt ended.
enum Attempt {
    /// With an answer.
    Done(CommitResult),
    /// Nothing was applied, and nothing that was read is known to have changed: it may begin again. These keys were in
    /// the way, if it was keys.
    Again(Vec<Bytes>),
}

impl<C: Cluster> Committer<C> {
    pub(crate) fn new(cluster: C, stats: Arc<Stats>, timeouts: Timeouts) -> Self {
        let turns = (0..TURNS).map(|_| Semaphore::new(1)).collect();
        let (claims, pending) = (Claims::default(), Arc::new(Pending::default()));
        let (floor, alive) = (AtomicU64::new(0), watch::Sender::new(()));
        Self { cluster, claims, pending, stats, timeouts, floor, alive, turns }
    }

    /// Commits, in a task of its own: what was begun is ended in good order, whether or not anybody still waits.
    pub(crate) async fn commit(self: Arc<Self>, commit: Commit) -> Result<CommitResult, Error> {
        let plan = match Plan::new(commit) {
            Ok(plan) => plan,
            Err(Unplanned::Contradiction(keys)) => return Ok(self.conflict(keys)),
            Err(Unplanned::Invalid(error)) => return Err(error),
        };
        let task = tokio::spawn(async move {
            if plan.writes.is_empty() { self.read_only(&plan).await } else { self.attempts(plan).await }
        });
        task.await.unwrap_or_else(|error| Ok(CommitResult::Undetermined(format!("the commit has failed: {error}"))))
    }

    /// Judges what was read, at a timestamp of now.
    async fn read_only(&self, plan: &Plan) -> Result<CommitResult, Error> {
        let deadline = Deadline::of(self.timeouts);
        let at = self.timestamp(deadline).await?;
        let validator = Validator { cluster: &self.cluster, pending: &self.pending, start: at, deadline };
        let valid = async {
            let seen = validator.seen(plan).await?;
            validator.everything_at(plan, &seen, at).await
        };
        match valid.await {
            Ok(()) => {
                self.stats.commits_read_only.add_one();
                Ok(CommitResult::Committed(at))
            }
            Err(Invalid::Changed(keys)) => Ok(self.conflict(keys)),
            Err(Invalid::Failed(failure)) => Err(read_failed(failure)),
        }
    }

    async fn attempts(self: Arc<Self>, plan: Plan) -> Result<CommitResult, Error> {
        let deadline = Deadline::of(self.timeouts);
        let plan = Arc::new(plan);
        let mut in_the_way = Vec::new();
        let mut claim = self.claims.take_first(&plan.seen_at());
        let mut turn = None;
        while !deadline.is_over() {
            match self.attempt(&plan, claim.take(), deadline).await? {
                Attempt::Done(result) => return Ok(result),
                Attempt::Again(keys) => in_the_way = keys,
            }
            self.stats.restarts.add_one();
            if turn.is_none() {
                let key = in_the_way.first().unwrap_or(&plan.primary);
                turn = self.turn(key).acquire().await.ok();
            }
        }
        if in_the_way.is_empty() {
            in_the_way.push(plan.primary.clone());
        }
        Ok(self.conflict(in_the_way))
    }

    fn turn(&self, key: &Bytes) -> &Semaphore {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
        let place = usize::try_from(hash % TURNS as u64).unwrap_or(0);
        &self.turns[place]
    }

    /// One transaction: all that has one start timestamp.
    async fn attempt(
        self: &Arc<Self>,
        plan: &Arc<Plan>,
        claim: Option<(Timestamp, Duration)>,
        deadline: Deadline,
    ) -> Result<Attempt, Error> {
        self.pending.wait_for_keys(plan.writes.iter().map(|(key, _)| key)).await;
        let (start, age) = if let Some(claim) = claim {
            self.stats.starts_claimed.add_one();
            claim
        } else {
            self.stats.starts_fresh.add_one();
            (self.timestamp(deadline).await?, Duration::ZERO)
        };
        let transaction = Transaction { plan, start, age };
        let validator = Validator { cluster: &self.cluster, pending: &self.pending, start, deadline };
        if let Err(invalid) = validator.guarded_at_start(plan).await {
            // Nothing has been sent yet.
            return self.invalid(invalid);
        }
        if self.may_take_one_phase(plan, deadline).await? {
            match prewrite::in_one_phase(&self.cluster, transaction, deadline).await {
                Some(prewritten) => return self.after_one_phase(transaction, prewritten, deadline).await,
                None => self.stats.one_phase_refused.add_one(),
            }
        }
        self.two_phases(transaction, &validator, deadline).await
    }

    async fn may_take_one_phase(&self, plan: &Plan, deadline: Deadline) -> Result<bool, Error> {
        if (!plan.is_all_written() && works(Mechanism::TikvOnePhase)) || plan.bytes() > ONE_PHASE_BYTES_MAX {
            return Ok(false);
        }
        let mut region = None;
        for (key, _) in &plan.writes {
            let found = deadline.repeat(|| self.cluster.region_of(key)).await.map_err(failed)?;
            if *region.get_or_insert(found) != found {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn after_one_phase(
        self: &Arc<Self>,
        transaction: Transaction<'_>,
        prewritten: Prewritten,
        deadline: Deadline,
    ) -> Result<Attempt, Error> {
        match prewritten {
            Prewritten::Committed(at) => {
                self.stats.commits_one_phase.add_one();
                Ok(Attempt::Done(CommitResult::Committed(at)))
            }
            Prewritten::OnePhaseLost(why) if !works(Mechanism::TikvLostOnePhase) => Err(Error::Unavailable(why)),
            Prewritten::OnePhaseLost(why) => {
                let limit = transaction.one_phase_limit();
                Ok(self.decide(transaction, &why, deadline).await.unwrap_or_else(|| {
                    // See above: from a snapshot beyond the limit on, it is decided.
                    if works(Mechanism::TikvUndeterminedFloor) {
                        self.floor.fetch_max(limit.0, Ordering::AcqRel);
                    }
                    self.undetermined(&why)
                }))
            }
            // One request that was refused has left nothing.
            other => self.not_prewritten(transaction, other),
        }
    }

    async fn two_phases(
        self: &Arc<Self>,
        transaction: Transaction<'_>,
        validator: &Validator<'_, C>,
        deadline: Deadline,
    ) -> Result<Attempt, Error> {
        let plan = transaction.plan;
        let prewrite = prewrite::in_two_phases(&self.cluster, transaction, deadline);
        let (prewritten, seen) = tokio::join!(prewrite, validator.seen(plan));
        if !matches!(prewritten, Prewritten::Locked) {
            self.roll_back(transaction);
            return self.not_prewritten(transaction, prewritten);
        }
        let seen = match seen {
            Ok(seen) => seen,
            Err(invalid) => {
                self.roll_back(transaction);
                return self.invalid(invalid);
            }
        };
        let mut validated = false;
        loop {
            let mut at = match self.timestamp(deadline).await {
                Ok(at) => at,
                Err(error) => {
                    self.roll_back(transaction);
                    return Err(error);
                }
            };
            if !validated && let Err(invalid) = validator.everything_at(plan, &seen, at).await {
                self.roll_back(transaction);
                return self.invalid(invalid);
            }
            validated = !works(Mechanism::TikvTooEarly);
            if !works(Mechanism::TikvCommitTime) {
                at = self.timestamp(deadline).await?;
            }
            match finish::commit_primary(&self.cluster, transaction, at, deadline).await {
                Primary::Committed(left) => {
                    self.stats.commits_two_phases.add_one();
                    finish::commit_others(self, transaction.start, at, left);
                    return Ok(Attempt::Done(CommitResult::Committed(at)));
                }
                Primary::TooEarly => self.stats.commits_too_early.add_one(),
                Primary::RolledBack => {
                    self.roll_back(transaction);
                    return Ok(Attempt::Again(Vec::new()));
                }
                Primary::NotSent(failure) => {
                    self.roll_back(transaction);
                    return Err(failed(failure));
                }
                Primary::Lost(why) if !works(Mechanism::TikvLostCommit) => return Err(Error::Unavailable(why)),
                Primary::Lost(why) => {
                    let decided = self.decide(transaction, &why, deadline).await;
                    return Ok(decided.unwrap_or_else(|| self.undetermined(&why)));
                }
            }
        }
    }

    /// Finds out what became of a transaction whose deciding answer was lost, and ends it if it is not committed.
    async fn decide(self: &Arc<Self>, transaction: Transaction<'_>, why: &str, deadline: Deadline) -> Option<Attempt> {
        let question = CheckTransaction {
            primary: transaction.plan.primary.clone(),
            start: transaction.start,
            found: FoundLock::RollBack,
            roll_back_if_absent: true,
        };
        let status = resolve::ask(&self.cluster, &question, deadline.after(DECIDE_TIME)).await;
        let decided = match status {
            Ok(TransactionStatus::Committed(at)) => {
                let keys = transaction.plan.writes.iter().map(|(key, _)| key.clone());
                finish::commit_others(self, transaction.start, at, keys.collect());
                Attempt::Done(CommitResult::Committed(at))
            }
            Ok(TransactionStatus::RolledBack) => {
                self.roll_back(transaction);
                Attempt::Again(Vec::new())
            }
            Ok(TransactionStatus::Locked | TransactionStatus::Unknown) | Err(_) => return None,
        };
        tracing::debug!(why, "found out about a lost answer");
        self.stats.lost_answers_decided.add_one();
        Some(decided)
    }

    /// After a first phase that did not succeed. The commit was never sent.
    fn not_prewritten(&self, transaction: Transaction<'_>, prewritten: Prewritten) -> Result<Attempt, Error> {
        match prewritten {
            Prewritten::Conflict(keys) => {
                // What was seen later than the start may have changed before it was seen. A start of its own tells.
                let changed = |key: &&Bytes| transaction.plan.has_read_at(key, transaction.start);
                let read: Vec<Bytes> = keys.iter().filter(changed).cloned().collect();
                if read.is_empty() { Ok(Attempt::Again(keys)) } else { Ok(Attempt::Done(self.conflict(read))) }
            }
            Prewritten::Failed(failure) => Err(failed(failure)),
            Prewritten::RolledBack | Prewritten::Locked | Prewritten::Committed(_) | Prewritten::OnePhaseLost(_) => {
                Ok(Attempt::Again(Vec::new()))
            }
        }
    }

    fn invalid(&self, invalid: Invalid) -> Result<Attempt, Error> {
        match invalid {
            Invalid::Changed(keys) => Ok(Attempt::Done(self.conflict(keys))),
            Invalid::Failed(failure) => Err(read_failed(failure)),
        }
    }

    fn roll_back(self: &Arc<Self>, transaction: Transaction<'_>) {
        self.stats.rollbacks.add_one();
        let keys = transaction.plan.writes.iter().map(|(key, _)| key.clone()).collect();
        finish::roll_back(self, transaction.start, keys);
    }

    fn conflict(&self, keys: Vec<Bytes>) -> CommitResult {
        self.stats.conflicts.add_one();
        CommitResult::Conflict(keys)
    }

    fn undetermined(&self, why: &str) -> Attempt {
        self.stats.undetermined.add_one();
        tracing::warn!(why, "a commit is undetermined");
        Attempt::Done(CommitResult::Undetermined(why.to_owned()))
    }

    pub(crate) async fn timestamp(&self, deadline: Deadline) -> Result<Timestamp, Error> {
        deadline.repeat(|| self.cluster.timestamp()).await.map_err(failed)
    }
}

/// What a failure means if nothing was applied.
pub(crate) fn failed(failure: Failure) -> Error {
    match failure {
        Failure::Refused(why) => Error::Refused(why),
        other => Error::Unavailable(other.to_string()),
    }
}

/// The same for a read of the commit's own.
fn read_failed(failure: ReadFailure) -> Error {
    match failure {
        ReadFailure::Refused(why) => Error::Refused(why),
        other => Error::Unavailable(other.to_string()),
    }
}
