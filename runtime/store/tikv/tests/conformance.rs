//! The laws of every store, on a cluster. Without one, they say so and pass.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tandem_store_tikv::TikvStore;
use tandem_store_tikv::options::Options;

/// Names the endpoints of PD.
const ENDPOINTS: &str = "TANDEM_PD_ENDPOINTS";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// An empty store: a prefix of its own.
async fn open() -> (TikvStore, ()) {
    let endpoints = std::env::var(ENDPOINTS).expect("the laws run only with endpoints");
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let prefix = format!("test/{:x}-{number}", since.as_nanos());
    let options: Options = format!("tikv://{endpoints}/{prefix}").parse().expect("endpoints are addresses");
    (TikvStore::open(&options).await.expect("the cluster answers"), ())
}

mod laws {
    tandem_store::store_laws!(super::open);
    tandem_store::history_laws!(super::open);
}
