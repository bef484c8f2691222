//! As much of TiKV's protocol as these tests need: prewrite, commit and get of single keys, with no retries.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use tandem_e2e_tikv::Cluster;
use tandem_e2e_tikv::control::Region;
use tandem_e2e_tikv::slots::unhex;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Below the milliseconds in a timestamp.
const LOGICAL_BITS: u32 = 18;
const LOCK_TTL_MS: u64 = 3_000;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Epoch {
    #[prost(uint64, tag = "1")]
    conf_ver: u64,
    #[prost(uint64, tag = "2")]
    version: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Context {
    #[prost(uint64, tag = "1")]
    region_id: u64,
    #[prost(message, optional, tag = "2")]
    region_epoch: Option<Epoch>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RegionError {
    #[prost(string, tag = "1")]
    pub(crate) message: String,
}

#[derive(Clone, PartialEq, Message)]
struct Mutation {
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct PrewriteRequest {
    #[prost(message, optional, tag = "1")]
    context: Option<Context>,
    #[prost(message, repeated, tag = "2")]
    mutations: Vec<Mutation>,
    #[prost(bytes = "vec", tag = "3")]
    primary: Vec<u8>,
    #[prost(uint64, tag = "4")]
    start: u64,
    #[prost(uint64, tag = "5")]
    ttl_ms: u64,
    #[prost(bool, tag = "13")]
    one_phase: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PrewriteResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) region_error: Option<RegionError>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(crate) errors: Vec<Vec<u8>>,
    #[prost(uint64, tag = "4")]
    pub(crate) one_phase_commit: u64,
}

#[derive(Clone, PartialEq, Message)]
struct CommitRequest {
    #[prost(message, optional, tag = "1")]
    context: Option<Context>,
    #[prost(uint64, tag = "2")]
    start: u64,
    #[prost(bytes = "vec", repeated, tag = "3")]
    keys: Vec<Vec<u8>>,
    #[prost(uint64, tag = "4")]
    commit: u64,
}

/// Also of other kinds of requests: the first two fields are the same in all.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CommitResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) region_error: Option<RegionError>,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(crate) error: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct GetRequest {
    #[prost(message, optional, tag = "1")]
    context: Option<Context>,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(uint64, tag = "3")]
    version: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GetResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) region_error: Option<RegionError>,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(crate) error: Option<Vec<u8>>,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) value: Vec<u8>,
    #[prost(bool, tag = "4")]
    pub(crate) not_found: bool,
}

/// A point in time that PD gives about now; its own clock may be a moment behind or, after a restart, seconds ahead. Good
/// enough for test stores and two-phase commits: those in one phase end the store if they began later than PD's time.
pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    u64::try_from(now).expect("before the year 500,000,000") << LOGICAL_BITS
}

/// The region of one key, and a connection to its store.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) key: Vec<u8>,
    pub(crate) store: usize,
    pub(crate) region: Region,
    channel: Channel,
}

impl Row {
    pub(crate) async fn find(cluster: &Cluster, key: &[u8]) -> Self {
        for store in 0..cluster.stores() {
            let there = cluster.regions(store).await.expect("the store answers");
            let (start, end) = (
                |region: &Region| unhex(&region.start).expect("hexadecimal"),
                |region: &Region| unhex(&region.end).expect("hexadecimal"),
            );
            let holds =
                |region: &&Region| start(region)[..] <= *key && (region.end.is_empty() || *key < end(region)[..]);
            if let Some(region) = there.regions.iter().find(holds) {
                let endpoint = Endpoint::from_shared(format!("http://{}", there.address)).expect("an address");
                let channel = endpoint.connect_lazy();
                return Self { key: key.to_vec(), store, region: region.clone(), channel };
            }
        }
        panic!("no store has {key:?}");
    }

    /// Another row of the same region.
    pub(crate) fn beside(&self, key: Vec<u8>) -> Self {
        Self { key, ..self.clone() }
    }

    fn context(&self) -> Context {
        let epoch = Epoch { conf_ver: 1, version: self.region.version };
        Context { region_id: self.region.id, region_epoch: Some(epoch) }
    }

    async fn ask<Q, A>(&self, method: &str, question: Q, within: Duration) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut client = Grpc::new(self.channel.clone());
        let mut request = Request::new(question);
        request.set_timeout(within);
        let path = PathAndQuery::try_from(format!("/tikvpb.Tikv/{method}")).expect("a path");
        let call = async {
            client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            client.unary(request, path, ProstCodec::<Q, A>::default()).await.map(tonic::Response::into_inner)
        };
        tokio::time::timeout(within, call).await.unwrap_or_else(|_| Err(Status::deadline_exceeded("nobody answers")))
    }

    pub(crate) async fn prewrite(
        &self,
        value: &[u8],
        primary: &[u8],
        start: u64,
        one_phase: bool,
    ) -> Result<PrewriteResponse, Status> {
        let mutation = Mutation { key: self.key.clone(), value: value.to_vec() };
        let context = Some(self.context());
        let (mutations, primary) = (vec![mutation], primary.to_vec());
        let request = PrewriteRequest { context, mutations, primary, start, ttl_ms: LOCK_TTL_MS, one_phase };
        self.ask("KvPrewrite", request, TIMEOUT).await
    }

    pub(crate) async fn commit(&self, start: u64, commit: u64) -> Result<CommitResponse, Status> {
        let request = CommitRequest { context: Some(self.context()), start, keys: vec![self.key.clone()], commit };
        self.ask("KvCommit", request, TIMEOUT).await
    }

    pub(crate) async fn get(&self, version: u64) -> Result<GetResponse, Status> {
        self.get_within(version, TIMEOUT).await
    }

    pub(crate) async fn get_within(&self, version: u64, within: Duration) -> Result<GetResponse, Status> {
        let request = GetRequest { context: Some(self.context()), key: self.key.clone(), version };
        self.ask("KvGet", request, within).await
    }

    /// Writes the row in a transaction of its own. Returns when it was committed.
    pub(crate) async fn put(&self, value: &[u8]) -> u64 {
        let start = now();
        let prewritten = self.prewrite(value, &self.key, start, false).await.expect("prewritten");
        assert_eq!((prewritten.region_error, prewritten.errors), (None, Vec::new()));
        let committed = self.commit(start, start + 1).await.expect("committed");
        assert_eq!((committed.region_error, committed.error), (None, None));
        start + 1
    }
}
