//! Which revision of a function's code a flow gets, and how each of them does.
//!
//! **Invariant:** all calls of one attempt draw the same: on one topology, a function has one revision in it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use tandem_model::ids::FunctionName;
use tandem_model::topology::{Function, Revision};

/// What weights sum up to.
const WEIGHT_SUM: u64 = 100;

/// What decides by weight: the same for everything that one attempt of a flow does. Another attempt draws anew, so that
/// a flow which failed on one revision may succeed on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Draw(u64);

impl Draw {
    /// Of an attempt of a flow.
    pub(crate) fn of(flow: &impl Hash, attempt: u32) -> Self {
        // Without keys of its own it is the same each time, which is all that is asked of it.
        let mut hasher = DefaultHasher::new();
        (flow, attempt).hash(&mut hasher);
        Self(hasher.finish())
    }

    /// The revision that is drawn. `None`: all workers are alike.
    pub(super) fn revision<'a>(self, name: &FunctionName, function: &'a Function) -> Option<&'a Revision> {
        let mut hasher = DefaultHasher::new();
        (self.0, name).hash(&mut hasher);
        pick(&function.weights, hasher.finish() % WEIGHT_SUM)
    }
}

/// The revision at `point` of 100, when each takes as much room as its weight says.
fn pick(weights: &BTreeMap<Revision, u32>, point: u64) -> Option<&Revision> {
    let mut end = 0;
    let drawn = weights.iter().find(|(_, weight)| {
        end += u64::from(**weight);
        point < end
    });
    drawn.map(|(revision, _)| revision)
}

/// How the workers of one revision of a function do.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionReport {
    /// Empty where nobody tells revisions apart.
    pub revision: Revision,
    /// Workers that are connected and have said what they run.
    pub workers_ready: usize,
    /// Why the last one that was tried is not connected, unless one was connected after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<WorkerProblem>,
    /// Invocations that ended since this process began.
    pub invocations: u64,
    /// Those of them that broke, ran out of time or lost their worker. A rejection is none.
    pub failures: u64,
}

/// Why a worker is not connected.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerProblem {
    /// One word: `Unreachable`, `Disconnected`, `ProtocolBroken`, or why the handshake was refused: `HandlersDiffer`,
    /// `StateIncompatible`, `HandshakeRefused`.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Counts of one revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) invocations: u64,
    pub(super) failures: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: Self) {
        self.invocations += other.invocations;
        self.failures += other.failures;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(weights: &[(&str, u32)]) -> Function {
        let weights = weights.iter().map(|(revision, weight)| ((*revision).to_owned(), *weight)).collect();
        Function { weights, ..Function::default() }
    }

    #[test]
    fn each_revision_gets_its_share() {
        let (name, function) = ("cart".parse().expect("it is one"), function(&[("a", 90), ("b", 10), ("c", 0)]));
        let mut drawn: BTreeMap<&str, u32> = BTreeMap::new();
        for flow in 0..10_000_u32 {
            let revision = Draw::of(&flow, 1).revision(&name, &function).expect("the weights are percent");
            *drawn.entry(revision).or_default() += 1;
        }
        assert!((8_800..9_200).contains(&drawn["a"]), "{drawn:?}");
        assert!(!drawn.contains_key("c"), "{drawn:?}");
    }

    #[test]
    fn a_flow_draws_the_same_each_time_and_its_next_attempt_anew() {
        let (name, function) = ("cart".parse().expect("it is one"), function(&[("a", 50), ("b", 50)]));
        let draw = |flow: u32, attempt| Draw::of(&flow, attempt).revision(&name, &function).cloned();
        assert!((0..100).all(|flow| draw(flow, 1) == draw(flow, 1)));
        assert!((0..100).any(|flow| draw(flow, 1) != draw(flow, 2)));
    }

    #[test]
    fn without_weights_all_are_alike() {
        let name = "cart".parse().expect("it is one");
        assert_eq!(Draw::of(&1, 1).revision(&name, &Function::default()), None);
    }
}
