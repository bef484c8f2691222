//! Turns an HTTP request that matched a route into a [`Request`]: key, request id, payload, deadline. No I/O.

use std::time::Duration;

use axum::extract::Query;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use serde_json::{Map, Value};
use tandem_model::ids::{Instance, Key, Payload, RequestId};
use tandem_model::request::Request;
use tandem_model::topology::{Body, Topology};

use super::headers;
use super::routes::{Entry, PathVariables};
use crate::problem::Problem;

/// Media type of a raw body whose sender names none.
const OCTET_STREAM: &str = "application/octet-stream";
/// What command line clients send when they are not told otherwise.
const FORM: &str = "application/x-www-form-urlencoded";

/// The request that `parts` and `body` stand for on a route.
pub fn request(
    topology: &Topology,
    entry: &Entry,
    variables: &PathVariables,
    parts: &Parts,
    body: Bytes,
) -> Result<Request, Problem> {
    let (payload, json) = payload(entry.route.body, entry.needs.body, parts, body)?;
    let seen = Seen { entry, variables, parts, json };
    let key = entry.key(variables, || seen.object());
    let key = key.map_err(|error| expression_failed("key-expression", &error.to_string()))?;
    let key: Key = key.parse().map_err(|error| {
        let source = entry.route.key.source();
        expression_failed("key-expression", &format!("the result of {source:?} is no key: {error}"))
    })?;
    let id = request_id(&seen)?;
    let instance = Instance::new(entry.route.function.clone(), key);
    let deadline_ms = entry.route.deadline_ms.unwrap_or(topology.limits.deadline_ms);
    let deadline = deadline(parts, Duration::from_millis(deadline_ms))?;
    let mut request = Request::new(topology.slots, id, instance, entry.route.handler.clone(), payload, deadline);
    request.as_of = headers::as_of(&parts.headers)?;
    request.traceparent = headers::traceparent(&parts.headers);
    Ok(request)
}

/// The declared deadline, or a shorter one if the client asks for it.
pub fn deadline(parts: &Parts, declared: Duration) -> Result<Duration, Problem> {
    Ok(headers::deadline(&parts.headers)?.map_or(declared, |asked| asked.min(declared)))
}

/// The client's id, or a new one that sorts by time.
pub fn request_id_or_new(id: Option<String>) -> Result<RequestId, Problem> {
    let id = id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    id.parse().map_err(|error: tandem_model::ids::InvalidName| Problem::invalid("malformed-header", error.to_string()))
}

/// What expressions may look at.
struct Seen<'a> {
    entry: &'a Entry,
    variables: &'a PathVariables,
    parts: &'a Parts,
    json: Option<Value>,
}

impl Seen<'_> {
    /// The CEL variable `request`, with no more in it than the route's expressions name.
    fn object(&self) -> Value {
        let needs = self.entry.needs;
        let path = self.variables.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
        let mut object = Map::new();
        object.insert("path".to_owned(), Value::Object(path.collect()));
        object.insert("method".to_owned(), Value::from(self.parts.method.as_str()));
        if needs.query {
            object.insert("query".to_owned(), Value::Object(self.query()));
        }
        if needs.headers {
            object.insert("headers".to_owned(), Value::Object(self.headers()));
        }
        if let Some(body) = &self.json {
            object.insert("body".to_owned(), body.clone());
        }
        Value::Object(object)
    }

    /// The first value of each name. A query that is not form-encoded has none.
    fn query(&self) -> Map<String, Value> {
        let mut query = Map::new();
        if let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(&self.parts.uri) {
            for (name, value) in pairs {
                query.entry(name).or_insert(Value::String(value));
            }
        }
        query
    }

    /// The first value of each name, in lower case, as text.
    fn headers(&self) -> Map<String, Value> {
        let mut headers = Map::new();
        for (name, value) in &self.parts.headers {
            let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
            headers.entry(name.as_str()).or_insert(Value::String(text));
        }
        headers
    }
}

fn request_id(seen: &Seen<'_>) -> Result<RequestId, Problem> {
    let Some(expression) = &seen.entry.route.idempotency_key else {
        return request_id_or_new(headers::idempotency_key(&seen.parts.headers)?);
    };
    let failed = |error: String| expression_failed("idempotency-expression", &error);
    let id = expression.evaluate(&seen.object()).map_err(|error| failed(error.to_string()))?;
    id.parse().map_err(|error: tandem_model::ids::InvalidName| {
        failed(format!("the result of {:?} is no request id: {error}", expression.source()))
    })
}

