//! What is shown, as people read it.

use super::tree::{Mark, Node, draw};
use super::view::{Egress, Function, Health, Pod, Revision, Route, Runtime, State, View};
use crate::output::Palette;

/// Resources that are named in the last line, if they are not ready.
const NAMED_MAX: usize = 5;

/// The tree, and a line that sums it up.
pub(super) fn text(view: &View, palette: Palette) -> String {
    let mut roots: Vec<Node> = view.runtimes.iter().map(runtime).collect();
    let served = served(view);
    match roots.first_mut() {
        Some(first) => first.children.extend(served),
        None => roots = served,
    }
    draw(&roots, palette) + "\n" + &summary(view, palette) + "\n"
}

/// Functions with the routes that lead to them, then what belongs to no function.
fn served(view: &View) -> Vec<Node> {
    let mut nodes = Vec::new();
    for one in &view.functions {
        let mut node = function(one);
        node.children.extend(view.routes.iter().filter(|route| route.function == one.name).map(route));
        nodes.push(node);
    }
    let is_known = |name: &str| view.functions.iter().any(|function| function.name == name);
    nodes.extend(view.routes.iter().filter(|route| !is_known(&route.function)).map(route));
    nodes.extend(view.egresses.iter().map(egress));
    nodes
}

fn mark(state: &State) -> Mark {
    match state.health {
        Health::Ready => Mark::Good,
        Health::Reconciling => Mark::Moving,
        Health::Stalled | Health::NotReady => Mark::Bad,
    }
}

/// `Ready`, or `Stalled RolloutFailed: 9 of 20 flows failed`
fn said(state: &State) -> String {
    let word = match state.health {
        Health::Ready => "Ready",
        Health::Reconciling => "Reconciling",
        Health::Stalled => "Stalled",
        Health::NotReady => "Not ready",
    };
    let beside = if state.serves && state.health != Health::Ready { " (serves meanwhile)" } else { "" };
    if state.health == Health::Ready && state.reason == "Ready" {
        return word.to_owned();
    }
    match (state.reason.as_str(), state.message.as_str()) {
        ("", message) => format!("{word}{beside}  {message}"),
        (reason, "") => format!("{word} {reason}{beside}"),
        (reason, message) => format!("{word} {reason}{beside}: {message}"),
    }
}

fn runtime(runtime: &Runtime) -> Node {
    let mut parts = vec![said(&runtime.state)];
    parts.push(format!("{} of {}", runtime.ready_replicas, counted(runtime.replicas.unsigned_abs(), "pod")));
    match (&runtime.topology_revision, &runtime.serving_revision) {
        (Some(wanted), Some(serving)) if wanted == serving => parts.push(format!("serves {serving}")),
        (Some(wanted), Some(serving)) => parts.push(format!("serves {serving}, next is {wanted}")),
        (Some(wanted), None) => parts.push(format!("not all serve {wanted} yet")),
        (None, _) => {}
    }
    parts.push(format!("store {}", runtime.store));
    let children = runtime.pods.iter().map(pod).collect();
    Node { mark: mark(&runtime.state), label: format!("runtime {}", runtime.name), text: parts.join("  "), children }
}

fn pod(pod: &Pod) -> Node {
    let mut parts = Vec::new();
    if pod.ready {
        parts.push("Ready".to_owned());
    } else {
        parts.push(format!("Not ready: {}", pod.state));
    }
    if let Some(revision) = &pod.serving_revision {
        parts.push(format!("serves {revision}"));
    }
    if let Some(member) = pod.member.as_ref().filter(|member| **member != pod.name) {
        parts.push(format!("member {member}"));
    }
    if pod.store_ready == Some(false) {
        parts.push(format!("store: {}", pod.store_problem.as_deref().unwrap_or("it does not answer")));
    }
    if let Some(error) = &pod.error {
        parts.push(format!("did not answer: {error}"));
    }
    if pod.restarts > 0 {
        parts.push(counted(pod.restarts.unsigned_abs().into(), "restart"));
    }
    let mark = match (pod.ready, pod.error.is_some(), pod.store_ready) {
        (true, false, Some(false)) | (false, _, _) => Mark::Bad,
        (true, true, _) => Mark::Unknown,
        (true, false, _) => Mark::Good,
    };
    Node { mark, label: format!("pod {}", pod.name), text: parts.join("  "), children: Vec::new() }
}

