//! PD: where regions and stores are. Finds its leader, and follows it when it moves.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use tandem_model::ids::Timestamp;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tonic::transport::Channel;

use super::channels::{Dialer, causes, within};
use super::endpoints::Endpoints;
use super::regions::KnownRegion;
use super::wire::keyspacepb::{LoadKeyspaceRequest, keyspace_client::KeyspaceClient};
use super::wire::pdpb::{
    Error as PdError, GetGcSafePointRequest, GetMembersRequest, GetRegionRequest, GetStoreRequest, RequestHeader,
    ResponseHeader, pd_client::PdClient,
};
use crate::cluster::Failure;

/// One request takes no longer.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// To find the leader through one member takes no longer. Less than a call may take, so that others have their turn.
const MEMBER_TIME: Duration = Duration::from_millis(1200);

/// The members of PD, of which one leads.
#[derive(Debug)]
pub(crate) struct Pd {
    dialer: Dialer,
    endpoints: Endpoints,
    cluster: OnceLock<u64>,
    leader: Mutex<Option<Channel>>,
}

/// What a member of PD says about the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Members {
    cluster: u64,
    all: Vec<String>,
    leader: Vec<String>,
}

impl Pd {
    pub(crate) fn new(dialer: Dialer, endpoints: Endpoints) -> Self {
        Self { dialer, endpoints, cluster: OnceLock::new(), leader: Mutex::new(None) }
    }

    /// The number of the cluster, once a member was reached.
    pub(crate) fn cluster(&self) -> Option<u64> {
        self.cluster.get().copied()
    }

    /// Finds the leader if it is not known. Gives the number of the cluster.
    pub(crate) async fn connect(&self) -> Result<u64, Failure> {
        self.leader().await?;
        Ok(self.cluster().unwrap_or_default())
    }

    /// The region that holds a key in PD's encoding.
    pub(crate) async fn region(&self, key: Bytes) -> Result<KnownRegion, Failure> {
        let request = GetRegionRequest { header: Some(self.header()), region_key: key };
        let mut client = self.client().await?;
        let answer = self.take(within(ANSWER_TIME, client.get_region(request)).await).await?;
        self.check(answer.header.as_ref()).await?;
        match (answer.region, answer.leader) {
            (Some(region), Some(leader)) if leader.store_id != 0 => Ok(KnownRegion { region, leader }),
            (Some(region), _) => Err(Failure::Region(format!("region {} has no leader", region.id))),
            (None, _) => Err(Failure::Region("PD knows no region for a key".to_owned())),
        }
    }

    /// Where a store takes requests.
    pub(crate) async fn store_address(&self, store: u64) -> Result<String, Failure> {
        let request = GetStoreRequest { header: Some(self.header()), store_id: store };
        let mut client = self.client().await?;
        let answer = self.take(within(ANSWER_TIME, client.get_store(request)).await).await?;
        self.check(answer.header.as_ref()).await?;
        let address = answer.store.map(|store| store.address).filter(|address| !address.is_empty());
        address.ok_or_else(|| Failure::Region(format!("PD knows no address of store {store}")))
    }

    /// Up to where history may have been removed.
    pub(crate) async fn safe_point(&self) -> Result<Timestamp, Failure> {
        let request = GetGcSafePointRequest { header: Some(self.header()) };
        let mut client = self.client().await?;
        let answer = self.take(within(ANSWER_TIME, client.get_gc_safe_point(request)).await).await?;
        self.check(answer.header.as_ref()).await?;
        Ok(Timestamp(answer.safe_point))
    }

