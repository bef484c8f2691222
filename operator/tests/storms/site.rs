//! An API server, something that plays pods, and what there is in the cluster as one value.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;
use kube::Client;
use serde_json::{Value, json};
use tandem_e2e_kubernetes::control_plane::{ControlPlane, Options};
use tandem_e2e_operator::{Operator, StandIn, Tracker, api, objects};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Everything is ready by then, also on a machine that does much else.
pub(crate) const SOON: Duration = Duration::from_mins(3);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Nothing is done for so long: nothing will be.
const QUIET: Duration = Duration::from_secs(2);
/// What the operator makes here, beside workloads.
const CHILDREN: &[(&str, &str, &str)] = &[
    ("v1", "ConfigMap", "configmaps"),
    ("v1", "Service", "services"),
    ("v1", "ServiceAccount", "serviceaccounts"),
    ("apps/v1", "Deployment", "deployments"),
    ("apps/v1", "StatefulSet", "statefulsets"),
    ("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
];

/// Two API servers at a time: one test mostly waits for a lease, and three would only wait for each other.
static TURNS: Semaphore = Semaphore::const_new(2);

/// See the module.
pub(crate) struct Site {
    pub(crate) client: Client,
    pub(crate) stand_in: StandIn,
    pub(crate) tracker: Tracker,
    pub(crate) control_plane: ControlPlane,
    log: PathBuf,
    _turn: SemaphorePermit<'static>,
}

/// Kind, namespace and name of a child, and what it is for.
pub(crate) type Snapshot = BTreeMap<(String, String, String), Value>;

impl Site {
    /// A cluster with so many namespaces; `None` if Kubernetes was never built here.
    pub(crate) async fn start(name: &str, namespaces: usize, options: Options) -> anyhow::Result<Option<Self>> {
        let turn = TURNS.acquire().await?;
        let Some(control_plane) = ControlPlane::start_if_built(options).await? else { return Ok(None) };
        let client = api::client(&control_plane.kubeconfig()).await?;
        api::define(&client).await?;
        for number in 0..namespaces {
            api::namespace(&client, &objects::namespace(number)).await?;
        }
        let (stand_in, tracker) = (StandIn::start(&client), Tracker::start(&client));
        // It stays for those who look into a failure.
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("operator-{name}.log"));
        std::fs::write(&log, "")?;
        Ok(Some(Self { client, stand_in, tracker, control_plane, log, _turn: turn }))
    }

    /// Where operators log.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Starts an operator, and does not wait for it.
    pub(crate) fn launch(&self, arguments: &[&str]) -> anyhow::Result<Operator> {
        let program = Path::new(env!("CARGO_BIN_EXE_tandem-operator"));
        Operator::start(program, &self.control_plane.kubeconfig(), self.log(), arguments)
    }

    /// Starts an operator, and waits until it knows everything.
    pub(crate) async fn operator(&self, arguments: &[&str]) -> anyhow::Result<Operator> {
        let mut operator = self.launch(arguments)?;
        let begun = Instant::now();
        while !operator.is_ready() {
            let log = || std::fs::read_to_string(self.log()).unwrap_or_default();
            ensure!(!operator.has_ended(), "the operator has ended: {}", log());
            ensure!(begun.elapsed() < SOON, "the operator is not ready: {}", log());
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(operator)
    }

    /// Waits until so many Deployments were made.
    pub(crate) async fn deployments(&self, count: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.stand_in.deployments() < count {
            ensure!(begun.elapsed() < SOON, "only {} Deployments", self.stand_in.deployments());
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Waits until the operator does nothing any more but look after pods.
    pub(crate) async fn settle(&self, operator: &Operator) -> anyhow::Result<()> {
        let (begun, mut last, mut since) = (Instant::now(), -1.0, Instant::now());
        while since.elapsed() < QUIET {
            ensure!(begun.elapsed() < SOON, "the operator never rests");
            let done = operator.metric("tandem_operator_reconciles_total", &[], &["kind=\"Pods\""])?;
            if (done - last).abs() > f64::EPSILON {
                (last, since) = (done, Instant::now());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Everything that the operator has made, without what differs from time to time.
    pub(crate) async fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let mut snapshot = Snapshot::new();
        for (version, kind, plural) in CHILDREN {
            let resource = api::resource(version, kind, plural);
            for ((namespace, name), object) in
                api::list(&self.client, &resource, tandem_e2e_operator::stand_in::MANAGED).await?
            {
                let labels = object.metadata.labels.clone();
                let mut data = object.data;
                // The bundle has its place in the order of bundles in it.
                for field in ["status", "binaryData"] {
                    data.as_object_mut().map(|data| data.remove(field));
                }
                // A Service that is made anew has another address.
                for field in ["clusterIP", "clusterIPs"] {
                    data["spec"].as_object_mut().map(|spec| spec.remove(field));
                }
                snapshot.insert(((*kind).to_owned(), namespace, name), json!({"labels": labels, "data": data}));
            }
        }
        Ok(snapshot)
    }

    /// Waits until everything that the operator has made is as it was.
    pub(crate) async fn is_again(&self, expected: &Snapshot) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let found = self.snapshot().await?;
            if found == *expected {
                return Ok(());
            }
            if begun.elapsed() > SOON {
                let differs = |name: &&(String, String, String)| found.get(*name) != expected.get(*name);
                let names = found.keys().chain(expected.keys()).filter(differs);
                let shown: Vec<_> = names.map(|name| (name, expected.get(name), found.get(name))).collect();
                anyhow::bail!("not as it was (name, expected, found): {shown:#?}");
            }
            tokio::time::sleep(LOOK_EVERY * 10).await;
        }
    }
}

/// Applies all, so many at a time, and as often as it takes.
pub(crate) async fn apply_patiently(client: Client, all: Vec<Value>, writers: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        // What is there already stays as it is.
        match api::apply_all(&client, &all, writers).await {
            Ok(()) => return Ok(()),
            Err(error) if begun.elapsed() > SOON => return Err(error),
            Err(_) => tokio::time::sleep(LOOK_EVERY * 10).await,
        }
    }
}
