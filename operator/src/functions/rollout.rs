//! How a new revision takes over: a pure function of the state that was written last, of what pods report, and of time.
//!
//! **Invariant:** while any revision is alive, the weights of all of them add up to 100. A revision that was never shaken hands
//! with gets no weight while another one has it.

use jiff::Timestamp;
use tandem_crds::resources::function::Rollout;
use tandem_crds::resources::status::{RevisionState, RevisionStatus, STATUS_REVISIONS_MAX};

use crate::functions::revision::is_alive;
use crate::key::Text;
use crate::pods::Reports;

/// Everything.
const WHOLE: i32 = 100;
/// How long a revision without weight is kept, in milliseconds: flows that began with it end meanwhile, and one that takes
/// longer is run again.
const DRAIN_MS: i64 = 30_000;

/// Shortest pause until a rollout is looked at again.
const LOOK_MS_MIN: i64 = 500;

/// What decides.
pub struct Facts<'a> {
    /// The function.
    pub function: &'a str,
    /// The revision that the spec asks for; none if it asks for no pods.
    pub target: Option<&'a str>,
    /// How it takes over.
    pub rollout: Option<&'a Rollout>,
    /// The runtime pods that take requests.
    pub runtime_pods: &'a [Text],
    /// What they say.
    pub reports: &'a Reports,
}

/// What pods say about one revision, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Every runtime pod has workers of it, and none refuses them.
    pub is_welcome: bool,
    /// Invocations of it that ended.
    pub invocations: u64,
    /// Those of them that failed.
    pub failures: u64,
}

impl Facts<'_> {
    /// What pods say about `revision`.
    pub fn tally(&self, revision: &str) -> Tally {
        let reports = self.reports.of(self.function, revision);
        let welcomes =
            |pod: &Text| reports.get(pod).is_some_and(|report| report.workers_ready > 0 && report.refusal().is_none());
        Tally {
            is_welcome: !self.runtime_pods.is_empty() && self.runtime_pods.iter().all(welcomes),
            invocations: reports.values().map(|report| report.invocations).sum(),
            failures: reports.values().map(|report| report.failures).sum(),
        }
    }

    /// Whether the revision fails too often.
    fn fails(&self, tally: Tally) -> bool {
        let defaults = Rollout::default();
        let rollout = self.rollout.unwrap_or(&defaults);
        let enough = u64::try_from(rollout.requests_min).unwrap_or_default();
        let percent_max = u64::try_from(rollout.failure_percent_max).unwrap_or_default();
        tally.invocations >= enough
            && tally.failures.saturating_mul(100) > percent_max.saturating_mul(tally.invocations)
    }
}

/// The revisions as they should be now.
pub fn advance(known: &[RevisionStatus], facts: &Facts<'_>, now: Timestamp) -> Vec<RevisionStatus> {
    let mut list = known.to_vec();
    let Some(target) = facts.target else {
        drain_others(&mut list, &[], now);
        return drained(list, now);
    };
    list.retain(|one| is_alive(one.state) || one.revision == target);
    let active = predecessor(&list, target).map(|one| (one.revision.clone(), one.state));
    if !list.iter().any(|one| one.revision == target) {
        let weight = if active.is_some() { 0 } else { WHOLE };
        list.push(entry(target, weight, RevisionState::Starting, now));
    }
    let kept = [Some(target), active.as_ref().map(|(revision, _)| revision.as_str())];
    drain_others(&mut list, &kept.into_iter().flatten().collect::<Vec<_>>(), now);
    let has_proven = active.as_ref().is_some_and(|(_, state)| *state == RevisionState::Active);
    for one in list.iter_mut().filter(|one| one.revision == target) {
        step(one, facts, has_proven, now);
    }
    balance(&mut list, target, active.as_ref().map(|(revision, _)| revision.as_str()), now);
    drained(list, now)
}

fn entry(revision: &str, weight: i32, state: RevisionState, now: Timestamp) -> RevisionStatus {
    RevisionStatus { revision: revision.to_owned(), weight, state, since: now.to_string() }
}

fn set(one: &mut RevisionStatus, weight: i32, state: RevisionState, now: Timestamp) {
    if one.weight != weight || one.state != state {
        *one = entry(&one.revision, weight, state, now);
    }
}

/// The revision that has most of the flows beside the target.
fn predecessor<'a>(list: &'a [RevisionStatus], target: &str) -> Option<&'a RevisionStatus> {
    let others = list.iter().filter(|one| one.revision != target && is_alive(one.state));
    others
        .filter(|one| one.state != RevisionState::Draining || one.weight > 0)
        .max_by_key(|one| (one.state == RevisionState::Active, one.weight))
}

fn drain_others(list: &mut [RevisionStatus], kept: &[&str], now: Timestamp) {
    for one in list.iter_mut().filter(|one| is_alive(one.state) && !kept.contains(&one.revision.as_str())) {
        set(one, 0, RevisionState::Draining, now);
    }
}

