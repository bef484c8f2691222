//! What the stores hold: locks, committed versions and rollback records of each key, and the effect of each request on
//! them, as TiKV has it.
//!
//! | here | in TiKV |
//! | --- | --- |
//! | [`Row::lock`] | the lock column family |
//! | [`Row::writes`] | the write column family, with the values in it |
//!
//! Each request has its effect on all of its keys or on none. Nothing here knows of regions, time or faults.
//!
//! **Rollback records.** A record stands at the start timestamp of the transaction that it forbids. A newer record on
//! the same key takes an older one's place, unless that one is protected: an old prewrite is then refused as a
//! conflict with the newer record.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use tandem_model::ids::Timestamp;
use tandem_store::KeyRange;

use crate::cluster::{
    CheckTransaction, CommitAnswer, CommitKeys, FoundLock, KeyProblem, Lock, Prewrite, PrewriteAnswer, ReadFailure,
    RollbackAnswer, RollbackKeys, TransactionStatus,
};

/// A committed version, or a rollback record.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Put(Bytes),
    Delete,
    /// A protected one is not replaced by a newer one.
    Rollback {
        protected: bool,
    },
}

#[derive(Clone, Debug)]
struct Write {
    start: Timestamp,
    kind: Kind,
    /// Another transaction that began at the very timestamp of this commit was rolled back here.
    forbids_start: bool,
}

#[derive(Clone, Debug)]
struct Held {
    primary: Bytes,
    start: Timestamp,
    lives_ms: u64,
    value: Option<Bytes>,
    /// Somebody has read the key later than the lock's start and was promised that it commits no earlier than here.
    commit_at_least: Timestamp,
}

#[derive(Clone, Debug, Default)]
struct Row {
    lock: Option<Held>,
    /// By commit timestamp; rollback records by the start of their transaction.
    writes: BTreeMap<Timestamp, Write>,
}

/// What a row says of a transaction that has no lock there.
enum Trace {
    Committed(Timestamp),
    RolledBack,
    Nothing,
}

impl Row {
    fn trace_of(&self, start: Timestamp) -> Trace {
        for (at, write) in self.writes.range(start..) {
            let is_rollback = matches!(write.kind, Kind::Rollback { .. });
            if write.start == start && !is_rollback {
                return Trace::Committed(*at);
            }
            if *at == start && (is_rollback || write.forbids_start) {
                return Trace::RolledBack;
            }
        }
        Trace::Nothing
    }

    fn held_by(&self, start: Timestamp) -> Option<&Held> {
        self.lock.as_ref().filter(|lock| lock.start == start)
    }

    fn forbid(&mut self, start: Timestamp, protected: bool) {
        if let Some(write) = self.writes.get_mut(&start) {
            if let Kind::Rollback { protected: before } = &mut write.kind {
                *before |= protected;
            } else {
                write.forbids_start = true;
            }
            return;
        }
        let before = self.writes.range(..start).next_back();
        let replaced = before.filter(|(_, write)| write.kind == Kind::Rollback { protected: false }).map(|(at, _)| *at);
        if let Some(at) = replaced {
            self.writes.remove(&at);
        }
        self.writes.insert(start, Write { start, kind: Kind::Rollback { protected }, forbids_start: false });
    }

    fn write(&mut self, start: Timestamp, at: Timestamp, value: Option<Bytes>) {
        let before = self.writes.remove(&at);
        let forbids_start = before.is_some_and(|write| matches!(write.kind, Kind::Rollback { .. }));
        let kind = value.map_or(Kind::Delete, Kind::Put);
        self.writes.insert(at, Write { start, kind, forbids_start });
    }

    fn value(&self, at: Timestamp) -> Option<&Bytes> {
        let versions = self.writes.range(..=at).rev().map(|(_, write)| &write.kind);
        versions.into_iter().find_map(|kind| match kind {
            Kind::Put(value) => Some(Some(value)),
            Kind::Delete => Some(None),
            Kind::Rollback { .. } => None,
        })?
    }
}

/// All rows of the cluster.
#[derive(Debug, Default)]
pub(super) struct Rows(BTreeMap<Bytes, Row>);

