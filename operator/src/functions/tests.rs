//! The workers of a function as a golden file, and rollouts as sequences of what was decided.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use jiff::Timestamp;
use tandem_crds::resources::function::Rollout;
use tandem_crds::resources::status::{RevisionState, RevisionStatus};
use tandem_crds::resources::{FunctionSpec, Kind};

use crate::child::Owner;
use crate::functions::build::build;
use crate::functions::revision::{child_name, revision};
use crate::functions::rollout::{Facts, advance};
use crate::functions::validate::Valid;
use crate::key::{ObjectKey, Text};
use crate::pods::{FunctionReport, HandshakeProblem, Report, Reports, RevisionReport};
use crate::testing::compare;

fn spec(yaml: &str) -> Arc<FunctionSpec> {
    Arc::new(serde_saphyr::from_str(yaml).unwrap())
}

#[test]
fn workers_with_everything() {
    let spec = spec(
        "
image: shop/order:1.4.0
args: [serve, --verbose]
replicas: 3
env:
  - {name: COLOUR, value: blue}
  - {name: KEY, valueFrom: {secretKeyRef: {name: order, key: key}}}
  - {name: TANDEM_WORKER_ADDRESS, value: 'mine:1'}
resources: {requests: {cpu: 100m}}
podTemplate: {labels: {team: shop, app.kubernetes.io/name: mine}, affinity: {podAntiAffinity: {}}}
",
    );
    let owner = Owner { key: ObjectKey::new(Kind::Function, "shop", "order"), uid: "uid-2".to_owned() };
    let valid = Valid { revision: Some("7c9f0a11".to_owned()), spec };
    compare("src/functions/testdata/workers.yaml", &build(&owner, &valid));
}

#[test]
fn a_revision_is_what_makes_pods() {
    let of = |yaml: &str| revision(&spec(yaml)).unwrap();
    let first = of("{image: a}");
    assert_eq!(first.len(), 8);
    assert_eq!(of("{image: a, replicas: 9, limits: {concurrency: 3}, handlers: [{name: x}]}"), first);
    for other in ["{image: b}", "{image: a, args: [x]}", "{image: a, env: [{name: A, value: b}]}"] {
        assert_ne!(of(other), first, "{other}");
    }
    assert_eq!(revision(&spec("{endpoint: {url: 'http://a:1'}}")), None);
}

#[test]
fn names_of_children_fit_a_service() {
    assert_eq!(child_name("cart", "7c9f0a11"), "cart-7c9f0a11");
    let (long, other) = ("a".repeat(63), format!("{}b", "a".repeat(62)));
    assert_eq!(child_name(&long, "7c9f0a11").len(), 63);
    assert_ne!(child_name(&long, "7c9f0a11"), child_name(&other, "7c9f0a11"));
}

/// A world in which time passes and pods report.
struct Rolling {
    revisions: Vec<RevisionStatus>,
    rollout: Option<Rollout>,
    now: i64,
    reports: Reports,
}

impl Rolling {
    fn new(rollout: Option<Rollout>) -> Self {
        let pods = ["main-0", "main-1"].map(|pod| (Text::from(pod), Report::default()));
        Self { revisions: Vec::new(), rollout, now: 1_000_000, reports: Reports { pods: pods.into() } }
    }

    fn report(&mut self, revision: &str, change: impl Fn(&mut RevisionReport)) {
        for report in self.reports.pods.values_mut() {
            if report.functions.is_empty() {
                report.functions.push(FunctionReport { name: "order".to_owned(), revisions: Vec::new() });
            }
            let revisions = &mut report.functions[0].revisions;
            if !revisions.iter().any(|known| known.revision == revision) {
                revisions.push(RevisionReport { revision: revision.to_owned(), ..RevisionReport::default() });
            }
            revisions.iter_mut().filter(|known| known.revision == revision).for_each(&change);
        }
    }

    fn welcome(&mut self, revision: &str) {
        self.report(revision, |report| report.workers_ready = 2);
    }

    /// Looks after `seconds`; gives `revision=weight state` for each.
    fn look(&mut self, target: &str, seconds: i64) -> Vec<String> {
        self.now += seconds;
        let pods: Vec<Text> = self.reports.pods.keys().cloned().collect();
        let facts = Facts {
            function: "order",
            target: Some(target),
            rollout: self.rollout.as_ref(),
            runtime_pods: &pods,
            reports: &self.reports,
        };
        let now = Timestamp::from_second(self.now).unwrap();
        self.revisions = advance(&self.revisions, &facts, now);
        assert_eq!(advance(&self.revisions, &facts, now).len(), self.revisions.len());
        let alive = self.revisions.iter().filter(|one| one.state != RevisionState::Failed);
        let weights: Vec<i32> = alive.map(|one| one.weight).collect();
        assert_eq!(weights.iter().sum::<i32>(), 100, "{:?}", self.revisions);
        self.revisions.iter().map(|one| format!("{}={} {:?}", one.revision, one.weight, one.state)).collect()
    }

