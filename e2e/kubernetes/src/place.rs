//! Where a cluster lies: its name, its number, its directory, and all addresses and paths that follow from these.
//!
//! Each cluster is registered in a directory of the machine before anything of it is made, so that what is left of one whose
//! makers were killed can be found by its name alone.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;

/// Where clusters of this machine are registered. Short, because sockets lie below it.
const REGISTRY: &str = "/run/tandem-kubernetes";
const PLACE_FILE: &str = "place.json";
/// How many clusters there may be at once.
const PLACES: u8 = 16;
/// So that a network namespace and a host name can be made of it.
const NAME_LENGTH_MAX: usize = 20;
/// The first of the two bytes that all addresses of clusters begin with: 10.
const NETWORK: u8 = 10;
/// The second byte of the links between the machine and nodes; the third is the number of the cluster.
const LINKS: u8 = 127;
/// The second byte of the Services of cluster 0; those of its pods have the next.
const RANGES: u8 = 160;

/// A cluster's name and number, and what follows from them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Unique on this machine.
    pub name: String,
    /// Unique on this machine among the clusters that are there.
    pub number: u8,
    /// Logs, certificates and data. Absolute.
    pub directory: PathBuf,
}

impl Place {
    /// The cluster of this name, if it is registered.
    pub fn find(name: &str) -> Result<Option<Self>, Error> {
        check(name)?;
        read(&registered(name))
    }

    /// Registers a cluster, or finds it as it was registered.
    pub(crate) fn register(name: &str, directory: &Path) -> Result<Self, Error> {
        check(name)?;
        let directory = std::path::absolute(directory).map_err(Error::io("find the directory"))?;
        fs::create_dir_all(REGISTRY).map_err(Error::io(format!("create {REGISTRY}")))?;
        let _lock = lock(&Path::new(REGISTRY).join("lock"))?;
        if let Some(place) = Self::find(name)? {
            let taken = || Error::NameTaken { name: name.to_owned(), directory: place.directory.clone() };
            return if place.directory == directory { Ok(place) } else { Err(taken()) };
        }
        let others = all()?;
        let number = (0..PLACES).find(|number| others.iter().all(|other| other.number != *number));
        let number = number.ok_or(Error::TooMany(PLACES))?;
        let place = Self { name: name.to_owned(), number, directory };
        place.save()?;
        Ok(place)
    }

    fn save(&self) -> Result<(), Error> {
        let directory = registered(&self.name);
        let next = directory.join("place.json.next");
        let write = || {
            fs::create_dir_all(&directory)?;
            fs::write(&next, serde_json::to_vec_pretty(self)?)?;
            fs::rename(&next, directory.join(PLACE_FILE))
        };
        write().map_err(Error::io(format!("register the cluster {}", self.name)))
    }

    /// Held by whoever brings it up or takes it down. Ends with its process.
    pub(crate) fn lock(&self) -> Result<File, Error> {
        lock(&Path::new(REGISTRY).join(format!("{}.lock", self.name)))
    }

    /// Sockets and what the container engine mounts.
    pub(crate) fn run_directory(&self) -> PathBuf {
        registered(&self.name)
    }

    /// Where containerd listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.run_directory().join("containerd.sock")
    }

    /// A file or directory of the cluster.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    /// The log of a process.
    pub(crate) fn log(&self, process: &str) -> PathBuf {
        self.file(&format!("log/{process}.log"))
    }

    /// The kubeconfig of its administrator; it works on this machine.
    pub fn kubeconfig(&self) -> PathBuf {
        self.file("kubeconfig/admin.yaml")
    }

    /// The network namespace, which is also the name of the node.
    pub fn node(&self) -> String {
        format!("tandem-{}", self.name)
    }

    /// The parent of all cgroups of pods.
    pub(crate) fn cgroup(&self) -> String {
        self.node()
    }

    /// The end of the link that is on the machine.
    pub(crate) fn link(&self) -> String {
        format!("tandem{}", self.number)
    }

    /// The machine's address on the link.
    pub fn machine_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(NETWORK, LINKS, self.number, 1)
    }

    /// The node's address, for pods and for this machine.
    pub fn node_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(NETWORK, LINKS, self.number, 2)
    }

    /// Where the API server listens.
    pub fn api_server(&self) -> String {
        format!("https://{}:{API_SERVER_PORT}", self.node_address())
    }

    /// Addresses of Services.
    pub fn services(&self) -> String {
        format!("{}/16", self.service_address(0))
    }

    /// Addresses of pods.
    pub fn pods(&self) -> String {
        format!("{}/16", Ipv4Addr::new(NETWORK, RANGES + 2 * self.number + 1, 0, 0))
    }

    /// The service of a number: 1 is the API server's, 10 that of DNS.
    pub fn service_address(&self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(NETWORK, RANGES + 2 * self.number, 0, number)
    }

    /// Forgets it, as the last thing when it is taken down.
    pub(crate) fn unregister(&self) -> Result<(), Error> {
        match fs::remove_dir_all(self.run_directory()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove {}", self.run_directory().display()))(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// The port of the API server.
pub(crate) const API_SERVER_PORT: u16 = 6443;

/// All clusters of this machine, also what is left of broken ones.
pub fn all() -> Result<Vec<Place>, Error> {
    let entries = match fs::read_dir(REGISTRY) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::io(format!("read {REGISTRY}")))?,
    };
    let mut places = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io(format!("read {REGISTRY}")))?;
        places.extend(read(&entry.path())?);
    }
    places.sort_by(|one: &Place, other| one.name.cmp(&other.name));
    Ok(places)
}

fn registered(name: &str) -> PathBuf {
    Path::new(REGISTRY).join(name)
}

fn read(directory: &Path) -> Result<Option<Place>, Error> {
    let path = directory.join(PLACE_FILE);
    let Ok(text) = fs::read(&path) else { return Ok(None) };
    let place = serde_json::from_slice(&text).map_err(std::io::Error::from);
    place.map(Some).map_err(Error::io(format!("read {}", path.display())))
}

fn lock(path: &Path) -> Result<File, Error> {
    let file = File::create(path).map_err(Error::io(format!("create {}", path.display())))?;
    file.lock().map_err(Error::io(format!("lock {}", path.display())))?;
    Ok(file)
}

fn check(name: &str) -> Result<(), Error> {
    let fits = name.len() <= NAME_LENGTH_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|sign| sign.is_ascii_lowercase() || sign.is_ascii_digit() || sign == '-')
        && !name.ends_with('-');
    if fits { Ok(()) } else { Err(Error::Name(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u8) -> Place {
        Place { name: "shop".to_owned(), number, directory: "/tmp/shop".into() }
    }

    #[test]
    fn addresses_of_two_clusters_do_not_meet() {
        let ranges = |place: &Place| [place.services(), place.pods(), place.node_address().to_string()];
        let all: std::collections::BTreeSet<_> = (0..PLACES).flat_map(|number| ranges(&place(number))).collect();
        assert_eq!(all.len(), 3 * usize::from(PLACES));
        assert_eq!(place(0).services(), "10.160.0.0/16");
        assert_eq!(place(15).pods(), "10.191.0.0/16");
        assert_eq!(place(1).service_address(10).to_string(), "10.162.0.10");
    }

    #[test]
    fn names_become_parts_of_paths_and_of_host_names() {
        for wrong in ["", "Shop", "../shop", "shop-", "7shop", "a-name-that-is-too-long"] {
            assert!(matches!(check(wrong), Err(Error::Name(_))), "{wrong}");
        }
        check("shop-2").unwrap();
    }
}
