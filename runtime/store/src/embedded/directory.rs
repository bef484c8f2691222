//! The data directory: its lock, its format, and how it comes into being.
//!
//! ```text
//! lock        held while a process uses the directory
//! format      the version of everything below, written before there is any data
//! data        the engine's files
//! data.new    the engine's files while they are made for the first time
//! ```
//!
//! **Invariant:** `data` only ever is a complete database, so that a crash at any moment of the first start does no harm.

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use tandem_model::ids::Timestamp;

use super::Options;
use crate::Error;

/// The format that this code writes, and the newest that it reads.
const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "format";
/// Stands before the version in the format file.
const FORMAT_LABEL: &str = "tandem embedded store, format ";
const LOCK_FILE: &str = "lock";
const DATA: &str = "data";
const DATA_NEW: &str = "data.new";

/// Everything that goes through the [`Store`](crate::Store) trait.
const ROWS: &str = "rows";
/// The store's own rows, out of reach of scans.
const OWN: &str = "store";
/// The own row that holds the timestamp of the last commit.
pub(super) const LAST_COMMIT: &str = "last-commit";
/// The own rows are one; they need no memory.
const OWN_MEMTABLE_BYTES: u64 = 4 << 20;

/// The open database. The lock is the last field, so that it is released after the database is closed.
pub(super) struct Engine {
    pub(super) rows: Keyspace,
    pub(super) own: Keyspace,
    pub(super) database: Database,
    pub(super) path: PathBuf,
    _lock: File,
}

impl Engine {
    /// What a failed read means: the medium may have failed, or a file been changed. Writing is not affected.
    pub(super) fn read_failed(&self, error: &fjall::Error) -> Error {
        let text = format!("failed to read from {}: {error}", self.path.display());
        match error {
            fjall::Error::Io(_) | fjall::Error::Storage(fjall::LsmError::Io(_)) => Error::Unavailable(text),
            _ => Error::Damaged(text),
        }
    }
}

/// Opens the directory and gives the timestamp of the last commit in it.
pub(super) fn open(path: &Path, options: &Options) -> Result<(Engine, Timestamp), Error> {
    let unavailable = |what: &str, error: std::io::Error| {
        Error::Unavailable(format!("failed to {what} in data directory {}: {error}", path.display()))
    };
    std::fs::create_dir_all(path).map_err(|error| unavailable("make or find the place for data", error))?;
    let lock = lock(path, unavailable)?;
    let data = path.join(DATA);
    let has_data = data.try_exists().map_err(|error| unavailable("look for data", error))?;
    match read_format(path, unavailable)? {
        Some(found) if found > FORMAT => {
            return Err(Error::NewerFormat { path: path.display().to_string(), found, known: FORMAT });
        }
        Some(_) => {}
        None if has_data => {
            let problem = format!("data directory {} has data, but no file {FORMAT_FILE:?}", path.display());
            return Err(Error::Damaged(problem));
        }
        None => write_format(path).map_err(|error| unavailable("write the format", error))?,
    }
    if !has_data {
        create(path, options)?;
        std::fs::rename(path.join(DATA_NEW), &data).map_err(|error| unavailable("name the new data", error))?;
        sync_directory(path).map_err(|error| unavailable("sync the new data", error))?;
    }
    let (database, rows, own) = open_engine(path, &data, options)?;
    let engine = Engine { rows, own, database, path: path.to_owned(), _lock: lock };
    let last = last_commit(&engine)?;
    Ok((engine, last))
}

fn lock(path: &Path, unavailable: impl Fn(&str, std::io::Error) -> Error) -> Result<File, Error> {
    let file = File::options().create(true).truncate(false).write(true).open(path.join(LOCK_FILE));
    let file = file.map_err(|error| unavailable("open the lock", error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse(path.display().to_string())),
        Err(TryLockError::Error(error)) => Err(unavailable("take the lock", error)),
    }
}

/// `None` if there is no format file.
fn read_format(path: &Path, unavailable: impl Fn(&str, std::io::Error) -> Error) -> Result<Option<u32>, Error> {
    let text = match std::fs::read(path.join(FORMAT_FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unavailable("read the format", error)),
    };
    let text = String::from_utf8_lossy(&text);
    let format = text.strip_prefix(FORMAT_LABEL).and_then(|version| version.trim_end().parse().ok());
    let damaged = || Error::Damaged(format!("{} does not name a format", path.join(FORMAT_FILE).display()));
    format.map(Some).ok_or_else(damaged)
}

/// Written under another name first: a format file is whole or not there.
fn write_format(path: &Path) -> std::io::Result<()> {
    let new = path.join("format.new");
    let mut file = File::create(&new)?;
    writeln!(file, "{FORMAT_LABEL}{FORMAT}")?;
    file.sync_all()?;
    std::fs::rename(new, path.join(FORMAT_FILE))?;
    sync_directory(path)
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes an empty database. What a crash has left of an earlier attempt never was used.
fn create(path: &Path, options: &Options) -> Result<(), Error> {
    let new = path.join(DATA_NEW);
    match std::fs::remove_dir_all(&new) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::Unavailable(format!("failed to remove {}: {error}", new.display()))),
    }
    let (database, rows, own) = open_engine(path, &new, options)?;
    let synced = database.persist(fjall::PersistMode::SyncAll);
    drop((rows, own, database));
    synced.map_err(|error| Error::Unavailable(format!("failed to make {}: {error}", new.display())))
}

fn open_engine(path: &Path, data: &Path, options: &Options) -> Result<(Database, Keyspace, Keyspace), Error> {
    // The engine takes some things for granted about its files; where they are not so, it panics.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let database = Database::builder(data)
            .cache_size(options.cache_bytes)
            .max_journaling_size(options.journal_bytes.max(JOURNAL_BYTES_MIN))
            .worker_threads(options.worker_threads.max(1))
            .open()?;
        let rows = || KeyspaceCreateOptions::default().max_memtable_size(options.memtable_bytes);
        let own = || KeyspaceCreateOptions::default().max_memtable_size(OWN_MEMTABLE_BYTES);
        let (rows, own) = (database.keyspace(ROWS, rows)?, database.keyspace(OWN, own)?);
        Ok((database, rows, own))
    }));
    let shown = path.display();
    match opened {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(fjall::Error::Locked)) => Err(Error::InUse(shown.to_string())),
        Ok(Err(error @ (fjall::Error::Io(_) | fjall::Error::Storage(fjall::LsmError::Io(_))))) => {
            Err(Error::Unavailable(format!("failed to open data directory {shown}: {error}")))
        }
        Ok(Err(error)) => Err(Error::Damaged(format!("data directory {shown} cannot be read: {error}"))),
        Err(_) => Err(Error::Damaged(format!("data directory {shown} cannot be read: its files do not fit together"))),
    }
}

/// The engine takes no less.
const JOURNAL_BYTES_MIN: u64 = 64 << 20;

fn last_commit(engine: &Engine) -> Result<Timestamp, Error> {
    let row = engine.own.get(LAST_COMMIT).map_err(|error| engine.read_failed(&error))?;
    let Some(row) = row else { return Ok(Timestamp::ZERO) };
    let damaged = |_| Error::Damaged(format!("{}: the last timestamp has {} bytes", engine.path.display(), row.len()));
    let bytes: [u8; 8] = row[..].try_into().map_err(damaged)?;
    Ok(Timestamp(u64::from_be_bytes(bytes)))
}
