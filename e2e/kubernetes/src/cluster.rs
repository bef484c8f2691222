//! A cluster of one node that outlives the command that started it. Everything of it is found again by its name: also what is
//! left when the command that brought it up was killed in the middle.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Serialize;
use tandem_e2e_tikv::go::Builder;

use crate::binaries::{Binaries, builder};
use crate::commands::run;
use crate::node::Node;
use crate::place::Place;
use crate::processes::{self, Process};
use crate::stores::Channel;
use crate::{Error, network, packages, volumes};

/// The processes of a node, in the order in which they are ended.
const PROCESSES: [&str; 7] =
    ["kubelet", "kube-proxy", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd", "containerd"];
/// Between a request to end and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// How long the system may take to end what was killed.
const KILLED_WITHIN: Duration = Duration::from_secs(20);
/// Where the kubelet links to the logs of containers, wherever else it keeps them.
const CONTAINER_LOGS: &str = "/var/log/containers";
/// Where the network plug-ins remember what they did.
const NETWORK_RESULTS: &str = "/var/lib/cni/results";
/// What stays when a cluster is taken down.
const LOGS: &str = "log";

/// What to bring up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Unique on this machine.
    pub name: String,
    /// Where logs, certificates and data are.
    pub directory: PathBuf,
    /// How many volumes are laid out for claims.
    pub volumes: u16,
    /// How many test stores that speak TiKV's protocol run beside the node; 0: none, and no PD.
    pub stores: u8,
}

/// A cluster, as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Its name, number and directory.
    #[serde(flatten)]
    pub place: Place,
    /// Where its API server listens.
    pub server: String,
    /// The kubeconfig of its administrator.
    pub kubeconfig: PathBuf,
    /// Of PD, for pods and for this machine, if there are stores.
    pub pd_endpoints: Vec<String>,
    /// What runs, without what runs in pods.
    pub processes: Vec<Process>,
    /// How many processes run in pods.
    pub contained: usize,
}

impl Status {
    fn of(place: Place) -> Self {
        let mut running = processes::all(&place);
        running.retain(|process| process.name != "shim");
        running.sort();
        let pd = running.iter().any(|process| process.name == Channel::Plain.pd());
        Self {
            server: place.api_server(),
            kubeconfig: place.kubeconfig(),
            pd_endpoints: if pd { vec![Channel::Plain.pd_endpoint(&place)] } else { Vec::new() },
            processes: running,
            contained: processes::contained(&place).len(),
            place,
        }
    }

    /// Whether all processes of the node run.
    pub fn is_up(&self) -> bool {
        PROCESSES.iter().all(|name| self.processes.iter().any(|process| process.name == *name))
    }
}

/// A cluster that runs.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Where it lies.
    pub place: Place,
    binaries: Binaries,
}

impl Cluster {
    /// The one of this name.
    pub fn find(name: &str) -> Result<Self, Error> {
        let place = Place::find(name)?.ok_or_else(|| Error::NoCluster(name.to_owned()))?;
        Ok(Self { place, binaries: Binaries::built_by(&builder())? })
    }

    /// Brings one up, and tells what is being done. Does nothing if it is up; one of which a part is missing is taken down
    /// first, and begins anew.
    pub fn up(options: &Options, builder: &Builder, progress: &dyn Fn(&str)) -> Result<Self, Error> {
        packages::check()?;
        check_root()?;
        let binaries = Binaries::built_by(builder)?;
        let place = Place::register(&options.name, &options.directory)?;
        let _lock = place.lock()?;
        let this = Self { place, binaries };
        if this.status().is_up() && run(this.kubectl().args(["get", "--raw", "/readyz"])).is_ok() {
            return Ok(this);
        }
        clear(&this.place)?;
        // It is gone now, together with what was registered.
        Place::register(&options.name, &options.directory)?;
        let begun = this.begin(options, progress);
        if begun.is_err() {
            clear(&this.place)?;
        }
        begun.map(|()| this)
    }

    fn begin(&self, options: &Options, progress: &dyn Fn(&str)) -> Result<(), Error> {
        Node { place: &self.place, binaries: &self.binaries, progress }.up()?;
        volumes::lay_out(self, 0..options.volumes)?;
        if options.stores > 0 {
            progress("PD and test stores");
            Channel::Plain.start(&self.place, options.stores)?;
        }
        Ok(())
    }

    /// What runs of it.
    pub fn status(&self) -> Status {
        Status::of(self.place.clone())
    }

