//! Faults: kills of the runtime and of workers, workers that freeze, and polite ends. One after the other, each mended
//! before the next one, except where two belong together.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::time::sleep;

use super::Run;

/// Longest time without a fault.
const CALM_MS_MAX: u64 = 600;
/// How long it is waited for the next write at most.
const WRITE_WITHIN: Duration = Duration::from_secs(2);
/// How often it is looked whether something was written.
const WRITE_LOOK_EVERY: Duration = Duration::from_micros(50);
/// Longest time between a write and a kill.
const AFTER_WRITE_US_MAX: u64 = 3_000;
/// Longest time of a start that is cut short: about what a whole one takes.
const START_MS_MAX: u64 = 400;
/// Longest time that a worker is gone.
const WORKER_GONE_MS_MAX: u64 = 600;
/// Longest time that a worker is frozen.
const FROZEN_MS_MAX: u64 = 2_500;

/// What goes wrong next.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The runtime is killed, wherever it is.
    Kill,
    /// The runtime is killed just after something was written.
    KillAtWrite { after_us: u64 },
    /// The runtime is killed, and killed again so long into its start.
    KillAtStart { after_ms: u64 },
    /// The runtime is told to end.
    Stop,
    /// A worker is killed.
    KillWorker { which: usize, gone_ms: u64 },
    /// A worker freezes; the runtime may be killed in the meantime.
    Freeze { which: usize, ms: u64, kills: bool },
    /// The runtime and a worker are killed.
    KillBoth { which: usize },
}

impl Fault {
    fn next(random: &mut SmallRng, workers: usize) -> Self {
        let which = random.random_range(0..workers);
        match random.random_range(0..100) {
            0..20 => Self::Kill,
            20..50 => Self::KillAtWrite { after_us: random.random_range(0..AFTER_WRITE_US_MAX) },
            50..60 => Self::KillAtStart { after_ms: random.random_range(0..START_MS_MAX) },
            60..67 => Self::Stop,
            67..82 => Self::KillWorker { which, gone_ms: random.random_range(0..WORKER_GONE_MS_MAX) },
            82..92 => Self::Freeze { which, ms: random.random_range(0..FROZEN_MS_MAX), kills: random.random_bool(0.3) },
            _ => Self::KillBoth { which },
        }
    }
}

impl Run {
    /// Lets things go wrong until it is time. Whatever it is, it must work again soon.
    pub(super) async fn trouble(&mut self, mut random: SmallRng, until: Instant) -> anyhow::Result<()> {
        self.mended().await?;
        if !self.kills {
            sleep(until.saturating_duration_since(Instant::now())).await;
            self.site.check()?;
            return self.mended().await;
        }
        while Instant::now() < until {
            sleep(Duration::from_millis(random.random_range(0..=CALM_MS_MAX))).await;
            self.site.check()?;
            let fault = Fault::next(&mut random, self.site.workers());
            self.happen(fault).await.with_context(|| format!("after {fault:?}"))?;
            self.mended().await.with_context(|| format!("after {fault:?}"))?;
        }
        Ok(())
    }

    async fn happen(&mut self, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Kill => {
                self.journal.fault("runtime-killed");
                self.killed().await
            }
            Fault::KillAtWrite { after_us } => {
                let wrote = match self.site.store() {
                    Some(store) => tokio::task::spawn_blocking(move || next_write(&store, after_us)).await?,
                    None => false,
                };
                self.journal.fault(if wrote { "runtime-killed-at-write" } else { "runtime-killed" });
                self.killed().await
            }
            Fault::KillAtStart { after_ms } => {
                self.journal.fault("runtime-killed");
                self.site.kill().await?;
                self.site.launch()?;
                sleep(Duration::from_millis(after_ms)).await;
                self.journal.fault("runtime-killed-at-start");
                self.killed().await
            }
            Fault::Stop => {
                self.journal.fault("runtime-stopped");
                self.site.stop().await?;
                self.site.launch()?;
                self.site.ready().await
            }
            Fault::KillWorker { which, gone_ms } => {
                self.journal.fault("worker-killed");
                self.site.kill_worker(which).await?;
                sleep(Duration::from_millis(gone_ms)).await;
                self.site.start_worker(which)
            }
            Fault::Freeze { which, ms, kills } => {
                self.journal.fault("worker-frozen");
                self.site.signal_worker(which, "STOP").await?;
                sleep(Duration::from_millis(ms)).await;
                if kills {
                    self.journal.fault("runtime-killed");
                    self.killed().await?;
                }
                self.site.signal_worker(which, "CONT").await
            }
            Fault::KillBoth { which } => {
                self.journal.fault("runtime-killed");
                self.journal.count("worker-killed");
                self.site.kill_worker(which).await?;
                self.site.kill().await?;
                self.site.start_worker(which)?;
                self.site.launch()?;
                self.site.ready().await
            }
        }
    }

    /// Kills the runtime, looks at what it left, and starts the next one.
    async fn killed(&mut self) -> anyhow::Result<()> {
        self.site.kill().await?;
        if self.forgets {
            self.site.forget()?;
        }
        self.sample().await?;
        self.site.launch()?;
        self.site.ready().await
    }
}

/// Waits for the next write, and so long after it. `false` if there was none.
fn next_write(store: &Path, after_us: u64) -> bool {
    let began = Instant::now();
    let before = written(store);
    while written(store) == before {
        if began.elapsed() > WRITE_WITHIN {
            return false;
        }
        std::thread::sleep(WRITE_LOOK_EVERY);
    }
    std::thread::sleep(Duration::from_micros(after_us));
    true
}

/// What tells that a file below a directory was written. A file that is just going away counts as not there.
fn written(directory: &Path) -> Vec<(PathBuf, u64, SystemTime)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            files.extend(written(&entry.path()));
        } else if let Ok(modified) = metadata.modified() {
            files.push((entry.path(), metadata.len(), modified));
        }
    }
    files
}
