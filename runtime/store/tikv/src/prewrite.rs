//! The first phase: locks on everything that is written.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use tandem_model::ids::Timestamp;

use crate::batches::{self, Batch, REQUESTS_AT_ONCE};
use crate::cluster::{Cluster, Failure, KeyProblem, Lock, OnePhase, Prewrite, PrewriteAnswer};
use crate::plan::{Plan, mutation_bytes};
use crate::resolve;
use crate::retry::{Backoff, Deadline};

/// How long a lock holds at least. Long enough for a slow store, short enough that a dead owner is not felt for long.
const LOCK_LIVES: Duration = Duration::from_secs(3);
/// So much longer for each of [`LOCK_STEP_BYTES`].
const LOCK_LIVES_STEP: Duration = Duration::from_secs(1);
const LOCK_STEP_BYTES: usize = 1 << 20;
/// How long to wait for the lock of another transaction on a key that was not read.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(1);
const LONGEST_WAIT_FOR_LOCK: Duration = Duration::from_millis(16);
/// One phase commits within this time or not at all; see [`crate::commit`].
const ONE_PHASE_MAX: Duration = Duration::from_secs(2);

type Mutation = (Bytes, Option<Bytes>);

/// The transaction that is being written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transaction<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) start: Timestamp,
    /// How old `start` is.
    pub(crate) age: Duration,
}

/// What became of the first phase.
#[derive(Debug)]
pub(crate) enum Prewritten {
    /// Everything is locked.
    Locked,
    /// Everything is committed, in one phase.
    Committed(Timestamp),
    /// Committed in one phase or not, and it may still become so.
    OnePhaseLost(String),
    /// These keys were changed by others, or are locked by others who live.
    Conflict(Vec<Bytes>),
    /// Somebody has rolled it back meanwhile.
    RolledBack,
    /// A store could not be reached for so long.
    Failed(Failure),
}

