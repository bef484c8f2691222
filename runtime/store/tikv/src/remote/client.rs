//! Timestamps, scans from the end and garbage collection through the crate `tikv-client`.
//!
//! What the crate does not do, is done around it: a limit for every call (a PD that is frozen would hang it for ever), a
//! new client once timestamps fail again and again (its stream of timestamps does not come back by itself), locks that
//! are met (some it never clears) are only reported. Its transactions are never used to write.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tandem_model::ids::Timestamp;
use tandem_store::KeyRange;
use tikv_client::transaction::HeartbeatOption;
use tikv_client::{CheckLevel, Config, TimestampExt as _, TransactionClient, TransactionOptions};
use tokio::time::timeout;

use super::answers;
use super::encoding::Encoding;
use super::endpoints::Endpoints;
use crate::cluster::{Failure, Lock, ReadFailure};
use crate::options::{Options, TlsFiles};

/// After so many failures in a row the client is made anew.
const FAILURES_MAX: u32 = 3;
/// Opening a client takes no longer.
const OPEN_TIME: Duration = Duration::from_secs(5);
/// Rows of the first page of a scan; each further one has twice as many, up to the limit.
const FIRST_PAGE_ROWS: usize = 128;
const PAGE_ROWS_MAX: usize = 2048;
/// While pages are larger than this, the next one has half as many rows.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// The crate's client, and what it takes to make another one.
#[derive(Clone)]
pub(crate) struct Client(Arc<Inner>);

struct Inner {
    endpoints: Endpoints,
    tls: Option<TlsFiles>,
    /// Keys of a keyspace: they are made by us, the client only says which version of the protocol it speaks.
    keyspace: bool,
    call: Duration,
    message_bytes_max: usize,
    current: Mutex<TransactionClient>,
    failures: AtomicU32,
    opening: tokio::sync::Mutex<()>,
}

impl Client {
    /// Connects.
    pub(crate) async fn open(
        options: &Options,
        endpoints: Endpoints,
        message_bytes_max: usize,
    ) -> Result<Self, Failure> {
        let tls = options.tls.clone();
        let keyspace = options.keyspace.is_some();
        let client = connect(endpoints.all(), tls.as_ref(), keyspace, message_bytes_max).await?;
        Ok(Self(Arc::new(Inner {
            endpoints,
            tls,
            keyspace,
            call: options.timeouts.call,
            message_bytes_max,
            current: Mutex::new(client),
            failures: AtomicU32::new(0),
            opening: tokio::sync::Mutex::default(),
        })))
    }

