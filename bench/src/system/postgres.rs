//! PostgreSQL, if it is installed: one transaction that does the same, in a function of the database.
//!
//! A request is one prepared statement that calls one PL/pgSQL function: one round trip, one transaction. That is the
//! shortest way there is; an application with its code outside of the database needs more. The default isolation (READ
//! COMMITTED) is enough because every row that is read is locked first, in the order of the keys.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tempfile::TempDir;
use tokio_postgres::{Config, NoTls, Statement};

use crate::rows::Rows;
use crate::serve::Counted;
use crate::system::{Connector, Running, block_on};
use crate::tally::{Ended, Stored, Tally};
use crate::usage::Process;
use crate::workload::{Cell, Operation, Workload};

mod schema;

/// Room for 256 clients and for ourselves.
const CONNECTIONS_MAX: &str = "300";
const START_TIME_MAX: Duration = Duration::from_secs(30);
const START_POLL: Duration = Duration::from_millis(50);
/// Where Debian puts each version.
const DEBIAN: &str = "/usr/lib/postgresql";
/// Who runs it if we are root, which it refuses to be run by.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];
const USER: &str = "bench";

/// A database cluster of our own, which lives as long as this value.
#[derive(Debug)]
pub(crate) struct Cluster {
    directory: TempDir,
    programs: PathBuf,
    account: Option<Account>,
    server: std::process::Child,
    config: Config,
    version: String,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    user: u32,
    group: u32,
}

impl Cluster {
    /// Makes and starts one below `parent`. `None` if PostgreSQL is not installed.
    pub(crate) fn start(parent: &Path) -> anyhow::Result<Option<Self>> {
        let Some(programs) = programs() else { return Ok(None) };
        let directory = tempfile::tempdir_in(parent)?;
        let account = if fs::metadata("/proc/self")?.uid() == 0 { Some(account()?) } else { None };
        if let Some(account) = account {
            chown(directory.path(), Some(account.user), Some(account.group))?;
        }
        let data = directory.path().join("data");
        let made = command(&programs, "initdb", account)
            .args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "--username", USER, "--pgdata"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()?;
        anyhow::ensure!(made.success(), "initdb failed; can its account reach {}?", data.display());
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = fs::File::create(directory.path().join("log"))?;
        let server = command(&programs, "postgres", account)
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", &format!("max_connections={CONNECTIONS_MAX}"), "-p", &port.to_string(), "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let mut config = Config::new();
        config.host("127.0.0.1").port(port).user(USER).dbname("postgres");
        let mut cluster = Self { directory, programs, account, server, config, version: String::new() };
        cluster.version = cluster.until_ready()?;
        Ok(Some(cluster))
    }

    /// `15.10`.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    fn until_ready(&self) -> anyhow::Result<String> {
        let until = Instant::now() + START_TIME_MAX;
        loop {
            let version = block_on(async {
                let row = connect(&self.config).await?.query_one("SHOW server_version", &[]).await?;
                let full: String = row.get(0);
                Ok(full.split(' ').next().unwrap_or_default().to_owned())
            });
            match version {
                Ok(version) => return Ok(version),
                Err(error) if Instant::now() > until => return Err(error.context("PostgreSQL did not start")),
                Err(_) => std::thread::sleep(START_POLL),
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Nobody needs the data any more; killing the first process alone would leave the others for a while.
        let _ = command(&self.programs, "pg_ctl", self.account)
            .args(["stop", "--silent", "--mode=immediate", "--pgdata"])
            .arg(self.directory.path().join("data"))
            .status();
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir(DEBIAN).into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let on_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let mut found: Vec<PathBuf> = versions.chain(on_path.into_iter().flatten()).collect();
    found.retain(|folder| folder.join("initdb").exists() && folder.join("postgres").exists());
    found.sort();
    found.pop()
}

fn account() -> anyhow::Result<Account> {
    let known = fs::read_to_string("/etc/passwd")?;
    let of = |name: &str| {
        let line = known.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut numbers = line.split(':').skip(2).map(str::parse);
        Some(Account { user: numbers.next()?.ok()?, group: numbers.next()?.ok()? })
    };
    ACCOUNTS.into_iter().find_map(of).context("PostgreSQL does not run as root, and there is no account for it")
}

fn command(programs: &Path, name: &str, account: Option<Account>) -> Command {
    let mut command = Command::new(programs.join(name));
    if let Some(account) = account {
        command.uid(account.user).gid(account.group).current_dir("/");
    }
    command.stdin(Stdio::null());
    command
}

async fn connect(config: &Config) -> anyhow::Result<tokio_postgres::Client> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(async move {
        // Whoever waits for an answer on it is told.
        let _ = connection.await;
    });
    Ok(client)
}

/// The cluster with the data of one workload.
#[derive(Debug)]
pub(crate) struct Postgres {
    cluster: Arc<Cluster>,
    workload: Workload,
    rows: Rows,
}

impl Postgres {
    /// Makes the tables of `workload` anew.
    pub(crate) fn start(cluster: Arc<Cluster>, workload: Workload) -> anyhow::Result<Self> {
        let script = schema::script(workload)?;
        block_on(async {
            let client = connect(&cluster.config).await?;
            client.batch_execute(&script).await.context("making the tables")?;
            // Not in a transaction, so each by itself. The checkpoint keeps that of an earlier run out of this one.
            client.batch_execute("VACUUM ANALYZE").await?;
            Ok(client.batch_execute("CHECKPOINT").await?)
        })?;
        Ok(Self { cluster, workload, rows: Rows::new(workload)? })
    }