impl Transaction<'_> {
    /// The greatest timestamp at which it may be committed in one phase.
    pub(crate) fn one_phase_limit(&self) -> Timestamp {
        Timestamp::at_unix_ms(self.start.unix_ms() + millis(self.age + ONE_PHASE_MAX))
    }

    fn request(&self, mutations: Vec<Mutation>, repeated: bool) -> Prewrite {
        let steps = u32::try_from(self.plan.bytes() / LOCK_STEP_BYTES).unwrap_or(u32::MAX);
        let lives = self.age + LOCK_LIVES + LOCK_LIVES_STEP.saturating_mul(steps);
        Prewrite {
            start: self.start,
            primary: self.plan.primary.clone(),
            mutations,
            lives_ms: millis(lives),
            transaction_keys: self.plan.writes.len() as u64,
            one_phase: None,
            repeated,
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Tries to commit everything with one request. `None` says that it has to be done in two phases.
pub(crate) async fn in_one_phase<C: Cluster>(
    cluster: &C,
    transaction: Transaction<'_>,
    deadline: Deadline,
) -> Option<Prewritten> {
    let region = match deadline.repeat(|| cluster.region_of(&transaction.plan.primary)).await {
        Ok(region) => region,
        Err(failure) => return Some(Prewritten::Failed(failure)),
    };
    let one_phase = Some(OnePhase { commit_at_most: transaction.one_phase_limit() });
    let request = Prewrite { one_phase, ..transaction.request(transaction.plan.writes.clone(), false) };
    match deadline.call(cluster.prewrite(region, request)).await {
        Ok(PrewriteAnswer::Committed(at)) => Some(Prewritten::Committed(at)),
        Err(Failure::Lost(why)) => Some(Prewritten::OnePhaseLost(why)),
        Err(failure @ Failure::Refused(_)) => Some(Prewritten::Failed(failure)),
        // What is in the way is dealt with in two phases. Where the locks are there already, they are found so.
        Ok(PrewriteAnswer::OnePhaseRefused | PrewriteAnswer::Locked)
        | Err(Failure::Region(_) | Failure::Unreachable(_)) => None,
        Ok(PrewriteAnswer::Refused(problems)) => match sort(problems) {
            Sorted::Locked(_) => None,
            Sorted::Final(prewritten) => Some(prewritten),
        },
    }
}

/// Locks everything.
pub(crate) async fn in_two_phases<C: Cluster>(
    cluster: &C,
    transaction: Transaction<'_>,
    deadline: Deadline,
) -> Prewritten {
    let mut left = transaction.plan.writes.clone();
    let mut backoff = Backoff::new();
    let mut repeated = false;
    loop {
        let key = |mutation: &Mutation| mutation.0.clone();
        let grouped = batches::by_region(cluster, left, |(key, _)| key, mutation_bytes, deadline).await;
        let grouped = match grouped {
            Ok(grouped) => grouped,
            Err(failure) => return Prewritten::Failed(failure),
        };
        let alone = grouped.len() == 1;
        let sent = grouped.into_iter().map(|batch| one_batch(cluster, transaction, batch, (alone, repeated), deadline));
        let answers: Vec<Sent> = stream::iter(sent).buffer_unordered(REQUESTS_AT_ONCE).collect().await;
        let mut last_failure = None;
        left = Vec::new();
        let mut stopped = None;
        for answer in answers {
            match answer {
                Sent::Locked => {}
                Sent::Again(failure, mutations) => {
                    repeated |= matches!(failure, Failure::Lost(_));
                    last_failure = Some(failure);
                    left.extend(mutations);
                }
                Sent::Stop(prewritten) => stopped = Some(worse(stopped, prewritten)),
            }
        }
        // The order of the answers is chance, that of the keys is not.
        left.sort_by_key(key);
        match (stopped, last_failure) {
            (Some(prewritten), _) => return prewritten,
            (None, None) => return Prewritten::Locked,
            (None, Some(failure)) if !backoff.wait(deadline).await => return Prewritten::Failed(failure),
            (None, Some(_)) => {}
        }
    }
}

/// What is told of several reasons to stop: all keys that conflict, otherwise the first reason.
fn worse(one: Option<Prewritten>, other: Prewritten) -> Prewritten {
    match (one, other) {
        (Some(Prewritten::Conflict(mut keys)), Prewritten::Conflict(more)) => {
            keys.extend(more);
            Prewritten::Conflict(keys)
        }
        (Some(_), conflict @ Prewritten::Conflict(_)) => conflict,
        (Some(one), _) => one,
        (None, other) => other,
    }
}

/// What became of one request.
enum Sent {
    Locked,
    /// The region is elsewhere, or the answer was lost: group again, send again.
    Again(Failure, Vec<Mutation>),
    Stop(Prewritten),
}

async fn one_batch<C: Cluster>(
    cluster: &C,
    transaction: Transaction<'_>,
    batch: Batch<Mutation>,
    (alone, mut repeated): (bool, bool),
    deadline: Deadline,
) -> Sent {
    let wait_until = deadline.but_at_most(LOCK_WAIT_MAX);
    let mut backoff = Backoff::up_to(LONGEST_WAIT_FOR_LOCK);
    loop {
        let request = transaction.request(batch.items.clone(), repeated);
        let problems = match deadline.call(cluster.prewrite(batch.region, request)).await {
            Ok(PrewriteAnswer::Refused(problems)) => problems,
            Ok(_) => return Sent::Locked,
            Err(failure @ Failure::Refused(_)) => return Sent::Stop(Prewritten::Failed(failure)),
            Err(failure) => return Sent::Again(failure, batch.items),
        };
        let locks = match sort(problems) {
            Sorted::Final(prewritten) => return Sent::Stop(prewritten),
            Sorted::Locked(locks) => locks,
        };
        let living = match resolve::clear(cluster, locks, deadline).await {
            Ok(living) => living,
            Err(failure) => return Sent::Again(failure, batch.items),
        };
        repeated = true;
        if living.is_empty() && !deadline.is_over() {
            continue;
        }
        if !may_wait(transaction, &living, alone) || !backoff.wait(wait_until).await {
            return Sent::Stop(Prewritten::Conflict(living.into_iter().map(|lock| lock.key).collect()));
        }
    }
}

/// Whether it is right to wait for transactions that live. Who was read of will have changed once they are over. Of two
/// that wait for each other only the older one does, or one that holds nothing yet.
fn may_wait(transaction: Transaction<'_>, living: &[Lock], alone: bool) -> bool {
    let unread = !living.iter().any(|lock| transaction.plan.has_read(&lock.key));
    unread && (alone || living.iter().all(|lock| lock.start > transaction.start))
}

enum Sorted {
    /// Nothing but locks.
    Locked(Vec<Lock>),
    /// Nothing that could still go away.
    Final(Prewritten),
}

fn sort(problems: Vec<KeyProblem>) -> Sorted {
    let (mut locks, mut conflicts) = (Vec::new(), Vec::new());
    for problem in problems {
        match problem {
            KeyProblem::Locked(lock) => locks.push(lock),
            KeyProblem::Conflict { key, .. } => conflicts.push(key),
            KeyProblem::RolledBack => return Sorted::Final(Prewritten::RolledBack),
            KeyProblem::Impossible(why) => return Sorted::Final(Prewritten::Failed(Failure::Refused(why))),
        }
    }
    if conflicts.is_empty() { Sorted::Locked(locks) } else { Sorted::Final(Prewritten::Conflict(conflicts)) }
}