    /// Revision `a` serves.
    fn with_first(rollout: Option<Rollout>) -> Self {
        let mut rolling = Self::new(rollout);
        assert_eq!(rolling.look("a", 0), ["a=100 Starting"]);
        rolling.welcome("a");
        assert_eq!(rolling.look("a", 1), ["a=100 Active"]);
        rolling
    }
}

fn steps() -> Rollout {
    Rollout { steps: vec![10, 50], ..Rollout::default() }
}

#[test]
fn without_steps_all_of_it_changes_after_the_handshake() {
    let mut rolling = Rolling::with_first(None);
    assert_eq!(rolling.look("b", 1), ["a=100 Active", "b=0 Starting"]);
    assert_eq!(rolling.look("b", 3_600), ["a=100 Active", "b=0 Starting"], "nobody has shaken hands with it");
    rolling.welcome("b");
    assert_eq!(rolling.look("b", 1), ["a=0 Draining", "b=100 Active"]);
    assert_eq!(rolling.look("b", 29), ["a=0 Draining", "b=100 Active"]);
    assert_eq!(rolling.look("b", 1), ["b=100 Active"]);
}

#[test]
fn steps_take_their_time() {
    let mut rolling = Rolling::with_first(Some(steps()));
    assert_eq!(rolling.look("b", 1), ["a=100 Active", "b=0 Starting"]);
    rolling.welcome("b");
    assert_eq!(rolling.look("b", 1), ["a=90 Active", "b=10 Ramping"]);
    assert_eq!(rolling.look("b", 29), ["a=90 Active", "b=10 Ramping"]);
    assert_eq!(rolling.look("b", 1), ["a=50 Active", "b=50 Ramping"]);
    assert_eq!(rolling.look("b", 30), ["a=0 Draining", "b=100 Active"]);
}

#[test]
fn a_refusal_stops_it_where_it_is() {
    let mut rolling = Rolling::with_first(Some(steps()));
    let problem = HandshakeProblem { reason: "StateIncompatible".to_owned(), message: String::new() };
    rolling.report("b", |report| report.problem = Some(problem.clone()));
    rolling.welcome("b");
    assert_eq!(rolling.look("b", 1), ["a=100 Active", "b=0 Starting"]);
    assert_eq!(rolling.look("b", 600), ["a=100 Active", "b=0 Starting"]);
    let unreachable = HandshakeProblem { reason: "Unreachable".to_owned(), message: String::new() };
    rolling.report("b", |report| report.problem = Some(unreachable.clone()));
    assert_eq!(rolling.look("b", 1), ["a=90 Active", "b=10 Ramping"], "one of several workers is on its way");
}

#[test]
fn failures_count_once_there_are_enough() {
    let check = |invocations: u64, failures: u64, expected: &[&str]| {
        let mut rolling = Rolling::with_first(Some(steps()));
        rolling.welcome("b");
        rolling.look("b", 1);
        rolling.report("b", |report| (report.invocations, report.failures) = (invocations, failures));
        assert_eq!(rolling.look("b", 1), expected, "{failures} of {invocations}");
    };
    // Two pods report the same: twice of it counts.
    check(9, 9, &["a=90 Active", "b=10 Ramping"]);
    check(10, 1, &["a=100 Active", "b=0 Failed"]);
    check(100, 5, &["a=90 Active", "b=10 Ramping"]);
    check(100, 6, &["a=100 Active", "b=0 Failed"]);
}

#[test]
fn what_failed_is_not_tried_again_and_the_next_is() {
    let mut rolling = Rolling::with_first(Some(steps()));
    rolling.welcome("b");
    rolling.look("b", 1);
    rolling.report("b", |report| (report.invocations, report.failures) = (100, 100));
    assert_eq!(rolling.look("b", 1), ["a=100 Active", "b=0 Failed"]);
    assert_eq!(rolling.look("b", 9_999), ["a=100 Active", "b=0 Failed"]);
    assert_eq!(rolling.look("c", 1), ["a=100 Active", "c=0 Starting"]);
}

#[test]
fn a_change_of_mind_goes_back_at_once() {
    let mut rolling = Rolling::with_first(Some(steps()));
    rolling.welcome("b");
    assert_eq!(rolling.look("b", 1), ["a=90 Active", "b=10 Ramping"]);
    assert_eq!(rolling.look("a", 1), ["a=100 Active", "b=0 Draining"]);
    assert_eq!(rolling.look("c", 1), ["a=100 Active", "b=0 Draining", "c=0 Starting"]);
    assert_eq!(rolling.look("b", 1), ["a=100 Active", "b=0 Starting", "c=0 Draining"]);
}

#[test]
fn a_first_revision_that_never_worked_is_replaced_without_steps() {
    let mut rolling = Rolling::new(Some(steps()));
    assert_eq!(rolling.look("a", 0), ["a=100 Starting"]);
    assert_eq!(rolling.look("b", 60), ["a=100 Starting", "b=0 Starting"]);
    rolling.welcome("b");
    assert_eq!(rolling.look("b", 1), ["a=0 Draining", "b=100 Active"]);
}
