//! The lease: one operator works at a time.

use kube::Client;
use kube_lease_manager::LeaseManagerBuilder;
use tracing::info;

use crate::names::FIELD_MANAGER;

/// How long a lease lasts after its holder was heard of last, in seconds.
const LEASE_SECONDS: u64 = 15;
/// How long before its end the holder renews it, in seconds.
const GRACE_SECONDS: u64 = 5;

/// Holds the lease, once it has it. It is given back when this is dropped by [`Lease::release`].
pub struct Lease {
    states: tokio::sync::watch::Receiver<bool>,
    task: tokio::task::JoinHandle<Result<kube_lease_manager::LeaseManager, kube_lease_manager::LeaseManagerError>>,
}

impl Lease {
    /// Begins to ask for the lease.
    pub async fn start(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
    ) -> Result<Self, kube_lease_manager::LeaseManagerError> {
        let manager = LeaseManagerBuilder::new(client, name)
            .with_namespace(namespace)
            .with_identity(identity)
            .with_duration(LEASE_SECONDS)
            .with_grace(GRACE_SECONDS)
            .with_field_manager(FIELD_MANAGER)
            .build()
            .await?;
        let (states, task) = manager.watch().await;
        Ok(Self { states, task })
    }

    /// Returns once this process holds the lease; false if it cannot be asked for any more.
    pub async fn acquired(&mut self) -> bool {
        let is_held = self.states.wait_for(|is_held| *is_held).await.is_ok();
        if is_held {
            info!("lease acquired");
        }
        is_held
    }

    /// Returns once this process does not hold the lease any more.
    pub async fn lost(&mut self) {
        // An error means that nobody renews it any more: it is as good as lost.
        let _ = self.states.wait_for(|is_held| !*is_held).await;
    }

    /// Gives the lease back, so that another operator need not wait for its end.
    pub async fn release(self) {
        drop(self.states);
        let _ = self.task.await;
    }
}
