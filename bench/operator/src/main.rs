//! What the operator costs on a real API server and etcd, beside a script that writes the same objects, in one run.
//!
//! | module | concept |
//! | --- | --- |
//! | `script` | the floor: the same objects, written directly |
//! | `site` | an API server, something that plays pods, and the operator as a process of its own |
//! | `storm` | everything applied at once, and the start over everything |
//! | `reaction` | edits, drift, rest, resources that are wrong |
//! | `results`, `page` | figures, and how they are shown |
//!
//! **Invariant:** CPU and memory are those of the operator's process alone; there are no figures of a run in which a resource did
//! not become ready.

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;

mod page;
mod picture;
mod reaction;
mod results;
mod script;
mod site;
mod storm;

use results::{Results, Run};
use site::Site;

/// As in the command that users run.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the operator beside a script that writes the same objects.
#[derive(Clone, Debug, Parser)]
#[command(name = "tandem-bench-operator")]
struct Arguments {
    /// Functions, with images.
    #[arg(long, default_value_t = 1_000)]
    resources: usize,
    /// Routes.
    #[arg(long, default_value_t = 100)]
    routes: usize,
    /// Namespaces, each with a runtime.
    #[arg(long, default_value_t = 20)]
    namespaces: usize,
    /// Writers at the same time.
    #[arg(long, default_value_t = 50)]
    writers: usize,
    /// Edits, one each second.
    #[arg(long, default_value_t = 40)]
    edits: usize,
    /// Seconds of rest.
    #[arg(long, default_value_t = 60)]
    rest: u64,
    /// What else goes on, for the page.
    #[arg(long, default_value = "")]
    remark: String,
    /// Only the storm and the start over everything.
    #[arg(long)]
    storm_only: bool,
    /// Without the script.
    #[arg(long)]
    without_script: bool,
    /// The operator's program.
    #[arg(long, default_value = "target/release/tandem-operator")]
    operator: PathBuf,
    /// Where its log goes.
    #[arg(long, default_value = "target/bench-operator.log")]
    log: PathBuf,
    /// Takes the place of the run with as many resources in this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Measures nothing; takes all runs from the file of `--json`.
    #[arg(long)]
    show: bool,
    /// Writes the page of the documentation into this directory.
    #[arg(long)]
    page: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut results = match &arguments.json {
        Some(file) if file.exists() => Results::read(file).with_context(|| file.display().to_string())?,
        Some(_) | None => Results::default(),
    };
    if !arguments.show {
        let run = measure(&arguments).await?;
        println!("{}", run.summary());
        results.put(run);
    }
    if let Some(file) = &arguments.json {
        std::fs::write(file, serde_json::to_string_pretty(&results)? + "\n")?;
    }
    if let Some(docs) = &arguments.page {
        page::write(&results, docs)?;
    }
    Ok(())
}

/// Everything, one after the other.
async fn measure(arguments: &Arguments) -> anyhow::Result<Run> {
    let mut run = Run::new(arguments);
    if !arguments.without_script {
        say("script");
        run.script = Some(script::measure(arguments).await?);
    }
    let mut site = Site::start(arguments).await?;
    say("storm");
    run.storm = storm::storm(arguments, &site).await?;
    say("cold start");
    run.cold_start = storm::cold_start(arguments, &mut site).await?;
    if !arguments.storm_only {
        say("edits");
        run.reaction = Some(reaction::edits(&site, arguments.edits).await?);
        say("drift");
        run.drift_ms = Some(reaction::drift(&site).await?);
        say("rest");
        run.rest = Some(reaction::rest(&site, arguments.rest).await?);
        say("invalid resources");
        run.invalid = Some(reaction::invalid(arguments, &site).await?);
    }
    Ok(run)
}

fn say(what: &str) {
    eprintln!("{what} ...");
}
