//! From messages of stores to answers of the seam. Pure.
//!
//! What is not understood is never taken for a proof: an unknown error of a prewrite makes the transaction begin again, an
//! unknown error of a commit is a lost answer.

use bytes::Bytes;
use tandem_model::ids::Timestamp;

use super::encoding::Encoding;
use super::wire::{errorpb, kvrpcpb};
use crate::cluster::{
    CommitAnswer, Failure, KeyProblem, Lock, PrewriteAnswer, ReadFailure, RollbackAnswer, TransactionStatus,
};

/// A write conflict with this reason is the transaction's own rollback.
const REASON_SELF_ROLLED_BACK: i32 = 3;
/// The status of a transaction of which there is no trace, and of which none was left.
const ACTION_LEFT_ALONE: i32 = 5;

/// Whether an error of a region leaves it open if the request had its effect.
pub(super) fn region_failure(error: &errorpb::Error) -> Failure {
    let text = if error.message.is_empty() { format!("{error:?}") } else { error.message.clone() };
    if error.stale_command.is_some() || error.undetermined_result.is_some() {
        Failure::Lost(text)
    } else if error.raft_entry_too_large.is_some() {
        Failure::Refused(format!("a transaction is too large for one region: {text}"))
    } else {
        Failure::Region(text)
    }
}

pub(super) fn prewrite(encoding: &Encoding, one_phase: bool, response: &kvrpcpb::PrewriteResponse) -> PrewriteAnswer {
    let mut problems = Vec::new();
    for error in &response.errors {
        if error.commit_ts_too_large.is_some() {
            return PrewriteAnswer::OnePhaseRefused;
        }
        problems.push(problem(encoding, error));
    }
    match (problems.is_empty(), one_phase, response.one_pc_commit_ts) {
        (false, _, _) => PrewriteAnswer::Refused(problems),
        (true, true, 0) => PrewriteAnswer::OnePhaseRefused,
        (true, true, at) => PrewriteAnswer::Committed(Timestamp(at)),
        (true, false, _) => PrewriteAnswer::Locked,
    }
}

fn problem(encoding: &Encoding, error: &kvrpcpb::KeyError) -> KeyProblem {
    if let Some(locked) = &error.locked {
        return lock(encoding, locked).map_or_else(
            || KeyProblem::Impossible("a lock of another installation is in the way".to_owned()),
            KeyProblem::Locked,
        );
    }
    match &error.conflict {
        Some(conflict) if conflict.reason == REASON_SELF_ROLLED_BACK => KeyProblem::RolledBack,
        Some(conflict) => KeyProblem::Conflict {
            key: encoding.own_key(&conflict.key).unwrap_or_else(|| conflict.key.clone()),
            committed: Timestamp(conflict.conflict_commit_ts),
        },
        None if !error.abort.is_empty() && !is_rolled_back(&error.abort) => KeyProblem::Impossible(error.abort.clone()),
        None => KeyProblem::RolledBack,
    }
}

fn is_rolled_back(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("rolled back") || text.contains("rollback")
}

/// The lock, if it belongs to us.
pub(super) fn lock(encoding: &Encoding, lock: &kvrpcpb::LockInfo) -> Option<Lock> {
    own_lock(encoding, &lock.key, &lock.primary_lock, lock.lock_version, lock.lock_ttl)
}

/// The same from its parts.
pub(super) fn own_lock(encoding: &Encoding, key: &[u8], primary: &[u8], start: u64, lives_ms: u64) -> Option<Lock> {
    let (key, primary) = (encoding.own_key(key)?, encoding.own_key(primary)?);
    Some(Lock { key, primary, start: Timestamp(start), lives_ms })
}

pub(super) fn commit(error: Option<&kvrpcpb::KeyError>) -> Result<CommitAnswer, Failure> {
    let Some(error) = error else { return Ok(CommitAnswer::Committed) };
    if let Some(expired) = &error.commit_ts_expired {
        return Ok(CommitAnswer::Expired { at_least: Timestamp(expired.min_commit_ts) });
    }
    let text = [&error.retryable[..], &error.abort[..]].concat();
    let lower = text.to_ascii_lowercase();
    let not_found = lower.contains("locknotfound") || lower.contains("lock not found") || is_rolled_back(&lower);
    if error.txn_not_found.is_some() || not_found {
        return Ok(CommitAnswer::LockNotFound);
    }
    Err(Failure::Lost(format!("a store answered a commit with {error:?}")))
}

pub(super) fn rollback(error: Option<&kvrpcpb::KeyError>) -> RollbackAnswer {
    // Nothing but a commit makes a rollback impossible.
    if error.is_some() { RollbackAnswer::AlreadyCommitted(None) } else { RollbackAnswer::RolledBack }
}