    async fn stored(&self) -> anyhow::Result<Stored> {
        let client = connect(&self.cluster.config).await?;
        let mut stored = Stored::default();
        for (family, known) in self.workload.families().into_iter().enumerate() {
            let query = format!("SELECT id, value FROM {}", schema::table(&known.function));
            for row in client.query(&query, &[]).await? {
                let (id, value): (i64, i64) = (row.get(0), row.get(1));
                stored.numbers.insert(Cell { family, row: u32::try_from(id)? }, u64::try_from(value)?);
            }
        }
        let orders = client.query_one("SELECT count(*), coalesce(sum(value), 0)::bigint FROM orders", &[]).await?;
        stored.orders = u64::try_from(orders.get::<_, i64>(0))?;
        stored.order_total = u64::try_from(orders.get::<_, i64>(1))?;
        let count = "SELECT count(*) FILTER (WHERE committed), count(*) FILTER (WHERE NOT committed) FROM requests";
        let requests = client.query_one(count, &[]).await?;
        stored.committed = u64::try_from(requests.get::<_, i64>(0))?;
        stored.rejected = u64::try_from(requests.get::<_, i64>(1))?;
        Ok(stored)
    }
}

impl Running for Postgres {
    fn connector(&self) -> Connector {
        Connector::Postgres(Target { config: Arc::new(self.cluster.config.clone()), rows: self.rows.clone() })
    }

    fn processes(&self) -> Vec<Process> {
        vec![Process { role: "postgres", id: self.cluster.server.id(), with_children: true }]
    }

    fn counted(&mut self) -> anyhow::Result<Counted> {
        let syncs = block_on(async {
            let client = connect(&self.cluster.config).await?;
            let row = client.query_one("SELECT wal_sync FROM pg_stat_wal", &[]).await?;
            Ok(u64::try_from(row.get::<_, i64>(0))?)
        })?;
        Ok(Counted { syncs: Some(syncs), ..Counted::default() })
    }

    fn end(self: Box<Self>, tally: &Tally) -> anyhow::Result<()> {
        tally.compare(&self.workload.families(), &block_on(self.stored())?)
    }
}

/// What a client needs to connect.
#[derive(Clone)]
pub(crate) struct Target {
    config: Arc<Config>,
    rows: Rows,
}

impl Target {
    /// One more connection.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        let connection = connect(&self.config).await?;
        let request = connection.prepare(schema::REQUEST).await?;
        Ok(Client { connection, request, rows: self.rows.clone() })
    }
}

/// One connection.
pub(crate) struct Client {
    connection: tokio_postgres::Client,
    request: Statement,
    rows: Rows,
}

impl Client {
    /// One transaction.
    pub(crate) async fn request(&mut self, id: &str, operation: &Operation) -> anyhow::Result<Ended> {
        let record = self.rows.record_value(operation, true);
        let record = std::str::from_utf8(&record)?;
        let rows: Vec<i64> = operation.changes.iter().map(|change| change.cell.row.into()).collect();
        let by: Vec<i64> = operation.changes.iter().map(|change| change.by).collect();
        let (key, total) = operation.order.as_ref().map(|order| (order.key.as_str(), order.total)).unzip();
        let answer = self.connection.query_one(&self.request, &[&id, &record, &rows, &by, &key, &total]).await?;
        Ok(if answer.get(0) { Ended::Committed } else { Ended::Rejected })
    }
}
