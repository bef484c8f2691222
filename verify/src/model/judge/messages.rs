//! What committed flows released, and what samples of the store show of it.

use std::collections::{BTreeMap, BTreeSet};

use tandem_model::ids::Payload;
use tandem_model::outcome::{Digest, FlowRecord, Outcome};
use tandem_model::request::digest;
use tandem_store::rows::Message;

use super::{Judge, Released, Sample, difference};
use crate::model::run::{Ran, can_meet};
use crate::program::{Program, Step};

impl Judge<'_> {
    /// Notes the messages of a committed flow.
    pub(super) fn release(&mut self, place: usize, record: &FlowRecord, program: &Program, ran: &Ran) {
        // Callees that meet on an instance run in some order, which a log does not show if they only send.
        let has_order = !program.any(&|step| matches!(step, Step::Together(all) if can_meet(all)));
        for (from, to, delay_ms) in &ran.sends {
            let lane = (from.clone(), to.place());
            let Ok(handler) = to.handler.parse() else { continue };
            let Ok(payload) = serde_json::to_vec(&to.program) else { continue };
            let digest = digest(&handler, &Payload::json(payload));
            if *delay_ms == 0 && has_order {
                self.lanes.entry(lane.clone()).or_default().push(digest);
            }
            let released = Released {
                lane,
                handler: to.handler.clone(),
                program: to.program.clone(),
                delay_ms: *delay_ms,
                sender_at: place,
                sent_unix_ms: record.accepted_unix_ms + record.duration_us / 1_000,
                flow: None,
            };
            self.messages.insert(digest, released);
        }
    }

    /// What was emitted is what committed flows emit, in the order of their commits.
    pub(super) fn emitted(&mut self) {
        let mut by_flow: BTreeMap<_, Vec<i64>> = BTreeMap::new();
        let (mut last, mut problems) = (None, Vec::new());
        for (flow, number) in &self.history.end.out {
            let place = self.places.get(flow).copied();
            if place.is_none() {
                problems.push(format!("flow {flow} emitted something, but did not commit"));
            }
            if place < last {
                problems.push(format!("what flow {flow} emitted comes too late in the egress"));
            }
            last = last.max(place);
            by_flow.entry(*flow).or_default().push(*number);
        }
        for (flow, expected) in std::mem::take(&mut self.emitted) {
            let (mut found, mut expected) = (by_flow.remove(&flow).unwrap_or_default(), expected);
            found.sort_unstable();
            expected.sort_unstable();
            if found != expected {
                problems.push(format!("flow {flow} emitted {found:?}, not {expected:?}"));
            }
        }
        for problem in problems {
            self.violation(problem);
        }
    }

    /// Messages have each ended once, in the order of their lane and not before they are due.
    pub(super) fn lanes(&mut self) {
        let records = &self.history.end.records;
        let mut problems = Vec::new();
        let by_digest: BTreeMap<Digest, &FlowRecord> = records.values().map(|record| (record.digest, record)).collect();
        let waiting: BTreeSet<Digest> = self.history.end.waiting.iter().map(digest_of).collect();
        let set_aside: BTreeSet<Digest> = self.history.end.set_aside.iter().map(digest_of).collect();
        for (digest, released) in &self.messages {
            let lane = &released.lane;
            let record = by_digest.get(digest);
            if record.is_some() == waiting.contains(digest) {
                problems.push(format!("a message from {} to {} ended and still waits, or neither", lane.0, lane.1));
            }
            let poisoned = record.is_some_and(|record| record.outcome == Outcome::Poisoned);
            if poisoned != set_aside.contains(digest) {
                problems.push(format!("a message to {} is set aside, or it is not, against its record", lane.1));
            }
            let due = released.sent_unix_ms + released.delay_ms;
            if released.delay_ms > 0 && record.is_some_and(|record| record.accepted_unix_ms < due) {
                problems.push(format!("a delayed message to {} ran before it was due", lane.1));
            }
        }
        for stray in waiting.iter().chain(&set_aside).filter(|digest| !self.messages.contains_key(*digest)) {
            problems.push(format!("a message with digest {stray:02x?} is stored, but no committed flow sent it"));
        }
        for (lane, digests) in &self.lanes {
            let place_of = |digest: &Digest| by_digest.get(digest).and_then(|record| self.places.get(&record.flow));
            let places: Vec<usize> = digests.iter().filter_map(place_of).copied().collect();
            if !places.is_sorted() && self.history.keeps_lanes {
                problems.push(format!("messages from {} to {} ran out of order: {places:?}", lane.0, lane.1));
            }
        }
        for problem in problems {
            self.violation(problem);
        }
    }

    /// Each sample is the state after some number of commits, and everything in it fits to that number.
    pub(super) fn samples(&mut self) {
        for sample in &self.history.samples {
            if let Some(problem) = self.sample(sample) {
                self.violation(format!("sample at {}: {problem}", sample.at));
            } else {
                self.verdict.samples += 1;
            }
        }
    }

    fn sample(&self, sample: &Sample) -> Option<String> {
        let rows = &sample.rows;
        let count = rows.order.len();
        if !self.history.end.order.starts_with(&rows.order) {
            return Some("the commits in it are not the first ones".to_owned());
        }
        let expected = self.states.get(count)?;
        if *expected != rows.state {
            return Some(format!("after {count} commits: {}", difference(expected, &rows.state)));
        }
        let committed = |record: &&FlowRecord| record.outcome == Outcome::Committed;
        let recorded: BTreeSet<_> = rows.records.values().filter(committed).map(|record| record.flow).collect();
        if recorded != rows.order.iter().copied().collect() {
            return Some("the records of commits are not those of the commits".to_owned());
        }
        self.sample_of_messages(sample, count)
    }

    fn sample_of_messages(&self, sample: &Sample, count: usize) -> Option<String> {
        let rows = &sample.rows;
        let waiting: BTreeSet<Digest> = rows.waiting.iter().map(digest_of).collect();
        let ended: BTreeSet<Digest> = rows.records.values().map(|record| record.digest).collect();
        for (digest, released) in &self.messages {
            let (lane, is_released) = (&released.lane, released.sender_at < count);
            let (waits, ended) = (waiting.contains(digest), ended.contains(digest));
            if is_released && waits == ended {
                return Some(format!("a message from {} to {} waits and has ended, or neither", lane.0, lane.1));
            }
            if !is_released && (waits || ended) {
                return Some(format!("a message from {} to {} is there before its sender committed", lane.0, lane.1));
            }
        }
        for (lane, digests) in self.lanes.iter().filter(|_| self.history.keeps_lanes) {
            let first_waiting = digests.iter().position(|digest| waiting.contains(digest));
            let last_ended = digests.iter().rposition(|digest| ended.contains(digest));
            if first_waiting.zip(last_ended).is_some_and(|(waiting, ended)| waiting < ended) {
                return Some(format!("a message from {} to {} was overtaken", lane.0, lane.1));
            }
        }
        None
    }
}

fn digest_of(message: &Message) -> Digest {
    digest(&message.handler, &message.payload)
}
