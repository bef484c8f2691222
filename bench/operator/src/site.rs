//! An API server, something that plays pods, and the operator as a process of its own.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kube::Client;
use tandem_e2e_kubernetes::ControlPlane;
use tandem_e2e_operator::operator::Usage;
use tandem_e2e_operator::{Operator, StandIn, Tracker, api, objects};

use crate::Arguments;

const LOOK_EVERY: Duration = Duration::from_millis(20);
const READY_WITHIN: Duration = Duration::from_mins(2);

/// See the module.
pub(crate) struct Site {
    pub(crate) client: Client,
    pub(crate) stand_in: StandIn,
    pub(crate) tracker: Tracker,
    pub(crate) operator: Operator,
    pub(crate) control_plane: ControlPlane,
    pub(crate) functions: usize,
    pub(crate) namespaces: usize,
}

impl Site {
    /// A cluster with empty namespaces, and an operator that is ready for them.
    pub(crate) async fn start(arguments: &Arguments) -> anyhow::Result<Self> {
        let control_plane = ControlPlane::start().await?;
        let client = api::client(&control_plane.kubeconfig()).await?;
        api::define(&client).await?;
        for number in 0..arguments.namespaces {
            api::namespace(&client, &objects::namespace(number)).await?;
        }
        let (stand_in, tracker) = (StandIn::start(&client), Tracker::start(&client));
        let operator = start_operator(arguments, &control_plane).await?;
        let (functions, namespaces) = (arguments.resources, arguments.namespaces);
        Ok(Self { client, stand_in, tracker, operator, control_plane, functions, namespaces })
    }

    /// Namespace and name of a function.
    pub(crate) fn function(&self, number: usize) -> (String, String) {
        let number = number % self.functions;
        (objects::namespace(number % self.namespaces), objects::function_name(number))
    }
}

/// What etcd and the API server have used, in seconds: it does not depend on who else uses the machine.
pub(crate) fn server_cpu(control_plane: &ControlPlane) -> anyhow::Result<f64> {
    let mut seconds = 0.0;
    for name in ["etcd", "kube-apiserver"] {
        seconds += Usage::of(control_plane.id(name).context("it does not run")?)?.cpu_seconds;
    }
    Ok(seconds)
}

/// Starts an operator, and waits until it knows everything.
pub(crate) async fn start_operator(arguments: &Arguments, control_plane: &ControlPlane) -> anyhow::Result<Operator> {
    let mut operator = Operator::start(&arguments.operator, &control_plane.kubeconfig(), &arguments.log, &[])?;
    let begun = Instant::now();
    while !operator.is_ready() {
        ensure!(!operator.has_ended(), "the operator has ended: see {}", arguments.log.display());
        ensure!(begun.elapsed() < READY_WITHIN, "the operator is not ready: see {}", arguments.log.display());
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(operator)
}
