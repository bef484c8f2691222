//! PD and test stores beside the node: processes of this machine, inside of the node's network namespace. They listen at the
//! node's address, so that pods and this machine reach them at the same endpoints.
//!
//! **The test store is not TiKV:** see `tandem_e2e_tikv`.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use tandem_e2e_tikv::binaries::{Binaries, builder};
use tandem_e2e_tikv::slots;

use crate::Error;
use crate::certificates::{Authority, Subject};
use crate::commands::await_ok;
use crate::place::Place;
use crate::processes;

/// What keys of runtimes in this cluster begin with: the key space is cut there. Not with a `t`: the test store takes some such
/// keys for rows of a table of TiDB, and refuses their values.
const PREFIX: &str = "e2e/";
const CONFIGURATION: &str = include_str!("../../tikv/pd.toml");
const PD_PORT: u16 = 12_379;
const PD_PEER_PORT: u16 = 12_380;
/// Of store 0; the next has the next.
const STORE_PORT: u16 = 20_160;
/// Of store 0: where it is told to fail.
const CONTROL_PORT: u16 = 20_260;
/// How much higher all ports with TLS are.
const TLS_PORTS: u16 = 1_000;
const READY_WITHIN: Duration = Duration::from_mins(1);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// How PD and stores of a cluster speak. Both can run beside each other, and know nothing of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// In plain text.
    Plain,
    /// With certificates on both sides.
    Tls,
}

impl Channel {
    /// The name of PD among the processes of a cluster.
    pub(crate) fn pd(self) -> &'static str {
        match self {
            Self::Plain => "pd",
            Self::Tls => "tls-pd",
        }
    }

    fn store(self, store: u8) -> String {
        match self {
            Self::Plain => format!("store-{store}"),
            Self::Tls => format!("tls-store-{store}"),
        }
    }

    fn port(self, plain: u16) -> u16 {
        match self {
            Self::Plain => plain,
            Self::Tls => plain + TLS_PORTS,
        }
    }

    fn url(self, place: &Place, port: u16) -> String {
        let scheme = match self {
            Self::Plain => "http",
            Self::Tls => "https",
        };
        format!("{scheme}://{}:{}", place.node_address(), self.port(port))
    }

    /// Where clients find PD.
    pub fn pd_endpoint(self, place: &Place) -> String {
        format!("{}:{}", place.node_address(), self.port(PD_PORT))
    }

    /// Starts PD and so many stores, and waits until these take requests. Builds them first if they never were.
    pub fn start(self, place: &Place, count: u8) -> Result<(), Error> {
        let binaries = Binaries::built_by(&builder())?;
        let mut configuration = CONFIGURATION.to_owned();
        if self == Self::Tls {
            let files = Certificates::make(place)?;
            let [ca, certificate, key] = [&files.authority, &files.certificate, &files.key]
                .map(|path| format!("{:?}", path.display().to_string()));
            configuration +=
                &format!("\n[security]\ncacert-path = {ca}\ncert-path = {certificate}\nkey-path = {key}\n");
        }
        let file = place.file(&format!("configuration/{}.toml", self.pd()));
        fs::write(&file, configuration).map_err(Error::io(format!("write {}", file.display())))?;
        let arguments = [
            "--name=pd".to_owned(),
            format!("--data-dir={}", place.file(&format!("data/{}", self.pd())).display()),
            format!("--config={}", file.display()),
            format!("--client-urls={}", self.url(place, PD_PORT)),
            format!("--advertise-client-urls={}", self.url(place, PD_PORT)),
            format!("--peer-urls={}", self.url(place, PD_PEER_PORT)),
            format!("--advertise-peer-urls={}", self.url(place, PD_PEER_PORT)),
        ];
        processes::start(place, self.pd(), &binaries.pd, &arguments)?;
        for store in 0..count {
            self.start_store(place, &binaries, store, count)?;
        }
        (0..count).try_for_each(|store| self.await_store(place, store))
    }

    /// Starts one store, with the data that it had.
    fn start_store(self, place: &Place, binaries: &Binaries, store: u8, count: u8) -> Result<(), Error> {
        let address = place.node_address();
        let port = |first: u16| self.port(first) + u16::from(store);
        let cuts = slots::cuts(&slots::rows_behind(PREFIX.as_bytes()), slots::SLOTS, slots::REGIONS);
        let splits: Vec<String> = cuts.iter().map(|key| hex(key)).collect();
        let mut arguments = vec![
            format!("-data={}", place.file(&format!("data/{}", self.store(store))).display()),
            format!("-pd={}", self.pd_endpoint(place)),
            format!("-addr={address}:{}", port(STORE_PORT)),
            format!("-advertise={address}:{}", port(STORE_PORT)),
            format!("-control={address}:{}", port(CONTROL_PORT)),
            format!("-index={store}"),
            format!("-count={count}"),
            format!("-splits={}", splits.join(",")),
        ];
        if self == Self::Tls {
            let files = Certificates::of(place);
            let pairs = [("ca", &files.authority), ("cert", &files.certificate), ("key", &files.key)];
            arguments.extend(pairs.map(|(name, path)| format!("-{name}={}", path.display())));
        }
        processes::start(place, &self.store(store), &binaries.store, &arguments)
    }

    /// Its control port opens when it takes requests.
    fn await_store(self, place: &Place, store: u8) -> Result<(), Error> {
        let control = SocketAddr::from((place.node_address(), self.port(CONTROL_PORT) + u16::from(store)));
        let connect = || TcpStream::connect_timeout(&control, CONNECT_WITHIN);
        let ask = || connect().map(drop).map_err(Error::io(format!("connect to {control}")));
        let name = self.store(store);
        await_ok(&name, READY_WITHIN, ask, || processes::check(place, &name))
    }

    /// Kills a store with SIGKILL. An error if it did not run.
    pub fn kill(self, place: &Place, store: u8) -> Result<(), Error> {
        processes::check(place, &self.store(store))?;
        processes::signal(&self.running(place, store), "KILL");
        processes::await_end(READY_WITHIN, || self.running(place, store));
        Ok(())
    }

    /// Starts a store again that was killed: one of so many.
    pub fn restart(self, place: &Place, store: u8, count: u8) -> Result<(), Error> {
        let binaries = Binaries::built_by(&builder())?;
        self.start_store(place, &binaries, store, count)?;
        self.await_store(place, store)
    }

    fn running(self, place: &Place, store: u8) -> Vec<u32> {
        let all = processes::all(place).into_iter();
        all.filter(|process| process.name == self.store(store)).map(|process| process.id).collect()
    }
}

/// Files for TLS between stores, PD and their clients: one certificate for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// The certificate of whom all trust.
    pub authority: PathBuf,
    /// Of servers and clients.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Certificates {
    /// Where those of a cluster lie.
    pub fn of(place: &Place) -> Self {
        let file = |name: &str| place.file("stores-tls").join(name);
        Self { authority: file("ca.crt"), certificate: file("tls.crt"), key: file("tls.key") }
    }

    fn make(place: &Place) -> Result<Self, Error> {
        let authority = Authority::create(&place.file("stores-tls"))?;
        let addresses = [IpAddr::from(place.node_address())];
        authority.sign("tls", &Subject { name: "stores", addresses: &addresses, ..Subject::default() })?;
        Ok(Self::of(place))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
