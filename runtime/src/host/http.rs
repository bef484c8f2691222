//! The plain HTTP profile: a function behind any web framework. One POST a step, JSON both ways.
//!
//! The function gets everything it has been told so far and answers with a result, a rejection, or what it needs next;
//! then it is asked again with the answers added. It keeps nothing between steps but what it puts into `memo`. The
//! contract is in `docs/src/reference/http-profile.md`.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tandem_model::ids::Payload;
use tandem_proto::MESSAGE_BYTES_MAX;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Answer, EVENTS_QUEUED_MAX, Effect, Event, Finished, Invocation, ReadWhat, Rejection};
use crate::tasks::{self, TaskKind};

/// Entry invocations at one time on one HTTP worker.
pub(super) const CREDIT: u32 = 256;
/// Steps of one invocation.
const STEPS_MAX: usize = 1_000;
/// Idle connections kept to one worker.
const IDLE_CONNECTIONS_MAX: usize = 64;

type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// A worker that takes POSTs.
#[derive(Clone, Debug)]
pub(super) struct HttpWorker {
    client: HttpClient,
    uri: Uri,
}

/// What a function may answer. Unknown fields are refused, so that a typing mistake does not lose an effect.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Reply {
    result: Option<Value>,
    reject: Option<Reject>,
    calls: Vec<CallReply>,
    reads: Vec<ReadReply>,
    memo: Value,
    writes: Map<String, Value>,
    entries: Map<String, Value>,
    sends: Vec<SendReply>,
    emits: Vec<EmitReply>,
}

