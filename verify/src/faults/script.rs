//! Does what a case says, step by step, and sees to it that each step really happened.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tandem_e2e_tikv::proxy::{Passed, Way};
use tandem_e2e_tikv::{Cluster, Failpoint, Proxy, slots};
use tokio::time::sleep;

use super::cases::{Link, Rate, Step, Target, Weather};
use super::pods::{CONTINUE, Pods, STOP, Who, await_state};
use super::{Site, housekeeping, rows_prefix};

/// How long a fail point may take to meet a request.
const FIRED_WITHIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What is on its way when a network is held arrives within this time.
const UNDER_WAY: Duration = Duration::from_millis(300);
/// How long stores wait for a PD that is frozen.
const WITHOUT_PD: Duration = Duration::from_secs(4);
/// Between two splits.
const SPLIT_EVERY: Duration = Duration::from_millis(500);

/// A network that lets nothing through: what had passed when it began.
struct Held {
    link: Link,
    ways: &'static [Way],
    passed: Vec<Passed>,
}

/// The steps of one case.
pub(super) struct Script<'a> {
    site: &'a mut Site,
    held: Option<Held>,
    /// What traffic has gone over a link that is slow, before it was.
    slow: Option<Vec<Passed>>,
}

impl<'a> Script<'a> {
    pub(super) fn new(site: &'a mut Site) -> Self {
        Self { site, held: None, slow: None }
    }

    /// Does all steps.
    pub(super) async fn play(&mut self, steps: &[Step]) -> anyhow::Result<()> {
        for step in steps {
            self.site.journal.note(&format!("{step:?}"));
            self.one(step).await.with_context(|| format!("{step:?}"))?;
        }
        Ok(())
    }

    async fn one(&mut self, step: &Step) -> anyhow::Result<()> {
        match *step {
            Step::Arm(name, rate) => self.site.cluster.failpoint_everywhere(&self.point(name, rate)).await?,
            Step::Fired(name) => self.fired(name).await?,
            Step::Disarm(name) => {
                let fired = self.site.cluster.clear_failpoint_everywhere(&self.point(name, Rate::All)).await?;
                ensure!(fired > 0, "the fail point met no request");
                self.site.journal.count_many("fail-points-fired", fired);
            }
            Step::Kill(target) => self.kill(target).await?,
            Step::Start(target) => self.start(target).await?,
            Step::Freeze(target) => self.freeze(target, true).await?,
            Step::Thaw(target) => self.freeze(target, false).await?,
            Step::RestartStoresWithoutPd => self.restart_stores_without_pd().await?,
            Step::Net(link, weather) => self.network(link, weather).await?,
            Step::Split(count) => self.split(count).await?,
            Step::Clock(which, seconds) => {
                self.site.pods.clock(which)?.jump(seconds)?;
                self.site.journal.count("clock-jumps");
            }
            Step::Wait(time) => sleep(time).await,
            Step::AllHaveRun => self.all_have_run().await?,
            Step::Orphan => housekeeping::leave_orphan(self.site).await?,
            Step::Swept => housekeeping::await_sweep(self.site).await?,
            Step::HistoryKept => housekeeping::await_safe_point(self.site).await?,
        }
        Ok(())
    }

    fn point(&self, name: &str, rate: Rate) -> Failpoint {
        let point = Failpoint::new(name).prefix(&rows_prefix(&self.site.prefix));
        match rate {
            Rate::All => point,
            Rate::Percent(percent) => point.percent(percent),
        }
    }

    async fn fired(&self, name: &str) -> anyhow::Result<()> {
        let began = Instant::now();
        let cluster = &self.site.cluster;
        let prefix = rows_prefix(&self.site.prefix);
        let prefix = slots::hex(&prefix);
        loop {
            for store in 0..cluster.stores() {
                let met = cluster.failpoints(store).await?;
                if met.iter().any(|met| met.name == name && met.prefix == prefix && met.fired > 0) {
                    return Ok(());
                }
            }
            ensure!(began.elapsed() < FIRED_WITHIN, "it did not fire within {FIRED_WITHIN:?}");
            sleep(LOOK_EVERY).await;
        }
    }

