//! The laws of every store, on a cluster. Without one, they say so and pass.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tandem_store_tikv::TikvStore;
use tandem_store_tikv::options::Options;

/// Names the endpoints of PD.
const ENDPOINTS: &str = "TANDEM_PD_ENDPOINTS";

/// Names the run, and so the prefixes, for a cluster that is cut into regions at keys known before.
const RUN: &str = "TANDEM_TEST_RUN";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// An empty store: a prefix of its own.
async fn open() -> (TikvStore, ()) {
    let endpoints = std::env::var(ENDPOINTS).expect("the laws run only with endpoints");
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let run = std::env::var(RUN).unwrap_or_else(|_| format!("{:x}", since.as_nanos()));
    let prefix = format!("m/test/{run}-{number}");
    let options: Options = format!("tikv://{endpoints}/{prefix}").parse().expect("endpoints are addresses");
    (TikvStore::open(&options).await.expect("the cluster answers"), ())
}

mod laws {
    tandem_store::store_laws!(super::open);
    tandem_store::history_laws!(super::open);
}
