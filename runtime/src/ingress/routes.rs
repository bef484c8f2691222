//! Finds the route of an HTTP request: one matcher a method, built once for each topology.

use std::collections::HashMap;
use std::sync::Arc;

use tandem_model::expression::{self, Expression};
use tandem_model::ids::RouteName;
use tandem_model::topology::{Body, Route, Topology};
use tracing::warn;

use crate::problem::Problem;

/// Paths that begin so are ours; a route may not use them.
pub const RESERVED: [&str; 2] = ["/flows/", "/egress/"];

/// The routes of one topology, ready to match.
pub struct RouteTable {
    /// What it was built from.
    pub topology: Arc<Topology>,
    methods: HashMap<String, matchit::Router<Arc<Entry>>>,
}

/// One route, with what can be known about it before a request comes.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: RouteName,
    /// As declared.
    pub route: Route,
    /// The key expression, short-cut if it only names a variable of the path.
    pub key: KeySource,
    /// What its expressions look at.
    pub needs: Needs,
}

/// Where the key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// `request.path.<name>`: taken from the path as it is, without running an expression.
    PathVariable(String),
    /// Anything else.
    Expression(Expression),
}

/// Which parts of a request the expressions of a route look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// `request.query`
    pub query: bool,
    /// `request.headers`
    pub headers: bool,
    /// `request.body`
    pub body: bool,
}

/// What a method and path lead to.
pub enum Found {
    /// A route, and the decoded variables of its path.
    Route(Arc<Entry>, PathVariables),
    /// The path is known with other methods.
    OtherMethods(Vec<String>),
    /// Nothing.
    Nothing,
}

/// Name and decoded value of the variables of a path.
pub type PathVariables = Vec<(String, String)>;

impl RouteTable {
    /// Prepares all routes. Two that take the same path are a mistake that the compiler refuses; should one come
    /// anyway, the first by name is kept and the other is logged.
    pub fn build(topology: Arc<Topology>) -> Self {
        let mut methods: HashMap<String, matchit::Router<Arc<Entry>>> = HashMap::new();
        for (name, route) in &topology.routes {
            let entry = Arc::new(Entry::new(name.clone(), route.clone()));
            let method = route.http.method.to_ascii_uppercase();
            if let Err(error) = methods.entry(method).or_default().insert(route.http.path.as_str(), entry) {
                warn!(route = %name, %error, "route left out");
            }
        }
        Self { topology, methods }
    }

    /// The route for `method` and the raw, still encoded `path`.
    pub fn find(&self, method: &str, path: &str) -> Result<Found, Problem> {
        if let Some(found) = self.methods.get(method).and_then(|router| router.at(path).ok()) {
            let variables = found.params.iter().map(|(name, value)| Ok((name.to_owned(), decode(value)?)));
            let variables = variables.collect::<Result<_, Problem>>()?;
            return Ok(Found::Route(found.value.clone(), variables));
        }
        let mut others: Vec<String> = Vec::new();
        others.extend(self.methods.iter().filter(|(_, router)| router.at(path).is_ok()).map(|(name, _)| name.clone()));
        others.sort();
        Ok(if others.is_empty() { Found::Nothing } else { Found::OtherMethods(others) })
    }
}

impl Entry {
    /// Prepares one route.
    pub fn new(name: RouteName, route: Route) -> Self {
        let key = match path_variable(route.key.source()) {
            Some(variable) => KeySource::PathVariable(variable.to_owned()),
            None => KeySource::Expression(route.key.clone()),
        };
        let mut needs = Needs::default();
        for expression in [Some(&route.key), route.idempotency_key.as_ref()].into_iter().flatten() {
            needs = needs.and(Needs::of(expression.source()));
        }
        needs.body = needs.body && route.body == Body::Json;
        Self { name, route, key, needs }
    }

    /// The text of the key.
    pub fn key(
        &self,
        variables: &PathVariables,
        request: impl FnOnce() -> serde_json::Value,
    ) -> Result<String, expression::Error> {
        let value = match &self.key {
            KeySource::PathVariable(name) => variables.iter().find(|(variable, _)| variable == name),
            KeySource::Expression(expression) => return expression.evaluate(&request()),
        };
        match value {
            Some((_, value)) => Ok(value.clone()),
            // The expression words the error.
            None => self.route.key.evaluate(&request()),
        }
    }
}

impl Needs {
    const ALL: Self = Self { query: true, headers: true, body: true };

    /// What an expression looks at. Every use of `request` that is not a plain field access counts as everything, so
    /// that an unusual way to write it is slow, never wrong.
    fn of(source: &str) -> Self {
        let mut needs = Self::default();
        for (at, word) in source.match_indices("request") {
            let rest = source[at + word.len()..].trim_start();
            let field = rest.strip_prefix('.').map(|rest| leading_identifier(rest.trim_start()));
            match field {
                Some("path" | "method") => {}
                Some("query") => needs.query = true,
                Some("headers") => needs.headers = true,
                Some("body") => needs.body = true,
                _ => return Self::ALL,
            }
        }
        needs
    }

