//! Takes commit groups to the store, one after the other, and tells everybody what became of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tandem_model::ids::Timestamp;
use tandem_model::mechanism::{Mechanism, works};
use tandem_store::{Commit, CommitResult, Error, RangeRead, Read, Snapshot, Store};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{Group, Inner, Partition, Sealed, SealedFlow, Source};

/// Commit timestamps of groups that are remembered, for flows that read what those groups wrote. A flow that needs an
/// older one conflicts and runs again.
const COMMITTED_GROUPS_MAX: usize = 4_096;
/// First wait before an undetermined commit is looked up again.
const DECIDE_BACKOFF: Duration = Duration::from_millis(10);
/// Longest such wait.
const DECIDE_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long an undetermined commit is looked up before the process gives up and has to be started again.
const DECIDE_TIME_MAX: Duration = Duration::from_mins(2);

/// What became of a group.
enum Ended {
    Durable(Timestamp),
    Conflict(Vec<Bytes>),
    Refused(Error),
}

impl<S: Store> Partition<S> {
    /// Commits groups until `stop`, then what is still queued, and returns.
    pub(crate) async fn run_committer(self: Arc<Self>, stop: CancellationToken) {
        loop {
            while let Some((group, commit)) = self.next_commit() {
                let started = Instant::now();
                if !works(Mechanism::ReleaseAfterDurable) {
                    self.settle(group, Ended::Durable(Timestamp::ZERO), started.elapsed());
                    self.commit(commit).await;
                    continue;
                }
                let ended = self.commit(commit).await;
                self.settle(group, ended, started.elapsed());
            }
            tokio::select! {
                biased;
                () = self.work.notified() => {}
                () = stop.cancelled() => {
                    let mut inner = self.lock();
                    if inner.queue.is_empty() {
                        // What is sealed from now on would wait for ever.
                        inner.stopped.get_or_insert_with(|| "the runtime is stopping".to_owned());
                        return;
                    }
                }
            }
        }
    }

    fn next_commit(&self) -> Option<(Group, Commit)> {
        let mut inner = self.lock();
        let mut group = inner.queue.pop_front()?;
        let commit = inner.commit_of(&mut group);
        Some((group, commit))
    }

    async fn commit(&self, commit: Commit) -> Ended {
        let primary = commit.primary.clone();
        let written = commit.writes.iter().find(|(key, _)| *key == primary).and_then(|(_, value)| value.clone());
        match self.store.commit(commit).await {
            Ok(CommitResult::Committed(timestamp)) => Ended::Durable(timestamp),
            Ok(CommitResult::Conflict(keys)) => Ended::Conflict(keys),
            Ok(CommitResult::Undetermined(_)) if !works(Mechanism::UndeterminedDecided) => {
                Ended::Durable(Timestamp::ZERO)
            }
            Ok(CommitResult::Undetermined(why)) => {
                warn!(why, "commit undetermined, looking up its request record");
                self.decide(&primary, written.as_ref()).await
            }
            Err(error) => Ended::Refused(error),
        }
    }

