//! Opens the store that is asked for. Which one it is, is decided here and nowhere else: whoever serves it is generic.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tandem_runtime::peers::PeerOptions;
use tandem_store::embedded::{EmbeddedStore, Options};
#[cfg(feature = "tikv")]
use tandem_store_tikv::{TikvStore, options as tikv_options, retry::Timeouts};

use crate::configuration;

pub mod url;

/// The embedded store, below the data directory.
pub(crate) const STORE_DIRECTORY: &str = "store";
/// What the keys of an installation begin with that says nothing about it.
pub const PREFIX_DEFAULT: &str = "tandem";

/// Where state lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In a directory of this machine.
    Embedded(PathBuf),
    /// In a TiKV cluster.
    Tikv(Tikv),
}

impl Location {
    /// How a runtime takes part there if nobody is to reach it: others may work on a cluster at any time, and have to know
    /// that it is there; an embedded store is its own.
    pub fn peers(&self) -> Option<PeerOptions> {
        matches!(self, Self::Tikv(_)).then(PeerOptions::unreachable)
    }
}

/// A part of a TiKV cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tikv {
    /// Where PD listens.
    pub endpoints: Vec<String>,
    /// What all our keys begin with.
    pub prefix: String,
    /// The keyspace in which they are.
    pub keyspace: Option<String>,
    /// Certificates; without them nothing is encrypted.
    pub tls: Option<Tls>,
    /// How far back reads of the past reach.
    pub history: Duration,
    /// Whether this process may be elected to tidy up.
    pub housekeeping: bool,
}

/// Files with certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Of the authorities.
    pub ca: PathBuf,
    /// Of this client.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(directory) => write!(f, "embedded store in {}", directory.display()),
            Self::Tikv(tikv) => {
                let keyspace = tikv.keyspace.as_ref().map(|name| format!(", keyspace {name}")).unwrap_or_default();
                write!(f, "TiKV at {}{keyspace}, prefix {}", tikv.endpoints.join(","), tikv.prefix)
            }
        }
    }
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store itself says why.
    #[error("failed to open the {location}")]
    Open {
        /// Which one.
        location: String,
        /// Why.
        #[source]
        source: tandem_store::Error,
    },
    /// This program was built without it.
    #[cfg(not(feature = "tikv"))]
    #[error("this program was built without TiKV; build it with the feature tikv")]
    NotBuilt,
}

/// A store that is open. There is one arm for each, and [`Location`] says which.
pub enum Opened {
    /// The embedded one.
    Embedded(EmbeddedStore),
    /// One on TiKV.
    #[cfg(feature = "tikv")]
    Tikv(TikvStore),
}

/// Opens a store; fails within seconds if it cannot be had.
pub async fn open(location: &Location) -> Result<Opened, Error> {
    let failed = |source| Error::Open { location: location.to_string(), source };
    match location {
        Location::Embedded(directory) => open_embedded(directory).await.map(Opened::Embedded).map_err(failed),
        #[cfg(feature = "tikv")]
        Location::Tikv(tikv) => Box::pin(TikvStore::open(&tikv.options())).await.map(Opened::Tikv).map_err(failed),
        #[cfg(not(feature = "tikv"))]
        Location::Tikv(_) => Err(Error::NotBuilt),
    }
}

/// Opens the embedded store of a data directory.
async fn open_embedded(directory: &Path) -> Result<EmbeddedStore, tandem_store::Error> {
    let path = directory.join(STORE_DIRECTORY);
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(path, Options::default())).await;
    opened.unwrap_or_else(|error| Err(tandem_store::Error::Unavailable(error.to_string())))
}

impl Tikv {
    /// The same in the words of the store.
    #[cfg(feature = "tikv")]
    pub(crate) fn options(&self) -> tikv_options::Options {
        let tls = self.tls.clone();
        tikv_options::Options {
            endpoints: self.endpoints.clone(),
            tls: tls.map(|Tls { ca, cert, key }| tikv_options::TlsFiles { authority: ca, certificate: cert, key }),
            prefix: format!("{}/", self.prefix.trim_end_matches('/')),
            keyspace: self.keyspace.clone(),
            history: self.history,
            housekeeping: self.housekeeping,
            timeouts: Timeouts::default(),
        }
    }

    /// What a configuration says, once it was checked.
    pub(crate) fn of(tikv: &configuration::Tikv, history: Duration, file: impl Fn(&str, &str) -> PathBuf) -> Self {
        let tls = tikv.tls.as_ref().map(|tls| {
            let file = |name: &str, path: &Option<String>| {
                file(&format!("store.tikv.tls.{name}"), path.as_deref().unwrap_or_default())
            };
            Tls { ca: file("ca", &tls.ca), cert: file("cert", &tls.cert), key: file("key", &tls.key) }
        });
        let endpoints = tikv.endpoints.clone().unwrap_or_default();
        let prefix = tikv.prefix.clone().unwrap_or_else(|| PREFIX_DEFAULT.to_owned());
        Self { endpoints, prefix, keyspace: tikv.keyspace.clone(), tls, history, housekeeping: tikv.housekeeping }
    }
}
