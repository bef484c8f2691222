//! The operator, installed once by its charts, and applications in a namespace of a test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use tandem_e2e_kubernetes::Cluster;

use crate::kube::{Namespace, output, program};

/// Where the operator is.
pub(crate) const NAMESPACE: &str = "tandem-system";
/// How long pods may take to start on a busy machine.
pub(crate) const START_WITHIN: Duration = Duration::from_mins(3);
/// Labels of the pods of a runtime.
pub(crate) const RUNTIME_PODS: &str = "tandem.dev/runtime=orders,app.kubernetes.io/component=runtime";
/// The application, in the checkout.
const ORDERS: &str = "examples/orders";
/// What its files call the image of its functions.
const IMAGE_OF_ORDERS: &str = "localhost/tandem-orders:dev";
const HELM_WITHIN: &str = "180s";

pub(crate) fn helm(arguments: &[&str]) -> anyhow::Result<String> {
    output(program("HELM", "helm").args(arguments).current_dir(root()), None)
}

/// The checkout.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The node that `make e2e` has brought up; `None` on the cluster of somebody else, whose stores are not ours to touch.
pub(crate) fn own_node() -> anyhow::Result<Option<Cluster>> {
    match std::env::var("TANDEM_E2E_OURS") {
        Ok(name) if !name.is_empty() => Ok(Some(Cluster::find(&name)?)),
        _ => Ok(None),
    }
}

/// Prefix and tag of all images.
fn images() -> (String, String) {
    let variable = |name: &str, usual: &str| std::env::var(name).unwrap_or_else(|_| usual.to_owned());
    (variable("TANDEM_E2E_REGISTRY", "localhost"), variable("TANDEM_E2E_TAG", "dev"))
}

/// The name of an image: `operator`, `runtime`, `orders` or `fickle`.
pub(crate) fn image(name: &str) -> String {
    let (registry, tag) = images();
    format!("{registry}/tandem-{name}:{tag}")
}

/// The values that every installation has.
pub(crate) fn values() -> Vec<String> {
    let (registry, tag) = images();
    vec![
        format!("image.repository={registry}/tandem-operator"),
        format!("image.tag={tag}"),
        format!("runtimeImage.repository={registry}/tandem-runtime"),
        format!("runtimeImage.tag={tag}"),
    ]
}

/// Installs the charts, or upgrades to them, with more values.
pub(crate) fn install_with(namespace: &str, more: &[&str]) -> anyhow::Result<()> {
    helm(&[
        "upgrade",
        "--install",
        "tandem-crds",
        "charts/tandem-crds",
        "--namespace",
        NAMESPACE,
        "--create-namespace",
        "--wait",
    ])?;
    let values = values();
    let mut arguments =
        vec!["upgrade", "--install", "tandem", "charts/tandem", "--namespace", namespace, "--create-namespace"];
    arguments.extend(["--wait", "--timeout", HELM_WITHIN]);
    for value in values.iter().map(String::as_str).chain(more.iter().copied()) {
        arguments.extend(["--set", value]);
    }
    helm(&arguments).map(drop)
}

/// The operator for the whole cluster; installed by the first test that needs it.
pub(crate) fn operator() -> anyhow::Result<()> {
    static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| install_with(NAMESPACE, &[]).map_err(|error| format!("{error:#}")));
    let installed = installed.as_ref().map_err(|error| anyhow::anyhow!("{error}")).copied();
    installed.context("failed to install the operator")
}

