//! The embedded store holds every law but history.

use tandem_store::embedded::{EmbeddedStore, Options};
use tempfile::TempDir;

/// No test depends on how full the machine's disk is.
fn options() -> Options {
    Options { reserve_bytes: 0, ..Options::default() }
}

async fn open() -> (EmbeddedStore, TempDir) {
    let directory = TempDir::new().unwrap();
    (EmbeddedStore::open(directory.path(), options()).unwrap(), directory)
}

tandem_store::store_laws!(open);
tandem_store::no_history_law!(open);