fn expression_failed(reason: &str, error: &str) -> Problem {
    Problem::invalid(reason, error)
}

/// The payload, and the parsed body if an expression needs it.
fn payload(kind: Body, needed: bool, parts: &Parts, body: Bytes) -> Result<(Payload, Option<Value>), Problem> {
    let content_type = headers::single(&parts.headers, &CONTENT_TYPE)?;
    match kind {
        Body::Raw => {
            let content_type = content_type.unwrap_or(OCTET_STREAM).to_owned();
            Ok((Payload { content_type, bytes: body }, None))
        }
        Body::Json => {
            let body = if body.is_empty() { Bytes::from_static(b"null") } else { body };
            let declared = content_type.map_or(Declared::Json, Declared::of);
            let json = match declared {
                Declared::Other => Err(unsupported(content_type)),
                Declared::Json => json(&body, needed),
                Declared::Form => json(&body, needed).map_err(|_| unsupported(content_type)),
            };
            Ok((Payload::json(body), json?))
        }
    }
}

/// A JSON payload from a body, as on a route that takes JSON.
pub fn json_payload(parts: &Parts, body: Bytes) -> Result<Payload, Problem> {
    payload(Body::Json, false, parts, body).map(|(payload, _)| payload)
}

/// What a sender says about a body.
enum Declared {
    Json,
    /// The default of curl: taken if the body is JSON nevertheless, so that `curl -d @order.json` simply works.
    Form,
    Other,
}

impl Declared {
    fn of(content_type: &str) -> Self {
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if essence == "application/json" || essence == "text/json" || essence.ends_with("+json") {
            Self::Json
        } else if essence == FORM {
            Self::Form
        } else {
            Self::Other
        }
    }
}

fn unsupported(content_type: Option<&str>) -> Problem {
    let found = content_type.unwrap_or_default();
    let detail = format!("this route takes application/json, not {found:?}");
    let status = http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Problem::new(status, "Unsupported media type", "unsupported-media-type", detail)
        .with_outcome(tandem_model::outcome::Outcome::Invalid)
}

/// Checks that `body` is JSON; parses it only if somebody looks inside.
pub fn json(body: &[u8], needed: bool) -> Result<Option<Value>, Problem> {
    let text = std::str::from_utf8(body)
        .map_err(|error| malformed_json(&format!("not UTF-8 from byte {} on", error.valid_up_to())))?;
    let parsed = if needed {
        serde_json::from_str(text).map(Some)
    } else {
        serde_json::from_str::<serde::de::IgnoredAny>(text).map(|_| None)
    };
    parsed.map_err(|error| malformed_json(&error.to_string()))
}

fn malformed_json(what: &str) -> Problem {
    Problem::invalid("malformed-json", format!("the body is not JSON: {what}"))
}

#[cfg(test)]
mod tests {
    use tandem_model::expression::Expression;

    use super::super::routes::tests::route;
    use super::*;

    struct Case {
        route: tandem_model::topology::Route,
        headers: Vec<(&'static str, &'static str)>,
        body: &'static str,
    }

    impl Case {
        fn new(key: &str, body: &'static str) -> Self {
            Self { route: route("POST", "/orders/{id}", key), headers: Vec::new(), body }
        }

        fn header(mut self, name: &'static str, value: &'static str) -> Self {
            self.headers.push((name, value));
            self
        }

        fn run(self) -> Result<Request, Problem> {
            let mut http = http::Request::post("/orders/o-1?a=1&a=2&b=x%20y");
            for (name, value) in self.headers {
                http = http.header(name, value);
            }
            let (parts, ()) = http.body(()).expect("a test sends valid headers").into_parts();
            let entry = Entry::new("place".parse().expect("a valid name"), self.route);
            let variables = vec![("id".to_owned(), "o-1".to_owned())];
            request(&Topology::default(), &entry, &variables, &parts, Bytes::from_static(self.body.as_bytes()))
        }
    }

    fn refused(case: Case) -> (u16, String, String) {
        let problem = case.run().unwrap_err();
        (problem.status.as_u16(), problem.reason, problem.detail)
    }

