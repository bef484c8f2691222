//! A real cluster: stores and PD over the network.
//!
//! | module | concept |
//! | --- | --- |
//! | `wire` | the messages of the public protocol |
//! | `encoding` | keys on the way there and back |
//! | `endpoints` | where PD can be reached |
//! | `channels`, `pd` | connections; where regions and stores are |
//! | `lanes` | requests of all regions of a store in one stream |
//! | `regions` | what is known about regions, corrected by what stores answer |
//! | `answers` | from messages to answers of the seam |
//! | `reads`, `scans` | values of keys, rows of ranges |
//! | `client` | timestamps and scans from the end, through the crate `tikv-client` |

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tandem_model::ids::Timestamp;
use tandem_store::KeyRange;

use crate::cluster::{
    CheckTransaction, Cluster, CommitAnswer, CommitKeys, Failure, FoundLock, Prewrite, PrewriteAnswer, ReadFailure,
    Region, RollbackAnswer, RollbackKeys, TransactionStatus,
};
use crate::options::Options;
use crate::stats::Stats;
use channels::{Connection, Dialer, Stores, causes, within};
use client::Client;
use encoding::Encoding;
use endpoints::Endpoints;
use lanes::Command;
use pd::Pd;
use regions::{KnownRegion, Regions};
use wire::{errorpb, kvrpcpb};

mod answers;
#[cfg(feature = "bare")]
pub mod bare;
pub(crate) mod channels;
pub(crate) mod client;
mod encoding;
mod endpoints;
mod lanes;
pub(crate) mod pd;
mod reads;
mod regions;
mod scans;
mod wire;

/// Messages of stores are not larger.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Version 2 of the protocol, which keyspaces need.
const VERSION_2: i32 = 2;
/// Decides that a lock has expired, whatever its time is.
const END_OF_TIME: u64 = u64::MAX;

/// What the keys of the rows that users of the store have begin with, after the prefix of the installation.
pub(crate) const ROWS: &[u8] = b"d";
/// The same of rows that are the store's own, out of reach of scans.
pub(crate) const OWN: &[u8] = b"o";

/// A part of the keys of a cluster of TiKV stores and PD. Clones share the connections.
#[derive(Clone)]
pub struct Remote {
    encoding: Arc<Encoding>,
    shared: Arc<Shared>,
}

struct Shared {
    prefix: String,
    keyspace: Option<u32>,
    endpoints: Endpoints,
    pd: Pd,
    stores: Stores,
    regions: Regions,
    client: Client,
    /// How long to wait for a store: less than the caller does, so that a store that is frozen is noticed here.
    answer: Duration,
    stats: Arc<Stats>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("cluster", &self.shared.pd.cluster()).finish_non_exhaustive()
    }
}

impl Remote {
    /// Connects to PD. Stores are connected to when they are needed.
    pub(crate) async fn connect(options: &Options, dialer: Dialer, stats: Arc<Stats>) -> Result<Self, Failure> {
        let endpoints = Endpoints::new(options.endpoints.clone());
        let pd = Pd::new(dialer.clone(), endpoints.clone());
        pd.connect().await?;
        let keyspace = match &options.keyspace {
            Some(name) => Some(pd.keyspace(name).await?),
            None => None,
        };
        let client = Client::open(options, endpoints.clone(), MESSAGE_BYTES_MAX).await?;
        let encoding = Arc::new(Encoding::new(&[options.prefix.as_bytes(), ROWS].concat(), keyspace));
        let (stores, regions) = (Stores::new(dialer, MESSAGE_BYTES_MAX), Regions::default());
        let prefix = options.prefix.clone();
        let answer = options.timeouts.call * 2 / 3;
        let shared = Arc::new(Shared { prefix, keyspace, endpoints, pd, stores, regions, client, answer, stats });
        Ok(Self { encoding, shared })
    }

    /// The store's own rows.
    pub(crate) fn own(&self) -> Self {
        self.part(OWN)
    }

    /// All keys of the installation.
    pub(crate) fn everything(&self) -> Self {
        self.part(&[])
    }

