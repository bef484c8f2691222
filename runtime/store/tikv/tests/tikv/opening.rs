//! Bad input: each a clear error within seconds.

use std::time::{Duration, Instant};

use tandem_model::ids::Timestamp;
use tandem_store::{Error, Snapshot as _, Store as _};
use tandem_store_tikv::TikvStore;
use tandem_store_tikv::options::Options;
use tikv_client::{CheckLevel, TransactionClient, TransactionOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Everything that can be wrong is found within this time.
const SECONDS: Duration = Duration::from_secs(9);

async fn refused(options: &Options) -> Error {
    let begin = Instant::now();
    let error = TikvStore::open(options).await.expect_err("it must not open");
    assert!(begin.elapsed() < SECONDS, "it took {:?}", begin.elapsed());
    error
}

fn address(listener: &TcpListener) -> Options {
    let address = listener.local_addr().expect("it listens");
    format!("tikv://{address}").parse().expect("it is an address")
}

#[tokio::test]
async fn nobody_is_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a port");
    let options = address(&listener);
    drop(listener);
    let error = refused(&options).await;
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains(&options.endpoints[0]), "{error}");
}

#[tokio::test]
async fn somebody_is_there_who_says_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a port");
    let options = address(&listener);
    let silent = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            open.push(socket);
        }
    });
    let error = refused(&options).await;
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    silent.abort();
}

#[tokio::test]
async fn somebody_else_is_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a port");
    let options = address(&listener);
    let other = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut asked = [0; 64];
            let read = socket.read(&mut asked).await;
            let answered = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            drop((read, answered));
        }
    });
    let error = refused(&options).await;
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    other.abort();
}

/// Writes a key as somebody else would.
pub(super) async fn put(options: &Options, key: &str, value: &str) {
    let client = TransactionClient::new(options.endpoints.clone()).await.expect("the cluster answers");
    let warn = TransactionOptions::new_optimistic().drop_check(CheckLevel::Warn);
    let mut transaction = client.begin_with_options(warn).await.expect("the cluster answers");
    transaction.put([&options.prefix, key].concat(), value.to_owned()).await.expect("it is only remembered");
    transaction.commit().await.expect("nobody else writes it");
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let Some(options) = super::options().await else { return };
    drop(TikvStore::open(&options).await.expect("it is empty"));
    drop(TikvStore::open(&options).await.expect("it is ours"));
    put(&options, "oformat", "tandem on TiKV, format 2").await;
    let error = refused(&options).await;
    assert!(matches!(error, Error::NewerFormat { found: 2, known: 1, .. }), "{error:?}");
}

#[tokio::test]
async fn a_prefix_of_somebody_else_is_refused() {
    let Some(options) = super::options().await else { return };
    put(&options, "users/1", "x").await;
    let error = refused(&options).await;
    assert!(matches!(&error, Error::Refused(why) if why.contains("users/1")), "{error:?}");
}

#[tokio::test]
async fn a_keyspace_that_is_not_there_is_refused() {
    let Some(options) = super::options().await else { return };
    let error = refused(&Options { keyspace: Some("nowhere".to_owned()), ..options }).await;
    assert!(matches!(&error, Error::Refused(why) if why.contains("nowhere")), "{error:?}");
}

#[tokio::test]
async fn half_of_tls_is_refused_before_anybody_is_asked() {
    let nowhere = Some("/nowhere.pem".into());
    let files = tandem_store_tikv::options::TlsFiles::from_parts(nowhere.clone(), nowhere.clone(), nowhere);
    let tls = files.expect("all three are named");
    let options: Options = "tikv://127.0.0.1:1".parse().expect("it is an address");
    let error = refused(&Options { tls, ..options }).await;
    assert!(matches!(&error, Error::Refused(why) if why.contains("/nowhere.pem")), "{error:?}");
}

/// A real store stops for good when it is read at a time that PD has not given out.
#[tokio::test]
async fn the_future_is_read_as_the_present() {
    let Some((store, ())) = super::open().await else { return };
    let now = store.snapshot().await.expect("the cluster answers").timestamp();
    let future = Timestamp::at_unix_ms(now.unix_ms() + 3_600_000);
    let read = store.snapshot_at(future).await.expect("the cluster answers").timestamp();
    assert!(read > now && read.unix_ms() < now.unix_ms() + 60_000, "{read}");
}

/// Runtimes of a new installation start at the same time.
#[tokio::test]
async fn many_open_an_empty_installation_at_once() {
    const ROUNDS: usize = 8;
    const AT_ONCE: u64 = 16;
    let Some(options) = super::options().await else { return };
    for round in 0..ROUNDS {
        let options = Options { prefix: format!("{}{round}/", options.prefix), ..options.clone() };
        let opened: Vec<_> = (0..AT_ONCE)
            .map(|number| {
                let options = options.clone();
                // One after the other, so that some are in the middle when the first one is done.
                let later = Duration::from_millis(number);
                tokio::spawn(async move {
                    tokio::time::sleep(later).await;
                    TikvStore::open(&options).await.map(drop)
                })
            })
            .collect();
        for opened in opened {
            opened.await.expect("it does not panic").expect("it opens, whoever else does");
        }
    }
}
