//! Values of keys as of a timestamp, from the leaders of their regions.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use tandem_model::ids::Timestamp;

use super::wire::kvrpcpb;
use super::{Remote, answers};
use crate::batches::REQUESTS_AT_ONCE;
use crate::cluster::{Cluster as _, Failure, ReadFailure, Region};

/// Keys of one request.
const KEYS_MAX: usize = 256;
/// How often keys are sent again because their region was elsewhere. Then the caller decides.
const ROUNDS_MAX: u32 = 4;
/// First wait before that; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(2);

type Pairs = Vec<(Bytes, Bytes)>;

impl Remote {
    /// The values of keys, in their order. Never waits for a lock.
    pub(super) async fn values(&self, at: Timestamp, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, ReadFailure> {
        let mut found: HashMap<Bytes, Bytes> = HashMap::with_capacity(keys.len());
        let mut left = keys.to_vec();
        for round in 0.. {
            let (pairs, failed) = self.round(at, left).await?;
            found.extend(pairs);
            let Some((failure, again)) = failed else { break };
            if round >= ROUNDS_MAX {
                return Err(unreachable(failure));
            }
            tokio::time::sleep(FIRST_WAIT * 2_u32.pow(round)).await;
            left = again;
        }
        Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
    }

    /// One request to each region. Gives what was found, and the keys that nobody answered for.
    async fn round(
        &self,
        at: Timestamp,
        keys: Vec<Bytes>,
    ) -> Result<(Pairs, Option<(Failure, Vec<Bytes>)>), ReadFailure> {
        let mut by_region: BTreeMap<Region, Vec<Bytes>> = BTreeMap::new();
        for key in keys {
            let region = self.region_of(&key).await.map_err(unreachable)?;
            by_region.entry(region).or_default().push(key);
        }
        let requests: Vec<(Region, Vec<Bytes>)> = by_region
            .into_iter()
            .flat_map(|(region, keys)| keys.chunks(KEYS_MAX).map(|keys| (region, keys.to_vec())).collect::<Vec<_>>())
            .collect();
        let asked = requests.into_iter().map(|(region, keys)| async move {
            let answer = self.of_region(at, region, &keys).await;
            (keys, answer)
        });
        let answers: Vec<_> = stream::iter(asked).buffer_unordered(REQUESTS_AT_ONCE).collect().await;
        let (mut found, mut failed, mut again, mut locks) = (Vec::new(), None, Vec::new(), Vec::new());
        for (keys, answer) in answers {
            match answer.map(|answer| answers::values(&self.encoding, answer.pairs, answer.error.as_ref())) {
                Ok(Ok(pairs)) => found.extend(pairs),
                Ok(Err(ReadFailure::Locked(more))) => locks.extend(more),
                Ok(Err(failure)) => return Err(failure),
                Err(failure) => {
                    again.extend(keys);
                    failed = Some(failure);
                }
            }
        }
        if !locks.is_empty() {
            return Err(ReadFailure::Locked(locks));
        }
        Ok((found, failed.map(|failure| (failure, again))))
    }

    async fn of_region(
        &self,
        at: Timestamp,
        region: Region,
        keys: &[Bytes],
    ) -> Result<kvrpcpb::BatchGetResponse, Failure> {
        let (known, connection) = self.leader(region).await?;
        let message = kvrpcpb::BatchGetRequest {
            context: Some(self.context(&known, false)),
            keys: answers::keys(&self.encoding, keys),
            version: at.0,
        };
        self.ask((&known, &connection), message, |answer| answer.region_error.as_ref()).await
    }
}

fn unreachable(failure: Failure) -> ReadFailure {
    match failure {
        Failure::Refused(why) => ReadFailure::Refused(why),
        other => ReadFailure::Unreachable(other.to_string()),
    }
}