    /// `kubectl` as its administrator.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.binaries.program("kubectl"));
        command.arg("--kubeconfig").arg(self.place.kubeconfig());
        command
    }

    /// `helm` as its administrator. Its own files lie in the cluster's directory.
    pub fn helm(&self) -> Command {
        let mut command = Command::new(self.binaries.program("helm"));
        let home = self.place.file("data/helm");
        command.env("HELM_CACHE_HOME", &home).env("HELM_CONFIG_HOME", &home).env("HELM_DATA_HOME", &home);
        command.env("KUBECONFIG", self.place.kubeconfig());
        command
    }

    /// Imports the images of an archive into the node.
    pub fn load(&self, archive: &Path) -> Result<String, Error> {
        Node { place: &self.place, binaries: &self.binaries, progress: &|_| {} }.load(archive)
    }
}

/// What runs of the cluster of a name; `None` if there is none.
pub fn status(name: &str) -> Result<Option<Status>, Error> {
    Ok(Place::find(name)?.map(Status::of))
}

/// Takes a cluster down, in whatever state it is. Its logs stay. `false` if there was none.
pub fn down(name: &str) -> Result<bool, Error> {
    let Some(place) = Place::find(name)? else { return Ok(false) };
    check_root()?;
    let _lock = place.lock()?;
    clear(&place)?;
    Ok(true)
}

fn check_root() -> Result<(), Error> {
    let own = fs::metadata("/proc/self").map_err(Error::io("read /proc/self"))?;
    if std::os::unix::fs::MetadataExt::uid(&own) == 0 { Ok(()) } else { Err(Error::NotRoot) }
}

fn clear(place: &Place) -> Result<(), Error> {
    end_processes(place);
    remove_traces(place);
    unmount(place)?;
    network::down(place)?;
    remove_cgroups(place);
    remove_data(place)?;
    place.unregister()
}

/// First what starts others, then the containers, then what holds them.
fn end_processes(place: &Place) {
    let ids = |wanted: &[&str]| -> Vec<u32> {
        let all = processes::all(place).into_iter();
        all.filter(|process| wanted.contains(&process.name.as_str())).map(|process| process.id).collect()
    };
    let (containerd, first) = PROCESSES.split_last().expect("there are seven");
    for group in [first, &[*containerd]] {
        // Frozen ones do not hear the first signal before the second.
        processes::signal(&ids(group), "TERM");
        processes::signal(&ids(group), "CONT");
        if !processes::await_end(GRACE, || ids(group)) {
            processes::signal(&ids(group), "KILL");
            processes::await_end(KILLED_WITHIN, || ids(group));
        }
    }
    processes::signal(&processes::contained(place), "KILL");
    processes::await_end(KILLED_WITHIN, || processes::contained(place));
    let all = || processes::all(place).into_iter().map(|process| process.id).collect::<Vec<_>>();
    processes::signal(&all(), "KILL");
    processes::await_end(KILLED_WITHIN, all);
}

/// What the container engine, its plug-ins and the kubelet leave in directories of the machine. All of it names this cluster.
fn remove_traces(place: &Place) {
    let entries = |directory: &Path| fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let bundles = place.run_directory().join("state/io.containerd.runtime.v2.task/k8s.io");
    for bundle in entries(&bundles) {
        let address = fs::read_to_string(bundle.join("address")).unwrap_or_default();
        if let Some(socket) = address.trim().strip_prefix("unix://") {
            let _ = fs::remove_file(socket);
        }
    }
    let own = place.run_directory().display().to_string();
    for result in entries(Path::new(NETWORK_RESULTS)) {
        if fs::read_to_string(&result).is_ok_and(|text| text.contains(&own)) {
            let _ = fs::remove_file(&result);
        }
    }
    for link in entries(Path::new(CONTAINER_LOGS)) {
        if fs::read_link(&link).is_ok_and(|target| target.starts_with(&place.directory)) {
            let _ = fs::remove_file(&link);
        }
    }
}

fn unmount(place: &Place) -> Result<(), Error> {
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(Error::io("read the mounts"))?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(|point| point.replace("\\040", " "));
    let ours = |point: &String| {
        [&place.directory, &place.run_directory()].iter().any(|root| Path::new(point).starts_with(root))
    };
    let mut points: Vec<String> = points.filter(ours).collect();
    // The innermost first; of two at the same place, both.
    points.sort_by(|one, other| other.cmp(one));
    for point in points {
        run(Command::new("umount").arg("--lazy").arg(&point))?;
    }
    Ok(())
}

fn remove_cgroups(place: &Place) {
    for root in processes::cgroup_roots() {
        let group = root.join(place.cgroup());
        // A cgroup is removed by removing its directory, which seems to have files; the innermost first.
        let _ = run(Command::new("find").arg(&group).args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]));
    }
}

fn remove_data(place: &Place) -> Result<(), Error> {
    let Ok(entries) = fs::read_dir(&place.directory) else { return Ok(()) };
    for entry in entries.flatten().filter(|entry| entry.file_name() != LOGS) {
        let path = entry.path();
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(Error::io(format!("remove {}", path.display())))?;
    }
    Ok(())
}
