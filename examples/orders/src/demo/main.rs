//! `make demo`: runs the orders application, sends it thousands of orders made from real purchases, kills it in the middle,
//! and checks every invariant on the stored state. Ends with an error if one is broken or an order has no outcome.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`plan`] | makes stock, wallets and orders from purchases and a seed |
//! | [`drive`], [`client`] | sends them over HTTP and keeps the answers |
//! | [`site`], [`process`] | start, kill and restart the runtimes |
//! | [`stored`], [`checks`] | reads the stored state, checks the invariants |
//! | [`report`] | what is printed |

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use tokio::sync::watch;

use crate::checks::{Evidence, Invariant, check_all, large_orders};
use crate::client::Client;
use crate::dice::Dice;
use crate::drive::Done;
use crate::plan::Plan;
use crate::report::thousands;
use crate::site::{Site, Wanted};
use crate::stored::{Instance, Stored};

mod answer;
mod checks;
mod client;
mod dice;
mod drive;
mod plan;
mod process;
mod report;
mod site;
mod spoil;
mod stored;

const PURCHASES: &str = include_str!("../../data/cdnow-sample.txt");
/// Functions whose state is checked.
const FUNCTIONS: [&str; 5] = ["inventory", "payment", "order", "cart", "loyalty"];
/// Clients that send at the same time.
const CONNECTIONS: u16 = 64;
/// The same where a whole cluster shares the processors with them.
const CONNECTIONS_TIKV: u16 = 16;
/// Instances that are read at once.
const PAGE: usize = 1_000;
/// Map entries that are read of an instance that has more than a page shows.
const ENTRIES: usize = 100_000;
/// How long delayed messages may take to arrive after the last order.
const SETTLE_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long the runtime may take to end.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// Without a terminal, progress is printed so often.
const LINES: usize = 5;

/// Sends thousands of orders to the orders application, kills it in the middle, and checks that nothing is lost or doubled.
#[derive(Debug, Parser)]
#[command(name = "orders-demo", version)]
struct Options {
    /// Directory of the application
    #[arg(long, default_value = "examples/orders")]
    application: PathBuf,
    /// Directory for the state; what an earlier demo left there is removed
    #[arg(long, default_value = ".tandem/demo")]
    data: PathBuf,
    /// The tandem program; without it, the one beside this program
    #[arg(long)]
    tandem: Option<PathBuf>,
    /// Keep state in TiKV: `tikv` for the cluster of `make tikv`, or `tikv://HOST:PORT[,HOST:PORT][/PREFIX]`
    #[arg(long)]
    store: Option<String>,
    /// Runtimes that share a TiKV
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    runtimes: u16,
    /// Clients that send at the same time; 64 by default, 16 with a TiKV on the same machine
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: Option<u16>,
    /// Start nothing: send to runtimes that run already and hold no orders yet. `HTTP,ADMIN`: where one takes requests, and its admin port
    #[arg(long, value_parser = addresses, conflicts_with_all = ["store", "tamper"])]
    at: Vec<client::Addresses>,
    /// How many of the purchases become orders
    #[arg(long)]
    orders: Option<usize>,
    /// Decides what is ordered and when the runtime is killed
    #[arg(long, default_value_t = 1997)]
    seed: u64,
    /// Let the runtime live
    #[arg(long)]
    no_kill: bool,
    /// Change one thing after the fact so that this invariant is broken, to see that it would be noticed
    #[arg(long, value_name = "INVARIANT")]
    tamper: Option<Invariant>,
}

