//! One flow as a tree of its calls.

use std::fmt::Write as _;

use tandem_model::outcome::Outcome;
use tandem_runtime::admin::view::{Call, Flow, Status};

use crate::output::{Palette, duration, printable};

/// The flow as people read it:
///
/// ```text
/// REJECTED  out-of-stock by inventory/sku-7     3.1 ms, attempt 1, nothing was applied
/// order/o-2 place              3.1 ms   undone
/// ├─ inventory/sku-3 reserve   0.4 ms   undone
/// └─ inventory/sku-7 reserve   0.4 ms   rejected: 2 wanted, 1 left
/// ```
pub(super) fn text(flow: &Flow, palette: Palette) -> String {
    let mut text = palette.outcome(flow.outcome, flow.outcome.as_str());
    if let Some(reason) = &flow.reason {
        let _ = write!(text, "  {}", printable(reason));
    }
    if let (Some(function), Some(key)) = (&flow.function, &flow.key) {
        let _ = write!(text, " by {function}/{}", printable(key));
    }
    let applied = if flow.outcome == Outcome::Committed { "everything was applied" } else { "nothing was applied" };
    let attempt = flow.attempts;
    let _ = writeln!(text, "     {}, attempt {attempt}, {applied}", duration(flow.duration_ms));
    let told = |detail: &String| flow.calls.iter().any(|call| call.detail.as_ref() == Some(detail));
    if let Some(detail) = flow.detail.as_ref().filter(|detail| !detail.is_empty() && !told(detail)) {
        let _ = writeln!(text, "{}", printable(detail));
    }
    text.push_str(&calls(&flow.calls, palette));
    if let Some(result) = &flow.result {
        let _ = writeln!(text, "result {result}");
    }
    text
}

fn calls(calls: &[Call], palette: Palette) -> String {
    let labels: Vec<String> = (0..calls.len()).map(|at| label(calls, at)).collect();
    let width = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
    let times: Vec<String> = calls.iter().map(|call| duration(call.duration_ms)).collect();
    let times_width = times.iter().map(String::len).max().unwrap_or(0);
    let mut text = String::new();
    for ((call, label), time) in calls.iter().zip(&labels).zip(&times) {
        let line = format!("{label:<width$}   {time:>times_width$}   {}", status(call, palette));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn status(call: &Call, palette: Palette) -> String {
    let why = call.detail.as_deref().map(printable).unwrap_or_default();
    match call.status {
        Status::Done => String::new(),
        Status::Undone => palette.dim("undone"),
        Status::Rejected => palette.yellow(&format!("rejected: {why}")),
        Status::Failed => palette.red(&format!("failed: {why}")),
        Status::Stopped => palette.dim("stopped"),
    }
}

/// The branches that lead to a call, and its name. Calls come in the order in which they began, each with its depth.
fn label(calls: &[Call], at: usize) -> String {
    let call = &calls[at];
    let mut label = String::new();
    for depth in 1..=call.depth {
        let goes_on = has_sibling_after(calls, at, depth);
        label.push_str(match (depth == call.depth, goes_on) {
            (true, true) => "├─ ",
            (true, false) => "└─ ",
            (false, true) => "│  ",
            (false, false) => "   ",
        });
    }
    let _ = write!(label, "{} {}", printable(&call.instance), call.handler);
    label
}

/// Whether another call at `depth` follows before the tree goes back above it.
fn has_sibling_after(calls: &[Call], at: usize, depth: u16) -> bool {
    let next = calls[at + 1..].iter().find(|call| call.depth <= depth);
    next.is_some_and(|call| call.depth == depth)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(depth: u16, instance: &str, handler: &str, ms: f64, status: Status, detail: Option<&str>) -> Call {
        let detail = detail.map(str::to_owned);
        Call { depth, instance: instance.into(), handler: handler.into(), duration_ms: ms, status, detail }
    }

    fn flow(outcome: Outcome, reason: Option<&str>, detail: Option<&str>, calls: Vec<Call>) -> Flow {
        let json = serde_json::json!({
            "flow": "000000000000000000000000", "request": "r", "instance": "order/o-2", "handler": "place",
            "outcome": outcome, "reason": reason, "detail": detail, "attempts": 1,
            "acceptedAt": "2026-01-01T00:00:00.000Z", "durationMs": 3.1, "calls": [],
        });
        Flow { calls, ..serde_json::from_value(json).unwrap() }
    }

    #[test]
    fn rejection_shows_who_said_no_and_what_was_undone() {
        let mut rejected = flow(
            Outcome::Rejected,
            Some("out-of-stock"),
            Some("2 wanted, 1 left"),
            vec![
                call(0, "order/o-2", "place", 3.1, Status::Undone, None),
                call(1, "inventory/sku-3", "reserve", 0.4, Status::Undone, None),
                call(2, "audit/sku-3", "note", 0.1, Status::Undone, None),
                call(1, "inventory/sku-7", "reserve", 0.4, Status::Rejected, Some("2 wanted, 1 left")),
            ],
        );
        (rejected.function, rejected.key) = (Some("inventory".into()), Some("sku-7".into()));
        let expected = "\
REJECTED  out-of-stock by inventory/sku-7     3.1 ms, attempt 1, nothing was applied
order/o-2 place              3.1 ms   undone
├─ inventory/sku-3 reserve   0.4 ms   undone
│  └─ audit/sku-3 note       0.1 ms   undone
└─ inventory/sku-7 reserve   0.4 ms   rejected: 2 wanted, 1 left
";
        assert_eq!(text(&rejected, Palette::plain()), expected);
    }

    #[test]
    fn cause_that_no_call_tells_gets_a_line() {
        let late = flow(Outcome::TimedOut, Some("deadline"), Some("5 s passed"), Vec::new());
        let expected = "TIMED_OUT  deadline     3.1 ms, attempt 1, nothing was applied\n5 s passed\n";
        assert_eq!(text(&late, Palette::plain()), expected);
    }

    #[test]
    fn committed_shows_its_result() {
        let calls = vec![call(0, "order/o-2", "place", 3.1, Status::Done, None)];
        let mut committed = flow(Outcome::Committed, None, None, calls);
        committed.result = Some(serde_json::json!({"total": 4200}));
        let expected = "COMMITTED     3.1 ms, attempt 1, everything was applied\norder/o-2 place   3.1 ms\nresult {\"total\":4200}\n";
        assert_eq!(text(&committed, Palette::plain()), expected);
    }
}