    fn part(&self, part: &[u8]) -> Self {
        let prefix = [self.shared.prefix.as_bytes(), part].concat();
        Self { encoding: Arc::new(Encoding::new(&prefix, self.shared.keyspace)), shared: self.shared.clone() }
    }

    /// The number of the cluster.
    pub fn cluster_id(&self) -> u64 {
        self.shared.pd.cluster().unwrap_or_default()
    }

    /// The crate's client, for what only it can do.
    pub(crate) fn client(&self) -> &Client {
        &self.shared.client
    }

    /// All keys of this part, as the cluster has them.
    pub(crate) fn all_keys(&self) -> (Vec<u8>, Vec<u8>) {
        self.encoding.range(&KeyRange { start: Bytes::new(), end: None })
    }

    /// PD is reached here from now on; what was known before is tried after it. Connections that work stay.
    pub fn set_endpoints(&self, endpoints: &[String]) {
        self.shared.endpoints.put_first(endpoints);
    }

    /// Gives up all connections, after the certificates have changed.
    pub(crate) async fn reconnect(&self) {
        self.shared.stores.close_all();
        self.shared.pd.disconnect().await;
        self.shared.client.reopen().await;
    }

    /// The region and the connection to its leader.
    async fn leader(&self, region: Region) -> Result<(Arc<KnownRegion>, Connection), Failure> {
        let inner = &self.shared;
        let Some(known) = inner.regions.get(region) else {
            return Err(Failure::Region("it has changed meanwhile".to_owned()));
        };
        let store = known.leader.store_id;
        if let Some(connection) = inner.stores.open(store) {
            return Ok((known, connection));
        }
        let address = inner.pd.store_address(store).await?;
        match inner.stores.connect(store, &address).await {
            Ok(connection) => Ok((known, connection)),
            Err(failure) => {
                // Its regions may have other leaders by now.
                inner.regions.forget_store(store);
                Err(failure)
            }
        }
    }

    /// The region of a key in PD's encoding.
    async fn region_at(&self, key: Bytes) -> Result<Region, Failure> {
        if let Some(region) = self.shared.regions.of_key(&key) {
            return Ok(region);
        }
        self.shared.stats.region_lookups.add_one();
        let known = self.shared.pd.region(key.clone()).await?;
        let region = known.name();
        self.shared.regions.insert(known);
        // What PD knows may be older than what a store has said meanwhile.
        Ok(self.shared.regions.of_key(&key).unwrap_or(region))
    }

    fn context(&self, known: &KnownRegion, repeated: bool) -> kvrpcpb::Context {
        kvrpcpb::Context {
            region_id: known.region.id,
            region_epoch: known.region.region_epoch,
            peer: Some(known.leader),
            is_retry_request: repeated,
            api_version: if self.shared.keyspace.is_some() { VERSION_2 } else { 0 },
            keyspace_id: self.shared.keyspace.unwrap_or_default(),
            request_source: "tandem".to_owned(),
            ..Default::default()
        }
    }

    /// Asks the leader of a region, and learns from the answer or from its absence. Nobody can tell whether a request
    /// without an answer has arrived.
    async fn ask<C: Command>(
        &self,
        (known, connection): (&KnownRegion, &Connection),
        command: C,
        region_error: impl FnOnce(&C::Answer) -> Option<&errorpb::Error>,
    ) -> Result<C::Answer, Failure> {
        let (inner, store) = (&self.shared, known.leader.store_id);
        let answer = match within(inner.answer, connection.ask(command)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if connection.is_not_served(&status) => {
                inner.stores.only_single(store);
                return Err(Failure::Region(format!("store {store} takes single requests only")));
            }
            Err(status) => {
                inner.stores.close(store);
                inner.regions.forget(known.name());
                return Err(Failure::Lost(causes(&status)));
            }
        };
        let Some(error) = region_error(&answer) else { return Ok(answer) };
        inner.stats.region_errors.add_one();
        inner.regions.learn(known, error);
        if error.store_not_match.is_some() {
            inner.stores.close(store);
        }
        Err(answers::region_failure(error))
    }
}

