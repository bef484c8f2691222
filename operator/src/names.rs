//! Every name that the operator writes into a cluster: labels, annotations, ports, paths, suffixes.

/// The one field manager of the operator.
pub const FIELD_MANAGER: &str = "tandem-operator";
/// Keeps a runtime whose state is to be deleted with it until that is done.
pub const FINALIZER: &str = "tandem.dev/state";
/// The component of what removes state.
pub const PURGE: &str = "purge";
/// Port on which workers of functions serve.
pub const WORKER_PORT: u16 = 9000;
/// Port of requests.
pub const INGRESS_PORT: u16 = 8080;
/// Port of health, metrics and the topology.
pub const ADMIN_PORT: u16 = 9090;
/// Port of the other runtimes.
pub const PEER_PORT: u16 = 9443;
/// Port of the Service that clients use.
pub const SERVICE_PORT: u16 = 80;
/// User and group of the runtime's pods: nobody in particular.
pub const RUNTIME_USER: i64 = 65_532;
/// Where the configuration is mounted.
pub const CONFIGURATION_DIRECTORY: &str = "/etc/tandem/configuration";
/// Where the topology is mounted.
pub const TOPOLOGY_DIRECTORY: &str = "/etc/tandem/topology";
/// Where certificates for TiKV are mounted.
pub const TIKV_TLS_DIRECTORY: &str = "/etc/tandem/tikv";
/// Where the embedded store keeps its files.
pub const DATA_DIRECTORY: &str = "/var/lib/tandem";
/// Key of the configuration in its ConfigMap.
pub const CONFIGURATION_KEY: &str = "runtime.yaml";
/// Key of the compressed bundle in its ConfigMap.
pub const BUNDLE_KEY: &str = "bundle.json.gz";

/// Labels.
pub mod label {
    /// What runs: `tandem-runtime` or `tandem-function`.
    pub const NAME: &str = "app.kubernetes.io/name";
    /// Which one of them.
    pub const INSTANCE: &str = "app.kubernetes.io/instance";
    /// Its part in the whole.
    pub const COMPONENT: &str = "app.kubernetes.io/component";
    /// The whole.
    pub const PART_OF: &str = "app.kubernetes.io/part-of";
    /// Who looks after it.
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// Owning `FunctionRuntime`.
    pub const RUNTIME: &str = "tandem.dev/runtime";
    /// Owning `Function`.
    pub const FUNCTION: &str = "tandem.dev/function";
    /// Owning `FunctionRoute`.
    pub const ROUTE: &str = "tandem.dev/route";
    /// Revision of a function.
    pub const REVISION: &str = "tandem.dev/revision";
}

/// Annotations.
pub mod annotation {
    /// Digest of what was applied last: an unchanged child costs no call.
    pub const APPLIED: &str = "tandem.dev/applied";
    /// Digest of the configuration that a pod was started with.
    pub const CONFIGURATION: &str = "tandem.dev/configuration";
    /// Revision of the topology in a ConfigMap.
    pub const TOPOLOGY: &str = "tandem.dev/topology";
    /// The `uid` of the runtime whose state a Job removes.
    pub const OWNER: &str = "tandem.dev/owner";
    /// Kind of store that a StatefulSet was made for.
    pub const STORE: &str = "tandem.dev/store";
}

/// Finds everything that the operator made.
pub fn managed_selector() -> String {
    format!("{}={FIELD_MANAGER}", label::MANAGED_BY)
}