    async fn kill(&mut self, target: Target) -> anyhow::Result<()> {
        let cluster = &self.site.cluster;
        match target {
            Target::Runtime(which) => self.site.pods.kill(Who::Runtime(which)).await?,
            Target::Worker(which) => self.site.pods.kill(Who::Worker(which)).await?,
            Target::Store(store) => {
                let before = cluster.store_processes().len();
                cluster.kill_store(store)?;
                ensure!(cluster.store_processes().len() + 1 == before, "it did not run");
            }
            Target::Pd => {
                ensure!(cluster.pd_process().is_some(), "it did not run");
                cluster.kill_pd()?;
            }
        }
        self.site.journal.count("kills");
        Ok(())
    }

    async fn start(&mut self, target: Target) -> anyhow::Result<()> {
        match target {
            Target::Runtime(which) => self.site.pods.restart(Who::Runtime(which)).await?,
            Target::Worker(which) => self.site.pods.restart(Who::Worker(which)).await?,
            Target::Store(store) => self.site.cluster.restart_store(store).await?,
            Target::Pd => self.site.cluster.restart_pd().await?,
        }
        Ok(())
    }

    async fn freeze(&mut self, target: Target, stands_still: bool) -> anyhow::Result<()> {
        let (cluster, name) = (&self.site.cluster, if stands_still { STOP } else { CONTINUE });
        let process = match target {
            Target::Runtime(which) => return self.freeze_ours(Who::Runtime(which), name).await,
            Target::Worker(which) => return self.freeze_ours(Who::Worker(which), name).await,
            Target::Store(store) => {
                if stands_still {
                    cluster.pause_store(store)?;
                } else {
                    cluster.resume_store(store)?;
                }
                cluster.store_processes().get(store).copied()
            }
            Target::Pd => {
                if stands_still {
                    cluster.pause_pd()?;
                } else {
                    cluster.resume_pd()?;
                }
                cluster.pd_process()
            }
        };
        self.site.journal.count("freezes");
        await_state(process.context("it does not run")?, stands_still).await
    }

    async fn freeze_ours(&mut self, who: Who, name: &str) -> anyhow::Result<()> {
        self.site.journal.count("freezes");
        self.site.pods.signal(who, name).await
    }

    async fn restart_stores_without_pd(&mut self) -> anyhow::Result<()> {
        self.freeze(Target::Pd, true).await?;
        let cluster = &self.site.cluster;
        for store in 0..cluster.stores() {
            cluster.kill_store(store)?;
            self.site.journal.count("kills");
        }
        ensure!(cluster.store_processes().is_empty(), "a store still runs");
        let restarts =
            futures_util::future::try_join_all((0..cluster.stores()).map(|store| cluster.restart_store(store)));
        let thaw = async {
            sleep(WITHOUT_PD).await;
            cluster.resume_pd()
        };
        tokio::try_join!(restarts, thaw)?;
        Ok(())
    }