    /// The number of a keyspace.
    pub(crate) async fn keyspace(&self, name: &str) -> Result<u32, Failure> {
        let channel = self.leader().await?;
        let request = LoadKeyspaceRequest { header: Some(self.header()), name: name.to_owned() };
        let mut client = KeyspaceClient::new(channel);
        let answer = self.take(within(ANSWER_TIME, client.load_keyspace(request)).await).await?;
        match (answer.header.and_then(|header| header.error), answer.keyspace) {
            (None | Some(PdError { r#type: 0, .. }), Some(keyspace)) => Ok(keyspace.id),
            (error, _) => {
                let why = error.map(|error| error.message).unwrap_or_default();
                Err(Failure::Refused(format!("keyspace {name:?} is not to be had: {why}")))
            }
        }
    }

    fn header(&self) -> RequestHeader {
        RequestHeader { cluster_id: self.cluster().unwrap_or_default() }
    }

    async fn client(&self) -> Result<PdClient<Channel>, Failure> {
        Ok(PdClient::new(self.leader().await?))
    }

    /// Takes an answer of the leader, or gives the leader up. Everything that PD is asked here changes nothing, so that a
    /// lost answer is as good as none.
    async fn take<T>(&self, answer: Result<tonic::Response<T>, tonic::Status>) -> Result<T, Failure> {
        match answer {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => {
                *self.leader.lock().await = None;
                Err(Failure::Unreachable(format!("PD: {}", causes(&status))))
            }
        }
    }

    async fn check(&self, header: Option<&ResponseHeader>) -> Result<(), Failure> {
        let error = header.and_then(|header| header.error.as_ref()).filter(|error| error.r#type != 0);
        let Some(error) = error else { return Ok(()) };
        *self.leader.lock().await = None;
        Err(Failure::Unreachable(format!("PD: {}", error.message)))
    }

    async fn leader(&self) -> Result<Channel, Failure> {
        let mut leader = self.leader.lock().await;
        if let Some(channel) = &*leader {
            return Ok(channel.clone());
        }
        let mut problems = Vec::new();
        for endpoint in self.endpoints.all() {
            self.endpoints.put_last(&endpoint);
            let late = |_| Err(Failure::Unreachable(format!("{endpoint}: no answer in time")));
            match timeout(MEMBER_TIME, self.find_leader(&endpoint)).await.unwrap_or_else(late) {
                Ok(channel) => {
                    *leader = Some(channel.clone());
                    return Ok(channel);
                }
                Err(failure @ Failure::Refused(_)) => return Err(failure),
                Err(failure) => problems.push(failure.to_string()),
            }
        }
        Err(Failure::Unreachable(format!("no leader of PD: {}", problems.join("; "))))
    }

    /// Gives the leader up, so that it is connected to anew.
    pub(crate) async fn disconnect(&self) {
        *self.leader.lock().await = None;
    }

    async fn find_leader(&self, endpoint: &str) -> Result<Channel, Failure> {
        let channel = self.dialer.dial(endpoint).await?;
        let members = members(&channel, endpoint).await?;
        let known = *self.cluster.get_or_init(|| members.cluster);
        if known != members.cluster {
            let why = format!("PD at {endpoint} belongs to cluster {}, not to {known}", members.cluster);
            return Err(Failure::Refused(why));
        }
        self.endpoints.remember(&members.all);
        if members.leader.iter().any(|url| url.ends_with(&format!("//{endpoint}"))) {
            return Ok(channel);
        }
        let mut last = Failure::Unreachable(format!("PD at {endpoint} knows no leader"));
        for url in &members.leader {
            match self.dialer.dial(url).await {
                Ok(channel) => return Ok(channel),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }
}

async fn members(channel: &Channel, endpoint: &str) -> Result<Members, Failure> {
    let mut client = PdClient::new(channel.clone());
    let unreachable = |status: &tonic::Status| {
        Failure::Unreachable(format!("{endpoint} does not answer as PD does: {}", causes(status)))
    };
    let answer = within(MEMBER_TIME, client.get_members(GetMembersRequest::default())).await;
    let answer = answer.map_err(|status| unreachable(&status))?.into_inner();
    let cluster = answer.header.map(|header| header.cluster_id).unwrap_or_default();
    let leader = answer.leader.map(|leader| leader.client_urls).unwrap_or_default();
    let all = answer.members.into_iter().flat_map(|member| member.client_urls).collect();
    Ok(Members { cluster, all, leader })
}
