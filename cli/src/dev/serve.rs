//! What the terminal shows of a runtime that serves: where it is, its routes, its outcomes.

use tandem_model::topology::Topology;
use tandem_runtime::admin::view;
use tandem_server::serving::Serving;
use tandem_store::Store;
use tokio::sync::broadcast::error::RecvError;

use super::console::Console;
use crate::output::{Palette, duration, printable, table};

/// Says where everything is.
pub(super) fn print_banner<S: Store>(serving: &Serving<S>, console: &Console, topology: &Topology) {
    console.line(&format!("requests   http://{}", serving.http()));
    console.line(&format!("admin      http://{}   (tandem flows, state, invoke)", serving.admin()));
    print_routes(console, topology);
}

/// Prints each outcome, until the runtime ends.
pub(super) fn print_outcomes<S: Store>(serving: &Serving<S>, console: Console) {
    let mut outcomes = serving.runtime().outcomes();
    tokio::spawn(async move {
        loop {
            match outcomes.recv().await {
                Ok(record) => console.line(&outcome(&view::Flow::from(&*record), console.palette())),
                Err(RecvError::Lagged(skipped)) => console.line(&format!("({skipped} outcomes not shown)")),
                Err(RecvError::Closed) => return,
            }
        }
    });
}

/// Lists the routes and the egresses.
pub(super) fn print_routes(console: &Console, topology: &Topology) {
    for line in routes(topology).lines() {
        console.line(line);
    }
}

fn routes(topology: &Topology) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for route in topology.routes.values() {
        let target = format!("{}/{{{}}} {}", route.function, route.key.source(), route.handler);
        rows.push(vec![route.http.method.clone(), route.http.path.clone(), target]);
    }
    rows.sort_by(|a, b| (&a[1], &a[0]).cmp(&(&b[1], &b[0])));
    for egress in topology.egresses.keys() {
        rows.push(vec!["GET".to_owned(), format!("/egress/{egress}"), "server-sent events".to_owned()]);
    }
    if rows.is_empty() {
        return "there are no routes; `tandem invoke` reaches every handler".to_owned();
    }
    table(&["METHOD", "PATH", "RUNS"], &rows)
}

/// One outcome on one line: when, how, what, how long, and why not.
fn outcome(flow: &view::Flow, palette: Palette) -> String {
    const OUTCOME_WIDTH: usize = 9;
    // `2026-07-01T12:00:00.000Z`: the date is today's.
    let time = flow.accepted_at.get(11..23).unwrap_or(&flow.accepted_at);
    let name = palette.outcome(flow.outcome, &format!("{:<OUTCOME_WIDTH$}", flow.outcome.as_str()));
    let mut line = format!(
        "{}  {name}  {} {}  {}",
        palette.dim(time),
        printable(&flow.instance),
        flow.handler,
        palette.dim(&duration(flow.duration_ms))
    );
    if let Some(reason) = &flow.reason {
        line.push_str(&format!("  {}", printable(reason)));
    }
    if let (Some(function), Some(key)) = (&flow.function, &flow.key) {
        line.push_str(&format!(" by {function}/{}", printable(key)));
    }
    if let Some(detail) = flow.detail.as_ref().filter(|detail| !detail.is_empty()) {
        line.push_str(&format!(": {}", printable(detail)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcome_is_one_line() {
        let flow: view::Flow = serde_json::from_value(serde_json::json!({
            "flow": "000000000000000000000000", "request": "r", "instance": "order/o-2", "handler": "place",
            "outcome": "REJECTED", "reason": "out-of-stock", "detail": "1 left\nof 2", "function": "inventory",
            "key": "sku-7", "attempts": 1, "acceptedAt": "2026-01-01T12:34:56.789Z", "durationMs": 3.1, "calls": [],
        }))
        .unwrap();
        let expected =
            "12:34:56.789  REJECTED   order/o-2 place  3.1 ms  out-of-stock by inventory/sku-7: 1 left\u{fffd}of 2";
        assert_eq!(outcome(&flow, Palette::plain()), expected);
    }
}
