//! An API server on this machine: lists, logs, and ports of pods that lead to admin ports, which are here, too.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server as handshake;

/// The protocol of forwarded ports.
const PROTOCOL: &str = "v4.channel.k8s.io";
const ADMIN_PORT: u16 = 9090;

type Body = BoxBody<Bytes, io::Error>;

/// What an admin port answers: by `GET /flows`, a status, an outcome, and a body.
pub(crate) type Answers = BTreeMap<String, (u16, Option<&'static str>, Value)>;

#[derive(Default)]
pub(crate) struct State {
    /// By resource: `functions`, `pods`.
    pub(crate) objects: BTreeMap<&'static str, Vec<Value>>,
    /// Answers that come first, by the end of the path: `/functions`, `/portforward`.
    pub(crate) faults: BTreeMap<&'static str, u16>,
    /// By pod. One that is not here has nobody at its port.
    pub(crate) admins: BTreeMap<String, SocketAddr>,
    /// By pod.
    pub(crate) logs: BTreeMap<String, String>,
    /// Pods whose log breaks off where it ends, the next time that it is asked for.
    pub(crate) breaking: BTreeSet<String>,
    /// Paths that were asked for, with their queries.
    pub(crate) asked: Vec<String>,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let this = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(this.clone().serve(stream));
            }
        });
        server
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Makes an object, as the API server would show it.
    pub(crate) fn add(&self, resource: &'static str, object: Value) {
        self.lock().objects.entry(resource).or_default().push(object);
    }

    /// Gives a pod an admin port with these answers.
    pub(crate) async fn admin(&self, pod: &str, answers: Answers) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.lock().admins.insert(pod.to_owned(), listener.local_addr().unwrap());
        let answers = Arc::new(answers);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answers = Arc::clone(&answers);
                let service = service_fn(move |request| answer_admin(Arc::clone(&answers), request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
    }

    async fn serve(self, stream: TcpStream) {
        let path = peek_path(&stream).await;
        let is_refused = self.lock().faults.keys().any(|end| path.contains(end));
        if path.contains("/portforward") && !is_refused {
            self.lock().asked.push(path.clone());
            return self.forward(stream, &path).await;
        }
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = self.answer(&request.uri().to_string());
            async move { Ok::<_, Infallible>(answer) }
        });
        // One request for each connection, so that the first bytes say what it is.
        let mut connection = hyper::server::conn::http1::Builder::new();
        let _ = connection.keep_alive(false).serve_connection(TokioIo::new(stream), service).await;
    }

    fn answer(&self, uri: &str) -> Response<Body> {
        let mut state = self.lock();
        state.asked.push(uri.to_owned());
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let fault = state.faults.iter().find(|(end, _)| path.ends_with(**end));
        if let Some((_, code)) = fault {
            let body = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "refused by the test",
                "reason": "Test", "code": code,
            });
            return respond(*code, body.to_string());
        }
        let last = path.rsplit('/').next().unwrap_or_default();
        if last == "log" {
            let pod = path.rsplit('/').nth(1).unwrap_or_default();
            let log = state.logs.get(pod).cloned().unwrap_or_default();
            return if state.breaking.remove(pod) { broken(log) } else { respond(200, log) };
        }
        let known = ["functionruntimes", "functions", "functionroutes", "functionegresses", "pods"];
        if !known.contains(&last) {
            return respond(404, "404 page not found".to_owned());
        }
        let namespace = path.rsplit('/').nth(1).unwrap_or_default();
        let labels = labels(query);
        let found = state.objects.get(last).into_iter().flatten().filter(|object| {
            let has = |(key, value): &(String, String)| object["metadata"]["labels"][key.as_str()] == value.as_str();
            object["metadata"]["namespace"] == namespace && labels.iter().all(has)
        });
        let items: Vec<Value> = found.cloned().collect();
        respond(200, json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items}).to_string())
    }

    /// Speaks the protocol of forwarded ports, as a kubelet does.
    async fn forward(&self, stream: TcpStream, path: &str) {
        #[allow(clippy::result_large_err, reason = "the type of the callback is not ours")]
        let choose = |_: &handshake::Request, mut response: handshake::Response| {
            response.headers_mut().insert("sec-websocket-protocol", PROTOCOL.parse().unwrap());
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(stream, choose).await.unwrap();
        for channel in [0, 1] {
            let [low, high] = ADMIN_PORT.to_le_bytes();
            socket.send(Message::binary(vec![channel, low, high])).await.unwrap();
        }
        let pod = path.split("/pods/").nth(1).unwrap().split('/').next().unwrap();
        let admin = self.lock().admins.get(pod).copied();
        let Some(admin) = admin else {
            let text = [&[1_u8][..], b"error forwarding port 9090: connection refused"].concat();
            socket.send(Message::binary(text)).await.unwrap();
            let _ = socket.close(None).await;
            return;
        };
        let mut target = TcpStream::connect(admin).await.unwrap();
        let mut bytes = vec![0; 4096];
        loop {
            tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Binary(data))) if data.first() == Some(&0) => target.write_all(&data[1..]).await.unwrap(),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                },
                count = target.read(&mut bytes) => {
                    let count = count.unwrap_or(0);
                    if count == 0 {
                        let _ = socket.close(None).await;
                        return;
                    }
                    if socket.send(Message::binary([&[0], &bytes[..count]].concat())).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// `/api/v1/...` of a request that is left to be read.
async fn peek_path(stream: &TcpStream) -> String {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let count = stream.peek(&mut bytes).await.unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes[..count]);
        if count == 0 || text.contains("\r\n\r\n") {
            return text.split(' ').nth(1).unwrap_or_default().to_owned();
        }
        tokio::task::yield_now().await;
    }
}

fn labels(query: &str) -> Vec<(String, String)> {
    let decoded = query.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/");
    let selector = decoded.split('&').find_map(|pair| pair.strip_prefix("labelSelector=")).unwrap_or_default();
    selector.split(',').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn respond(code: u16, body: String) -> Response<Body> {
    let response = Response::builder().status(code).header("content-type", "application/json");
    response.body(Full::new(body.into()).map_err(|never| match never {}).boxed()).unwrap()
}

/// An answer whose connection breaks behind `text`.
fn broken(text: String) -> Response<Body> {
    let parts = [Ok(Frame::data(text.into())), Err(io::ErrorKind::ConnectionReset.into())];
    // In two pieces in time, too: what breaks at once may break in front of the first one.
    let paced = futures_util::stream::iter(parts).then(|part| async {
        tokio::task::yield_now().await;
        part
    });
    Response::new(BodyExt::boxed(StreamBody::new(paced)))
}

async fn answer_admin(answers: Arc<Answers>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let asked = format!("{} {}", request.method(), request.uri());
    // Read to its end, as a real one does.
    let _ = request.into_body().collect().await;
    let Some((code, outcome, body)) = answers.get(&asked) else {
        return Ok(Response::builder().status(StatusCode::IM_A_TEAPOT).body(Full::new(asked.into())).unwrap());
    };
    let kind = if *code >= 400 { "application/problem+json" } else { "application/json" };
    let mut response = Response::builder().status(*code).header("content-type", kind).header("tandem-flow", "f1");
    if let Some(outcome) = outcome {
        response = response.header("tandem-outcome", *outcome);
    }
    Ok(response.body(Full::new(body.to_string().into())).unwrap())
}
