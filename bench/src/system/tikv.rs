//! Tandem on stores that speak TiKV's protocol: one runtime, or several as one installation, and one worker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::child::Child;
use crate::serve::Counted;
use crate::system::stores::{Place, Stores};
use crate::system::{Connector, Running};
use crate::tally::Tally;
use crate::usage::Process;
use crate::workload::Workload;

/// Runtimes find each other by signs of life that they give each second.
const MEET_TIME_MAX: Duration = Duration::from_secs(30);
const MEET_POLL: Duration = Duration::from_millis(20);

/// A running installation.
#[derive(Debug)]
pub(crate) struct TandemOnTikv {
    runtimes: Vec<Child>,
    worker: Child,
    place: Place,
}

impl TandemOnTikv {
    /// Starts so many runtimes with the data of `workload`.
    pub(crate) fn start(stores: &Arc<Stores>, workload: Workload, runtimes: usize) -> anyhow::Result<Self> {
        let place = Place::loaded(stores, workload)?;
        let functions = workload.functions().to_string();
        let worker = Child::start(&["serve-worker", "--functions", &functions])?;
        let arguments =
            ["serve-runtime", "--store", place.address(), "--worker", worker.address(), "--functions", &functions];
        let runtimes = (0..runtimes).map(|_| Child::start(&arguments)).collect::<anyhow::Result<Vec<_>>>()?;
        let mut all = Self { runtimes, worker, place };
        all.until_they_have_met()?;
        Ok(all)
    }

    fn until_they_have_met(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + MEET_TIME_MAX;
        let others = self.runtimes.len() - 1;
        for runtime in &mut self.runtimes {
            while runtime.counted()?.peers < others {
                anyhow::ensure!(Instant::now() < until, "the runtimes did not find each other in {MEET_TIME_MAX:?}");
                std::thread::sleep(MEET_POLL);
            }
        }
        Ok(())
    }
}

impl Running for TandemOnTikv {
    fn connector(&self) -> Connector {
        Connector::Http(self.runtimes.iter().map(|runtime| runtime.address().to_owned()).collect())
    }

    fn processes(&self) -> Vec<Process> {
        let runtimes = self.runtimes.iter().map(|runtime| Process::alone("runtime", runtime.id()));
        let worker = Process::alone("worker", self.worker.id());
        runtimes.chain([worker]).chain(self.place.stores().processes()).collect()
    }

    fn counted(&mut self) -> anyhow::Result<Counted> {
        let mut all = self.place.stores().counted()?;
        for runtime in &mut self.runtimes {
            all = all.plus(&runtime.counted()?);
        }
        Ok(all)
    }

    fn end(self: Box<Self>, tally: &Tally) -> anyhow::Result<()> {
        drop((self.runtimes, self.worker));
        self.place.check(tally)
    }
}
