//! One cluster for all tests of a binary, with a prefix of keys for each test.
//!
//! ```no_run
//! # async fn example() -> Result<(), tandem_e2e_tikv::Error> {
//! let Some(place) = tandem_e2e_tikv::shared().await? else { return Ok(()) };
//! // Keys of this test begin with `place.prefix`.
//! # let _ = place; Ok(()) }
//! ```

use std::io::Write;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Once};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::OnceCell;

use crate::cluster::{Cluster, ENDPOINTS_VARIABLE, Options};
use crate::{Error, slots};

/// Set to anything but 0, a test that would be skipped fails.
pub const REQUIRE_VARIABLE: &str = "TANDEM_REQUIRE_TIKV";

/// How many places have regions on all stores. Others work, but each lies in one region.
const PLACES: u16 = 32;
/// Regions of each of them: two at each of three stores.
const REGIONS_OF_PLACE: u16 = 6;

static CLUSTER: OnceCell<Result<Option<Cluster>, Arc<Error>>> = OnceCell::const_new();
static TAKEN: AtomicU16 = AtomicU16::new(0);

/// A cluster, and where in it a test may write.
#[derive(Clone, Debug)]
pub struct Place {
    /// Shared with all tests of this binary: whoever kills something here, disturbs them.
    pub cluster: &'static Cluster,
    /// Keys of one test begin with it.
    pub prefix: Vec<u8>,
}

/// A place in the cluster that `TANDEM_PD_ENDPOINTS` names, or else in one that is started for this binary and ends with it.
///
/// `None` where there is neither such a cluster nor Go to build one: the reason has been printed, and the test is skipped.
/// With `TANDEM_REQUIRE_TIKV=1` that is an error.
pub async fn shared() -> Result<Option<Place>, Error> {
    let cluster = CLUSTER.get_or_init(|| async { skip(begin().await).map_err(Arc::new) }).await;
    let Some(cluster) = cluster.as_ref().map_err(|error| Error::Shared(error.clone()))? else { return Ok(None) };
    let place = TAKEN.fetch_add(1, Ordering::Relaxed);
    let prefix = if cluster.is_outside() { foreign_prefix(place) } else { prefix(place) };
    Ok(Some(Place { cluster, prefix }))
}

/// A place in the cluster that was started for this binary: for tests that set fail points or split regions, which nobody does
/// in the cluster of somebody else. Skipped as in [`shared`], and where `TANDEM_PD_ENDPOINTS` names one.
pub async fn own() -> Result<Option<Place>, Error> {
    let Some(place) = shared().await? else { return Ok(None) };
    if place.cluster.is_outside() {
        say_once(&format!("it makes stores fail, and {ENDPOINTS_VARIABLE} names a cluster that is not ours"));
        return Ok(None);
    }
    Ok(Some(place))
}

/// A cluster that one test has for itself, because it kills or freezes something; skipped as in [`shared`], and also where
/// `TANDEM_PD_ENDPOINTS` names one, which is not ours to kill.
pub async fn alone(options: Options) -> Result<Option<Cluster>, Error> {
    if Cluster::of_environment().is_some() {
        say_once(&format!("it kills stores, and {ENDPOINTS_VARIABLE} names a cluster that is not ours"));
        return Ok(None);
    }
    skip(Cluster::start(options).await)
}

async fn begin() -> Result<Cluster, Error> {
    if let Some(cluster) = Cluster::of_environment() {
        return Ok(cluster);
    }
    let splits =
        (0..PLACES).flat_map(|place| slots::cuts(&slots::rows_behind(&prefix(place)), slots::SLOTS, REGIONS_OF_PLACE));
    Cluster::start(Options { splits: splits.collect(), ..Options::default() }).await
}

fn skip(started: Result<Cluster, Error>) -> Result<Option<Cluster>, Error> {
    match started {
        Ok(cluster) => Ok(Some(cluster)),
        Err(error) if error.is_missing_tool() && !required() => {
            say_once(&error.to_string());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn required() -> bool {
    std::env::var(REQUIRE_VARIABLE).is_ok_and(|value| !value.is_empty() && value != "0")
}

fn say_once(reason: &str) {
    static SAID: Once = Once::new();
    // Written past the capture of the test harness, which would show it only where a test fails.
    SAID.call_once(|| drop(writeln!(std::io::stderr(), "skipped tests on TiKV: {reason}")));
}

fn prefix(place: u16) -> Vec<u8> {
    format!("m/{place:04x}/").into_bytes()
}

/// Data of earlier runs is still there.
fn foreign_prefix(place: u16) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    format!("tandem-test/{now:x}-{}-{place:04x}/", std::process::id()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go::{GoError, GoVersion};

    #[test]
    fn prefixes_of_two_places_do_not_contain_each_other() {
        assert!(!prefix(1).starts_with(&prefix(0)) && !prefix(0x10).starts_with(&prefix(1)));
        assert_eq!(prefix(0)[0], prefix(u16::MAX)[0], "neighbouring first bytes would collide in the test store");
    }

    #[test]
    fn only_a_missing_tool_is_a_reason_to_skip() {
        assert!(matches!(skip(Err(Error::NotOurs("x"))), Err(Error::NotOurs("x"))));
        let missing = GoError::Missing { what: "tools", least: GoVersion::one(23, 6), otherwise: "do without" };
        let skipped = skip(Err(missing.into()));
        assert!(if required() { skipped.is_err() } else { matches!(skipped, Ok(None)) });
    }
}