    /// Finds out what an undetermined commit became. The store's contract: once a new snapshot answers for the
    /// primary key, the commit is visible in it or will never be.
    ///
    /// A record that is there is ours only if it says what we wrote: another runtime may have run the same request.
    async fn decide(&self, primary: &Bytes, written: Option<&Bytes>) -> Ended {
        let started = Instant::now();
        let mut backoff = DECIDE_BACKOFF;
        loop {
            let found = async {
                let snapshot = self.store.snapshot().await?;
                let found = snapshot.get(primary).await?;
                Ok(found.as_ref() == written || (found.is_some() && !works(Mechanism::OwnRecord)))
            };
            let failed: Error = match found.await {
                // Its exact timestamp is not known, and a later one would hide writes in between.
                Ok(true) => return Ended::Durable(Timestamp::ZERO),
                Ok(false) => return Ended::Conflict(Vec::new()),
                Err(error) => error,
            };
            if started.elapsed() > DECIDE_TIME_MAX {
                return Ended::Refused(Error::Stopped(format!(
                    "an undetermined commit could not be decided: {failed}"
                )));
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(DECIDE_BACKOFF_MAX);
        }
    }

    fn settle(&self, group: Group, ended: Ended, took: Duration) {
        match ended {
            Ended::Durable(timestamp) => self.settle_durable(group, timestamp, took),
            Ended::Conflict(keys) => {
                for (flow, first_group) in self.throw_away(group, &keys) {
                    let rows: Vec<Bytes> =
                        keys.iter().filter(|key| first_group && flow.touches(key)).cloned().collect();
                    let own = first_group && (keys.is_empty() || !rows.is_empty());
                    // Nobody waits any more only if the runtime is going down.
                    let _ = flow.done.send(Sealed::Again { own, rows });
                }
            }
            Ended::Refused(error) => self.settle_refused(group, &error),
        }
    }

    fn settle_durable(&self, mut group: Group, timestamp: Timestamp, took: Duration) {
        let mut inner = self.lock();
        inner.durable_version = group.last_version;
        inner.lanes.durable(&group.lanes, group.last_version, timestamp);
        inner.committed.push_back((group.last_version, timestamp));
        if inner.committed.len() > COMMITTED_GROUPS_MAX {
            inner.committed.pop_front();
        }
        let floor = inner.floor();
        inner.sealed.forget_until(floor);
        drop(inner);
        if !works(Mechanism::ReleaseOrder) {
            group.flows.reverse();
        }
        let flows = group.flows.len();
        let mut messages = Vec::new();
        for mut flow in group.flows {
            messages.append(&mut flow.messages);
            for (egress, record) in std::mem::take(&mut flow.egresses) {
                self.releases.egress(&egress, record);
            }
            let _ = flow.done.send(Sealed::Durable);
        }
        if !messages.is_empty() {
            self.releases.messages(messages);
        }
        self.releases.group_committed(flows, took);
    }

    fn settle_refused(&self, group: Group, error: &Error) {
        let why = error.to_string();
        self.releases.store_failed(error);
        if matches!(error, Error::Stopped(_) | Error::Damaged(_)) {
            error!(%error, "the store cannot go on");
            self.lock().stopped = Some(why.clone());
        } else {
            warn!(%error, flows = group.flows.len(), "commit refused");
        }
        for (flow, _) in self.throw_away(group, &[]) {
            let _ = flow.done.send(Sealed::Refused(why.clone()));
        }
    }

    /// Takes back everything that is sealed and not durable: what comes after a group has seen its rows. Says of each
    /// flow whether it was in the group itself.
    fn throw_away(&self, group: Group, changed: &[Bytes]) -> Vec<(SealedFlow, bool)> {
        let mut inner = self.lock();
        inner.epoch += 1;
        let durable = inner.durable_version;
        inner.sealed.drop_above(durable);
        inner.lanes.thrown_away(changed);
        let later: Vec<Group> =
            if works(Mechanism::LaterGroupsFall) { inner.queue.drain(..).collect() } else { Vec::new() };
        drop(inner);
        let later = later.into_iter().flat_map(|group| group.flows).map(|flow| (flow, false));
        group.flows.into_iter().map(|flow| (flow, true)).chain(later).collect()
    }
}

impl Inner {
    /// The store transaction of a group. All groups before it are durable by now.
    fn commit_of(&self, group: &mut Group) -> Commit {
        let mut reads: HashMap<&Bytes, (Timestamp, &Option<Bytes>)> = HashMap::new();
        let mut ranges = Vec::new();
        for flow in &group.flows {
            for (row, seen) in flow.reads.rows() {
                let seen_at = match seen.source {
                    Source::Base => flow.base,
                    Source::Sealed(_) if !works(Mechanism::StoreSealedReads) => continue,
                    // A flow of this very group wrote it: the order within the group was validated when sealing.
                    Source::Sealed(version) if version > self.durable_version => continue,
                    Source::Sealed(version) => self.committed_at(version),
                };
                let entry = reads.entry(row).or_insert((seen_at, &seen.value));
                if seen_at < entry.0 {
                    *entry = (seen_at, &seen.value);
                }
            }
            let seen_at = flow.base;
            let seen_ranges = flow.reads.ranges().iter().filter(|_| works(Mechanism::StoreRanges));
            ranges.extend(seen_ranges.map(|seen| RangeRead { range: seen.range.clone(), seen_at }));
        }
        let reads = reads.into_iter().filter(|_| works(Mechanism::StoreReads));
        let reads = reads.map(|(key, (seen_at, value))| Read { key: key.clone(), seen_at, value: value.clone() });
        let reads = reads.chain(self.lanes.reads(&group.lanes, self.durable_version, group.last_version)).collect();
        let primary = group.flows.first().map(|flow| flow.record_row.clone()).unwrap_or_default();
        Commit { primary, reads, ranges, writes: std::mem::take(&mut group.writes).into_iter().collect() }
    }

    /// When the group with this version was committed. If that is forgotten, before everything: a conflict, to be safe.
    fn committed_at(&self, version: u64) -> Timestamp {
        let index = self.committed.partition_point(|(last_version, _)| *last_version < version);
        // The first remembered group may be a later one than the version's own.
        if index == 0 && self.committed.len() >= COMMITTED_GROUPS_MAX {
            return Timestamp::ZERO;
        }
        self.committed.get(index).map_or(Timestamp::ZERO, |(_, timestamp)| *timestamp)
    }
}

impl SealedFlow {
    fn touches(&self, key: &Bytes) -> bool {
        self.reads.get(key).is_some()
            || self.written.contains(key)
            || self.reads.ranges().iter().any(|seen| seen.range.contains(key))
    }
}
