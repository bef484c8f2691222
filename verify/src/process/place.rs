//! Where the state of a run is: in its own directory, or in a part of a TiKV that is its own.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bytes::Bytes;
use tandem_server::store::{self, Location, Opened, url};
use tandem_store::embedded::{EmbeddedStore, Options};
use tandem_store::{Commit, KeyRange, Snapshot, Store};

use super::site::copy_directory;

/// Rows that are read, or removed, at once.
const PAGE: usize = 500;
/// Keys of runs, below those of the store that was named.
const PREFIX: &str = "verify";

/// A row as it is stored.
pub(crate) type Row = (Bytes, Bytes);

/// Where the runtime keeps its state.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// In this directory.
    Directory(PathBuf),
    /// In this part of a TiKV.
    Cluster { url: String, location: Location },
}

impl State {
    /// A part of the TiKV at `store` that no other run has, or the directory.
    pub(crate) fn of(store: Option<&str>, directory: &Path) -> anyhow::Result<Self> {
        let Some(store) = store else { return Ok(Self::Directory(directory.join("data").join("store"))) };
        let (address, query) =
            store.split_once('?').map_or((store, String::new()), |(address, query)| (address, format!("?{query}")));
        // The directory is new, and so is its name.
        let run: String = directory.file_name().unwrap_or_default().to_string_lossy().replace('.', "");
        let url = format!("{}/{PREFIX}/{run}{query}", address.trim_end_matches('/'));
        match url::location(&url).map_err(anyhow::Error::msg)? {
            location @ Location::Tikv(_) => Ok(Self::Cluster { url, location }),
            Location::Embedded(_) => bail!("{store:?} is no TiKV: write {}HOST:PORT", url::TIKV),
        }
    }

    /// Exactly that part of a TiKV.
    pub(crate) fn at(url: &str) -> anyhow::Result<Self> {
        match url::location(url).map_err(anyhow::Error::msg)? {
            location @ Location::Tikv(_) => Ok(Self::Cluster { url: url.to_owned(), location }),
            Location::Embedded(_) => bail!("{url:?} is no TiKV"),
        }
    }

    /// All rows, while no runtime runs. Of a directory it looks at a copy below `scratch`, so that the next runtime finds
    /// what the last one left.
    pub(crate) async fn rows(&self, scratch: &Path) -> anyhow::Result<Vec<Row>> {
        match self {
            Self::Directory(directory) => {
                let copy = tempfile::tempdir_in(scratch).context("failed to make a directory")?;
                let path = copy.path().join("store");
                copy_directory(directory, &path).context("failed to copy the store")?;
                let store = EmbeddedStore::open(&path, Options { reserve_bytes: 0, ..Options::default() })?;
                rows(&store).await
            }
            Self::Cluster { location, .. } => match Box::pin(store::open(location)).await? {
                Opened::Embedded(store) => rows(&store).await,
                Opened::Tikv(store) => Box::pin(rows(&store)).await,
            },
        }
    }

    /// Removes what is in the part of a TiKV. A directory goes by itself.
    pub(crate) async fn remove(&self) -> anyhow::Result<()> {
        let Self::Cluster { location, .. } = self else { return Ok(()) };
        match Box::pin(store::open(location)).await? {
            Opened::Embedded(store) => remove(&store).await,
            Opened::Tikv(store) => Box::pin(remove(&store)).await,
        }
    }
}

async fn rows<S: Store>(store: &S) -> anyhow::Result<Vec<Row>> {
    let snapshot = store.snapshot().await?;
    let (mut all, mut range) = (Vec::new(), KeyRange { start: Bytes::new(), end: None });
    loop {
        let page = snapshot.scan(&range, PAGE, false).await?;
        let is_last = page.len() < PAGE;
        if let Some((last, _)) = page.last() {
            // The first key behind it.
            range.start = [last, &b"\0"[..]].concat().into();
        }
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

async fn remove<S: Store>(store: &S) -> anyhow::Result<()> {
    let all = rows(store).await?;
    for page in all.chunks(PAGE) {
        let writes: Vec<(Bytes, Option<Bytes>)> = page.iter().map(|(key, _)| (key.clone(), None)).collect();
        let primary = writes.first().map(|(key, _)| key.clone()).unwrap_or_default();
        store.commit(Commit { primary, writes, ..Commit::default() }).await?;
    }
    Ok(())
}
