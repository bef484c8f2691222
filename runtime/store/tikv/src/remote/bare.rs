//! Plain transactions of the crate `tikv-client`, with keys as the store has them: what benchmarks compare the store with.
//!
//! Nothing that the store adds is here: what was only read is not validated, nothing is joined into groups, no call has a
//! limit, and nobody looks a second time at an answer that was lost.

use std::collections::HashMap;

use bytes::Bytes;
use tandem_store::Error;
use tikv_client::transaction::HeartbeatOption;
use tikv_client::{CheckLevel, TransactionClient, TransactionOptions};

use super::client::Client;
use super::encoding::Encoding;
use super::endpoints::Endpoints;
use super::{MESSAGE_BYTES_MAX, ROWS};
use crate::commit::failed;
use crate::options::Options;

/// Begins transactions. Clones share its connections, which belong to the runtime that it was made in.
#[derive(Clone)]
pub struct BareClient {
    client: TransactionClient,
    encoding: Encoding,
}

/// One optimistic transaction that commits in two phases.
pub struct BareTransaction {
    transaction: tikv_client::Transaction,
    encoding: Encoding,
}

/// How a plain transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BareEnd {
    /// It is committed.
    Committed,
    /// Somebody else was faster, and nothing of it was applied.
    Conflict,
    /// Nobody knows. Whoever wants to know reads what it would have written.
    Unknown(String),
}

impl BareClient {
    /// Connects to the cluster, for the rows of one installation. Keyspaces are not for it.
    pub async fn connect(options: &Options) -> Result<Self, Error> {
        options.check()?;
        if options.keyspace.is_some() {
            return Err(Error::Refused("plain transactions do not know keyspaces".to_owned()));
        }
        let endpoints = Endpoints::new(options.endpoints.clone());
        let client = Client::open(options, endpoints, MESSAGE_BYTES_MAX).await.map_err(failed)?.current();
        Ok(Self { client, encoding: Encoding::new(&[options.prefix.as_bytes(), ROWS].concat(), None) })
    }

    /// A transaction that starts now.
    pub async fn begin(&self) -> Result<BareTransaction, Error> {
        let options = TransactionOptions::new_optimistic()
            .drop_check(CheckLevel::Warn)
            .heartbeat_option(HeartbeatOption::NoHeartbeat);
        let begun = self.client.begin_with_options(options).await;
        let transaction = begun.map_err(|error| Error::Unavailable(error.to_string()))?;
        Ok(BareTransaction { transaction, encoding: self.encoding.clone() })
    }
}

impl BareTransaction {
    /// The values of keys. `None` if they cannot be read for the locks of others.
    pub async fn batch_get(&mut self, keys: &[Bytes]) -> Result<Option<Vec<Option<Bytes>>>, Error> {
        let asked: Vec<Vec<u8>> = keys.iter().map(|key| self.encoding.key(key).into()).collect();
        let pairs = match self.transaction.batch_get(asked).await {
            Ok(pairs) => pairs,
            Err(error) if is_conflict(&error) => return Ok(None),
            Err(error) => return Err(Error::Unavailable(error.to_string())),
        };
        let found: HashMap<Vec<u8>, Bytes> = pairs.map(|pair| (pair.0.into(), pair.1.into())).collect();
        Ok(Some(keys.iter().map(|key| found.get(&self.encoding.key(key)[..]).cloned()).collect()))
    }

    /// Writes a key when it commits.
    pub async fn put(&mut self, key: &Bytes, value: &Bytes) -> Result<(), Error> {
        let written = self.transaction.put(Vec::from(self.encoding.key(key)), value.to_vec()).await;
        written.map_err(|error| Error::Unavailable(error.to_string()))
    }

    /// Commits what was written.
    pub async fn commit(mut self) -> BareEnd {
        match self.transaction.commit().await {
            Ok(_) => BareEnd::Committed,
            Err(error) if is_conflict(&error) => {
                // Its locks would be in the way of others. What cannot be removed now, those resolve who meet it.
                let _ = self.transaction.rollback().await;
                BareEnd::Conflict
            }
            // Rolled back, it might be torn: perhaps its first key is committed.
            Err(error) => BareEnd::Unknown(error.to_string()),
        }
    }

    /// Ends it without having written anything.
    pub async fn give_up(mut self) {
        // There is nothing to remove.
        let _ = self.transaction.rollback().await;
    }
}

/// Whether a lock or a later version is proven to have been in the way.
fn is_conflict(error: &tikv_client::Error) -> bool {
    use tikv_client::Error as E;
    match error {
        E::KeyError(error) => error.conflict.is_some() || error.locked.is_some(),
        E::ResolveLockError(_) => true,
        E::ExtractedErrors(errors) | E::MultipleKeyErrors(errors) => {
            !errors.is_empty() && errors.iter().all(is_conflict)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use tikv_client::Error as E;

    use super::*;

    #[test]
    fn only_what_is_proven_is_a_conflict() {
        assert!(is_conflict(&E::ResolveLockError(Vec::new())));
        assert!(is_conflict(&E::MultipleKeyErrors(vec![E::ResolveLockError(Vec::new())])));
        let mixed = vec![E::ResolveLockError(Vec::new()), E::Unimplemented];
        assert!(!is_conflict(&E::ExtractedErrors(mixed)));
        assert!(!is_conflict(&E::ExtractedErrors(Vec::new())));
        assert!(!is_conflict(&E::Unimplemented));
    }
}
