//! The routes of a topology.

use std::collections::BTreeMap;

use tandem_model::expression::Expression;
use tandem_model::ids::{FunctionName, HandlerName, RouteName};
use tandem_model::limits::DEADLINE_MS_MAX;
use tandem_model::topology::{self, HttpMatch};

use crate::codes;
use crate::compile::{FunctionIndex, Problems, Subject, expressions, paths};
use crate::load::Sourced;
use crate::resources::route::{Body, METHODS, Reply};
use crate::resources::{FunctionRoute, Kind};
use crate::suggestion;

/// What routes are checked against.
pub(super) struct Surroundings<'a> {
    pub(super) index: &'a FunctionIndex<'a>,
    pub(super) functions: &'a BTreeMap<FunctionName, topology::Function>,
    pub(super) default_deadline_ms: u64,
}

pub(super) fn compile(
    declared: &[Sourced<FunctionRoute>],
    surroundings: &Surroundings<'_>,
    problems: &mut Problems,
) -> BTreeMap<RouteName, topology::Route> {
    let mut routes = BTreeMap::new();
    let mut matchers = Matchers::default();
    for route in declared {
        let mut subject = Subject::new(Kind::Route, route, problems);
        matchers.insert(&mut subject);
        let compiled = one(&mut subject, surroundings);
        if let (Some(name), Some(compiled)) = (subject.name(), compiled) {
            subject.insert(&mut routes, name, compiled);
        }
    }
    routes
}

fn one(subject: &mut Subject<'_, FunctionRoute>, surroundings: &Surroundings<'_>) -> Option<topology::Route> {
    let spec = &subject.sourced.resource.spec;
    let http = http(subject);
    let variables = http.as_ref().and_then(|http| paths::variables(&http.path).ok());
    let key = expression(subject, "spec.key", &spec.key, variables.as_deref());
    let idempotency_key = spec.idempotency_key.as_ref();
    let idempotency_key =
        idempotency_key.map(|source| expression(subject, "spec.idempotencyKey", source, variables.as_deref()));
    let deadline = spec.deadline.as_ref();
    let deadline_ms = deadline.and_then(|deadline| subject.duration("spec.deadline", deadline, 1..=DEADLINE_MS_MAX));
    let (function, handler) = target(subject, surroundings, deadline_ms)?;
    Some(topology::Route {
        http: http?,
        function,
        handler,
        key: key?,
        idempotency_key: match idempotency_key {
            Some(parsed) => Some(parsed?),
            None => None,
        },
        reply: match spec.reply {
            Reply::Wait => topology::Reply::Wait,
            Reply::Accept => topology::Reply::Accept,
        },
        deadline_ms,
        body: match spec.body {
            Body::Json => topology::Body::Json,
            Body::Raw => topology::Body::Raw,
        },
    })
}

fn http(subject: &mut Subject<'_, FunctionRoute>) -> Option<HttpMatch> {
    let http = &subject.sourced.resource.spec.http;
    let is_method = METHODS.contains(&http.method.as_str());
    if !is_method {
        let help = suggestion::nearest(&http.method, METHODS).map(|method| format!("did you mean {method:?}?"));
        let problem = subject.problem(
            &codes::INVALID_METHOD,
            "spec.http.method",
            format!("method {:?} is not allowed", http.method),
        );
        problem.help = help.unwrap_or_else(|| problem.help.clone());
    }
    match paths::variables(&http.path) {
        Err((code, message)) => {
            subject.problem(code, "spec.http.path", message);
            None
        }
        Ok(_) => is_method.then(|| HttpMatch { method: http.method.clone(), path: http.path.clone() }),
    }
}

/// Compiles an expression and checks that what it reads can be there. `variables` are those of the path, if it is valid.
fn expression(
    subject: &mut Subject<'_, FunctionRoute>,
    field: &str,
    source: &str,
    variables: Option<&[String]>,
) -> Option<Expression> {
    let parsed = match Expression::parse(source) {
        Ok(parsed) => parsed,
        Err(tandem_model::expression::Error::TooComplex(message)) => {
            subject.problem(&codes::COMPLEX_EXPRESSION, field, message);
            return None;
        }
        Err(error) => {
            subject.problem(&codes::INVALID_EXPRESSION, field, error.to_string());
            return None;
        }
    };
    let spec = &subject.sourced.resource.spec;
    let reads = expressions::reads(source);
    for unknown in reads.fields.iter().filter(|name| !expressions::REQUEST_FIELDS.contains(&name.as_str())) {
        let help = suggestion::advice(unknown, expressions::REQUEST_FIELDS, codes::INVALID_EXPRESSION.help);
        subject.problem(&codes::INVALID_EXPRESSION, field, format!("request has no field {unknown:?}")).help = help;
    }
    for unknown in reads.path_variables.iter().filter(|name| variables.is_some_and(|known| !known.contains(name))) {
        let known = variables.into_iter().flatten().map(String::as_str);
        let help = suggestion::advice(unknown, known, codes::UNKNOWN_PATH_VARIABLE.help);
        let message = format!("path {:?} has no variable {unknown:?}", spec.http.path);
        subject.problem(&codes::UNKNOWN_PATH_VARIABLE, field, message).help = help;
    }
    if reads.fields.contains("body") {
        if spec.body == Body::Raw {
            subject.problem(&codes::NO_BODY_TO_READ, field, "request.body does not exist, because body is Raw");
        } else if matches!(spec.http.method.as_str(), "GET" | "DELETE") {
            let message = format!("request.body is used, but {} requests seldom have one", spec.http.method);
            subject.problem(&codes::BODY_OF_GET, field, message);
        }
    }
    Some(parsed)
}

