//! Holds what a worker says it runs against what the resources say.

use std::collections::HashMap;

use tandem_model::ids::{FunctionName, HandlerName, StateName};
use tandem_model::topology::{Function, Isolation, StateKind, Topology};
use tandem_proto::function::v1alpha1 as wire;
use tandem_proto::{FUNCTION_PROTOCOL_VERSION_MAX, FUNCTION_PROTOCOL_VERSION_MIN};

use super::Interface;

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
) -> Result<HashMap<FunctionName, Interface>, String> {
    let known = FUNCTION_PROTOCOL_VERSION_MIN..=FUNCTION_PROTOCOL_VERSION_MAX;
    if !known.contains(&welcome.version) {
        return Err(format!("it speaks protocol version {}, this runtime speaks {known:?}", welcome.version));
    }
    let mut told: HashMap<String, wire::FunctionInfo> =
        welcome.functions.into_iter().map(|info| (info.name.clone(), info)).collect();
    let mut interfaces = HashMap::new();
    for name in functions {
        let Some(info) = told.remove(name.as_str()) else {
            return Err(format!("it does not run function {name}"));
        };
        let interface = interface_of(&info).map_err(|problem| format!("function {name}: {problem}"))?;
        if let Some(function) = topology.functions.get(name) {
            check_pinned(function, &interface).map_err(|problem| format!("function {name}: {problem}"))?;
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
