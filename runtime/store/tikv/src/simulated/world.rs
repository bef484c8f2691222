//! The state of the simulated cluster, and what chance does to each request.

use std::collections::BTreeMap;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tandem_model::ids::Timestamp;
use tokio::time::Instant;

use super::faults::{Faults, OUT_OF};
use super::regions::{Known, Refusal, Regions};
use super::rows::Rows;
use super::trace::Trace;
use super::{Action, Call, Cut, Node, Shape};
use crate::cluster::Failure;

/// When the simulated world begins: milliseconds since 1970.
const BEGIN_UNIX_MS: u64 = 1_700_000_000_000;
/// The longest leap of timestamps after a restart of the placement driver, as it hands them out ahead of time.
const LEAP_MS_MAX: u64 = 4_000;
/// How long a new leader does not know what was read before.
const UNSYNCED_MS_MAX: u64 = 50;
/// How long after the safe point moved its history is removed, at most.
const COLLECT_MS_MAX: u64 = 500;

/// What happens to one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fate {
    /// How long it is on its way.
    pub(super) way_ms: u64,
    /// It never arrives.
    pub(super) lost: bool,
    /// What its caller hears.
    pub(super) hears: Hears,
    /// How long the answer is on its way.
    pub(super) back_ms: u64,
    /// The process dies of it: before it is sent, or when the answer arrives.
    pub(super) dies: Option<Dies>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hears {
    Answer,
    /// After so long, that nobody knows.
    Lost(u64),
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dies {
    Before,
    After,
}

/// A fault that a test wants at one certain request.
#[derive(Debug)]
struct Ordered {
    process: usize,
    call: Call,
    /// How many such requests go by first.
    skip: u32,
    action: Action,
}

#[derive(Debug, Default)]
struct Oracle {
    last: Timestamp,
    leap_ms: u64,
    lag_ms: u64,
    down_until_ms: u64,
    /// It will make a leap when it is asked next.
    leaps: bool,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) rows: Rows,
    pub(super) regions: Regions,
    pub(super) faults: Faults,
    pub(super) trace: Trace,
    pub(super) random: SmallRng,
    pub(super) in_flight: usize,
    pub(super) safe_point: Timestamp,
    /// The next commit that arrives is pushed.
    pub(super) pushes_next: bool,
    began: Instant,
    oracle: Oracle,
    cuts: BTreeMap<(usize, Node), Cut>,
    ordered: Vec<Ordered>,
    collects: Option<(u64, Timestamp)>,
}

