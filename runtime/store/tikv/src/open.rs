//! Opening: everything that can be wrong is found within seconds, before anything is served.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tandem_model::ids::Timestamp;
use tandem_store::{Commit, CommitResult, Error, Read, Snapshot as _, Store as _};

use crate::cluster::{Cluster, Failure};
use crate::commit::failed;
use crate::housekeeping::{Housekeeping, unix_time};
use crate::options::Options;
use crate::remote::Remote;
use crate::remote::channels::Dialer;
use crate::stats::Stats;
use crate::store::ClusterStore;
use crate::tls;

/// A store on TiKV.
pub type TikvStore = ClusterStore<Remote>;

/// The format that this code writes, and the newest that it reads.
const FORMAT: u32 = 1;
/// Stands before the version in the format row.
const FORMAT_LABEL: &str = "tandem on TiKV, format ";
/// What the format row says while everything is being removed. Nothing that runs flows opens it.
const BEING_PURGED: &str = "tandem on TiKV, being purged";
/// The own row that holds it.
pub(crate) const FORMAT_ROW: &[u8] = b"format";
/// Opening takes no longer.
pub(crate) const OPEN_TIME: Duration = Duration::from_secs(8);
/// Two who open an empty store at once may disturb each other this often.
const FORMAT_ATTEMPTS: usize = 5;
/// A difference to PD's clock that is worth a warning. Nothing is decided by clocks.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(5);

impl TikvStore {
    /// Connects, and checks that what is there belongs to us and can be read.
    pub async fn open(options: &Options) -> Result<Self, Error> {
        options.check()?;
        let late = |_| {
            let seconds = OPEN_TIME.as_secs();
            Err(Error::Unavailable(format!("{} could not be opened within {seconds} s", options.shown())))
        };
        tokio::time::timeout(OPEN_TIME, open(options)).await.unwrap_or_else(late)
    }
}

async fn open(options: &Options) -> Result<TikvStore, Error> {
    let Parts { own, rows, everything, dialer, stats } = connect(options).await?;
    let all = ClusterStore::with_stats(everything.clone(), options.timeouts, stats.clone());
    check_format(&own, &all, options).await?;
    let housekeeping = Housekeeping { own, everything, dialer, options: options.clone(), stats };
    tokio::spawn(housekeeping.run(rows.until_dropped()));
    Ok(rows)
}

/// An installation, before anybody has looked at what it is.
pub(crate) struct Parts {
    /// The store's own rows.
    pub(crate) own: TikvStore,
    /// The rows of its users.
    pub(crate) rows: TikvStore,
    /// Both, and whatever else begins with the prefix.
    pub(crate) everything: Remote,
    pub(crate) dialer: Dialer,
    pub(crate) stats: Arc<Stats>,
}

/// Connects, and asks PD for the time.
pub(crate) async fn connect(options: &Options) -> Result<Parts, Error> {
    let stats: Arc<Stats> = Arc::default();
    let certificates = options.tls.as_ref().map(|files| tls::read(files, unix_time())).transpose()?;
    let dialer = Dialer::new(certificates);
    let named = |failure: Failure| match failed(failure) {
        Error::Unavailable(why) => Error::Unavailable(format!("{}: {why}", options.shown())),
        Error::Refused(why) => Error::Refused(format!("{}: {why}", options.shown())),
        other => other,
    };
    let remote = Remote::connect(options, dialer.clone(), stats.clone()).await.map_err(named)?;
    let now = remote.timestamp().await.map_err(named)?;
    if let Some(difference) = clock_difference(now, SystemTime::now()) {
        tracing::warn!(
            seconds = difference.as_secs(),
            "the clock of this machine and that of PD differ; times shown to people will be wrong"
        );
    }
    let part = |part: Remote| ClusterStore::with_stats(part, options.timeouts, stats.clone());
    let (own, everything, rows) = (part(remote.own()), remote.everything(), part(remote));
    Ok(Parts { own, rows, everything, dialer, stats })
}

