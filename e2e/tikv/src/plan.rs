//! Which process of a cluster listens where, and how it is started. Written into the directory of the cluster, so that it
//! can be started again with the same data at the same addresses.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::binaries::Binaries;
use crate::slots::hex;

/// Of the state file.
const FORMAT: u32 = 1;
const STATE_FILE: &str = "cluster.json";
const PD_CONFIGURATION: &str = include_str!("../pd.toml");
/// Ports below those that the operating system gives to connections of clients: a store that was killed would not get one
/// of those back for sure.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// The files of TLS: certificates on both sides, and one of each for all processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// The authority.
    pub ca: PathBuf,
    /// The certificate, for servers and clients.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Tls {
    /// Those that are made for a cluster in this directory.
    pub(crate) fn inside(directory: &Path) -> Self {
        let file = |name: &str| directory.join("tls").join(name);
        Self { ca: file("ca.pem"), certificate: file("cert.pem"), key: file("key.pem") }
    }
}

/// Where a process listens, and what clients are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Address {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// What clients are told: the same, or a proxy in front of it.
    pub(crate) advertise: SocketAddr,
    /// PD: for its peers. Store: the control port.
    pub(crate) second: SocketAddr,
}

impl Address {
    pub(crate) fn free() -> Result<Self, Error> {
        let listen = free_address()?;
        Ok(Self { listen, advertise: listen, second: free_address()? })
    }
}

/// A cluster, as it is started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) format: u32,
    pub(crate) pd: Address,
    pub(crate) stores: Vec<Address>,
    /// Raw keys, in hexadecimal.
    pub(crate) splits: Vec<String>,
    pub(crate) tls: Option<Tls>,
    /// Of the processes of a cluster in the background: PD, then the stores. Empty where nothing runs.
    pub(crate) processes: Vec<u32>,
}

/// What every format begins with.
#[derive(Deserialize)]
struct Header {
    format: u32,
}

impl Plan {
    /// A plan with free ports.
    pub(crate) fn new(stores: usize, splits: &[Vec<u8>], tls: Option<Tls>) -> Result<Self, Error> {
        let addresses = (0..stores).map(|_| Address::free()).collect::<Result<_, _>>()?;
        let splits = splits.iter().map(|key| hex(key)).collect();
        Ok(Self { format: FORMAT, pd: Address::free()?, stores: addresses, splits, tls, processes: Vec::new() })
    }

