//! Brings one node up, step by step.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::binaries::Binaries;
use crate::certificates::{ADMINISTRATORS, Authority, Subject};
use crate::commands::{await_ok, run, run_with_input};
use crate::image::Image;
use crate::place::{API_SERVER_PORT, Place};
use crate::processes::{self, cgroup_roots};
use crate::servers::{self, ApiServer};
use crate::{Error, network};

/// How long one part may take, on a machine that is busy with builds.
const READY_WITHIN: Duration = Duration::from_mins(3);
/// Holds the namespaces of each pod.
const PAUSE_IMAGE: &str = "localhost/tandem-pause:1";
/// Resolves names of Services.
const DNS_IMAGE: &str = "localhost/tandem-coredns:1";
/// The small program of the harness, for tests of the node itself.
pub const POD_IMAGE: &str = "localhost/tandem-pod:1";
const DNS_MANIFEST: &str = include_str!("../addons/dns.yaml");
const STORAGE_MANIFEST: &str = include_str!("../addons/storage.yaml");
/// The service of DNS in the range of Services.
const DNS_SERVICE: u8 = 10;
/// Who may read and run the programs of an image.
const PROGRAM_MODE: u32 = 0o755;

/// A node that is being brought up.
pub(crate) struct Node<'a> {
    pub(crate) place: &'a Place,
    pub(crate) binaries: &'a Binaries,
    /// Told what is done now.
    pub(crate) progress: &'a dyn Fn(&str),
}

impl Node<'_> {
    /// All steps. What was begun stays if one fails.
    pub(crate) fn up(&self) -> Result<(), Error> {
        (self.progress)("network and certificates");
        for directory in ["log", "data", "configuration"] {
            let directory = self.place.file(directory);
            fs::create_dir_all(&directory).map_err(Error::io(format!("create {}", directory.display())))?;
        }
        network::up(self.place)?;
        self.certificates()?;
        (self.progress)("etcd and the API server");
        self.control_plane()?;
        (self.progress)("containerd and images");
        self.containerd()?;
        (self.progress)("kubelet and kube-proxy");
        self.kubelet()?;
        self.proxy()?;
        self.apply(&self.filled(STORAGE_MANIFEST))?;
        self.apply(&self.filled(DNS_MANIFEST))?;
        self.await_node()?;
        (self.progress)("name resolution");
        self.await_dns()
    }

    fn certificates(&self) -> Result<(), Error> {
        let authority = Authority::create(&self.place.file("certificates"))?;
        let node = self.place.node();
        let address = IpAddr::V4(self.place.node_address());
        let service = IpAddr::V4(self.place.service_address(1));
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let hosts = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let addresses = [loopback, address, service];
        authority
            .sign("api-server", &Subject { name: "api-server", hosts: &hosts, addresses: &addresses, groups: &[] })?;
        let client = Subject { name: "api-server-kubelet-client", groups: &[ADMINISTRATORS], ..Subject::default() };
        authority.sign("kubelet-client", &client)?;
        let server = Subject { name: &node, hosts: &[&node], addresses: &[address], groups: &[] };
        authority.sign("kubelet", &server)?;
        let name = format!("system:node:{node}");
        let users: [(&str, &str, &[&str]); 5] = [
            ("admin", "administrator", &[ADMINISTRATORS]),
            ("kubelet", &name, &["system:nodes"]),
            ("controllers", "system:kube-controller-manager", &[]),
            ("scheduler", "system:kube-scheduler", &[]),
            ("proxy", "system:kube-proxy", &[]),
        ];
        for (file, name, groups) in users {
            let subject = Subject { name, groups, ..Subject::default() };
            authority.kubeconfig(&self.kubeconfig(file), &self.place.api_server(), &subject)?;
        }
        Ok(())
    }

    fn kubeconfig(&self, user: &str) -> std::path::PathBuf {
        self.place.file(&format!("kubeconfig/{user}.yaml"))
    }

    fn start(&self, name: &str, arguments: &[String]) -> Result<(), Error> {
        processes::start(self.place, name, &self.binaries.program(name), arguments)
    }

    fn control_plane(&self) -> Result<(), Error> {
        let etcd = servers::etcd(&self.place.file("data/etcd"), servers::ETCD_URL, servers::ETCD_PEER_URL);
        self.start("etcd", &etcd)?;
        let certificates = self.place.file("certificates");
        let server = ApiServer {
            certificates: &certificates,
            etcd: servers::ETCD_URL,
            address: self.place.node_address().into(),
            port: API_SERVER_PORT,
            services: &self.place.services(),
            with_kubelets: true,
        };
        self.start("kube-apiserver", &server.arguments())?;
        let ask = || run(self.kubectl().args(["get", "--raw", "/readyz"]));
        await_ok("the API server", READY_WITHIN, ask, || self.check("kube-apiserver"))?;
        let pods = self.place.pods();
        let controllers = servers::controller_manager(&self.kubeconfig("controllers"), &certificates, Some(&pods));
        self.start("kube-controller-manager", &controllers)?;
        self.start("kube-scheduler", &servers::scheduler(&self.kubeconfig("scheduler")))
    }

    fn check(&self, process: &str) -> Result<(), Error> {
        processes::check(self.place, process)
    }

    pub(crate) fn kubectl(&self) -> Command {
        let mut command = Command::new(self.binaries.program("kubectl"));
        command.arg("--kubeconfig").arg(self.place.kubeconfig());
        command
    }

    fn apply(&self, manifest: &str) -> Result<(), Error> {
        run_with_input(self.kubectl().args(["apply", "-f", "-"]), manifest.as_bytes()).map(drop)
    }

    fn filled(&self, manifest: &str) -> String {
        let dns = self.place.service_address(DNS_SERVICE).to_string();
        manifest.replace("@DNS_IMAGE@", DNS_IMAGE).replace("@DNS_ADDRESS@", &dns)
    }

    fn write(&self, name: &str, text: &str) -> Result<String, Error> {
        let path = self.place.file(&format!("configuration/{name}"));
        let parent = path.parent().unwrap_or_else(|| Path::new("/"));
        let write = || fs::create_dir_all(parent).and_then(|()| fs::write(&path, text));
        write().map_err(Error::io(format!("write {}", path.display())))?;
        Ok(path.display().to_string())
    }

    fn containerd(&self) -> Result<(), Error> {
        self.write("network/10-node.conflist", &network_configuration(self.place))?;
        let file = self.write("containerd.toml", &containerd_configuration(self.place))?;
        processes::start(self.place, "containerd", Path::new("containerd"), &["--config".to_owned(), file])?;
        let ask = || run(self.ctr().arg("version"));
        await_ok("containerd", READY_WITHIN, ask, || self.check("containerd"))?;
        for (name, program) in [(PAUSE_IMAGE, "pod"), (POD_IMAGE, "pod"), (DNS_IMAGE, "coredns")] {
            let image =
                Image::new(name).program(&self.binaries.program(program), &format!("/{program}"), PROGRAM_MODE)?;
            let archive = self.place.file(&format!("data/{program}.tar"));
            image.entry_point(&[&format!("/{program}")]).write(&archive)?;
            self.load(&archive)?;
            fs::remove_file(&archive).map_err(Error::io(format!("remove {}", archive.display())))?;
        }
        Ok(())
    }

    /// Imports the images of an archive.
    pub(crate) fn load(&self, archive: &Path) -> Result<String, Error> {
        run(self.ctr().args(["-n", "k8s.io", "images", "import"]).arg(archive))
    }

    fn ctr(&self) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.place.socket());
        command
    }

    fn kubelet(&self) -> Result<(), Error> {
        for root in cgroup_roots() {
            let group = root.join(self.place.cgroup());
            fs::create_dir_all(&group).map_err(Error::io(format!("create {}", group.display())))?;
        }
        let file = self.write("kubelet.yaml", &kubelet_configuration(self.place))?;
        let arguments = [
            format!("--config={file}"),
            format!("--kubeconfig={}", self.kubeconfig("kubelet").display()),
            format!("--hostname-override={}", self.place.node()),
            format!("--node-ip={}", self.place.node_address()),
            format!("--root-dir={}", self.place.file("data/kubelet").display()),
        ];
        self.start("kubelet", &arguments)
    }

    fn proxy(&self) -> Result<(), Error> {
        let arguments = [
            format!("--kubeconfig={}", self.kubeconfig("proxy").display()),
            format!("--cluster-cidr={}", self.place.pods()),
            format!("--hostname-override={}", self.place.node()),
            "--proxy-mode=iptables".to_owned(),
            // The limit on tracked connections belongs to the machine.
            "--conntrack-max-per-core=0".to_owned(),
            "--conntrack-tcp-timeout-established=0s".to_owned(),
            "--conntrack-tcp-timeout-close-wait=0s".to_owned(),
        ];
        self.start("kube-proxy", &arguments)
    }

    fn await_node(&self) -> Result<(), Error> {
        let node = format!("node/{}", self.place.node());
        let ask = || run(self.kubectl().args(["wait", "--for=condition=Ready", "--timeout=1s", &node]));
        await_ok("the node", READY_WITHIN, ask, || self.check("kubelet").and_then(|()| self.check("kube-proxy")))
            .map(drop)
    }

    fn await_dns(&self) -> Result<(), Error> {
        let arguments = ["rollout", "status", "--timeout=2s", "-n", "kube-system", "deployment/coredns"];
        let ask = || run(self.kubectl().args(arguments));
        await_ok("name resolution", READY_WITHIN, ask, || self.check("kubelet")).map(drop)
    }
}