impl Rows {
    /// Locks all keys, or commits them at once after `read_until`, the latest time at which anybody has read here.
    pub(super) fn prewrite(&mut self, request: &Prewrite, read_until: Timestamp, may_be_one: bool) -> PrewriteAnswer {
        let start = request.start;
        let (mut problems, mut held) = (Vec::new(), false);
        for (key, _) in &request.mutations {
            let row = self.0.entry(key.clone()).or_default();
            held |= row.held_by(start).is_some();
            match prewrite_problem(key, row, start) {
                Ok(None) => {}
                Ok(Some(at)) if request.one_phase.is_some() => return PrewriteAnswer::Committed(at),
                Ok(Some(_)) => return PrewriteAnswer::Locked,
                Err(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return PrewriteAnswer::Refused(problems);
        }
        let at = Timestamp(read_until.max(start).0 + 1);
        if let Some(one_phase) = request.one_phase
            && !held
            && may_be_one
            && at <= one_phase.commit_at_most
        {
            for (key, value) in &request.mutations {
                self.0.entry(key.clone()).or_default().write(start, at, value.clone());
            }
            return PrewriteAnswer::Committed(at);
        }
        for (key, value) in &request.mutations {
            let lock = Held {
                primary: request.primary.clone(),
                start,
                lives_ms: request.lives_ms,
                value: value.clone(),
                commit_at_least: Timestamp::ZERO,
            };
            self.0.entry(key.clone()).or_default().lock.get_or_insert(lock);
        }
        if request.one_phase.is_some() { PrewriteAnswer::OnePhaseRefused } else { PrewriteAnswer::Locked }
    }

    /// Commits the locks of a transaction.
    pub(super) fn commit(&mut self, request: &CommitKeys) -> CommitAnswer {
        for key in &request.keys {
            let row = self.0.entry(key.clone()).or_default();
            match row.held_by(request.start) {
                Some(lock) if request.at < lock.commit_at_least => {
                    return CommitAnswer::Expired { at_least: lock.commit_at_least };
                }
                Some(_) => {}
                None => match row.trace_of(request.start) {
                    Trace::Committed(_) => {}
                    Trace::RolledBack | Trace::Nothing => return CommitAnswer::LockNotFound,
                },
            }
        }
        for key in &request.keys {
            let row = self.0.entry(key.clone()).or_default();
            if let Some(lock) = row.lock.take_if(|lock| lock.start == request.start) {
                row.write(request.start, request.at, lock.value);
            }
        }
        CommitAnswer::Committed
    }

    /// Removes the locks of a transaction, and forbids it to come back.
    pub(super) fn rollback(&mut self, request: &RollbackKeys) -> RollbackAnswer {
        for key in &request.keys {
            let row = self.0.entry(key.clone()).or_default();
            if let Trace::Committed(at) = row.trace_of(request.start) {
                return RollbackAnswer::AlreadyCommitted(Some(at));
            }
        }
        for key in &request.keys {
            let row = self.0.entry(key.clone()).or_default();
            row.lock.take_if(|lock| lock.start == request.start);
            row.forbid(request.start, false);
        }
        RollbackAnswer::RolledBack
    }

    /// The fate of a transaction.
    pub(super) fn check(&mut self, request: &CheckTransaction) -> TransactionStatus {
        let row = self.0.entry(request.primary.clone()).or_default();
        if let Some(lock) = row.held_by(request.start) {
            let expires_ms = lock.start.unix_ms() + lock.lives_ms;
            let is_over = match request.found {
                FoundLock::RollBack => true,
                FoundLock::RollBackIfExpiredAt(now) => expires_ms < now.unix_ms(),
            };
            if !is_over {
                return TransactionStatus::Locked;
            }
            row.lock = None;
            row.forbid(request.start, false);
            return TransactionStatus::RolledBack;
        }
        match row.trace_of(request.start) {
            Trace::Committed(at) => TransactionStatus::Committed(at),
            Trace::RolledBack => TransactionStatus::RolledBack,
            Trace::Nothing if request.roll_back_if_absent => {
                row.forbid(request.start, true);
                TransactionStatus::RolledBack
            }
            Trace::Nothing => TransactionStatus::Unknown,
        }
    }

    /// Values as of a time.
    pub(super) fn get(&self, at: Timestamp, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, ReadFailure> {
        let rows = || keys.iter().filter_map(|key| Some((key, self.0.get(key)?)));
        in_the_way(at, rows())?;
        Ok(keys.iter().map(|key| self.0.get(key)?.value(at).cloned()).collect())
    }

    /// Rows as of a time, at most `limit`.
    pub(super) fn scan(
        &self,
        at: Timestamp,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<(Bytes, Bytes)>, ReadFailure> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        let mut rows = self.0.range(range.bounds());
        while found.len() < limit {
            let Some((key, row)) = (if reverse { rows.next_back() } else { rows.next() }) else { break };
            in_the_way(at, std::iter::once((key, row)))?;
            if let Some(value) = row.value(at) {
                found.push((key.clone(), value.clone()));
            }
        }
        Ok(found)
    }

    /// Somebody who is not of ours has met the transaction at `until`, and was promised at its primary that it commits
    /// later. How many locks learned of it: that of the primary, if it is among the keys.
    pub(super) fn push(&mut self, start: Timestamp, keys: &[Bytes], until: Timestamp) -> usize {
        let mut pushed = 0;
        for key in keys {
            let lock = self.0.get_mut(key).and_then(|row| row.lock.as_mut());
            if let Some(lock) = lock.filter(|lock| lock.start == start && lock.primary == *key) {
                lock.commit_at_least = lock.commit_at_least.max(Timestamp(until.0 + 1));
                pushed += 1;
            }
        }
        pushed
    }

    /// All locks.
    pub(super) fn locks(&self) -> Vec<Lock> {
        self.0.iter().filter_map(|(key, row)| Some(lock_of(key, row.lock.as_ref()?))).collect()
    }

    /// All rows with the timestamp of their last version, as if there were no locks.
    pub(super) fn committed(&self) -> Vec<(Timestamp, Bytes, Bytes)> {
        let last = |row: &Row| {
            let mut versions = row.writes.iter().rev();
            versions
                .find(|(_, write)| !matches!(write.kind, Kind::Rollback { .. }))
                .map(|(at, write)| (*at, write.clone()))
        };
        let present = |(key, row): (&Bytes, &Row)| match last(row)? {
            (at, Write { kind: Kind::Put(value), .. }) => Some((at, key.clone(), value)),
            _ => None,
        };
        self.0.iter().filter_map(present).collect()
    }

    /// Removes what no reader at or after `safe_point` can see, rollback records among it. How many records went.
    pub(super) fn collect(&mut self, safe_point: Timestamp) -> usize {
        let mut removed = 0;
        for row in self.0.values_mut() {
            let is_version = |write: &Write| !matches!(write.kind, Kind::Rollback { .. });
            let seen = row.writes.range(..=safe_point).rev().find(|(_, write)| is_version(write)).map(|(at, _)| *at);
            let before = row.writes.len();
            row.writes.retain(|at, write| {
                let is_seen = Some(*at) == seen && write.kind != Kind::Delete;
                *at > safe_point || is_seen
            });
            removed += before - row.writes.len();
        }
        self.0.retain(|_, row| row.lock.is_some() || !row.writes.is_empty());
        removed
    }

    /// A key near the middle of those in a range, where a region could be split.
    pub(super) fn middle(&self, start: &Bytes, end: Option<&Bytes>) -> Option<Bytes> {
        let end = end.map_or(Bound::Unbounded, |end| Bound::Excluded(end.clone()));
        let keys: Vec<&Bytes> = self.0.range((Bound::Excluded(start.clone()), end)).map(|(key, _)| key).collect();
        keys.get(keys.len() / 2).map(|key| (*key).clone())
    }
}

fn prewrite_problem(key: &Bytes, row: &Row, start: Timestamp) -> Result<Option<Timestamp>, KeyProblem> {
    if let Some(lock) = &row.lock {
        return if lock.start == start { Ok(None) } else { Err(KeyProblem::Locked(lock_of(key, lock))) };
    }
    let trace = row.trace_of(start);
    if matches!(trace, Trace::RolledBack) {
        return Err(KeyProblem::RolledBack);
    }
    if let Trace::Committed(at) = trace {
        return Ok(Some(at));
    }
    match row.writes.last_key_value() {
        Some((at, _)) if *at > start => Err(KeyProblem::Conflict { key: key.clone(), committed: *at }),
        _ => Ok(None),
    }
}

fn lock_of(key: &Bytes, lock: &Held) -> Lock {
    Lock { key: key.clone(), primary: lock.primary.clone(), start: lock.start, lives_ms: lock.lives_ms }
}

fn in_the_way<'a>(at: Timestamp, rows: impl Iterator<Item = (&'a Bytes, &'a Row)>) -> Result<(), ReadFailure> {
    let locks: Vec<Lock> = rows
        .filter_map(|(key, row)| Some((key, row.lock.as_ref()?)))
        .filter(|(_, lock)| lock.start <= at)
        .map(|(key, lock)| lock_of(key, lock))
        .collect();
    if locks.is_empty() { Ok(()) } else { Err(ReadFailure::Locked(locks)) }
}
