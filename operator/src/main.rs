//! `tandem-operator`: see the library of the same name.

use std::process::ExitCode;

use clap::Parser;
use tandem_operator::process::flags::Flags;
use tandem_operator::process::run::run;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    let filter = EnvFilter::try_new(&flags.log_filter).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
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
    match run(flags, shutdown).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut causes = Vec::new();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                causes.push(cause.to_string());
                source = cause.source();
            }
            error!(%error, causes = causes.join(": "), "operator ends");
            ExitCode::FAILURE
        }
    }
}