    fn and(self, other: Self) -> Self {
        Self { query: self.query || other.query, headers: self.headers || other.headers, body: self.body || other.body }
    }
}

fn leading_identifier(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

/// The variable, if `source` is exactly `request.path.<variable>`.
fn path_variable(source: &str) -> Option<&str> {
    let variable = source.trim().strip_prefix("request.path.")?;
    (!variable.is_empty() && leading_identifier(variable) == variable).then_some(variable)
}

/// Decodes `%41`. The result must be UTF-8.
pub fn decode(text: &str) -> Result<String, Problem> {
    if !text.contains('%') {
        return Ok(text.to_owned());
    }
    let broken = |what: &str| Problem::invalid("malformed-path", format!("path segment {text:?} {what}"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digit = |at: usize| tail.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        let (high, low) = digit(0).zip(digit(1)).ok_or_else(|| broken("has a % that is not followed by two digits"))?;
        bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| broken("is not UTF-8"))
}

#[cfg(test)]
pub(crate) mod tests {
    use tandem_model::topology::{HttpMatch, Reply};

    use super::*;

    /// A route to `order` / `place`.
    pub(crate) fn route(method: &str, path: &str, key: &str) -> Route {
        Route {
            http: HttpMatch { method: method.to_owned(), path: path.to_owned() },
            function: "order".parse().unwrap(),
            handler: "place".parse().unwrap(),
            key: Expression::parse(key).unwrap(),
            idempotency_key: None,
            reply: Reply::Wait,
            deadline_ms: None,
            body: Body::Json,
        }
    }

    fn table(routes: &[(&str, &str)]) -> RouteTable {
        let mut topology = Topology::default();
        for (at, (method, path)) in routes.iter().enumerate() {
            topology.routes.insert(format!("r{at}").parse().unwrap(), route(method, path, "request.path.id"));
        }
        RouteTable::build(Arc::new(topology))
    }

    #[test]
    fn finds_by_method_and_path() {
        let table = table(&[("POST", "/orders/{id}"), ("GET", "/orders/{id}"), ("GET", "/files/{*id}")]);
        let check = |method: &str, path: &str, expected: &str| {
            let found = match table.find(method, path).unwrap() {
                Found::Route(entry, variables) => format!("{} {}", entry.name, variables[0].1),
                Found::OtherMethods(methods) => methods.join(","),
                Found::Nothing => "nothing".to_owned(),
            };
            assert_eq!(found, expected, "{method} {path}");
        };
        check("POST", "/orders/o-1", "r0 o-1");
        check("GET", "/orders/a%2Fb%20c", "r1 a/b c");
        check("GET", "/files/a/b", "r2 a/b");
        check("DELETE", "/orders/o-1", "GET,POST");
        check("GET", "/orders", "nothing");
        check("GET", "/", "nothing");
    }

    #[test]
    fn bad_encoding_is_refused() {
        let table = table(&[("GET", "/orders/{id}")]);
        for bad in ["/orders/%", "/orders/%4", "/orders/%zz", "/orders/%ff"] {
            let Err(problem) = table.find("GET", bad) else { panic!("{bad} was taken") };
            assert_eq!(problem.reason, "malformed-path");
        }
        assert_eq!(decode("%C3%A4").unwrap(), "ä");
    }

    #[test]
    fn second_route_on_a_path_is_left_out() {
        let table = table(&[("GET", "/orders/{id}"), ("GET", "/orders/{other}")]);
        assert!(matches!(table.find("GET", "/orders/x"), Ok(Found::Route(entry, _)) if entry.name.as_str() == "r0"));
    }

    #[test]
    fn only_what_expressions_look_at_is_built() {
        let needs = |source: &str| {
            let Needs { query, headers, body } = Needs::of(source);
            [query, headers, body]
        };
        assert_eq!(needs("request.path.a + request.method"), [false, false, false]);
        assert_eq!(needs("request.query.a"), [true, false, false]);
        assert_eq!(needs("has(request.headers['x-a']) ? request . body.b : ''"), [false, true, true]);
        assert_eq!(needs("request['bo' + 'dy']"), [true, true, true]);
        assert_eq!(needs("[request].map(r, r.body)[0]"), [true, true, true]);
    }

    #[test]
    fn plain_path_key_needs_no_expression() {
        let key = |source: &str| Entry::new("r".parse().unwrap(), route("GET", "/{id}", source)).key;
        assert_eq!(key("request.path.id"), KeySource::PathVariable("id".into()));
        assert!(matches!(key("request.path.id + 'x'"), KeySource::Expression(_)));
        assert!(matches!(key("request.path.id.x"), KeySource::Expression(_)));
    }
}