    async fn network(&mut self, link: Link, weather: Weather) -> anyhow::Result<()> {
        const BOTH: &[Way] = &[Way::ToServer, Way::ToClient];
        let ways: &[Way] = match weather {
            Weather::Hold => BOTH,
            Weather::HoldWay(Way::ToServer) | Weather::Swallow(Way::ToServer) => &[Way::ToServer],
            Weather::HoldWay(Way::ToClient) | Weather::Swallow(Way::ToClient) => &[Way::ToClient],
            Weather::Cut | Weather::Refuse | Weather::Slow(..) | Weather::Mend => &[],
        };
        if weather == Weather::Mend {
            self.check_held(link)?;
        }
        let proxies = proxies(&self.site.pods, &self.site.cluster, link)?;
        for proxy in &proxies {
            ensure!(proxy.passed().connections > 0, "nobody uses this way");
            match weather {
                Weather::Hold => proxy.hold(),
                Weather::HoldWay(way) => proxy.hold_way(way),
                Weather::Swallow(way) => proxy.swallow_way(way),
                Weather::Cut => proxy.cut(),
                Weather::Refuse => proxy.refuse(),
                Weather::Slow(delay, loss) => {
                    proxy.delay(delay);
                    proxy.lose(loss);
                }
                Weather::Mend => proxy.mend(),
            }
        }
        self.site.journal.count("network-changes");
        if !ways.is_empty() {
            sleep(UNDER_WAY).await;
            let passed = passed(&proxies);
            self.held = Some(Held { link, ways, passed });
        } else if matches!(weather, Weather::Slow(..)) {
            self.slow = Some(passed(&proxies));
        }
        Ok(())
    }

    /// Nothing may have passed where nothing should, and something where it was slow.
    fn check_held(&mut self, link: Link) -> anyhow::Result<()> {
        let now = passed(&proxies(&self.site.pods, &self.site.cluster, link)?);
        if let Some(Held { ways, passed, .. }) = self.held.take_if(|held| held.link == link) {
            for (before, now) in passed.iter().zip(&now) {
                let has_passed = ways.iter().any(|way| of(before, *way) != of(now, *way));
                ensure!(!has_passed, "something went through: {before:?}, then {now:?}");
            }
        }
        if let Some(before) = self.slow.take() {
            ensure!(
                before.iter().zip(&now).all(|(before, now)| before.to_client < now.to_client),
                "nothing went through"
            );
        }
        Ok(())
    }

    async fn split(&mut self, count: u32) -> anyhow::Result<()> {
        let prefix = rows_prefix(&self.site.prefix);
        let cluster = &self.site.cluster;
        let regions = async || {
            let mut sum = 0;
            for store in 0..cluster.stores() {
                sum += cluster.regions(store).await?.regions.len();
            }
            anyhow::Ok(sum)
        };
        let before = regions().await?;
        for number in 0..count {
            // Somewhere inside of a slot, where no region was cut before.
            let slot = u16::try_from(number % u32::from(crate::process::site::SLOTS))?;
            let inside = u8::try_from(number)?;
            cluster.split(&[&prefix[..], &slot.to_be_bytes(), &[1, inside]].concat()).await?;
            self.site.journal.count("splits");
            sleep(SPLIT_EVERY).await;
        }
        let after = regions().await?;
        ensure!(after >= before + count as usize, "there were {before} regions and are {after}");
        Ok(())
    }

    async fn all_have_run(&self) -> anyhow::Result<()> {
        const ENDED: &str = "tandem_runtime_flows_ended_total";
        for which in 0..self.site.pods.runtimes() {
            let ended = self.site.metric(which, ENDED).await?;
            ensure!(ended > 0.0, "runtime {which} has not ended a single flow");
        }
        Ok(())
    }
}

fn of(passed: &Passed, way: Way) -> u64 {
    match way {
        Way::ToServer => passed.to_server,
        Way::ToClient => passed.to_client,
    }
}

fn passed(proxies: &[&Proxy]) -> Vec<Passed> {
    proxies.iter().map(|proxy| proxy.passed()).collect()
}

fn proxies<'a>(pods: &'a Pods, cluster: &'a Cluster, link: Link) -> anyhow::Result<Vec<&'a Proxy>> {
    let all = match link {
        Link::Clients(which) => vec![Some(pods.to_http(which))],
        Link::Peers(which) => vec![Some(pods.to_peer(which))],
        Link::Store(store) => vec![cluster.store_proxy(store)],
        Link::Stores => (0..cluster.stores()).map(|store| cluster.store_proxy(store)).collect(),
        Link::Pd => vec![cluster.pd_proxy()],
    };
    let Some(all) = all.into_iter().collect() else { bail!("the cluster has no proxies") };
    Ok(all)
}
