//! The stored state of one instance, as a test looks at it.

use serde::de::DeserializeOwned;
use tandem::MapKey;
use tandem_runtime::runtime::InstanceState;

use crate::Error;

/// The stored state of one instance at one time.
#[derive(Clone, Debug)]
pub struct State(pub(crate) InstanceState);

impl State {
    /// The value of a state of kind value.
    pub fn value<T: DeserializeOwned>(&self, state: &str) -> Result<Option<T>, Error> {
        let stored = self.0.values.iter().find(|(name, _)| name.as_str() == state);
        stored.map(|(_, bytes)| self.read(state, bytes)).transpose()
    }

    /// The entries of a state of kind map, in order of their keys.
    pub fn entries<K: MapKey, V: DeserializeOwned>(&self, state: &str) -> Result<Vec<(K, V)>, Error> {
        let stored = self.0.entries.iter().filter(|(name, ..)| name.as_str() == state);
        let entries = stored.map(|(_, key, value)| {
            let key = K::from_bytes(key)
                .map_err(|error| Error::Key { state: state.to_owned(), problem: error.to_string() })?;
            Ok((key, self.read(state, value)?))
        });
        entries.collect()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.0.values.is_empty() && self.0.entries.is_empty()
    }

    fn read<T: DeserializeOwned>(&self, state: &str, bytes: &[u8]) -> Result<T, Error> {
        let what = || format!("state {state} of {}", self.0.instance);
        serde_json::from_slice(bytes).map_err(|source| Error::Json { what: what(), source })
    }
}
