//! Removes all state of an installation: `tandem-runtime purge`. The operator runs it as a Job.
//!
//! **Invariant:** nothing is removed while a runtime works on it, and no runtime can open what is being removed.

use std::io;
use std::path::{Path, PathBuf};

#[cfg(feature = "tikv")]
use tandem_store::{Snapshot as _, Store as _, keys};
#[cfg(feature = "tikv")]
use tandem_store_tikv::purge::{Found, Purge, Purged};

use crate::store::{self, Location, STORE_DIRECTORY};
use crate::topology::KEPT_FILE;

/// Why nothing, or not everything, was removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Runtimes work on it.
    #[error("runtimes are alive on the {location}: {}; end them first", names.join(", "))]
    Live {
        /// Where.
        location: String,
        /// Who.
        names: Vec<String>,
    },
    /// The store cannot be opened: it is in use, or none of ours, or nobody answers.
    #[error(transparent)]
    Open(#[from] store::Error),
    /// The store failed. What is left is removed by the next purge.
    #[error("failed to {doing} the {location}")]
    Store {
        /// What was tried.
        doing: &'static str,
        /// Where.
        location: String,
        /// Why it failed.
        #[source]
        source: tandem_store::Error,
    },
    /// A file or directory stays.
    #[error("failed to remove {path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether somebody works on what was to be removed, so that nothing was touched.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::Live { .. } | Self::Open(store::Error::Open { source: tandem_store::Error::InUse(_), .. }))
    }
}

/// Removes everything that is stored there; `say` is told how far it is.
pub async fn purge(location: &Location, say: impl FnMut(&str)) -> Result<(), Error> {
    match location {
        Location::Embedded(directory) => embedded(location, directory, say).await,
        #[cfg(feature = "tikv")]
        Location::Tikv(tikv) => on_tikv(location, tikv, say).await,
        #[cfg(not(feature = "tikv"))]
        Location::Tikv(_) => Err(store::Error::NotBuilt.into()),
    }
}

/// The files of an embedded store, once nobody has it open.
async fn embedded(location: &Location, directory: &Path, mut say: impl FnMut(&str)) -> Result<(), Error> {
    let data = directory.join(STORE_DIRECTORY);
    if data.exists() {
        // Opened for its lock alone.
        drop(store::open(location).await?);
        say(&format!("removing the {location}"));
        std::fs::remove_dir_all(&data).map_err(|source| Error::File { path: data, source })?;
    }
    let kept = directory.join(KEPT_FILE);
    match std::fs::remove_file(&kept) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(Error::File { path: kept, source }),
        Ok(()) | Err(_) => {}
    }
    say(&format!("nothing is left in the {location}"));
    Ok(())
}

#[cfg(feature = "tikv")]
async fn on_tikv(location: &Location, tikv: &store::Tikv, mut say: impl FnMut(&str)) -> Result<(), Error> {
    let failed = |doing| {
        let location = location.to_string();
        move |source| Error::Store { doing, location, source }
    };
    let purge = Purge::connect(&tikv.options()).await.map_err(failed("reach"))?;
    let found = purge.found().await.map_err(failed("look at"))?;
    match found {
        Found::Nothing => {
            say(&format!("there is nothing in the {location}"));
            return Ok(());
        }
        Found::Installation => {
            say("looking whether runtimes are alive");
            refuse_live(location, &purge, true).await?;
            purge.close().await.map_err(failed("close"))?;
        }
        Found::Remains => say("an earlier purge has not ended; going on with it"),
    }
    // One that had opened the store before it was closed would show by now.
    if let Err(live) = refuse_live(location, &purge, false).await {
        // Of an earlier purge there is only a part left, which nobody must open.
        if found == Found::Installation {
            purge.reopen().await.map_err(failed("open again"))?;
        }
        return Err(live);
    }
    let slots = slots(&purge).await.map_err(failed("read from"))?;
    let progress = |rows| say(&format!("{rows} rows removed"));
    let purged = purge.remove(|key| is_ours(key, slots), progress).await.map_err(failed("remove what is in"))?;
    say(&summary(location, &purged));
    Ok(())
}

#[cfg(feature = "tikv")]
async fn refuse_live(location: &Location, purge: &Purge, is_brief: bool) -> Result<(), Error> {
    let live = tandem_runtime::members::live(purge.rows(), is_brief).await;
    let location = location.to_string();
    match live {
        Ok(names) if names.is_empty() => Ok(()),
        Ok(names) => Err(Error::Live { location, names }),
        Err(source) => Err(Error::Store { doing: "read from", location, source }),
    }
}

/// How many slots the data is laid out in; as many as there can be where that was never noted, or is removed already.
#[cfg(feature = "tikv")]
async fn slots(purge: &Purge) -> Result<u16, tandem_store::Error> {
    let row = purge.rows().snapshot().await?.get(&tandem_runtime::slots_key()).await?;
    let noted = row.and_then(|row| row.as_ref().try_into().ok().map(u16::from_be_bytes));
    Ok(noted.unwrap_or(u16::MAX))
}

/// Whether a key is one that an installation with so many slots has. Below its prefix there may be another installation, whose
/// prefix is longer.
#[cfg(feature = "tikv")]
fn is_ours(key: &[u8], slots: u16) -> bool {
    use keys::RowKey;
    match keys::parse(key) {
        Err(_) => false,
        Ok(RowKey::Meta { .. }) => true,
        Ok(RowKey::Request { flow }) => flow.slot().get() < slots,
        Ok(
            RowKey::StateValue { slot, .. }
            | RowKey::StateEntry { slot, .. }
            | RowKey::Inbox { slot, .. }
            | RowKey::Timer { slot, .. }
            | RowKey::Egress { slot, .. }
            | RowKey::DeadLetter { slot, .. }
            | RowKey::Lane { slot },
        ) => slot.get() < slots,
    }
}

#[cfg(feature = "tikv")]
fn summary(location: &Location, purged: &Purged) -> String {
    let rows = purged.rows;
    match &purged.foreign {
        None => format!("nothing is left in the {location}; {rows} rows removed"),
        Some(key) => format!(
            "{rows} rows removed from the {location}; keys of somebody else lie below the prefix and stay, such as {}",
            key.escape_ascii()
        ),
    }
}
