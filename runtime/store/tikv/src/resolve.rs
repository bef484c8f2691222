//! Locks of other transactions: what became of their owners, and the clearing of what they left.
//!
//! A lock says nothing about its transaction but where its primary key is. That key decides: committed, rolled back, or
//! locked and alive. A lock whose primary shows no trace of the transaction belongs to one whose primary was never
//! prewritten, or is being prewritten just now; only once its time has run out, a record is left at the primary by which
//! it never can commit, and the lock goes.

use std::collections::BTreeMap;

use bytes::Bytes;
use tandem_model::ids::Timestamp;
use tandem_model::mechanism::{Mechanism, works};

use crate::cluster::{
    CheckTransaction, Cluster, CommitAnswer, CommitKeys, Failure, FoundLock, Lock, RollbackKeys, TransactionStatus,
};
use crate::retry::Deadline;

/// Clears the locks of transactions that are over or whose time has run out. Gives those that live.
pub(crate) async fn clear<C: Cluster>(cluster: &C, locks: Vec<Lock>, deadline: Deadline) -> Result<Vec<Lock>, Failure> {
    let now = deadline.repeat(|| cluster.timestamp()).await?;
    let mut transactions: BTreeMap<(Timestamp, Bytes), Vec<Lock>> = BTreeMap::new();
    for lock in locks {
        transactions.entry((lock.start, lock.primary.clone())).or_default().push(lock);
    }
    let mut living = Vec::new();
    for ((start, primary), locks) in transactions {
        match fate(cluster, start, &primary, &locks, now, deadline).await? {
            TransactionStatus::Committed(at) => clear_each(cluster, start, Some(at), &locks, deadline).await?,
            TransactionStatus::RolledBack => clear_each(cluster, start, None, &locks, deadline).await?,
            TransactionStatus::Locked | TransactionStatus::Unknown => living.extend(locks),
        }
    }
    Ok(living)
}

async fn fate<C: Cluster>(
    cluster: &C,
    start: Timestamp,
    primary: &Bytes,
    locks: &[Lock],
    now: Timestamp,
    deadline: Deadline,
) -> Result<TransactionStatus, Failure> {
    let over = locks.iter().all(|lock| start.unix_ms().saturating_add(lock.lives_ms) < now.unix_ms());
    let question = CheckTransaction {
        primary: primary.clone(),
        start,
        found: FoundLock::RollBackIfExpiredAt(now),
        roll_back_if_absent: over && works(Mechanism::TikvAbsentPrimary),
    };
    let status = ask(cluster, &question, deadline).await?;
    let forget = over && status == TransactionStatus::Unknown && !works(Mechanism::TikvAbsentPrimary);
    Ok(if forget { TransactionStatus::RolledBack } else { status })
}

/// Asks until there is an answer.
pub(crate) async fn ask<C: Cluster>(
    cluster: &C,
    question: &CheckTransaction,
    deadline: Deadline,
) -> Result<TransactionStatus, Failure> {
    let ask = || async {
        let region = cluster.region_of(&question.primary).await?;
        cluster.check_transaction(region, question.clone()).await
    };
    deadline.repeat(ask).await
}

async fn clear_each<C: Cluster>(
    cluster: &C,
    start: Timestamp,
    committed: Option<Timestamp>,
    locks: &[Lock],
    deadline: Deadline,
) -> Result<(), Failure> {
    for lock in locks {
        let clear = || async {
            let region = cluster.region_of(&lock.key).await?;
            let keys = vec![lock.key.clone()];
            match committed {
                Some(at) => match cluster.commit(region, CommitKeys { start, at, keys }).await? {
                    // If it has no lock any more, somebody else was faster.
                    CommitAnswer::Committed | CommitAnswer::LockNotFound => Ok(()),
                    CommitAnswer::Expired { .. } => {
                        Err(Failure::Refused("a lock refuses the time of its own primary".to_owned()))
                    }
                },
                None => cluster.rollback(region, RollbackKeys { start, keys }).await.map(|_| ()),
            }
        };
        deadline.repeat(clear).await?;
    }
    Ok(())
}
