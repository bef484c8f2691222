//! The embedded store holds every law but history.

#![expect(clippy::unwrap_used, reason = "a test that cannot open its store fails")]

use std::future::{Ready, ready};

use tandem_store::embedded::{EmbeddedStore, Options};
use tempfile::TempDir;

/// No test depends on how full the machine's disk is.
fn options() -> Options {
    Options { reserve_bytes: 0, ..Options::default() }
}

fn open() -> Ready<(EmbeddedStore, TempDir)> {
    let directory = TempDir::new().unwrap();
    ready((EmbeddedStore::open(directory.path(), options()).unwrap(), directory))
}

tandem_store::store_laws!(open);
tandem_store::no_history_law!(open);
