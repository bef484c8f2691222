//! How much is measured, and how.

use std::path::PathBuf;
use std::time::Duration;

use crate::load::Load;
use crate::system::System;

/// What the command line says about all benchmarks.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Seconds a measurement takes.
    #[arg(long, default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// Seconds of load before it.
    #[arg(long, default_value_t = 0.5)]
    pub(crate) warm_up: f64,
    /// Rounds of each measurement; the median counts.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// Clients at the same time, one measurement each, instead of those of the benchmark.
    #[arg(long, value_delimiter = ',')]
    pub(crate) clients: Vec<usize>,
    /// Systems, instead of all.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) systems: Vec<System>,
    /// Counters of B1 and T1, instead of as many as usual.
    #[arg(long)]
    pub(crate) keys: Option<u32>,
    /// Regions that the slots of each installation are cut into, on test stores.
    #[arg(long, default_value_t = tandem_e2e_tikv::slots::REGIONS)]
    pub(crate) regions: u16,
    /// Only variants whose name contains this.
    #[arg(long)]
    pub(crate) only: Option<String>,
    /// Requests a second at fixed times, instead of a closed loop.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// A little of everything: whether it runs and all invariants hold, not how fast it is.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Where data is put while it is measured: a directory on a real disk.
    #[arg(long, default_value = "target")]
    pub(crate) directory: PathBuf,
    /// Of all random choices.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

impl Options {
    /// With what `--quick` implies.
    pub(crate) fn adjusted(mut self) -> Self {
        const QUICK_SECONDS: f64 = 0.3;
        const QUICK_WARM_UP: f64 = 0.1;
        if self.quick {
            (self.seconds, self.warm_up, self.rounds) = (QUICK_SECONDS, QUICK_WARM_UP, 1);
        }
        self
    }

    /// Those clients, or `usual` if none were chosen.
    pub(crate) fn clients_or(&self, usual: &[usize]) -> Vec<usize> {
        const QUICK_CLIENTS: [usize; 2] = [1, 16];
        match (self.clients.is_empty(), self.quick) {
            (false, _) => self.clients.clone(),
            // One measurement fewer of each, and no load that is hard to bear.
            (true, true) if usual.len() > 1 => QUICK_CLIENTS.to_vec(),
            (true, true) => QUICK_CLIENTS[1..].to_vec(),
            (true, false) => usual.to_vec(),
        }
    }

    /// The load of one round.
    pub(crate) fn load(&self, clients: usize, rate: Option<f64>, round: usize) -> Load {
        Load {
            clients,
            rate: rate.or(self.rate),
            warm_up: Duration::from_secs_f64(self.warm_up),
            time: Duration::from_secs_f64(self.seconds),
            seed: self.seed + round as u64,
        }
    }
}