impl Cluster for Remote {
    async fn timestamp(&self) -> Result<Timestamp, Failure> {
        self.shared.client.timestamp().await
    }

    async fn region_of(&self, key: &Bytes) -> Result<Region, Failure> {
        self.region_at(self.encoding.at_pd(key)).await
    }

    async fn prewrite(&self, region: Region, request: Prewrite) -> Result<PrewriteAnswer, Failure> {
        let (known, connection) = self.leader(region).await?;
        let encoding = &self.encoding;
        let mutations = request.mutations.into_iter().map(|(key, value)| {
            let op = if value.is_some() { kvrpcpb::Op::Put } else { kvrpcpb::Op::Del };
            kvrpcpb::Mutation { op: op.into(), key: encoding.key(&key), value: value.unwrap_or_default() }
        });
        let message = kvrpcpb::PrewriteRequest {
            context: Some(self.context(&known, request.repeated)),
            mutations: mutations.collect(),
            primary_lock: encoding.key(&request.primary),
            start_version: request.start.0,
            lock_ttl: request.lives_ms,
            txn_size: request.transaction_keys,
            try_one_pc: request.one_phase.is_some(),
            max_commit_ts: request.one_phase.map_or(0, |one_phase| one_phase.commit_at_most.0),
        };
        let answer = self.ask((&known, &connection), message, |answer| answer.region_error.as_ref()).await?;
        Ok(answers::prewrite(encoding, request.one_phase.is_some(), &answer))
    }

    async fn commit(&self, region: Region, request: CommitKeys) -> Result<CommitAnswer, Failure> {
        let (known, connection) = self.leader(region).await?;
        let message = kvrpcpb::CommitRequest {
            context: Some(self.context(&known, false)),
            start_version: request.start.0,
            keys: answers::keys(&self.encoding, &request.keys),
            commit_version: request.at.0,
        };
        let answer = self.ask((&known, &connection), message, |answer| answer.region_error.as_ref()).await?;
        answers::commit(answer.error.as_ref())
    }

    async fn rollback(&self, region: Region, request: RollbackKeys) -> Result<RollbackAnswer, Failure> {
        let (known, connection) = self.leader(region).await?;
        let message = kvrpcpb::BatchRollbackRequest {
            context: Some(self.context(&known, false)),
            start_version: request.start.0,
            keys: answers::keys(&self.encoding, &request.keys),
        };
        let answer = self.ask((&known, &connection), message, |answer| answer.region_error.as_ref()).await?;
        Ok(answers::rollback(answer.error.as_ref()))
    }

    async fn check_transaction(&self, region: Region, request: CheckTransaction) -> Result<TransactionStatus, Failure> {
        let (known, connection) = self.leader(region).await?;
        let message = kvrpcpb::CheckTxnStatusRequest {
            context: Some(self.context(&known, false)),
            primary_key: self.encoding.key(&request.primary),
            lock_ts: request.start.0,
            // Zero, so that nobody's commit is pushed past the timestamp that it has validated.
            caller_start_ts: 0,
            current_ts: match request.found {
                FoundLock::RollBackIfExpiredAt(now) => now.0,
                FoundLock::RollBack => END_OF_TIME,
            },
            rollback_if_not_exist: request.roll_back_if_absent,
        };
        answers::status(&self.ask((&known, &connection), message, |answer| answer.region_error.as_ref()).await?)
    }

    async fn batch_get(&self, at: Timestamp, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, ReadFailure> {
        // Boxed, so that the futures around it stay small.
        Box::pin(self.values(at, keys)).await
    }

    async fn scan(
        &self,
        at: Timestamp,
        range: &KeyRange,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<(Bytes, Bytes)>, ReadFailure> {
        if reverse {
            return self.shared.client.scan_from_end(&self.encoding, at, range, limit).await;
        }
        // Boxed, so that the futures around it stay small.
        Box::pin(self.rows(at, range, limit)).await
    }

    async fn safe_point(&self) -> Result<Timestamp, Failure> {
        self.shared.pd.safe_point().await
    }
}