fn addresses(text: &str) -> Result<client::Addresses, &'static str> {
    let (http, admin) = text.split_once(',').ok_or("not two URLs with a comma between them")?;
    let trimmed = |url: &str| url.trim_end_matches('/').to_owned();
    Ok(client::Addresses { http: trimmed(http), admin: trimmed(admin) })
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    tokio::select! {
        holds = run(&options) => Ok(if holds? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        // Dropping the run kills the runtime and its workers.
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Runs the demo; whether everything holds.
async fn run(options: &Options) -> anyhow::Result<bool> {
    let wanted = prepare(options)?;
    let mut purchases = plan::parse_purchases(PURCHASES)?;
    purchases.truncate(options.orders.unwrap_or(usize::MAX));
    let plan = Arc::new(Plan::new(purchases, options.seed));

    let site = Site::start(&wanted).await?;
    let addresses = site.addresses();
    let shown: Vec<&str> = addresses.iter().map(|addresses| addresses.http.as_str()).collect();
    println!("orders application on {}, {}", shown.join(", "), site.store);
    let (announce, addresses) = watch::channel(addresses);
    let client = Arc::new(Client::new(addresses));
    let usual = if options.store.is_some() { CONNECTIONS_TIKV } else { CONNECTIONS };
    let connections = usize::from(options.connections.unwrap_or(usual));
    drive::set_up(&client, &plan, connections).await.context("failed to set up stock and wallets")?;
    println!("{} discs in stock, {} wallets filled", thousands(plan.items.len()), thousands(plan.wallets.len()));
    println!("sending {} orders, {connections} at a time", thousands(plan.orders.len()));

    let total = plan.orders.len();
    let (progress, ended) = watch::channel(0);
    let shown = tokio::spawn(show_progress(ended.clone(), total));
    let kill_at = (!options.no_kill && options.at.is_empty()).then(|| kill_at(total, options.seed));
    let began = Instant::now();
    let sending = async {
        let done = drive::send_orders(&client, &plan, connections, &progress).await?;
        Ok((done, began.elapsed()))
    };
    // Whichever fails first ends both: without a runtime, clients would ask in vain for a minute.
    let outage = kill_and_restart(site, kill_at, ended, announce);
    let ((done, elapsed), (site, killed)) = tokio::try_join!(sending, outage)?;
    drop(progress);
    shown.await?;
    let stored = settled(&client).await?;
    site.stop(STOP_WITHIN).await?;

    let (told, latencies): (Vec<_>, Vec<_>) =
        done.into_iter().map(|Done { told, latency, .. }| (told, latency)).unzip();
    let mut evidence = Evidence { plan: Arc::unwrap_or_clone(plan), told, stored };
    if let Some(invariant) = options.tamper {
        spoil::spoil(&mut evidence, invariant);
        println!("one thing has been changed after the fact, so that this is broken: {}", invariant.sentence());
    }
    if let Some(killed) = killed {
        print_kill(&killed, &evidence);
    }
    println!("{} orders in {:.1} s: {}", thousands(total), elapsed.as_secs_f64(), report::rate(total, elapsed));
    println!("{}\n", report::latencies(latencies));
    print!("{}", report::outcomes(&evidence.told));
    println!(" (answered from the record of the same request: {})", thousands(client.repeated()));
    let last = client.last_problem().map(|problem| format!("; the last time: {problem}")).unwrap_or_default();
    println!(" (sent again because no answer came: {}{last})\n", thousands(client.retried()));
    Ok(print_verdict(&evidence, options))
}

/// Prints what holds and what is broken; whether everything holds.
fn print_verdict(evidence: &Evidence, options: &Options) -> bool {
    let checked = check_all(evidence);
    print!("{}", report::invariants(&checked));
    let (holds, sentence) = report::verdict(&checked);
    let (application, data) = (options.application.display(), options.data.display());
    match (holds, &options.store) {
        (_, _) if !options.at.is_empty() => println!("{sentence}"),
        (true, _) => println!("{sentence}  Try it yourself:  tandem dev {application}"),
        (false, None) => {
            println!("{sentence}  The state is kept; look at it:  tandem dev {application} --data {data}/store");
        }
        (false, Some(_)) => println!("{sentence}  The state is kept under the prefix above, the logs are in {data}"),
    }
    holds
}

/// Empties the scratch directory.
fn prepare(options: &Options) -> anyhow::Result<Wanted> {
    if options.data.exists() {
        std::fs::remove_dir_all(&options.data)
            .with_context(|| format!("failed to empty {}", options.data.display()))?;
    }
    std::fs::create_dir_all(&options.data).with_context(|| format!("failed to make {}", options.data.display()))?;
    Ok(Wanted {
        application: options.application.clone(),
        scratch: options.data.canonicalize()?,
        shown: options.data.clone(),
        tandem: options.tandem.clone(),
        store: options.store.clone(),
        runtimes: options.runtimes.into(),
        at: options.at.clone(),
    })
}

/// After how many orders the runtime is killed: somewhere in the third fifth.
fn kill_at(total: usize, seed: u64) -> usize {
    let fifth = u64::try_from(total / 5).unwrap_or(0).max(1);
    let within = Dice::new(seed.wrapping_add(1)).below(fifth);
    usize::try_from(fifth * 2 + within).unwrap_or(total / 2).min(total)
}

/// What happened when the runtime was killed.
#[derive(Debug)]
struct Killed {
    which: String,
    at: usize,
    back_in: Duration,
}

/// Waits until so many orders have ended, then kills a runtime while others are under way, and starts it again.
async fn kill_and_restart(
    mut site: Site,
    kill_at: Option<usize>,
    mut ended: watch::Receiver<usize>,
    announce: watch::Sender<Vec<client::Addresses>>,
) -> anyhow::Result<(Site, Option<Killed>)> {
    let Some(kill_at) = kill_at else { return Ok((site, None)) };
    let at =
        *ended.wait_for(|count| *count >= kill_at).await.context("the orders ended before the runtime was killed")?;
    let (which, back_in) = site.kill_one().await?;
    announce.send_replace(site.addresses());
    Ok((site, Some(Killed { which, at, back_in })))
}

fn print_kill(killed: &Killed, evidence: &Evidence) {
    let lost = report::lost(evidence);
    let doubled = report::doubled(evidence);
    println!(
        "killed {} at order {} and started it again (back in {:.1} s): {lost} orders lost, {doubled} doubled",
        killed.which,
        thousands(killed.at),
        killed.back_in.as_secs_f64(),
    );
}

/// A bar on a terminal, a few lines elsewhere. Ends when everything has ended or nobody counts any more.
async fn show_progress(mut ended: watch::Receiver<usize>, total: usize) {
    if std::io::stdout().is_terminal() && std::io::stderr().is_terminal() {
        let bar = ProgressBar::new(u64::try_from(total).unwrap_or(u64::MAX));
        let style = ProgressStyle::with_template("sending orders  {bar:40}  {human_pos}/{human_len}  {rate}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let rate = |state: &ProgressState, text: &mut dyn Write| {
            // A rate that cannot be written is left out.
            let _ = write!(text, "{:.0}/s", state.per_sec());
        };
        bar.set_style(style.with_key("rate", rate));
        while ended.changed().await.is_ok() {
            bar.set_position(u64::try_from(*ended.borrow_and_update()).unwrap_or(u64::MAX));
        }
        bar.finish();
        eprintln!();
        return;
    }
    for line in 1..=LINES {
        let mark = total * line / LINES;
        let Ok(count) = ended.wait_for(|count| *count >= mark).await.map(|count| *count) else { return };
        println!("  {} of {} orders have an outcome", thousands(count), thousands(total));
    }
}

/// The stored state, once the delayed messages have arrived (or are overdue, which the checks will tell).
async fn settled(client: &Client) -> anyhow::Result<Stored> {
    let began = Instant::now();
    loop {
        let stored = read_stored(client).await?;
        let expected = large_orders(&stored).count();
        let arrived: usize = stored.loyalty.values().map(|earned| earned.vouchers.len()).sum();
        if arrived >= expected || began.elapsed() > SETTLE_WITHIN {
            return Ok(stored);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// One page of instances.
#[derive(Debug, serde::Deserialize)]
struct Page {
    instances: Vec<Instance>,
    next: Option<String>,
}

async fn read_stored(client: &Client) -> anyhow::Result<Stored> {
    let mut stored = Stored::default();
    for function in FUNCTIONS {
        let mut after = String::new();
        loop {
            let from = if after.is_empty() { String::new() } else { format!("&after={after}") };
            let mut page: Page = client.admin(&format!("/state/{function}?values=true&limit={PAGE}{from}")).await?;
            for instance in page.instances.iter_mut().filter(|instance| instance.more) {
                *instance = client.admin(&format!("/state/{function}/{}?limit={ENTRIES}", instance.key)).await?;
            }
            stored.add(function, &page.instances)?;
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
    }
    stored.events = client.egress("order-events").await.context("failed to read the order events")?;
    Ok(stored)
}
