//! Holds what a worker says it runs against what the resources say.

use std::collections::HashMap;

use tandem_model::ids::{FunctionName, HandlerName, StateName};
use tandem_model::topology::{Function, Isolation, StateKind, Topology};
use tandem_proto::function::v1alpha1 as wire;
use tandem_proto::{FUNCTION_PROTOCOL_VERSION_MAX, FUNCTION_PROTOCOL_VERSION_MIN};

use super::Interface;

/// Why a worker is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Refusal {
    /// For whoever rolls out workers: `HandlersDiffer`, `StateIncompatible`, `HandshakeRefused`.
    pub(super) reason: &'static str,
    message: String,
}

impl Refusal {
    /// Something is wrong with what it says, whatever it runs.
    pub(super) fn other(message: impl Into<String>) -> Self {
        Self { reason: "HandshakeRefused", message: message.into() }
    }
}

/// What the resources alone say: for workers of the plain HTTP profile, which has no handshake.
pub(super) fn declared(topology: &Topology, functions: &[FunctionName]) -> HashMap<FunctionName, Interface> {
    let declared = functions.iter().filter_map(|name| topology.functions.get(name).map(|function| (name, function)));
    let interface = |function: &Function| {
        let handlers = function.handlers.iter().flatten();
        let states = function.states.iter().flatten();
        Interface {
            handlers: handlers.map(|(name, handler)| (name.clone(), Some(handler.isolation))).collect(),
            states: states.map(|(name, state)| (name.clone(), state.kind)).collect(),
        }
    };
    declared.map(|(name, function)| (name.clone(), interface(function))).collect()
}

/// The interfaces of those of `functions` that the worker runs. An error says what does not fit.
pub(super) fn check(
    topology: &Topology,
    functions: &[FunctionName],
    welcome: wire::Welcome,
) -> Result<HashMap<FunctionName, Interface>, Refusal> {
    let known = FUNCTION_PROTOCOL_VERSION_MIN..=FUNCTION_PROTOCOL_VERSION_MAX;
    if !known.contains(&welcome.version) {
        let message = format!("it speaks protocol version {}, this runtime speaks {known:?}", welcome.version);
        return Err(Refusal::other(message));
    }
    let mut told: HashMap<String, wire::FunctionInfo> =
        welcome.functions.into_iter().map(|info| (info.name.clone(), info)).collect();
    let mut interfaces = HashMap::new();
    for name in functions {
        let Some(info) = told.remove(name.as_str()) else {
            return Err(Refusal::other(format!("it does not run function {name}")));
        };
        let of_function = |problem| format!("function {name}: {problem}");
        let interface = interface_of(&info).map_err(|problem| Refusal::other(of_function(problem)))?;
        if let Some(function) = topology.functions.get(name) {
            let differs = |problem| Refusal { reason: "HandlersDiffer", message: of_function(problem) };
            check_pinned(function, &interface).map_err(differs)?;
        }
        interfaces.insert(name.clone(), interface);
    }
    Ok(interfaces)
}

fn interface_of(info: &wire::FunctionInfo) -> Result<Interface, String> {
    let mut interface = Interface::default();
    for handler in &info.handlers {
        let name: HandlerName = handler.name.parse().map_err(|error| format!("{error}"))?;
        let isolation = match handler.isolation() {
            wire::Isolation::Unspecified => None,
            wire::Isolation::Serializable => Some(Isolation::Serializable),
            wire::Isolation::Snapshot => Some(Isolation::Snapshot),
            wire::Isolation::ReadOnly => Some(Isolation::ReadOnly),
        };
        interface.handlers.insert(name, isolation);
    }
    for state in &info.states {
        let name: StateName = state.name.parse().map_err(|error| format!("{error}"))?;
        let kind = match state.kind() {
            wire::StateKind::Value => StateKind::Value,
            wire::StateKind::Map => StateKind::Map,
            wire::StateKind::Unspecified => return Err(format!("state {name} has no kind")),
        };
        interface.states.insert(name, kind);
    }
    Ok(interface)
}

fn check_pinned(function: &Function, interface: &Interface) -> Result<(), String> {
    for (name, handler) in function.handlers.iter().flatten() {
        match interface.handlers.get(name) {
            None => return Err(format!("the resource declares handler {name}, the worker does not have it")),
            Some(Some(isolation)) if *isolation != handler.isolation => {
                let declared = handler.isolation;
                return Err(format!("handler {name} is {declared:?} in the resource, {isolation:?} in the worker"));
            }
            Some(_) => {}
        }
    }
    let Some(states) = &function.states else { return Ok(()) };
    for (name, kind) in &interface.states {
        match states.get(name) {
            None => return Err(format!("the worker has state {name}, the resource does not declare it")),
            Some(state) if state.kind != *kind => {
                return Err(format!("state {name} is {:?} in the resource, {kind:?} in the worker", state.kind));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// What was stored by workers that had `before` can be read by those that have `now`.
pub(super) fn check_stored(name: &FunctionName, before: &Interface, now: &Interface) -> Result<(), Refusal> {
    for (state, kind) in &now.states {
        if let Some(before) = before.states.get(state).filter(|before| *before != kind) {
            let message =
                format!("function {name}: state {state} is {kind:?}, and {before:?} in the workers before it");
            return Err(Refusal { reason: "StateIncompatible", message });
        }
    }
    Ok(())
}
