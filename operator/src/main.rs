//! `tandem-operator`: see the library of the same name.

use std::process::ExitCode;

use clap::Parser;
use tandem_operator::probe;
use tandem_operator::process::flags::Flags;
use tandem_operator::process::run::run;
use tandem_operator::process::telemetry;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// The command that `helm test` runs: `tandem-operator probe URL...`.
const PROBE: &str = "probe";

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(PROBE) {
        let _telemetry = match telemetry::init("info", None) {
            Ok(guard) => guard,
            Err(error) => return ended(Err(error)),
        };
        return ended(probe::probe(&arguments.collect::<Vec<_>>(), probe::PATIENCE).await);
    }
    let flags = Flags::parse();
    let _telemetry = match telemetry::init(&flags.log_filter, telemetry::endpoint().as_deref()) {
        Ok(guard) => guard,
        Err(error) => return ended(Err(error)),
    };
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        let (Ok(mut term), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return;
        };
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("told to end");
        stop.cancel();
    });
    info!(version = env!("CARGO_PKG_VERSION"), "operator starts");
    ended(run(flags, shutdown).await)
}

/// The status of the process; an error is logged with what caused it.
fn ended<E: std::error::Error>(result: Result<(), E>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    error!(%error, causes = causes.join(": "), "operator ends");
    ExitCode::FAILURE
}
