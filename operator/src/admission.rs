//! The webhook: the API server asks before it lets resources in, and tells its user what it hears.
//!
//! It only helps. What it does not see (it is down, or somebody else changes the graph at the same moment) says so in its
//! status; `failurePolicy: Ignore` in the chart.
//!
//! | module | concept |
//! | --- | --- |
//! | [`review`] | what is said about a change: pure |
//! | [`certificate`] | the certificate of the webhook: made, shared, renewed |
//! | [`serve`] | TLS, and the words of the API server |

use std::net::SocketAddr;
use std::sync::Arc;

use kube::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::context::Context;

pub mod certificate;
pub mod review;
pub mod serve;

/// Where the webhook is, and how it is called.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its Service, its configuration in the cluster, and the Secret of its certificate.
    pub name: String,
    /// The namespace of the Service and the Secret.
    pub namespace: String,
}

/// Listens, and then serves until `shutdown`, with a certificate that is renewed before it ends.
pub async fn start(
    settings: Settings,
    client: Client,
    context: &Arc<Context>,
    shutdown: &CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(settings.address).await?;
    let (keys, current) = tokio::sync::watch::channel(None);
    let keeper = certificate::Keeper::new(client, settings);
    let (stop, context) = (shutdown.clone(), Arc::clone(context));
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = keeper.keep(keys) => warn!("the certificate of the webhook is renewed no more"),
        }
    });
    let stop = shutdown.clone();
    tokio::spawn(async move {
        if let Err(error) = serve::serve(listener, current, context, stop).await {
            error!(%error, "the webhook is served no more");
        }
    });
    Ok(())
}
