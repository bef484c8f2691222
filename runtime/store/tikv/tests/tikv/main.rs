//! The store on a cluster. Without one, the tests that need it say so and pass.

use std::path::PathBuf;

use tandem_store_tikv::TikvStore;
use tandem_store_tikv::options::{Options, TlsFiles};

mod locks;
mod opening;
mod purging;
mod scans;

/// Names a directory with `ca.pem`, `cert.pem` and `key.pem`, for a cluster with TLS.
const TLS: &str = "TANDEM_PD_TLS";

/// A prefix of its own on the cluster, if there is one.
async fn options() -> Option<Options> {
    let place = tandem_e2e_tikv::shared().await.expect("the cluster starts")?;
    let prefix = String::from_utf8(place.prefix).expect("prefixes are text");
    let tls = std::env::var_os(TLS).map(PathBuf::from).map(|directory| TlsFiles {
        authority: directory.join("ca.pem"),
        certificate: directory.join("cert.pem"),
        key: directory.join("key.pem"),
    });
    let url = format!("tikv://{}/{}", place.cluster.pd_endpoints().join(","), prefix.trim_end_matches('/'));
    Some(Options { tls, ..url.parse().expect("endpoints are addresses") })
}

/// An empty store.
async fn open() -> Option<(TikvStore, ())> {
    let options = options().await?;
    Some((TikvStore::open(&options).await.expect("the cluster answers"), ()))
}

mod laws {
    tandem_store::store_laws!(super::open);
    tandem_store::history_laws!(super::open);
}
