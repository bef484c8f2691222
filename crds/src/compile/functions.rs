//! The functions of a topology.

use std::collections::{BTreeMap, BTreeSet};

use tandem_model::ids::{FunctionName, HandlerName, StateName};
use tandem_model::limits::DEADLINE_MS_MAX;
use tandem_model::topology;

use crate::codes;
use crate::compile::{FunctionIndex, Problems, Subject};
use crate::load::Sourced;
use crate::resources::function::{ATTEMPTS_MAX, CONCURRENCY_MAX, DeletionPolicy, Endpoint, Protocol, REPLICAS_MAX};
use crate::resources::{Function, Kind};
use crate::suggestion;

pub(super) fn compile(
    declared: &[Sourced<Function>],
    index: &FunctionIndex<'_>,
    problems: &mut Problems,
) -> BTreeMap<FunctionName, topology::Function> {
    let mut functions = BTreeMap::new();
    for function in declared {
        let mut subject = Subject::new(Kind::Function, function, problems);
        let compiled = one(&mut subject, &index.declared);
        if let Some(name) = subject.name() {
            subject.insert(&mut functions, name, compiled);
        }
    }
    functions
}

fn one(subject: &mut Subject<'_, Function>, declared: &BTreeSet<String>) -> topology::Function {
    let spec = &subject.sourced.resource.spec;
    subject.number::<i32>("spec.replicas", spec.replicas.into(), 0..=REPLICAS_MAX.into());
    // Where a value was refused and left out, its absence is no second mistake.
    let is_clear = spec.image.is_some() != spec.endpoint.is_some();
    if !is_clear && !subject.sourced.damaged {
        let found = if spec.image.is_some() { "both image and endpoint are" } else { "neither image nor endpoint is" };
        subject.problem(&codes::NO_WORKERS, "spec", format!("{found} set"));
    }
    let is_http = spec.endpoint.as_ref().is_some_and(|endpoint| endpoint.protocol == Protocol::Http);
    if is_http && spec.handlers.is_none() && !subject.sourced.damaged {
        subject.problem(&codes::NO_HANDLERS, "spec", "the Http protocol has no handshake, and no handlers are listed");
    }
    if spec.deletion_policy == DeletionPolicy::Delete {
        let message = "its state stays when it is deleted, until its runtime goes with its own";
        subject.problem(&codes::STATE_STAYS, "spec.deletionPolicy", message);
    }
    let attempts = subject.number("spec.retry.attempts", spec.retry.attempts.into(), 1..=ATTEMPTS_MAX.into());
    let concurrency =
        subject.number("spec.limits.concurrency", spec.limits.concurrency.into(), 1..=CONCURRENCY_MAX.into());
    topology::Function {
        weights: BTreeMap::new(),
        workers: spec.endpoint.iter().filter_map(|endpoint| worker(subject, endpoint)).collect(),
        handlers: spec.handlers.as_ref().map(|_| handlers(subject)),
        states: spec.states.as_ref().map(|_| states(subject)),
        callers: spec.callers.as_ref().map(|callers| self::callers(subject, callers, declared)),
        failure_attempts_max: attempts.unwrap_or(topology::Function::FAILURE_ATTEMPTS_MAX),
        concurrency_max: concurrency.unwrap_or(topology::Function::CONCURRENCY_MAX),
    }
}

fn worker(subject: &mut Subject<'_, Function>, endpoint: &Endpoint) -> Option<topology::Endpoint> {
    if let Err(message) = check_url(endpoint) {
        subject.problem(&codes::INVALID_URL, "spec.endpoint.url", message);
        return None;
    }
    Some(topology::Endpoint::new(endpoint.url.clone(), endpoint.protocol.into()))
}

fn check_url(endpoint: &Endpoint) -> Result<(), String> {
    let url = &endpoint.url;
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let rest = rest.ok_or_else(|| format!("{url:?} does not start with http:// or https://"))?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, port)| if port.parse::<u16>().is_ok_and(|port| port > 0) { host } else { "" });
    if host.is_empty() || host.contains('@') {
        return Err(format!("{url:?} has no host, or a port that is none"));
    }
    if url.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#')) {
        return Err(format!("{url:?} has a query, a fragment or white space"));
    }
    if endpoint.protocol == Protocol::Grpc && !path.is_empty() {
        return Err(format!("{url:?} has a path, which the Grpc protocol does not use"));
    }
    Ok(())
}

fn handlers(subject: &mut Subject<'_, Function>) -> BTreeMap<HandlerName, topology::Handler> {
    let mut handlers = BTreeMap::new();
    for (index, handler) in subject.sourced.resource.spec.handlers.iter().flatten().enumerate() {
        let field = format!("spec.handlers[{index}]");
        let timeout = handler.timeout.as_ref();
        let timeout_ms =
            timeout.and_then(|timeout| subject.duration(&format!("{field}.timeout"), timeout, 1..=DEADLINE_MS_MAX));
        let compiled = topology::Handler { isolation: handler.isolation.into(), timeout_ms };
        let Some(name) = subject.parse::<HandlerName>(&format!("{field}.name"), &handler.name) else { continue };
        if handlers.insert(name, compiled).is_some() {
            let message = format!("handler {:?} is listed twice", handler.name);
            subject.problem(&codes::DUPLICATE_NAME, &format!("{field}.name"), message);
        }
    }
    handlers
}

fn states(subject: &mut Subject<'_, Function>) -> BTreeMap<StateName, topology::State> {
    let mut states = BTreeMap::new();
    for (index, state) in subject.sourced.resource.spec.states.iter().flatten().enumerate() {
        let field = format!("spec.states[{index}].name");
        let compiled = topology::State { kind: state.kind.into(), value_type: state.value_type.into() };
        let Some(name) = subject.parse::<StateName>(&field, &state.name) else { continue };
        if states.insert(name, compiled).is_some() {
            subject.problem(&codes::DUPLICATE_NAME, &field, format!("state {:?} is listed twice", state.name));
        }
    }
    states
}

fn callers(subject: &mut Subject<'_, Function>, callers: &[String], declared: &BTreeSet<String>) -> Vec<FunctionName> {
    let mut names = BTreeSet::new();
    for (index, caller) in callers.iter().enumerate() {
        let field = format!("spec.callers[{index}]");
        let Some(name) = subject.parse::<FunctionName>(&field, caller) else { continue };
        if !declared.contains(caller) {
            let known = declared.iter().map(String::as_str);
            let help = suggestion::advice(caller, known, codes::UNKNOWN_CALLER.help);
            subject.problem(&codes::UNKNOWN_CALLER, &field, format!("caller {caller:?} does not exist")).help = help;
        }
        if !names.insert(name) {
            subject.problem(&codes::DUPLICATE_NAME, &field, format!("caller {caller:?} is listed twice"));
        }
    }
    names.into_iter().collect()
}