    /// The plan of a directory, if there is one.
    pub(crate) fn load(directory: &Path) -> Result<Option<Self>, Error> {
        let path = directory.join(STATE_FILE);
        let read = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io(format!("read {}", path.display())))?,
        };
        let parse = |error: serde_json::Error| Error::Io {
            attempted: format!("read {}", path.display()),
            source: error.into(),
        };
        // The format first: the rest of another one may not be readable.
        let header: Header = serde_json::from_slice(&read).map_err(parse)?;
        if header.format != FORMAT {
            return Err(Error::Format { path, found: header.format, expected: FORMAT });
        }
        serde_json::from_slice(&read).map(Some).map_err(parse)
    }

    /// Writes it into its directory, whole or not at all.
    pub(crate) fn save(&self, directory: &Path) -> Result<(), Error> {
        let path = directory.join(STATE_FILE);
        let next = directory.join("cluster.json.next");
        let write = || {
            let mut file = fs::File::create(&next)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&next, &path)
        };
        write().map_err(Error::io(format!("write {}", path.display())))
    }

    /// Writes what the processes want to find.
    pub(crate) fn prepare(&self, directory: &Path, binaries: &Binaries) -> Result<(), Error> {
        fs::create_dir_all(directory).map_err(Error::io(format!("create {}", directory.display())))?;
        let mut configuration = PD_CONFIGURATION.to_owned();
        if let Some(tls) = &self.tls {
            let path = |path: &Path| format!("{:?}", path.display().to_string());
            configuration += &format!(
                "\n[security]\ncacert-path = {}\ncert-path = {}\nkey-path = {}\n",
                path(&tls.ca),
                path(&tls.certificate),
                path(&tls.key)
            );
            if *tls == Tls::inside(directory) && !tls.key.exists() {
                make_certificates(directory, binaries)?;
            }
        }
        let file = directory.join("pd.toml");
        fs::write(&file, configuration).map_err(Error::io(format!("write {}", file.display())))
    }

    /// Starts PD.
    pub(crate) fn pd_command(&self, directory: &Path, binaries: &Binaries) -> Command {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut command = Command::new(&binaries.pd);
        command.arg("--name=pd").arg(format!("--data-dir={}", directory.join("pd").display()));
        command.arg(format!("--config={}", directory.join("pd.toml").display()));
        command.arg(format!("--client-urls={scheme}://{}", self.pd.listen));
        command.arg(format!("--advertise-client-urls={scheme}://{}", self.pd.advertise));
        command.arg(format!("--peer-urls={scheme}://{}", self.pd.second));
        command.arg(format!("--advertise-peer-urls={scheme}://{}", self.pd.second));
        command
    }

    /// Starts a store. It goes to PD itself, past any proxy: faults are for clients.
    pub(crate) fn store_command(&self, store: usize, directory: &Path, binaries: &Binaries) -> Command {
        let address = &self.stores[store];
        let mut command = Command::new(&binaries.store);
        command.arg(format!("-data={}", directory.join(format!("store-{store}")).display()));
        command.arg(format!("-pd={}", self.pd.listen)).arg(format!("-addr={}", address.listen));
        command.arg(format!("-advertise={}", address.advertise)).arg(format!("-control={}", address.second));
        command.arg(format!("-index={store}")).arg(format!("-count={}", self.stores.len()));
        command.arg(format!("-splits={}", self.splits.join(",")));
        if let Some(tls) = &self.tls {
            command.arg("-ca").arg(&tls.ca).arg("-cert").arg(&tls.certificate).arg("-key").arg(&tls.key);
        }
        command
    }
}

fn make_certificates(directory: &Path, binaries: &Binaries) -> Result<(), Error> {
    let mut command = Command::new(&binaries.store);
    command.arg("-make-certificates").arg(directory.join("tls"));
    let output = command.output().map_err(Error::io("make certificates"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Io { attempted: "make certificates".to_owned(), source: std::io::Error::other(said) })
}

/// An address on loopback where nobody listens now. Processes that look at the same moment begin at different ports.
pub fn free_address() -> Result<SocketAddr, Error> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static LOOKED: AtomicU32 = AtomicU32::new(0);
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
    let count = u32::from(PORTS.end - PORTS.start);
    for _ in 0..count {
        let step = LOOKED.fetch_add(1, Ordering::Relaxed);
        let offset = (std::process::id().wrapping_mul(7919) ^ nanoseconds).wrapping_add(step) % count;
        let port = PORTS.start + u16::try_from(offset).expect("less than the number of ports");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(Error::Io { attempted: "find a free port".to_owned(), source: std::io::ErrorKind::AddrInUse.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_back_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let tls = Tls::inside(directory.path());
        let mut plan = Plan::new(3, &[b"t\x00".to_vec(), b"u".to_vec()], Some(tls)).unwrap();
        plan.processes = vec![7, 8, 9, 10];
        assert_eq!(Plan::load(directory.path()).unwrap(), None);
        plan.save(directory.path()).unwrap();
        assert_eq!(Plan::load(directory.path()).unwrap(), Some(plan));
    }

    #[test]
    fn a_plan_of_another_format_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(STATE_FILE), r#"{"format": 99, "else": true}"#).unwrap();
        let error = Plan::load(directory.path()).unwrap_err();
        assert!(error.to_string().contains("has format 99, this is for 1"), "{error}");
    }

    #[test]
    fn all_addresses_of_a_plan_differ() {
        let plan = Plan::new(5, &[], None).unwrap();
        let all: Vec<_> = plan.stores.iter().chain([&plan.pd]).flat_map(|one| [one.listen, one.second]).collect();
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len(), "{all:?}");
    }
}