/// What keeps the state of an application.
#[derive(Clone, Debug)]
pub(crate) enum Keeps {
    /// The pod itself.
    Pod,
    /// A volume of the pod.
    Volume,
    /// A TiKV, or what speaks its protocol, with so many runtimes on it.
    Tikv(u8),
    /// The same with certificates on both sides: where PD listens, and the Secret with the files.
    TikvOverTls(String, &'static str),
}

/// Where PD listens for pods, if there is one.
pub(crate) fn pd_endpoints() -> Option<String> {
    std::env::var("TANDEM_PD_ENDPOINTS").ok().filter(|endpoints| !endpoints.is_empty())
}

/// Applies the orders application, and waits until all of it is ready.
pub(crate) fn orders(namespace: &Namespace, keeps: &Keeps) -> anyhow::Result<()> {
    apply_orders(namespace, keeps)?;
    await_orders(namespace)
}

/// The manifest of the runtime.
pub(crate) fn runtime(namespace: &Namespace, keeps: &Keeps) -> anyhow::Result<String> {
    // The stores of the harness are cut behind this prefix.
    let prefix = format!("e2e/{}", namespace.name);
    let spec = match keeps {
        Keeps::Pod => "store: {embedded: {}}".to_owned(),
        Keeps::Volume => "store: {embedded: {volume: {size: 1Gi}}}".to_owned(),
        Keeps::Tikv(replicas) => {
            let endpoints = pd_endpoints().context("there is no TiKV: set TANDEM_PD_ENDPOINTS")?;
            format!("replicas: {replicas}\n  store: {{tikv: {{endpoints: [\"{endpoints}\"], prefix: \"{prefix}\"}}}}")
        }
        Keeps::TikvOverTls(endpoint, secret) => {
            let tls = format!("tlsSecretName: {secret}");
            format!("replicas: 2\n  store: {{tikv: {{endpoints: [\"{endpoint}\"], prefix: \"{prefix}\", {tls}}}}}")
        }
    };
    Ok(format!("apiVersion: tandem.dev/v1alpha1\nkind: FunctionRuntime\nmetadata: {{name: orders}}\nspec:\n  {spec}\n"))
}

/// Applies the directory of the orders application as people do, by `kubectl apply -f examples/orders/`. Where its runtime
/// is to keep state elsewhere than its files say, or images have other names, a copy of it with these changed.
pub(crate) fn apply_orders(namespace: &Namespace, keeps: &Keeps) -> anyhow::Result<()> {
    let directory = root().join(ORDERS);
    if matches!(keeps, Keeps::Pod) && image("orders") == IMAGE_OF_ORDERS {
        return namespace.kubectl(&["apply", "--filename", &format!("{}/", directory.display())]).map(drop);
    }
    let changed = tempfile::tempdir()?;
    copy_orders(&directory, changed.path())?;
    std::fs::write(changed.path().join("runtime.yaml"), runtime(namespace, keeps)?)?;
    namespace.kubectl(&["apply", "--filename", &format!("{}/", changed.path().display())]).map(drop)
}

/// All files of the directory, whatever `kubectl` may make of them, with the image that the cluster has.
fn copy_orders(from: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        if path.is_file() {
            let text = std::fs::read_to_string(&path)?.replace(IMAGE_OF_ORDERS, &image("orders"));
            std::fs::write(to.join(path.file_name().context("a file has a name")?), text)?;
        }
    }
    Ok(())
}

pub(crate) fn await_orders(namespace: &Namespace) -> anyhow::Result<()> {
    namespace.await_ready("functionruntime/orders", START_WITHIN)?;
    for function in ["inventory", "payment", "order", "cart", "loyalty"] {
        namespace.await_ready(&format!("function/{function}"), START_WITHIN)?;
    }
    for route in ["place-order", "get-order", "restock", "deposit", "fill-cart"] {
        namespace.await_ready(&format!("functionroute/{route}"), START_WITHIN)?;
    }
    namespace.await_ready("functionegress/order-events", START_WITHIN)
}

/// A program that is built together with these tests.
pub(crate) fn built(name: &str) -> anyhow::Result<Command> {
    let own = std::env::current_exe()?;
    let directory = own.parent().and_then(Path::parent).context("the tests lie in no target directory")?;
    let program = directory.join(name);
    anyhow::ensure!(program.exists(), "{} is not there: `make e2e` builds it", program.display());
    Ok(Command::new(program))
}