    /// A timestamp.
    pub(crate) async fn timestamp(&self) -> Result<Timestamp, Failure> {
        let client = self.current();
        // Less than the limit of the caller, who would otherwise drop this before the failure is counted.
        let error = match timeout(self.0.call * 2 / 3, client.current_timestamp()).await {
            Ok(Ok(timestamp)) => {
                self.0.failures.store(0, Ordering::Relaxed);
                return Ok(Timestamp(timestamp.version()));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        if self.0.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX {
            let client = self.clone();
            tokio::spawn(async move { client.reopen().await });
        }
        Err(Failure::Unreachable(format!("no timestamp from PD: {error}")))
    }

    /// Makes the client anew. Of those who ask for it at once, one does it.
    pub(crate) async fn reopen(&self) {
        let Ok(_opening) = self.0.opening.try_lock() else { return };
        let inner = &self.0;
        match connect(inner.endpoints.all(), inner.tls.as_ref(), inner.keyspace, inner.message_bytes_max).await {
            Ok(client) => {
                *self.lock() = client;
                inner.failures.store(0, Ordering::Relaxed);
            }
            Err(failure) => tracing::warn!(%failure, "no new connection to PD"),
        }
    }

    /// Rows of a range from its end on, page by page.
    pub(crate) async fn scan_from_end(
        &self,
        encoding: &Encoding,
        at: Timestamp,
        range: &KeyRange,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, ReadFailure> {
        let (start, mut end) = encoding.range(range);
        let mut rows = Vec::new();
        let mut page_rows = FIRST_PAGE_ROWS;
        while rows.len() < limit && start < end {
            let asked = page_rows.min(limit - rows.len());
            let page = self.page(encoding, at, (start.clone(), end.clone()), asked).await?;
            let (count, bytes) = (page.len(), page.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>());
            let Some((last, _)) = page.last() else { break };
            end.clone_from(last);
            let own = page.into_iter().filter_map(|(key, value)| Some((encoding.own_key(&key)?, Bytes::from(value))));
            rows.extend(own);
            if count < asked {
                break;
            }
            page_rows =
                if bytes > PAGE_BYTES_MAX { (page_rows / 2).max(1) } else { (page_rows * 2).min(PAGE_ROWS_MAX) };
        }
        Ok(rows)
    }

    async fn page(
        &self,
        encoding: &Encoding,
        at: Timestamp,
        (start, end): (Vec<u8>, Vec<u8>),
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, ReadFailure> {
        // Boxed below: the crate's futures are deep, and would make every future around them as large.
        let mut snapshot = self.snapshot(at);
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let failed = |error| read_failure(encoding, &error);
        let pair = |pair: tikv_client::KvPair| (pair.0.into(), pair.1);
        Ok(Box::pin(snapshot.scan_reverse(start..end, limit)).await.map_err(failed)?.map(pair).collect())
    }

    fn snapshot(&self, at: Timestamp) -> tikv_client::Snapshot {
        let options = TransactionOptions::new_optimistic()
            .no_resolve_locks()
            .drop_check(CheckLevel::Warn)
            .heartbeat_option(HeartbeatOption::NoHeartbeat);
        self.current().snapshot(tikv_client::Timestamp::from_version(at.0), options)
    }

    /// The crate's client as it is now.
    pub(crate) fn current(&self) -> TransactionClient {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, TransactionClient> {
        // Nothing panics while it is locked.
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(
    endpoints: Vec<String>,
    tls: Option<&TlsFiles>,
    keyspace: bool,
    message_bytes_max: usize,
) -> Result<TransactionClient, Failure> {
    let mut config = Config::default().with_grpc_max_decoding_message_size(message_bytes_max);
    if let Some(tls) = tls {
        config = config.with_security(&tls.authority, &tls.certificate, &tls.key);
    }
    let open = async {
        if keyspace {
            TransactionClient::new_with_config_api_v2_no_prefix(endpoints, config).await
        } else {
            TransactionClient::new_with_config(endpoints, config).await
        }
    };
    match timeout(OPEN_TIME, Box::pin(open)).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(error)) => Err(Failure::Unreachable(format!("no connection to PD: {error}"))),
        Err(_) => Err(Failure::Unreachable("no connection to PD in time".to_owned())),
    }
}

fn read_failure(encoding: &Encoding, error: &tikv_client::Error) -> ReadFailure {
    let mut locks = Vec::new();
    find_locks(encoding, error, &mut locks);
    if !locks.is_empty() {
        return ReadFailure::Locked(locks);
    }
    answers::not_read(&error.to_string())
}

fn find_locks(encoding: &Encoding, error: &tikv_client::Error, locks: &mut Vec<Lock>) {
    use tikv_client::Error as E;
    let mut add = |lock: &tikv_client::ProtoLockInfo| {
        let own = answers::own_lock(encoding, &lock.key, &lock.primary_lock, lock.lock_version, lock.lock_ttl);
        locks.extend(own);
    };
    match error {
        E::ResolveLockError(found) => found.iter().for_each(add),
        E::KeyError(error) => error.locked.iter().for_each(&mut add),
        E::ExtractedErrors(errors) | E::MultipleKeyErrors(errors) => {
            for error in errors {
                find_locks(encoding, error, locks);
            }
        }
        E::UndeterminedError(error) => find_locks(encoding, error, locks),
        _ => {}
    }
}
