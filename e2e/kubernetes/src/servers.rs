//! The arguments of each process of Kubernetes, with the reason for each that is unusual.

use std::net::IpAddr;
use std::path::Path;

/// Ports of etcd on loopback of its network namespace.
pub(crate) const ETCD_URL: &str = "http://127.0.0.1:2379";
pub(crate) const ETCD_PEER_URL: &str = "http://127.0.0.1:2380";

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// etcd. Nothing survives the machine, so nothing is synced to disk.
pub(crate) fn etcd(data: &Path, url: &str, peers: &str) -> Vec<String> {
    vec![
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=default={peers}"),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ]
}

/// What an API server is to be told.
pub(crate) struct ApiServer<'a> {
    /// With `ca`, `api-server`, `accounts`, and `kubelet-client` where there are kubelets.
    pub(crate) certificates: &'a Path,
    pub(crate) etcd: &'a str,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) services: &'a str,
    pub(crate) with_kubelets: bool,
}

impl ApiServer<'_> {
    /// Its arguments.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let file = |name: &str| self.certificates.join(name).display().to_string();
        let mut arguments = vec![
            format!("--etcd-servers={}", self.etcd),
            format!("--secure-port={}", self.port),
            format!("--bind-address={}", self.address),
            // The server does not take loopback for an address that others could use.
            format!(
                "--advertise-address={}",
                if self.address.is_loopback() { "192.0.2.1".to_owned() } else { self.address.to_string() }
            ),
            format!("--tls-cert-file={}", file("api-server.crt")),
            format!("--tls-private-key-file={}", file("api-server.key")),
            format!("--client-ca-file={}", file("ca.crt")),
            format!("--cert-dir={}", self.certificates.display()),
            format!("--service-account-key-file={}", file("accounts.pub")),
            format!("--service-account-signing-key-file={}", file("accounts.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-cluster-ip-range={}", self.services),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--profiling=false".to_owned(),
            // So that a test of a server that goes away need not wait long.
            "--shutdown-delay-duration=0s".to_owned(),
        ];
        if self.with_kubelets {
            arguments.extend([
                format!("--kubelet-client-certificate={}", file("kubelet-client.crt")),
                format!("--kubelet-client-key={}", file("kubelet-client.key")),
                format!("--kubelet-certificate-authority={}", file("ca.crt")),
                // The name of the node does not resolve.
                "--kubelet-preferred-address-types=InternalIP".to_owned(),
            ]);
        }
        arguments
    }
}

fn delegated(kubeconfig: &Path) -> Vec<String> {
    let kubeconfig = kubeconfig.display();
    vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
    ]
}

/// The controllers. Without addresses for pods, they give none to nodes, and listen nowhere.
pub(crate) fn controller_manager(kubeconfig: &Path, certificates: &Path, pods: Option<&str>) -> Vec<String> {
    let file = |name: &str| certificates.join(name).display().to_string();
    let mut arguments = delegated(kubeconfig);
    arguments.extend([
        format!("--root-ca-file={}", file("ca.crt")),
        format!("--service-account-private-key-file={}", file("accounts.key")),
        "--use-service-account-credentials=true".to_owned(),
        format!("--cluster-signing-cert-file={}", file("ca.crt")),
        format!("--cluster-signing-key-file={}", file("ca.key")),
        // By default a directory of the machine, which it would create.
        format!("--flex-volume-plugin-dir={}", file("no-plugins")),
    ]);
    match pods {
        Some(pods) => arguments.extend([format!("--cluster-cidr={pods}"), "--allocate-node-cidrs=true".to_owned()]),
        None => arguments
            .extend(words(&["--secure-port=0", "--controllers=*,-node-ipam-controller,-node-route-controller"])),
    }
    arguments
}

/// The scheduler.
pub(crate) fn scheduler(kubeconfig: &Path) -> Vec<String> {
    delegated(kubeconfig)
}
