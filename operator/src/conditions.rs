//! Conditions as kstatus reads them: a pure function of a finding and of what was said before.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::Value;

use crate::reasons::{Effect, Reason};

/// Longest message, in characters.
const MESSAGE_CHARACTERS_MAX: usize = 1_000;

/// How a resource is: a reason and a message for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Why.
    pub reason: &'static Reason,
    /// Why in words, without anything that differs from visit to visit.
    pub message: String,
}

impl Finding {
    /// With the message cut to what a status may hold.
    pub fn new(reason: &'static Reason, message: impl AsRef<str>) -> Self {
        Self { reason, message: message.as_ref().chars().take(MESSAGE_CHARACTERS_MAX).collect() }
    }

    /// Whether `Ready` is true.
    pub fn is_ready(&self) -> bool {
        self.reason.effect == Effect::Ready
    }
}

/// The conditions for `finding` about `generation`. What did not flip since `previous` keeps its time, so that a repeated
/// visit writes the same bytes. Conditions that are not ours stay, because they are not said anything about.
pub fn conditions(
    finding: &Finding,
    also: Option<&Finding>,
    generation: Option<i64>,
    previous: &[Condition],
    now: Timestamp,
) -> Vec<Condition> {
    let mut wanted = vec![("Ready", finding.is_ready(), finding)];
    for finding in std::iter::once(finding).chain(also) {
        match finding.reason.effect {
            Effect::Moving => wanted.push(("Reconciling", true, finding)),
            Effect::Stalled => wanted.push(("Stalled", true, finding)),
            Effect::Ready | Effect::Waiting => {}
        }
    }
    // Beside something that serves, `Ready` cannot tell what the present spec waits for.
    if let Some(waiting) = also.filter(|also| also.reason.effect == Effect::Waiting && finding.is_ready()) {
        wanted.push(("Reconciling", true, waiting));
    }
    let mut conditions: Vec<Condition> = Vec::with_capacity(wanted.len());
    for (type_, holds, finding) in wanted {
        if conditions.iter().any(|condition| condition.type_ == type_) {
            continue;
        }
        let status = if holds { "True" } else { "False" };
        let unchanged = previous.iter().find(|old| old.type_ == type_ && old.status == status);
        conditions.push(Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: finding.reason.name.to_owned(),
            message: finding.message.clone(),
            observed_generation: generation,
            last_transition_time: unchanged.map_or(Time(now), |old| old.last_transition_time.clone()),
        });
    }
    conditions
}

/// The types that are ours. Others may add conditions of other types.
const OURS: [&str; 3] = ["Ready", "Reconciling", "Stalled"];

/// The conditions of `found` without those that are of our types and not in `wanted`; nothing if there are none such.
pub fn without_strays(found: &Value, wanted: &Value) -> Option<Vec<Value>> {
    let list = |status: &Value| status["conditions"].as_array().cloned().unwrap_or_default();
    let (found, wanted) = (list(found), list(wanted));
    let is_stray = |condition: &Value| {
        OURS.iter().any(|ours| condition["type"] == *ours)
            && !wanted.iter().any(|wanted| wanted["type"] == condition["type"])
    };
    let kept: Vec<Value> = found.iter().filter(|condition| !is_stray(condition)).cloned().collect();
    (kept.len() < found.len()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reasons;

    fn time(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn shown(conditions: &[Condition]) -> Vec<String> {
        conditions.iter().map(|c| format!("{}={} {}", c.type_, c.status, c.reason)).collect()
    }

    /// The six rules of kstatus, as far as they look at conditions.
    fn kstatus(conditions: &[Condition]) -> &'static str {
        let holds = |type_: &str, status: &str| conditions.iter().any(|c| c.type_ == type_ && c.status == status);
        if holds("Stalled", "True") {
            "Failed"
        } else if holds("Reconciling", "True") || holds("Ready", "False") || holds("Ready", "Unknown") {
            "InProgress"
        } else {
            "Current"
        }
    }

    #[test]
    fn tools_read_what_a_reason_means() {
        for reason in reasons::ALL {
            let finding = Finding::new(reason, "");
            let expected = match reason.effect {
                Effect::Ready => "Current",
                Effect::Moving | Effect::Waiting => "InProgress",
                Effect::Stalled => "Failed",
            };
            assert_eq!(kstatus(&conditions(&finding, None, Some(1), &[], time(1))), expected, "{}", reason.name);
        }
    }

    #[test]
    fn a_condition_of_ours_that_somebody_else_has_added_is_found() {
        let status = |types: &[&str]| {
            let conditions: Vec<Value> = types.iter().map(|type_| serde_json::json!({"type": type_})).collect();
            serde_json::json!({"conditions": conditions})
        };
        let kept =
            |found: &[&str], wanted: &[&str]| without_strays(&status(found), &status(wanted)).map(|kept| kept.len());
        assert_eq!(kept(&["Ready", "Audited"], &["Ready"]), None);
        assert_eq!(kept(&["Ready", "Stalled", "Audited"], &["Ready"]), Some(2));
        assert_eq!(kept(&[], &["Ready"]), None);
    }

    #[test]
    fn a_repeated_visit_writes_the_same_bytes() {
        let finding = Finding::new(&reasons::STARTING, "0 of 1 pods are ready");
        let first = conditions(&finding, None, Some(1), &[], time(1));
        assert_eq!(conditions(&finding, None, Some(1), &first, time(2)), first);
        let ready = conditions(&Finding::new(&reasons::READY, ""), None, Some(1), &first, time(3));
        assert_eq!(shown(&ready), ["Ready=True Ready"]);
        assert_eq!(ready[0].last_transition_time, Time(time(3)));
    }

    #[test]
    fn something_can_serve_and_move_or_be_stuck_at_a_time() {
        let serves = Finding::new(&reasons::PREVIOUS_REVISION, "");
        let failed = Finding::new(&reasons::ROLLOUT_FAILED, "");
        let conditions = conditions(&serves, Some(&failed), Some(1), &[], time(1));
        assert_eq!(shown(&conditions), ["Ready=True PreviousRevision", "Stalled=True RolloutFailed"]);
    }

    #[test]
    fn what_the_present_spec_waits_for_is_named_while_the_last_one_serves() {
        let serves = Finding::new(&reasons::PREVIOUS_REVISION, "");
        let waits = Finding::new(&reasons::IMAGE_UNAVAILABLE, "");
        let conditions = conditions(&serves, Some(&waits), Some(2), &[], time(1));
        assert_eq!(shown(&conditions), ["Ready=True PreviousRevision", "Reconciling=True ImageUnavailable"]);
        assert_eq!(kstatus(&conditions), "InProgress");
    }

    #[test]
    fn reasons_are_words_and_said_once() {
        let mut seen = std::collections::BTreeSet::new();
        for reason in reasons::ALL {
            assert!(seen.insert(reason.name), "{} is there twice", reason.name);
            assert!(reason.name.chars().all(|c| c.is_ascii_alphanumeric()), "{}", reason.name);
            assert_eq!(reasons::Reason::named(reason.name), Some(*reason));
        }
    }
}