/// How far apart the clocks are, if that is worth a word.
fn clock_difference(pd: Timestamp, here: SystemTime) -> Option<Duration> {
    let pd = UNIX_EPOCH + Duration::from_millis(pd.unix_ms());
    let difference = here.duration_since(pd).unwrap_or_else(|error| error.duration());
    (difference > CLOCK_DIFFERENCE_MAX).then_some(difference)
}

/// Notes the format in an empty installation; refuses one that is newer, and one that is none of ours.
async fn check_format<C: Cluster>(
    own: &ClusterStore<C>,
    everything: &ClusterStore<C>,
    options: &Options,
) -> Result<(), Error> {
    let key = Bytes::from_static(FORMAT_ROW);
    for _ in 0..FORMAT_ATTEMPTS {
        let snapshot = own.snapshot().await?;
        if let Some(row) = snapshot.get(&key).await? {
            return judge(&row, options);
        }
        let any = tandem_store::KeyRange { start: Bytes::new(), end: None };
        // At the same time: otherwise the row of somebody else who opens it now would be taken for a foreign key.
        let all = everything.snapshot_at(snapshot.timestamp()).await?;
        if let Some((first, _)) = all.scan(&any, 1, false).await?.first() {
            return Err(foreign(first, options));
        }
        let read = Read { key: key.clone(), seen_at: snapshot.timestamp(), value: None };
        let row = format_row();
        let commit = Commit {
            primary: key.clone(),
            reads: vec![read],
            ranges: Vec::new(),
            writes: vec![(key.clone(), Some(row))],
        };
        // Whatever came of it, the next round reads what is there.
        if let CommitResult::Committed(_) = own.commit(commit).await? {
            return Ok(());
        }
    }
    Err(Error::Unavailable(format!("{}: the format could not be noted", options.shown())))
}

/// What is said of keys that nobody has labelled.
pub(crate) fn foreign(first: &[u8], options: &Options) -> Error {
    let why = format!(
        "there are keys below prefix {:?} (the first is {}), but no row that says what they are; choose another prefix",
        options.prefix,
        first.escape_ascii()
    );
    Error::Refused(format!("{}: {why}", options.shown()))
}

/// The format row of an installation.
pub(crate) fn format_row() -> Bytes {
    Bytes::from(format!("{FORMAT_LABEL}{FORMAT}"))
}

/// The format row of an installation that is being removed.
pub(crate) fn purge_row() -> Bytes {
    Bytes::from_static(BEING_PURGED.as_bytes())
}

pub(crate) fn judge(row: &[u8], options: &Options) -> Result<(), Error> {
    if row == BEING_PURGED.as_bytes() {
        let why = "a purge of what is stored here has begun and has not ended; let `tandem-runtime purge` end it, or choose another prefix";
        return Err(Error::Refused(format!("{}: {why}", options.shown())));
    }
    let text = String::from_utf8_lossy(row);
    match text.strip_prefix(FORMAT_LABEL).and_then(|version| version.parse().ok()) {
        Some(found) if found > FORMAT => Err(Error::NewerFormat { path: options.shown(), found, known: FORMAT }),
        Some(_) => Ok(()),
        None => Err(Error::Damaged(format!("{}: the format row says {text:?}", options.shown()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_refused_and_an_unknown_one_is_damage() {
        let options: Options = "tikv://pd".parse().expect("it is an address");
        judge(b"tandem on TiKV, format 1", &options).expect("it is ours");
        let newer = judge(b"tandem on TiKV, format 2", &options);
        assert!(matches!(newer, Err(Error::NewerFormat { found: 2, known: 1, .. })), "{newer:?}");
        assert!(matches!(judge(b"x", &options), Err(Error::Damaged(_))));
    }

    #[test]
    fn clocks_that_differ_are_noticed() {
        let here = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(clock_difference(Timestamp::at_unix_ms(1_000_001_000), here), None);
        let ahead = clock_difference(Timestamp::at_unix_ms(1_003_600_000), here);
        assert_eq!(ahead, Some(Duration::from_hours(1)));
        let behind = clock_difference(Timestamp::at_unix_ms(990_000_000), here);
        assert_eq!(behind, Some(Duration::from_secs(10_000)));
    }
}
