//! The store on a cluster. Without one, the tests that need it say so and pass.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tandem_store_tikv::TikvStore;
use tandem_store_tikv::options::{Options, TlsFiles};

mod locks;
mod opening;

/// Names the endpoints of PD.
const ENDPOINTS: &str = "TANDEM_PD_ENDPOINTS";
/// Names the run, and so the prefixes, for a cluster that is cut into regions at keys known before.
const RUN: &str = "TANDEM_TEST_RUN";

/// Names a directory with `ca.pem`, `cert.pem` and `key.pem`, for a cluster with TLS.
const TLS: &str = "TANDEM_PD_TLS";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A prefix of its own on the cluster, if there is one.
fn options() -> Option<Options> {
    let Ok(endpoints) = std::env::var(ENDPOINTS) else {
        eprintln!("skipped: {ENDPOINTS} names no cluster");
        return None;
    };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let run = std::env::var(RUN).unwrap_or_else(|_| format!("{:x}", since.as_nanos()));
    let options: Options =
        format!("tikv://{endpoints}/m/test/{run}-{number}").parse().expect("endpoints are addresses");
    let tls = std::env::var_os(TLS).map(PathBuf::from).map(|directory| TlsFiles {
        authority: directory.join("ca.pem"),
        certificate: directory.join("cert.pem"),
        key: directory.join("key.pem"),
    });
    Some(Options { tls, ..options })
}

/// An empty store.
async fn open() -> Option<(TikvStore, ())> {
    let options = options()?;
    Some((TikvStore::open(&options).await.expect("the cluster answers"), ()))
}

mod laws {
    tandem_store::store_laws!(super::open);
    tandem_store::history_laws!(super::open);
}
