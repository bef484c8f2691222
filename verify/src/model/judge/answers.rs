//! What clients were told.

use tandem_model::outcome::Outcome;

use super::{Judge, is_log, log_of};
use crate::program::Program;

impl Judge<'_> {
    /// All answers to one id are equal, and are what its record says.
    pub(super) fn answers(&mut self) {
        let history = self.history;
        for asked in history.asked.iter().filter(|asked| asked.handler != "look") {
            let record = history.end.records.get(&asked.flow);
            if asked.cancel_confirmed && record.is_none_or(|record| record.outcome != Outcome::Cancelled) {
                self.violation(format!("{} was confirmed to be cancelled, but it ended as {record:?}", asked.id));
            }
            for answer in &asked.answers {
                let Some(record) = record else {
                    self.violation(format!("{} was answered with {}, but has no record", asked.id, answer.outcome));
                    continue;
                };
                let result = record.result.as_ref().map(|payload| &payload.bytes);
                let reason = record.cause.as_ref().map(|cause| &cause.reason);
                let equal = answer.outcome == record.outcome
                    && (answer.reason.is_none() || answer.reason.as_ref() == reason)
                    && (answer.result.is_none() || answer.result.as_ref() == result);
                if !equal {
                    self.violation(format!("{} was told {answer:?}, but its record says {record:?}", asked.id));
                }
                if asked.bodies[answer.body].0 != record.digest {
                    self.violation(format!("{} was answered for a body that was not run", asked.id));
                }
            }
            // One process knows of a body that it runs, but not of one that another process runs.
            for body in asked.mismatched.iter().filter(|_| !history.had_rivals) {
                if record.is_some_and(|record| record.digest == asked.bodies[*body].0) {
                    self.violation(format!("{} was refused as another body, but that body was run", asked.id));
                }
            }
        }
    }

    /// A flow that only reads saw one state between its sending and its answer.
    pub(super) fn looks(&mut self) {
        let history = self.history;
        for asked in history.asked.iter().filter(|asked| asked.handler == "look") {
            // Before the first worker has said what the handler is, a flow that ends leaves a record, to be safe.
            let early = [Outcome::TimedOut, Outcome::Cancelled];
            if history.end.records.get(&asked.flow).is_some_and(|record| !early.contains(&record.outcome)) {
                self.violation(format!("{} only reads, but left a record", asked.id));
            }
            for answer in &asked.answers {
                let program = &asked.bodies[answer.body].1;
                // One that was repeated while it ran got the answer of the first one.
                let sent = if answer.repeated { asked.first_sent } else { answer.sent };
                let window = self.window(sent, Some(answer.at));
                match answer.outcome {
                    // Who asked later is told only how it ended.
                    Outcome::Committed if answer.result.is_none() => {}
                    Outcome::Rejected if answer.reason.is_none() => {}
                    Outcome::Committed => {
                        let Ok(log) = log_of(answer.result.as_ref()) else {
                            self.violation(format!("{} was answered with nonsense", asked.id));
                            continue;
                        };
                        let what = || format!("{} saw {log:?}", asked.id);
                        self.fits(window, &asked.place, program, |end| is_log(end, &log), what);
                        self.verdict.looks += 1;
                    }
                    Outcome::Rejected => self.look_refused(asked, answer, program, window),
                    Outcome::TimedOut | Outcome::Failed | Outcome::Cancelled => {}
                    Outcome::Conflict | Outcome::Poisoned | Outcome::Invalid => {
                        self.violation(format!("{} only reads, but ended as {}", asked.id, answer.outcome));
                    }
                }
            }
        }
    }

    fn look_refused(
        &mut self,
        asked: &super::Asked,
        answer: &super::Answer,
        program: &Program,
        window: (usize, usize),
    ) {
        let end = super::End::No(answer.reason.clone().unwrap_or_default());
        let what = || format!("{} was refused with {:?}", asked.id, answer.reason);
        self.fits(window, &asked.place, program, |found| *found == end, what);
        self.verdict.looks += 1;
    }

    /// The order of commits does not contradict what clients know: a flow that was answered before another was sent
    /// comes before it.
    pub(super) fn real_time(&mut self) {
        let history = self.history;
        let mut placed: Vec<_> =
            history.asked.iter().filter_map(|asked| Some((*self.places.get(&asked.flow)?, asked))).collect();
        placed.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
        // The earliest answer of all flows behind the one that is looked at.
        let mut earliest: Option<(u64, &str)> = None;
        for (_, asked) in placed {
            if let Some((answered, other)) = earliest
                && answered < asked.first_sent
            {
                let id = &asked.id;
                self.violation(format!("{id} was sent after {other} had been answered, but comes before it"));
            }
            let answered = asked.answers.iter().map(|answer| answer.at).min();
            if let Some(answered) = answered
                && earliest.is_none_or(|(other, _)| answered < other)
            {
                earliest = Some((answered, &asked.id));
            }
        }
    }
}