    #[test]
    fn key_comes_from_any_part_of_the_request() {
        let key = |source: &str| {
            let case = Case::new(source, r#"{"n": 7, "deep": {"name": "x"}}"#).header("X-Tenant", "t-1");
            case.run().unwrap().instance.key.to_string()
        };
        assert_eq!(key("request.path.id"), "o-1");
        assert_eq!(key("request.query.a + request.query.b"), "1x y");
        assert_eq!(key("request.headers['x-tenant'] + '/' + request.body.deep.name"), "t-1/x");
        assert_eq!(key("request.method + string(request.body.n)"), "POST7");
        assert_eq!(key("request['body'].n"), "7");
    }

    #[test]
    fn key_that_cannot_be_had_names_the_expression() {
        let (status, reason, detail) = refused(Case::new("request.body.orderId", "{}"));
        assert_eq!((status, reason.as_str()), (400, "key-expression"));
        assert!(detail.contains("request.body.orderId"), "{detail}");
        let (status, reason, detail) = refused(Case::new("request.body.id", r#"{"id": ""}"#));
        assert_eq!((status, reason.as_str()), (400, "key-expression"));
        assert!(detail.contains("request.body.id") && detail.contains("1 to"), "{detail}");
    }

    #[test]
    fn request_id_comes_from_expression_header_or_is_made() {
        let mut case = Case::new("request.path.id", r#"{"id": "from-body"}"#).header("idempotency-key", "from-header");
        assert_eq!(case.run().unwrap().id.as_str(), "from-header");
        case = Case::new("request.path.id", r#"{"id": "from-body"}"#).header("idempotency-key", "from-header");
        case.route.idempotency_key = Some(Expression::parse("request.body.id").unwrap());
        assert_eq!(case.run().unwrap().id.as_str(), "from-body");
        let made = || Case::new("request.path.id", "").run().unwrap().id;
        assert_ne!(made(), made());
        let mut case = Case::new("request.path.id", "{}");
        case.route.idempotency_key = Some(Expression::parse("request.body.id").unwrap());
        assert_eq!(refused(case).1, "idempotency-expression");
    }

    #[test]
    fn json_body_is_checked() {
        assert_eq!(Case::new("request.path.id", "").run().unwrap().payload, Payload::json("null"));
        let (status, reason, detail) = refused(Case::new("request.path.id", "{\"a\": 1,\n oops}"));
        assert_eq!((status, reason.as_str()), (400, "malformed-json"));
        assert!(detail.contains("line 2 column 2"), "{detail}");
        assert_eq!(json(b"\"\xff\"", false).unwrap_err().reason, "malformed-json");
        assert_eq!(refused(Case::new("request.path.id", "{} {}")).1, "malformed-json");
    }

    #[test]
    fn media_type_must_be_json_if_there_is_one() {
        let run = |content_type, body| Case::new("request.path.id", body).header("content-type", content_type);
        assert!(run("application/json; charset=utf-8", "{}").run().is_ok());
        assert!(run("application/vnd.shop.order+json", "{}").run().is_ok());
        assert_eq!(refused(run("text/plain", "{}")).0, 415);
        assert!(run(FORM, "{}").run().is_ok(), "what curl says about -d @order.json");
        assert_eq!(refused(run(FORM, "a=1&b=2")).0, 415);
    }

    #[test]
    fn raw_body_is_handed_over_as_it_is() {
        let mut case = Case::new("request.path.id", "\u{1}not json").header("content-type", "text/plain");
        case.route.body = Body::Raw;
        let payload = case.run().unwrap().payload;
        assert_eq!((payload.content_type.as_str(), &payload.bytes[..]), ("text/plain", &b"\x01not json"[..]));
    }

    #[test]
    fn client_can_only_shorten_the_deadline() {
        let deadline = |value| {
            let mut case = Case::new("request.path.id", "").header("tandem-deadline", value);
            case.route.deadline_ms = Some(5_000);
            case.run().unwrap().deadline
        };
        assert_eq!(deadline("500ms"), Duration::from_millis(500));
        assert_eq!(deadline("1m"), Duration::from_secs(5));
    }

    #[test]
    fn broken_traceparent_is_ignored() {
        let traceparent =
            |value| Case::new("request.path.id", "").header("traceparent", value).run().unwrap().traceparent;
        let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(traceparent(valid).as_deref(), Some(valid));
        assert_eq!(traceparent("00-zz-b7ad6b7169203331-01"), None);
    }
}
