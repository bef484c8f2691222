//! `tandem-runtime`: one runtime process, as it runs in a pod or by hand.

use std::process::ExitCode;

use clap::Parser;
use tandem_crds::problem::Problem;
use tandem_server::flags::{Command, Flags, PurgeFlags};
use tandem_server::process::{self, Ended, Error, chain};
use tandem_server::purge;
use tandem_server::settings::{self, Settings};
use tandem_server::{configuration, topology};

/// Requests make many small allocations on one thread and free them on another, which is what this one is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// It failed while it started or ran.
const FAILED: u8 = 1;
/// What it was told makes no sense.
const WRONG: u8 = 2;
/// There is somebody who would be harmed.
const IN_USE: u8 = 3;
/// Ctrl-C, and it did not wait: what a shell says of such a process.
const AT_ONCE: u8 = 130;

fn main() -> ExitCode {
    let flags = Flags::parse();
    if flags.print_schema {
        println!("{:#}", configuration::schema());
        return ExitCode::SUCCESS;
    }
    if let Some(Command::Purge(asked)) = flags.command {
        return purge_all(asked);
    }
    match settings::read(&flags) {
        Ok(settings) if flags.check => check(&settings),
        Ok(settings) => run(&settings, &flags),
        Err(error) => wrong(&error),
    }
}

/// Says what is wrong with the flags or the configuration.
fn wrong(error: &settings::Error) -> ExitCode {
    match error {
        settings::Error::Problems(problems) => print_all(problems),
        settings::Error::File(_) => eprintln!("error: {}", chain(error)),
    }
    ExitCode::from(WRONG)
}

fn purge_all(asked: PurgeFlags) -> ExitCode {
    let flags = Flags { config: asked.config, store: asked.store, ..Flags::default() };
    let location = match settings::read_store(&flags) {
        Ok(location) => location,
        Err(error) => return wrong(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: failed to start threads: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let purged = runtime.block_on(purge::purge(&location, |text| eprintln!("{text}")));
    runtime.shutdown_background();
    let Err(error) = purged else { return ExitCode::SUCCESS };
    eprintln!("error: {}", chain(&error));
    ExitCode::from(if error.is_in_use() { IN_USE } else { FAILED })
}

/// Checks the resources as well, and touches neither ports nor the store.
fn check(settings: &Settings) -> ExitCode {
    match process::source(settings).compile(None) {
        Ok(compiled) => {
            compiled.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
            println!("the configuration is right: {}", settings.store);
            ExitCode::SUCCESS
        }
        Err(error) => failed(&Error::Resources(error)),
    }
}

fn run(settings: &Settings, flags: &Flags) -> ExitCode {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = settings.threads {
        builder.worker_threads(threads);
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: failed to start threads: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let ended = runtime.block_on(process::run(settings, flags));
    let exit = match ended {
        Ok(Ended::Drained) => ExitCode::SUCCESS,
        Ok(Ended::AtOnce) => ExitCode::from(AT_ONCE),
        Err(error) => failed(&error),
    };
    // What still runs on a thread of its own is not waited for: it has been decided that this is the end.
    runtime.shutdown_background();
    exit
}

fn print_all(problems: &[Problem]) {
    for problem in problems {
        eprintln!("{}", topology::line(problem));
    }
}

fn failed(error: &Error) -> ExitCode {
    if let Error::Resources(topology::Error::Problems(problems)) = error {
        print_all(problems);
    }
    eprintln!("error: {}", chain(error));
    ExitCode::from(if matches!(error, Error::Resources(_)) { WRONG } else { FAILED })
}