pub(super) fn status(response: &kvrpcpb::CheckTxnStatusResponse) -> Result<TransactionStatus, Failure> {
    match &response.error {
        Some(error) if error.txn_not_found.is_some() => return Ok(TransactionStatus::Unknown),
        Some(error) => return Err(Failure::Lost(format!("a store answered a question with {error:?}"))),
        None => {}
    }
    Ok(match response {
        _ if response.commit_version > 0 => TransactionStatus::Committed(Timestamp(response.commit_version)),
        _ if response.lock_ttl > 0 => TransactionStatus::Locked,
        _ if response.action == ACTION_LEFT_ALONE => TransactionStatus::Unknown,
        _ => TransactionStatus::RolledBack,
    })
}

/// What a read found. Keys that are not there are not in it.
pub(super) fn values(
    encoding: &Encoding,
    pairs: Vec<kvrpcpb::KvPair>,
    error: Option<&kvrpcpb::KeyError>,
) -> Result<Vec<(Bytes, Bytes)>, ReadFailure> {
    let (mut found, mut locks) = (Vec::with_capacity(pairs.len()), Vec::new());
    let errors = error.into_iter().chain(pairs.iter().filter_map(|pair| pair.error.as_ref()));
    for error in errors {
        let Some(locked) = &error.locked else { return Err(not_read(&format!("{error:?}"))) };
        let other = || ReadFailure::Unreachable("a lock of another installation is in the way".to_owned());
        locks.push(lock(encoding, locked).ok_or_else(other)?);
    }
    if !locks.is_empty() {
        return Err(ReadFailure::Locked(locks));
    }
    for pair in pairs {
        let other = || ReadFailure::Unreachable("a store answered with another key".to_owned());
        found.push((encoding.own_key(&pair.key).ok_or_else(other)?, pair.value));
    }
    Ok(found)
}

/// What an error of a read means that is not a lock.
pub(super) fn not_read(text: &str) -> ReadFailure {
    if text.contains("ApiVersionNotMatched") || text.contains("InvalidKeyMode") {
        let why = "the cluster speaks another version of the protocol: a keyspace needs version 2 enabled there, and \
                   without one a cluster with version 2 only takes keys that begin with m or t";
        return ReadFailure::Refused(format!("{why} ({text})"));
    }
    ReadFailure::Unreachable(text.to_owned())
}

/// Keys in the encoding of requests.
pub(super) fn keys(encoding: &Encoding, keys: &[Bytes]) -> Vec<Bytes> {
    keys.iter().map(|key| encoding.key(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn pair(key: &'static str, value: &'static str) -> kvrpcpb::KvPair {
        kvrpcpb::KvPair { error: None, key: bytes(key), value: bytes(value) }
    }

    fn locked(key: &'static str) -> kvrpcpb::KeyError {
        let locked =
            kvrpcpb::LockInfo { primary_lock: bytes("p-first"), lock_version: 7, key: bytes(key), lock_ttl: 3 };
        kvrpcpb::KeyError { locked: Some(locked), ..Default::default() }
    }

    #[test]
    fn values_are_those_of_own_keys_and_may_be_empty() {
        let encoding = Encoding::new(b"p-", None);
        let found = values(&encoding, vec![pair("p-a", "1"), pair("p-b", "")], None);
        assert_eq!(found, Ok(vec![(bytes("a"), bytes("1")), (bytes("b"), Bytes::new())]));
        let foreign = values(&encoding, vec![pair("q-a", "1")], None);
        assert!(matches!(foreign, Err(ReadFailure::Unreachable(_))), "{foreign:?}");
    }

    #[test]
    fn a_lock_hides_all_values_wherever_it_is_told() {
        let encoding = Encoding::new(b"p-", None);
        let lock = |key| Lock { key: bytes(key), primary: bytes("first"), start: Timestamp(7), lives_ms: 3 };
        let of_pair = kvrpcpb::KvPair { error: Some(locked("p-b")), ..Default::default() };
        let found = values(&encoding, vec![pair("p-a", "1"), of_pair], Some(&locked("p-c")));
        assert_eq!(found, Err(ReadFailure::Locked(vec![lock("c"), lock("b")])));
    }

    #[test]
    fn an_error_that_is_no_lock_is_no_absence() {
        let encoding = Encoding::new(b"p-", None);
        let failed = |abort: &str| {
            let error = kvrpcpb::KeyError { abort: abort.to_owned(), ..Default::default() };
            values(&encoding, Vec::new(), Some(&error))
        };
        assert!(matches!(failed("something"), Err(ReadFailure::Unreachable(_))));
        assert!(matches!(failed("ApiVersionNotMatched"), Err(ReadFailure::Refused(_))));
    }
}