/// Moves the target on by at most one step.
fn step(one: &mut RevisionStatus, facts: &Facts<'_>, has_proven: bool, now: Timestamp) {
    let tally = facts.tally(&one.revision);
    match one.state {
        // It was on its way out, and is wanted again: from the beginning.
        RevisionState::Draining => set(one, one.weight, RevisionState::Starting, now),
        RevisionState::Starting if tally.is_welcome && has_proven => take_more(one, facts, now),
        RevisionState::Starting if tally.is_welcome => set(one, WHOLE, RevisionState::Active, now),
        RevisionState::Ramping if facts.fails(tally) => set(one, 0, RevisionState::Failed, now),
        RevisionState::Ramping if tally.is_welcome && is_over(one, facts, now) => take_more(one, facts, now),
        RevisionState::Starting | RevisionState::Ramping | RevisionState::Active | RevisionState::Failed => {}
    }
}

/// The next share that the rollout names, or all.
fn take_more(one: &mut RevisionStatus, facts: &Facts<'_>, now: Timestamp) {
    let steps = facts.rollout.map(|rollout| rollout.steps.as_slice()).unwrap_or_default();
    let next = steps.iter().copied().filter(|step| *step > one.weight && *step < WHOLE).min();
    match next {
        Some(weight) => set(one, weight, RevisionState::Ramping, now),
        None => set(one, WHOLE, RevisionState::Active, now),
    }
}

fn is_over(one: &RevisionStatus, facts: &Facts<'_>, now: Timestamp) -> bool {
    let rollout = facts.rollout.cloned().unwrap_or_default();
    // A duration that is none was refused before; waiting no longer is the safe side of nothing.
    let lasts_ms = rollout.step_duration.milliseconds().unwrap_or_default();
    age_ms(one, now) >= i64::try_from(lasts_ms).unwrap_or(i64::MAX)
}

fn age_ms(one: &RevisionStatus, now: Timestamp) -> i64 {
    let since: Timestamp = one.since.parse().unwrap_or(now);
    now.as_millisecond() - since.as_millisecond()
}

/// What the target does not take, its predecessor does.
fn balance(list: &mut [RevisionStatus], target: &str, active: Option<&str>, now: Timestamp) {
    let Some(active) = active else {
        for one in list.iter_mut().filter(|one| one.revision == target && is_alive(one.state)) {
            set(one, WHOLE, one.state, now);
        }
        return;
    };
    let taken = list.iter().find(|one| one.revision == target).map_or(0, |one| one.weight);
    let is_done = list.iter().any(|one| one.revision == target && one.state == RevisionState::Active);
    for one in list.iter_mut().filter(|one| one.revision == active) {
        if is_done {
            set(one, 0, RevisionState::Draining, now);
        } else {
            one.weight = WHOLE - taken;
            if one.state == RevisionState::Ramping || one.state == RevisionState::Draining {
                one.state = RevisionState::Active;
            }
        }
    }
    if is_done {
        for one in list.iter_mut().filter(|one| one.revision == target) {
            one.weight = WHOLE;
        }
    }
}

/// Whether runtimes are told the same about both: which revisions there are, and their weights.
pub fn is_placed_alike(one: &[RevisionStatus], other: &[RevisionStatus]) -> bool {
    fn placed(list: &[RevisionStatus]) -> impl Iterator<Item = (&str, i32)> {
        list.iter().filter(|one| is_alive(one.state)).map(|one| (one.revision.as_str(), one.weight))
    }
    placed(one).eq(placed(other))
}

/// How long until time alone changes something; nothing if only reports can.
pub fn next_look(list: &[RevisionStatus], rollout: Option<&Rollout>, now: Timestamp) -> Option<std::time::Duration> {
    let step_ms = rollout.cloned().unwrap_or_default().step_duration.milliseconds().unwrap_or_default();
    let lasts_ms = |one: &RevisionStatus| match one.state {
        RevisionState::Ramping => Some(i64::try_from(step_ms).unwrap_or(i64::MAX)),
        RevisionState::Draining => Some(DRAIN_MS),
        RevisionState::Starting | RevisionState::Active | RevisionState::Failed => None,
    };
    let left_ms =
        list.iter().filter_map(|one| Some(lasts_ms(one)?.saturating_sub(age_ms(one, now)).max(LOOK_MS_MIN))).min()?;
    Some(std::time::Duration::from_millis(u64::try_from(left_ms).unwrap_or_default()))
}

/// Without those that have drained.
fn drained(mut list: Vec<RevisionStatus>, now: Timestamp) -> Vec<RevisionStatus> {
    list.retain(|one| one.state != RevisionState::Draining || age_ms(one, now) < DRAIN_MS);
    // The oldest that drain go first if somebody edits faster than revisions drain.
    while list.len() > STATUS_REVISIONS_MAX {
        let Some(at) = list.iter().position(|one| one.state == RevisionState::Draining) else { break };
        list.remove(at);
    }
    list
}