impl World {
    pub(super) fn new(seed: u64, shape: &Shape) -> Self {
        Self {
            rows: Rows::default(),
            regions: Regions::new(shape.stores, &shape.borders),
            faults: Faults::none(),
            trace: Trace::new(),
            random: SmallRng::seed_from_u64(seed),
            in_flight: 0,
            safe_point: Timestamp::ZERO,
            pushes_next: false,
            began: Instant::now(),
            oracle: Oracle::default(),
            cuts: BTreeMap::new(),
            ordered: Vec::new(),
            collects: None,
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn chance(&mut self, probability: u16) -> bool {
        probability > 0 && self.random.random_range(0..OUT_OF) < probability
    }

    fn up_to(&mut self, most: u64) -> u64 {
        self.random.random_range(0..=most)
    }

    /// What happens to a request of a process to a node.
    pub(super) fn fate(&mut self, process: usize, node: Node, call: Call) -> Fate {
        let faults = self.faults;
        let mut fate = Fate {
            way_ms: self.up_to(faults.latency_ms_max),
            lost: false,
            hears: Hears::Answer,
            back_ms: self.up_to(faults.latency_ms_max),
            dies: None,
        };
        if let Some(action) = self.take_ordered(process, call) {
            self.trace.count("ordered");
            self.apply(action, &mut fate);
            return fate;
        }
        match self.cuts.get(&(process, node)) {
            Some(Cut::Both | Cut::Requests) => {
                self.trace.count("cut-request");
                return Fate { lost: true, hears: Hears::Nothing, ..fate };
            }
            Some(Cut::Answers) => {
                self.trace.count("cut-answer");
                return Fate { hears: Hears::Nothing, ..fate };
            }
            None => {}
        }
        if self.chance(faults.delay) {
            self.trace.count("delay");
            fate.way_ms += self.up_to(faults.delay_ms_max);
        }
        if self.chance(faults.delay) {
            self.trace.count("answer-delay");
            fate.back_ms += self.up_to(faults.delay_ms_max);
        }
        if self.chance(faults.request_lost) {
            self.trace.count("request-lost");
            fate.lost = true;
            fate.hears = self.deaf();
        } else if self.chance(faults.answer_lost) {
            self.trace.count("answer-lost");
            fate.hears = self.deaf();
        } else if self.chance(faults.late) {
            self.trace.count("late");
            fate.way_ms += self.up_to(faults.late_ms_max);
            fate.hears = self.deaf();
        }
        fate
    }

    /// What a caller hears whose answer does not come.
    fn deaf(&mut self) -> Hears {
        let after_ms = self.up_to(self.faults.delay_ms_max);
        if self.random.random() { Hears::Lost(after_ms) } else { Hears::Nothing }
    }

    pub(super) fn order(&mut self, process: usize, call: Call, skip: u32, action: Action) {
        self.ordered.push(Ordered { process, call, skip, action });
    }

    pub(super) fn ordered_left(&self) -> usize {
        self.ordered.len()
    }

    fn take_ordered(&mut self, process: usize, call: Call) -> Option<Action> {
        let fits = |ordered: &Ordered| ordered.process == process && ordered.call == call;
        let due = self.ordered.iter().position(|ordered| fits(ordered) && ordered.skip == 0);
        self.ordered.iter_mut().filter(|ordered| fits(ordered)).for_each(|ordered| {
            ordered.skip = ordered.skip.saturating_sub(1);
        });
        due.map(|index| self.ordered.remove(index).action)
    }

    fn apply(&mut self, action: Action, fate: &mut Fate) {
        match action {
            Action::LoseRequest => (fate.lost, fate.hears) = (true, Hears::Lost(0)),
            Action::LoseAnswer => fate.hears = Hears::Lost(fate.way_ms),
            Action::Late(late_ms) => (fate.way_ms, fate.hears) = (late_ms, Hears::Lost(0)),
            Action::Slow(slow_ms) => fate.way_ms = slow_ms,
            Action::AnswerSlow(slow_ms) => fate.back_ms = slow_ms,
            Action::Push => self.pushes_next = true,
            Action::DieBefore => fate.dies = Some(Dies::Before),
            Action::DieAfter => fate.dies = Some(Dies::After),
        }
    }

    pub(super) fn cut(&mut self, process: usize, node: Node, cut: Option<Cut>) {
        match cut {
            Some(cut) => self.cuts.insert((process, node), cut),
            None => self.cuts.remove(&(process, node)),
        };
    }

    pub(super) fn heal(&mut self) {
        self.cuts.clear();
        self.regions.start_all();
        self.oracle.down_until_ms = 0;
    }

    /// A request to a store arrives: what may happen to the cluster first, and whether the store serves it.
    pub(super) fn admit(&mut self, known: &Known, keys: &[Bytes], call: Call, ahead: bool) -> Result<(), Failure> {
        self.disturb(keys.first().unwrap_or(&known.start));
        self.collect_if_due();
        let mut admitted = self.regions.admit(known, keys, self.now_ms(), ahead);
        if admitted.is_ok() && self.chance(self.faults.region_error) {
            let more = if ahead { Refusal::MaxTimestampNotSynced } else { Refusal::ServerIsBusy };
            let refusal = Refusal::AT_RANDOM.choose(&mut self.random).copied().unwrap_or(more);
            admitted = Err(if self.random.random() { refusal } else { more });
        }
        admitted.map_err(|refusal| {
            self.trace.count(refusal.name());
            self.trace.note(self.now_ms(), format_args!("{call:?} {refusal:?}"));
            refusal.failure()
        })
    }

    /// Regions and stores change.
    fn disturb(&mut self, key: &Bytes) {
        let faults = self.faults;
        if self.chance(faults.region_change) {
            self.change_region(key);
        }
        if self.chance(faults.store_restart) {
            let store = self.random.random_range(0..self.regions.stores());
            let gone_ms = self.up_to(faults.restart_ms_max);
            self.stop_store(store, gone_ms);
        }
        if self.chance(faults.oracle_restart) {
            let gone_ms = self.up_to(faults.restart_ms_max);
            self.stop_oracle(gone_ms);
        }
    }

    fn change_region(&mut self, key: &Bytes) {
        let latest = self.oracle.last;
        let known = self.regions.of(key);
        match self.random.random_range(0..4) {
            0 => {
                let middle = self.rows.middle(&known.start, known.end.as_ref());
                if middle.is_some_and(|middle| self.regions.split(&middle)) {
                    self.trace.count("split");
                }
            }
            1 if self.regions.len() > 1 && self.regions.merge(key, latest) => self.trace.count("merge"),
            2 => {
                self.regions.change_members(key);
                self.trace.count("members-changed");
            }
            _ => {
                let to = self.random.random_range(0..self.regions.stores());
                let synced_at_ms = self.now_ms() + self.up_to(UNSYNCED_MS_MAX);
                if self.regions.transfer(key, to, latest, synced_at_ms) {
                    self.trace.count("leader-moved");
                }
            }
        }
    }

    pub(super) fn split(&mut self, at: &Bytes) -> bool {
        self.regions.split(at)
    }

    pub(super) fn stop_store(&mut self, store: usize, gone_ms: u64) {
        self.trace.count("store-restart");
        self.regions.stop(store, self.now_ms() + gone_ms);
    }

    pub(super) fn stop_oracle(&mut self, gone_ms: u64) {
        self.trace.count("oracle-restart");
        self.oracle.down_until_ms = self.oracle.down_until_ms.max(self.now_ms() + gone_ms);
        self.oracle.leaps = true;
    }

    /// Whether the placement driver answers.
    pub(super) fn admit_oracle(&mut self) -> Result<(), Failure> {
        self.collect_if_due();
        if self.oracle.down_until_ms > self.now_ms() {
            self.trace.count("oracle-down");
            return Err(Failure::Unreachable("the placement driver is down".to_owned()));
        }
        Ok(())
    }

    /// A new timestamp.
    pub(super) fn timestamp(&mut self) -> Timestamp {
        if std::mem::take(&mut self.oracle.leaps) {
            self.oracle.leap_ms += self.up_to(LEAP_MS_MAX);
        }
        let physical = BEGIN_UNIX_MS + (self.now_ms() + self.oracle.leap_ms).saturating_sub(self.oracle.lag_ms);
        let least = Timestamp(physical << Timestamp::COUNTER_BITS);
        self.oracle.last = Timestamp(self.oracle.last.0 + 1).max(least);
        self.oracle.last
    }

    /// The last timestamp that was handed out.
    pub(super) fn latest(&self) -> Timestamp {
        self.oracle.last
    }

    /// Lets timestamps leap ahead of the virtual clock.
    pub(super) fn leap(&mut self, leap_ms: u64) {
        self.oracle.leap_ms += leap_ms;
    }

    /// Lets the clock below the timestamps go back; timestamps then stand still.
    pub(super) fn lag(&mut self, lag_ms: u64) {
        self.oracle.lag_ms += lag_ms;
    }

    /// Moves the safe point to `keep_ms` ago, but not past a lock; what lies below it is removed soon.
    pub(super) fn move_safe_point(&mut self, keep_ms: u64) {
        let now = self.oracle.last.unix_ms().max(BEGIN_UNIX_MS + self.now_ms());
        let wanted = Timestamp(now.saturating_sub(keep_ms) << Timestamp::COUNTER_BITS);
        let least_lock = self.rows.locks().iter().map(|lock| lock.start.0 - 1).min().map_or(wanted, Timestamp);
        let safe_point = wanted.min(least_lock).min(self.oracle.last);
        if safe_point > self.safe_point {
            self.safe_point = safe_point;
            let at_ms = self.now_ms() + self.up_to(COLLECT_MS_MAX);
            self.collects = Some((at_ms, safe_point));
            self.trace.count("safe-point-moved");
        }
    }

    fn collect_if_due(&mut self) {
        let now_ms = self.now_ms();
        if let Some((_, safe_point)) = self.collects.take_if(|(at_ms, _)| *at_ms <= now_ms) {
            let removed = self.rows.collect(safe_point);
            self.trace.count_many("collected", removed as u64);
        }
    }
}