fn network_configuration(place: &Place) -> String {
    let leases = place.file("data/addresses");
    let configuration = serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "node",
        "plugins": [
            {
                "type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": leases,
                    // One node: all addresses of pods are its own.
                    "ranges": [[{"subnet": place.pods()}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    format!("{configuration:#}\n")
}

fn containerd_configuration(place: &Place) -> String {
    let (root, run, socket) = (place.file("data/containerd"), place.run_directory(), place.socket());
    let network = place.file("configuration/network");
    format!(
        r#"version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Only a process with more rights than root has here may lower it.
  restrict_oom_score_adj = true
  # So that all mounts of one cluster are in one place.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{network}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"#,
        root = root.display(),
        state = run.join("state").display(),
        socket = socket.display(),
        network = network.display(),
    )
}

fn kubelet_configuration(place: &Place) -> String {
    let file = |path: &str| place.file(path).display().to_string();
    let configuration = serde_json::json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": file("certificates/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "address": place.node_address().to_string(),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", place.cgroup()),
        "clusterDNS": [place.service_address(DNS_SERVICE).to_string()],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": format!("unix://{}", place.socket().display()),
        "enforceNodeAllocatable": ["pods"],
        // A machine for tests may be nearly full.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "failCgroupV1": false,
        "failSwapOn": false,
        // Images are loaded, and never pulled again.
        "imageGCHighThresholdPercent": 100,
        "maxPods": 200,
        "podLogsDir": file("log/pods"),
        "tlsCertFile": file("certificates/kubelet.crt"),
        "tlsPrivateKeyFile": file("certificates/kubelet.key"),
        "volumePluginDir": file("data/volume-plugins"),
    });
    format!("{configuration:#}\n")
}