fn target(
    subject: &mut Subject<'_, FunctionRoute>,
    surroundings: &Surroundings<'_>,
    deadline_ms: Option<u64>,
) -> Option<(FunctionName, HandlerName)> {
    let to = &subject.sourced.resource.spec.to;
    let function = subject.parse::<FunctionName>("spec.to.function", &to.function);
    let handler = subject.parse::<HandlerName>("spec.to.handler", &to.handler);
    let (function, handler) = (function?, handler?);
    let declared = &surroundings.index.declared;
    if !declared.contains(function.as_str()) {
        let known = declared.iter().map(String::as_str);
        let help = suggestion::advice(&to.function, known, codes::UNKNOWN_FUNCTION.help);
        let message = format!("function {:?} does not exist", to.function);
        subject.problem(&codes::UNKNOWN_FUNCTION, "spec.to.function", message).help = help;
        return None;
    }
    check_handler(subject, surroundings, &function, &handler, deadline_ms);
    Some((function, handler))
}

/// Checks the route against the handler, if the function's resource pins its handlers down.
fn check_handler(
    subject: &mut Subject<'_, FunctionRoute>,
    surroundings: &Surroundings<'_>,
    function: &FunctionName,
    handler: &HandlerName,
    deadline_ms: Option<u64>,
) {
    let compiled = surroundings.functions.get(function);
    let Some(handlers) = compiled.and_then(|compiled| compiled.handlers.as_ref()) else { return };
    let Some(pinned) = handlers.get(handler) else {
        let damaged = surroundings.index.get(function).is_some_and(|function| function.damaged);
        if !damaged {
            let known = handlers.keys().map(HandlerName::as_str);
            let help = suggestion::advice(handler.as_str(), known, codes::UNKNOWN_HANDLER.help);
            let message = format!("function {:?} has no handler {:?}", function.as_str(), handler.as_str());
            subject.problem(&codes::UNKNOWN_HANDLER, "spec.to.handler", message).help = help;
        }
        return;
    };
    let spec = &subject.sourced.resource.spec;
    if spec.reply == Reply::Accept && pinned.isolation == topology::Isolation::ReadOnly {
        let message = format!("reply is Accept, but handler {handler} only reads");
        subject.problem(&codes::ACCEPT_READ_ONLY, "spec.reply", message);
    }
    let effective_ms = deadline_ms.unwrap_or(surroundings.default_deadline_ms);
    if let Some(timeout_ms) = pinned.timeout_ms.filter(|timeout_ms| *timeout_ms > effective_ms) {
        let message = format!(
            "handler {handler} may take {}, but the flow ends after {}",
            crate::resources::duration::Duration::from_milliseconds(timeout_ms),
            crate::resources::duration::Duration::from_milliseconds(effective_ms),
        );
        subject.problem(&codes::TIMEOUT_OVER_DEADLINE, "spec.deadline", message);
    }
}

/// One matcher a method, as the runtime has them; each value is the name of the route.
#[derive(Default)]
struct Matchers {
    by_method: BTreeMap<String, matchit::Router<String>>,
}

impl Matchers {
    /// Reports patterns that match what an earlier route matches.
    fn insert(&mut self, subject: &mut Subject<'_, FunctionRoute>) {
        let http = &subject.sourced.resource.spec.http;
        if paths::variables(&http.path).is_err() {
            return;
        }
        let matcher = self.by_method.entry(http.method.clone()).or_default();
        match matcher.insert(http.path.clone(), subject.object.name.clone()) {
            Ok(()) => {}
            Err(matchit::InsertError::Conflict { with }) => {
                let other = matcher.at(&with).map(|found| found.value.clone()).unwrap_or_default();
                let message = format!("{} {} takes what route {other} ({with}) takes", http.method, http.path);
                subject.problem(&codes::AMBIGUOUS_ROUTE, "spec.http.path", message);
            }
            Err(error) => {
                let message = format!("path {:?} is not valid: {error}", http.path);
                subject.problem(&codes::INVALID_PATH, "spec.http.path", message);
            }
        }
    }
}
