//! The lease: one operator works at a time.
//!
//! **Invariant:** whoever has the lease stops before anybody else can take it, whether the API server answers or not: the end of the
//! lease is measured here, from the moment at which the last renewal that succeeded was asked for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, Request};
use kube::Client;
use kube::client::Body;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use tokio::time::Instant;
use tracing::info;

use crate::names::FIELD_MANAGER;

/// How long a lease lasts after its holder was heard of last, in seconds.
const LEASE_SECONDS: u64 = 15;
/// How long before its end the holder renews it, in seconds.
const GRACE_SECONDS: u64 = 5;
/// How long after the last renewal the holder takes it for lost: before others do, whose clocks may go a little faster.
const LOST_AFTER: Duration = Duration::from_secs(LEASE_SECONDS - 1);
/// How long it may take to give the lease back. Its end comes anyway.
const RELEASE_WITHIN: Duration = Duration::from_secs(2);

/// When the last write of the lease that succeeded was asked for.
type Renewed = Arc<Mutex<Instant>>;

/// Holds the lease, once it has it. It is given back when this is dropped by [`Lease::release`].
pub struct Lease {
    states: tokio::sync::watch::Receiver<bool>,
    task: tokio::task::JoinHandle<Result<LeaseManager, LeaseManagerError>>,
    renewed: Renewed,
}

impl Lease {
    /// Begins to ask for the lease.
    pub async fn start(client: Client, namespace: &str, name: &str, identity: &str) -> Result<Self, LeaseManagerError> {
        let renewed: Renewed = Arc::new(Mutex::new(Instant::now()));
        let manager = LeaseManagerBuilder::new(noting(client, namespace, &renewed), name)
            .with_namespace(namespace)
            .with_identity(identity)
            .with_duration(LEASE_SECONDS)
            .with_grace(GRACE_SECONDS)
            .with_field_manager(FIELD_MANAGER)
            .build()
            .await?;
        let (states, task) = manager.watch().await;
        Ok(Self { states, task, renewed })
    }

    /// Returns once this process holds the lease; false if it cannot be asked for any more.
    pub async fn acquired(&mut self) -> bool {
        let is_held = self.states.wait_for(|is_held| *is_held).await.is_ok();
        if is_held {
            info!("lease acquired");
        }
        is_held
    }

    /// Returns once this process does not hold the lease any more: because it was told so, or because its time has passed.
    pub async fn lost(&mut self) {
        let renewed = Arc::clone(&self.renewed);
        tokio::select! {
            // An error means that nobody renews it any more: it is as good as lost.
            _ = self.states.wait_for(|is_held| !*is_held) => {}
            () = ended(&renewed) => info!("the lease could not be renewed in time"),
        }
    }

    /// Gives the lease back, so that another operator need not wait for its end.
    pub async fn release(self) {
        drop(self.states);
        let _ = tokio::time::timeout(RELEASE_WITHIN, self.task).await;
    }
}

fn last(renewed: &Renewed) -> Instant {
    *renewed.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn ended(renewed: &Renewed) {
    loop {
        let end = last(renewed) + LOST_AFTER;
        if Instant::now() >= end {
            return;
        }
        tokio::time::sleep_until(end).await;
    }
}

/// The same client, which notes when writes succeed. Only the lease is written through it.
fn noting(client: Client, namespace: &str, renewed: &Renewed) -> Client {
    let renewed = Arc::clone(renewed);
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, renewed) = (client.clone(), Arc::clone(&renewed));
        async move {
            let (is_write, asked) = (request.method() != Method::GET, Instant::now());
            let answer = client.send(request).await?;
            if is_write && answer.status().is_success() {
                *renewed.lock().unwrap_or_else(PoisonError::into_inner) = asked;
            }
            Ok::<_, kube::Error>(answer)
        }
    });
    Client::new(service, namespace)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::Response;
    use http_body_util::BodyExt as _;
    use serde_json::{Value, json};

    use super::*;

    /// An API server that has one lease, and falls silent when it was written so many times.
    fn server(writes: usize) -> Client {
        let lease = Arc::new(Mutex::new(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "it"}, "spec": {},
        })));
        let written = Arc::new(AtomicUsize::new(0));
        let service = tower::service_fn(move |request: Request<Body>| {
            let (lease, written) = (Arc::clone(&lease), Arc::clone(&written));
            async move {
                let is_write = request.method() != Method::GET;
                if written.load(Ordering::Relaxed) >= writes && is_write {
                    std::future::pending::<()>().await;
                }
                let body = request.into_body().collect().await.expect("it is there").to_bytes();
                let mut lease = lease.lock().expect("nobody panics");
                if is_write {
                    written.fetch_add(1, Ordering::Relaxed);
                    let patch: Value = serde_json::from_slice(&body).expect("it is JSON");
                    for (key, value) in patch["spec"].as_object().into_iter().flatten() {
                        lease["spec"][key] = value.clone();
                    }
                }
                Ok::<_, std::convert::Infallible>(Response::new(axum::body::Body::from(lease.to_string())))
            }
        });
        Client::new(service, "default")
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_lost_in_time_although_nobody_answers() {
        // To take it are two writes; the first renewal is not answered.
        let mut lease = Lease::start(server(2), "default", "it", "me").await.expect("it answers");
        assert!(lease.acquired().await);
        let held = Instant::now();
        let lost = tokio::time::timeout(Duration::from_mins(5), lease.lost()).await;
        assert!(lost.is_ok(), "it waits for an answer");
        assert!(held.elapsed() < Duration::from_secs(LEASE_SECONDS), "others may have it since {:?}", held.elapsed());
        let released = Instant::now();
        lease.release().await;
        assert!(released.elapsed() <= RELEASE_WITHIN, "the process does not end");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_renewed_is_kept() {
        let mut lease = Lease::start(server(usize::MAX), "default", "it", "me").await.expect("it answers");
        assert!(lease.acquired().await);
        let lost = tokio::time::timeout(Duration::from_mins(5), lease.lost()).await;
        assert!(lost.is_err(), "it was given up");
    }
}
