//! From flags to the end.

use std::sync::Arc;

use jiff::Timestamp;
use kube::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::context::{Context, Settings};
use crate::key::Text;
use crate::kubeapi::Writer;
use crate::pods::http::HttpLink;
use crate::process::flags::Flags;
use crate::process::gates::Gates;
use crate::process::lease::Lease;
use crate::process::serve;
use crate::{admission, controller, watches};

/// Why the process ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port is taken.
    #[error("failed to listen on {address}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no way to the API server.
    #[error("failed to find the API server")]
    Client(#[source] Box<kube::Error>),
    /// The lease cannot be asked for.
    #[error("failed to ask for the lease")]
    Lease(#[source] Box<kube_lease_manager::LeaseManagerError>),
    /// Another operator has the lease now. Whatever is still to be done, it does.
    #[error("the lease is lost")]
    LeaseLost,
}

/// Runs the operator until `shutdown`.
pub async fn run(flags: Flags, shutdown: CancellationToken) -> Result<(), Error> {
    let client = Client::try_default().await.map_err(|source| Error::Client(Box::new(source)))?;
    let settings =
        Settings { runtime_image: flags.runtime_image.clone(), operator_namespace: flags.pod_namespace.clone() };
    let clock = Arc::new(Timestamp::now);
    let context = Arc::new(Context::new(Writer::new(client.clone()), Arc::new(HttpLink::default()), settings, clock));
    let gates = Arc::new(Gates::default());
    serve_all(&flags, &context, &gates, &shutdown).await?;
    if let Some(address) = flags.webhook_address {
        let (name, namespace) = (flags.webhook_service.clone(), flags.pod_namespace.clone());
        let settings = admission::Settings { address, name, namespace };
        let started = admission::start(settings, client.clone(), &context, &shutdown).await;
        started.map_err(|source| Error::Listen { address, source })?;
    }
    let scopes: Vec<Option<Text>> = match flags.namespaces.as_slice() {
        [] => vec![None],
        names => names.iter().map(|name| Some(name.as_str().into())).collect(),
    };
    watches::start(&context, &scopes, &gates, &shutdown);
    let mut lease = None;
    if flags.leader_elect {
        let asked = Lease::start(client, &flags.pod_namespace, &flags.lease_name, &flags.pod_name).await;
        let mut asked = asked.map_err(|source| Error::Lease(Box::new(source)))?;
        let is_held = tokio::select! {
            biased;
            () = shutdown.cancelled() => false,
            is_held = asked.acquired() => is_held,
        };
        if !is_held {
            asked.release().await;
            return if shutdown.is_cancelled() { Ok(()) } else { Err(Error::LeaseLost) };
        }
        lease = Some(asked);
    }
    context.metrics.is_leader.set(1);
    let result = work(&context, &gates, lease.as_mut(), &shutdown).await;
    if let Some(lease) = lease {
        lease.release().await;
    }
    result
}

/// Works until `shutdown`, or until the lease is lost.
async fn work(
    context: &Arc<Context>,
    gates: &Gates,
    lease: Option<&mut Lease>,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let lost = async {
        match lease {
            Some(lease) => lease.lost().await,
            None => std::future::pending().await,
        }
    };
    let working = async {
        // Deciding on half of what there is would remove what the other half needs.
        gates.all_open().await;
        info!("everything is known; reconciling");
        controller::run(Arc::clone(context), shutdown.clone()).await;
    };
    tokio::select! {
        biased;
        () = lost => Err(Error::LeaseLost),
        () = working => Ok(()),
        () = shutdown.cancelled() => Ok(()),
    }
}

async fn serve_all(
    flags: &Flags,
    context: &Arc<Context>,
    gates: &Arc<Gates>,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let health = listen(flags.health_address).await?;
    let metrics = listen(flags.metrics_address).await?;
    let registry = context.metrics.registry();
    let counted = Arc::clone(context);
    let (health_gates, health_shutdown, metrics_shutdown) = (Arc::clone(gates), shutdown.clone(), shutdown.clone());
    tokio::spawn(async move {
        if let Err(error) = serve::health(health, health_gates, health_shutdown).await {
            error!(%error, "health is served no more");
        }
    });
    tokio::spawn(async move {
        if let Err(error) = serve::metrics(metrics, registry, counted, metrics_shutdown).await {
            error!(%error, "metrics are served no more");
        }
    });
    Ok(())
}

async fn listen(address: std::net::SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}