impl Reply {
    /// Whether it has what belongs to the last step: it would be lost in another.
    fn has_end(&self) -> bool {
        let has_effects = !(self.writes.is_empty() && self.entries.is_empty());
        self.result.is_some() || has_effects || !(self.sends.is_empty() && self.emits.is_empty())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reject {
    reason: String,
    #[serde(default)]
    detail: String,
    /// Who said no first, when a callee's rejection is passed on.
    #[serde(default)]
    function: String,
    #[serde(default)]
    key: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CallReply {
    id: String,
    function: String,
    key: String,
    handler: String,
    #[serde(default)]
    payload: Value,
    #[serde(default)]
    spawn: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadReply {
    id: String,
    state: String,
    entry: Option<String>,
    from: Option<String>,
    to: Option<String>,
    #[serde(default)]
    limit: usize,
    #[serde(default)]
    reverse: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SendReply {
    function: String,
    key: String,
    handler: String,
    #[serde(default)]
    payload: Value,
    #[serde(default)]
    delay_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EmitReply {
    egress: String,
    payload: Value,
}

/// An invocation over all its steps.
struct Steps {
    worker: HttpWorker,
    invocation: Invocation,
    events: mpsc::Sender<Event>,
    answers: mpsc::Receiver<Answer>,
    results: Map<String, Value>,
    memo: Value,
    /// Ids the function gave to its calls and reads; the position is the number the flow knows them by.
    ids: Vec<String>,
}

impl HttpWorker {
    /// A worker at `url`. Nothing is sent yet.
    pub(super) fn new(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url:?} is not a URL: {error}"))?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_max_idle_per_host(IDLE_CONNECTIONS_MAX).pool_idle_timeout(Duration::from_secs(30));
        Ok(Self { client: builder.build(connector), uri })
    }

    /// Starts an invocation; dropping the guard ends it.
    pub(super) fn start(&self, invocation: Invocation) -> (mpsc::Sender<Answer>, mpsc::Receiver<Event>, DropGuard) {
        let (events, receiver) = mpsc::channel(EVENTS_QUEUED_MAX);
        let (sender, answers) = mpsc::channel(EVENTS_QUEUED_MAX);
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let (results, memo, ids) = (Map::new(), Value::Null, Vec::new());
        let steps = Steps { worker: self.clone(), invocation, events, answers, results, memo, ids };
        tasks::spawn(TaskKind::HttpInvocation, async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = steps.run() => {}
            }
        });
        (sender, receiver, guard)
    }
}

impl Steps {
    async fn run(mut self) {
        let last = self.run_steps().await.unwrap_or_else(|last| last);
        // A flow that ended in the meantime does not listen any more.
        let _ = self.events.send(last).await;
    }

    async fn run_steps(&mut self) -> Result<Event, Event> {
        for _ in 0..STEPS_MAX {
            let reply = self.post().await?;
            if let Some(reject) = reply.reject {
                let origin = (!reject.function.is_empty()).then_some((reject.function, reject.key));
                let rejection = Rejection { reason: reject.reason, detail: reject.detail, origin };
                return Ok(Event::Finished(Finished::Rejection(rejection)));
            }
            if reply.calls.is_empty() && reply.reads.is_empty() {
                return finished(reply);
            }
            if reply.has_end() {
                return Err(failure("a step that asks for calls or reads must not have a result or effects", false));
            }
            self.ask(reply).await?;
        }
        Err(failure(&format!("the function did not end within {STEPS_MAX} steps"), false))
    }

    async fn post(&self) -> Result<Reply, Event> {
        let body = serde_json::to_vec(&self.request()).map_err(|error| failure(&error.to_string(), false))?;
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.worker.uri.clone();
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(traceparent) = HeaderValue::from_str(&self.invocation.traceparent)
            && !traceparent.is_empty()
        {
            headers.insert("traceparent", traceparent);
        }
        let lost = |error: &dyn std::fmt::Display| Event::Lost(format!("no answer from {}: {error}", self.worker.uri));
        let response = self.worker.client.request(request).await.map_err(|error| lost(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MESSAGE_BYTES_MAX).collect().await;
        let body = body.map_err(|error| lost(&error))?.to_bytes();
        if status != StatusCode::OK {
            let text: String = String::from_utf8_lossy(&body).chars().take(200).collect();
            return Err(failure(&format!("it answered {status}: {text}"), status.is_server_error()));
        }
        // serde would take a list for the fields in their order.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(failure("its answer cannot be read: it is not a JSON object", false));
        }
        serde_json::from_slice(&body).map_err(|error| failure(&format!("its answer cannot be read: {error}"), false))
    }

    fn request(&self) -> Value {
        let invocation = &self.invocation;
        let states: Map<String, Value> =
            invocation.states.iter().map(|(name, value)| (name.to_string(), stored_json(value.as_ref()))).collect();
        json!({
            "flow": invocation.flow,
            "function": invocation.instance.function.as_str(),
            "key": invocation.instance.key.as_str(),
            "handler": invocation.handler.as_str(),
            "attempt": invocation.attempt,
            "deadlineMs": u64::try_from(invocation.deadline.as_millis()).unwrap_or(u64::MAX),
            "contentType": invocation.payload.content_type,
            "payload": stored_json(Some(&invocation.payload.bytes)),
            "readOnly": invocation.read_only,
            "states": states,
            "results": self.results,
            "memo": self.memo,
        })
    }

    /// Passes on what the function needs, and waits for all of it.
    async fn ask(&mut self, reply: Reply) -> Result<(), Event> {
        self.memo = reply.memo;
        let mut waiting = 0_usize;
        for call in reply.calls {
            let number = self.number(call.id)?;
            let payload = json_bytes(&call.payload);
            let event = Event::Call {
                call: number,
                function: call.function,
                key: call.key,
                handler: call.handler,
                payload,
                spawn: call.spawn,
            };
            if call.spawn {
                self.results.insert(self.id_of(number), json!({"spawned": true}));
            } else {
                waiting += 1;
            }
            self.tell(event).await?;
        }
        for read in reply.reads {
            let number = self.number(read.id)?;
            let bytes = |text: Option<String>| text.map(Bytes::from);
            let what = match read.entry {
                Some(entry) => ReadWhat::Entry(entry.into()),
                None => ReadWhat::Scan {
                    from: bytes(read.from),
                    to: bytes(read.to),
                    limit: read.limit,
                    reverse: read.reverse,
                },
            };
            waiting += 1;
            self.tell(Event::Read { read: number, state: read.state, what }).await?;
        }
        for _ in 0..waiting {
            let answer = self.answers.recv().await.ok_or_else(|| Event::Lost("the flow ended".to_owned()))?;
            self.note(answer);
        }
        Ok(())
    }

    async fn tell(&self, event: Event) -> Result<(), Event> {
        self.events.send(event).await.map_err(|_| Event::Lost("the flow ended".to_owned()))
    }

    fn number(&mut self, id: String) -> Result<u64, Event> {
        if self.ids.contains(&id) {
            return Err(failure(&format!("it used the id {id:?} twice in one invocation"), false));
        }
        self.ids.push(id);
        Ok(self.ids.len() as u64 - 1)
    }

    fn id_of(&self, number: u64) -> String {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        self.ids.get(index).cloned().unwrap_or_default()
    }

    fn note(&mut self, answer: Answer) {
        let (number, result) = match answer {
            Answer::CallDone { call, result: Ok(value) } => (call, json!({"value": stored_json(Some(&value))})),
            Answer::CallDone { call, result: Err(rejection) } => {
                let (function, key) = rejection.origin.unwrap_or_default();
                let (reason, detail) = (rejection.reason, rejection.detail);
                let no = json!({"reason": reason, "detail": detail, "function": function, "key": key});
                (call, json!({"reject": no}))
            }
            Answer::ReadDone { read, entries, more } => {
                let entry = |(key, value): &(Bytes, Bytes)| json!({"key": String::from_utf8_lossy(key), "value": stored_json(Some(value))});
                let entries: Vec<Value> = entries.iter().map(entry).collect();
                (read, json!({"entries": entries, "more": more}))
            }
        };
        self.results.insert(self.id_of(number), result);
    }
}

fn finished(reply: Reply) -> Result<Event, Event> {
    let mut effects = Vec::new();
    for (state, value) in reply.writes {
        effects.push(Effect::Write { state, entry: None, value: written(&value) });
    }
    for (state, entries) in reply.entries {
        let Value::Object(entries) = entries else {
            return Err(failure(&format!("entries of {state:?} must be an object of entry keys"), false));
        };
        for (key, value) in entries {
            effects.push(Effect::Write { state: state.clone(), entry: Some(key.into()), value: written(&value) });
        }
    }
    for send in reply.sends {
        let payload = json_bytes(&send.payload);
        let (function, key, handler) = (send.function, send.key, send.handler);
        effects.push(Effect::Send { function, key, handler, payload, delay_ms: send.delay_ms });
    }
    for emit in reply.emits {
        effects.push(Effect::Emit { egress: emit.egress, payload: json_bytes(&emit.payload) });
    }
    let payload = Payload::json(json_bytes(&reply.result.unwrap_or(Value::Null)));
    Ok(Event::Finished(Finished::Value { payload, effects }))
}

/// JSON as it is; bytes that are not JSON as `{"base64": …}` would be ambiguous, so they are given as a text.
fn stored_json(bytes: Option<&Bytes>) -> Value {
    let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else { return Value::Null };
    serde_json::from_slice(bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}

fn json_bytes(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

/// `null` deletes.
fn written(value: &Value) -> Option<Bytes> {
    (!value.is_null()).then(|| json_bytes(value))
}

fn failure(message: &str, retryable: bool) -> Event {
    Event::Finished(Finished::Failure { message: message.to_owned(), retryable })
}
