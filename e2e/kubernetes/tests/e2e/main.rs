//! Everything on a real cluster: `make e2e` brings one up and runs these tests on it, one after the other. With `KUBECONFIG`
//! given, `make e2e` runs them on the cluster that it names.
//!
//! Without `TANDEM_E2E=1` they are skipped, and say so.

mod admission;
mod drain;
mod kube;
mod life;
mod load;
mod node;
mod orders;
mod plugin;
mod rollout;
mod site;
