//! The command line of `tandem-operator`.

use std::net::SocketAddr;

/// Reconciles Tandem's resources into pods that serve them.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "tandem-operator", version)]
pub struct Flags {
    /// The image of runtimes whose FunctionRuntime names none.
    #[arg(long, value_name = "IMAGE", env = "TANDEM_RUNTIME_IMAGE")]
    pub runtime_image: String,
    /// Namespaces to look after, separated by commas. All of them without it.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub namespaces: Vec<String>,
    /// Work only while holding the lease, so that several operators can be there.
    #[arg(long)]
    pub leader_elect: bool,
    /// Name of the lease.
    #[arg(long, value_name = "NAME", default_value = "tandem-operator")]
    pub lease_name: String,
    /// Where metrics are served.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8081")]
    pub metrics_address: SocketAddr,
    /// Where `/livez` and `/readyz` are served.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8082")]
    pub health_address: SocketAddr,
    /// Where the API server asks before it lets resources in. Nowhere without it.
    #[arg(long, value_name = "ADDRESS")]
    pub webhook_address: Option<SocketAddr>,
    /// Name of the webhook's Service, of its ValidatingWebhookConfiguration, and of the Secret with its certificate.
    #[arg(long, value_name = "NAME", default_value = "tandem-webhook")]
    pub webhook_service: String,
    /// The namespace of this process.
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "default")]
    pub pod_namespace: String,
    /// The name of this process among the operators.
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value = "tandem-operator")]
    pub pod_name: String,
    /// What is logged: info, or tandem_operator=debug,info.
    #[arg(long, value_name = "FILTER", env = "TANDEM_LOG", default_value = "info")]
    pub log_filter: String,
}
