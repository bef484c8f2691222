//! PD and test stores beside the node: processes of this machine, inside of the node's network namespace. They listen at the
//! node's address, so that pods and this machine reach them at the same endpoints.
//!
//! **The test store is not TiKV:** see `tandem_e2e_tikv`.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tandem_e2e_tikv::binaries::{Binaries, Builder};
use tandem_e2e_tikv::slots;

use crate::Error;
use crate::commands::await_ok;
use crate::place::Place;
use crate::processes;

/// The name of PD among the processes of a cluster.
pub(crate) const PD: &str = "pd";
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
const READY_WITHIN: Duration = Duration::from_mins(1);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// Where clients find PD.
pub(crate) fn pd_endpoint(place: &Place) -> String {
    format!("{}:{PD_PORT}", place.node_address())
}

/// Starts them, and waits until stores take requests. Builds them first if they never were.
pub(crate) fn start(place: &Place, count: u8) -> Result<(), Error> {
    let binaries = Builder::of_environment().build()?;
    let configuration = place.file("configuration/pd.toml");
    fs::write(&configuration, CONFIGURATION).map_err(Error::io("write pd.toml"))?;
    let address = place.node_address();
    let url = |port: u16| format!("http://{address}:{port}");
    let arguments = [
        "--name=pd".to_owned(),
        format!("--data-dir={}", place.file("data/pd").display()),
        format!("--config={}", configuration.display()),
        format!("--client-urls={}", url(PD_PORT)),
        format!("--advertise-client-urls={}", url(PD_PORT)),
        format!("--peer-urls={}", url(PD_PEER_PORT)),
        format!("--advertise-peer-urls={}", url(PD_PEER_PORT)),
    ];
    processes::start(place, PD, &binaries.pd, &arguments)?;
    for store in 0..count {
        start_store(place, &binaries, store, count)?;
    }
    (0..count).try_for_each(|store| await_store(place, store))
}

/// Starts one store, with the data that it had.
pub(crate) fn start_store(place: &Place, binaries: &Binaries, store: u8, count: u8) -> Result<(), Error> {
    let address = place.node_address();
    let (listen, control) = (STORE_PORT + u16::from(store), CONTROL_PORT + u16::from(store));
    let cuts = slots::cuts(&slots::rows_behind(PREFIX.as_bytes()), slots::SLOTS, slots::REGIONS);
    let splits: Vec<String> = cuts.iter().map(|key| hex(key)).collect();
    let arguments = [
        format!("-data={}", place.file(&format!("data/store-{store}")).display()),
        format!("-pd={}", pd_endpoint(place)),
        format!("-addr={address}:{listen}"),
        format!("-advertise={address}:{listen}"),
        format!("-control={address}:{control}"),
        format!("-index={store}"),
        format!("-count={count}"),
        format!("-splits={}", splits.join(",")),
    ];
    processes::start(place, &name(store), &binaries.store, &arguments)
}

fn name(store: u8) -> String {
    format!("store-{store}")
}

/// Its control port opens when it takes requests.
fn await_store(place: &Place, store: u8) -> Result<(), Error> {
    let control = SocketAddr::from((place.node_address(), CONTROL_PORT + u16::from(store)));
    let connect = || TcpStream::connect_timeout(&control, CONNECT_WITHIN);
    let ask = || connect().map(drop).map_err(Error::io(format!("connect to {control}")));
    await_ok(&name(store), READY_WITHIN, ask, || processes::check(place, &name(store)))
}

/// Kills a store with SIGKILL.
pub fn kill(place: &Place, store: u8) -> Result<(), Error> {
    let ids: Vec<u32> = running(place, store);
    processes::signal(&ids, "KILL");
    processes::await_end(READY_WITHIN, || running(place, store));
    Ok(())
}

/// Starts a store again that was killed.
pub fn restart(place: &Place, store: u8, count: u8) -> Result<(), Error> {
    let binaries = Builder::of_environment().build()?;
    start_store(place, &binaries, store, count)?;
    await_store(place, store)
}

fn running(place: &Place, store: u8) -> Vec<u32> {
    let all = processes::all(place).into_iter();
    all.filter(|process| process.name == name(store)).map(|process| process.id).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