fn function(function: &Function) -> Node {
    let children = function.revisions.iter().map(revision).collect();
    let label = format!("function {}", function.name);
    Node { mark: mark(&function.state), label, text: said(&function.state), children }
}

fn revision(revision: &Revision) -> Node {
    let mut parts = Vec::new();
    if let Some(state) = &revision.state {
        parts.push(state.clone());
    }
    if let Some(weight) = revision.weight {
        parts.push(format!("{weight}% of new flows"));
    }
    match revision.workers_ready {
        Some(workers) => {
            parts.push(counted(workers, "worker"));
            parts.push(format!("{}, {} failed", counted(revision.calls, "call"), thousands(revision.failures)));
        }
        None => parts.push("workers and calls unknown".to_owned()),
    }
    if let Some(problem) = &revision.problem {
        parts.push(problem.clone());
    }
    let label =
        if revision.name.is_empty() { "workers of your own".to_owned() } else { format!("revision {}", revision.name) };
    Node { mark: Mark::None, label, text: parts.join("  "), children: Vec::new() }
}

fn route(route: &Route) -> Node {
    let target = format!("{} {} → {} {}", route.method, route.path, route.function, route.handler);
    let label = format!("route {}", route.name);
    Node { mark: mark(&route.state), label, text: with_target(&route.state, &target), children: Vec::new() }
}

fn egress(egress: &Egress) -> Node {
    let (label, target) = (format!("egress {}", egress.name), format!("GET /egress/{}", egress.name));
    Node { mark: mark(&egress.state), label, text: with_target(&egress.state, &target), children: Vec::new() }
}

fn with_target(state: &State, target: &str) -> String {
    format!("{}  {target}", said(state))
}

/// `shop: 1 runtime, 5 functions, 10 routes, 1 egress: all ready`
fn summary(view: &View, palette: Palette) -> String {
    let kinds = [
        (view.runtimes.len(), "runtime"),
        (view.functions.len(), "function"),
        (view.routes.len(), "route"),
        (view.egresses.len(), "egress"),
    ];
    let kinds = kinds.into_iter().filter(|(count, _)| *count > 0);
    let kinds: Vec<String> = kinds.map(|(count, word)| counted(count as u64, word)).collect();
    let bad: Vec<String> = view
        .states()
        .filter(|(_, _, state)| !state.is_fine())
        .map(|(kind, name, _)| format!("{kind} {name}"))
        .collect();
    let mut lines = Vec::new();
    if !view.has_runtime {
        lines.push(palette.yellow("there is no FunctionRuntime, so nothing runs here: apply one"));
    }
    let silent = view.runtimes.iter().flat_map(|runtime| &runtime.pods).filter(|pod| !pod.answered).count();
    if silent > 0 {
        let text = format!("{} did not answer: what they know is missing above", counted(silent as u64, "pod"));
        lines.push(palette.yellow(&text));
    }
    let result = if bad.is_empty() {
        palette.green("all ready")
    } else {
        let more = if bad.len() > NAMED_MAX { ", ..." } else { "" };
        let named = bad.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
        palette.red(&format!("{} not ready: {named}{more}", bad.len()))
    };
    lines.push(format!("namespace {}: {}: {result}", view.namespace, kinds.join(", ")));
    lines.join("\n")
}

/// `1 pod`, `2,100 calls`
fn counted(count: u64, word: &str) -> String {
    let ending = match (count, word.ends_with('s')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{} {word}{ending}", thousands(count))
}

/// `1,204`
fn thousands(number: u64) -> String {
    const GROUP: usize = 3;
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(GROUP) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
