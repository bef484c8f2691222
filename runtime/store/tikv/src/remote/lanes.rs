//! One stream to each store that carries the requests for all of its regions.
//!
//! What a request costs is mostly what its message costs, on both sides. So requests that are there at one moment travel
//! in one message, whatever they are, and so do answers. A store that does not serve such a stream takes single requests.
//!
//! **Invariant:** a request is answered once, with its own answer or with the reason why its stream has ended; then nobody
//! knows whether it had its effect.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use super::wire::kvrpcpb;
use super::wire::tikvpb::tikv_client::TikvClient;
use super::wire::tikvpb::{
    BatchCommandsRequest, BatchCommandsResponse, batch_commands_request as asked, batch_commands_response as answered,
};

/// Requests in one message.
const REQUESTS_MAX: usize = 128;
/// Bytes of requests after which a message is full.
const BYTES_MAX: usize = 1 << 20;
/// Requests that wait for a message. Who comes later waits as well.
const WAITING_MAX: usize = 1_024;
/// Answers of many requests may come in one message, each as large as one by itself may be.
const ANSWERS_BYTES_MAX: usize = 1 << 30;
/// How long answers still count once nobody can ask any more.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// A request that stores take by itself or in a stream.
pub(crate) trait Command: Sized {
    /// What it is answered with.
    type Answer;

    /// As a part of a message.
    fn wrap(self) -> asked::request::Cmd;

    /// Its answer out of a message. `None` if it is the answer to something else.
    fn unwrap(answer: answered::response::Cmd) -> Option<Self::Answer>;

    /// By itself.
    fn single(self, client: TikvClient<Channel>)
    -> impl Future<Output = Result<Response<Self::Answer>, Status>> + Send;
}

macro_rules! commands {
    ($($variant:ident $request:ident $answer:ident $single:ident,)*) => {
        $(
            impl Command for kvrpcpb::$request {
                type Answer = kvrpcpb::$answer;

                fn wrap(self) -> asked::request::Cmd {
                    asked::request::Cmd::$variant(self)
                }

                fn unwrap(answer: answered::response::Cmd) -> Option<Self::Answer> {
                    if let answered::response::Cmd::$variant(answer) = answer { Some(answer) } else { None }
                }

                async fn single(self, mut client: TikvClient<Channel>) -> Result<Response<Self::Answer>, Status> {
                    client.$single(self).await
                }
            }
        )*
    };
}

commands! {
    BatchGet BatchGetRequest BatchGetResponse kv_batch_get,
    Scan ScanRequest ScanResponse kv_scan,
    Prewrite PrewriteRequest PrewriteResponse kv_prewrite,
    Commit CommitRequest CommitResponse kv_commit,
    BatchRollback BatchRollbackRequest BatchRollbackResponse kv_batch_rollback,
    CheckTxnStatus CheckTxnStatusRequest CheckTxnStatusResponse kv_check_txn_status,
}

type Answer = Result<answered::response::Cmd, Status>;

/// A request on its way into a message.
struct Asked {
    command: asked::request::Cmd,
    answer: oneshot::Sender<Answer>,
}

/// A stream to a store. It ends when nobody has it any more and all are answered.
#[derive(Clone)]
pub(crate) struct Lane {
    asked: mpsc::Sender<Asked>,
    waiting: Waiting,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").finish_non_exhaustive()
    }
}

/// Those who wait for an answer.
#[derive(Clone, Default)]
struct Waiting(Arc<Mutex<Open>>);

/// Requests that were sent and are not answered, by number; and why the stream has ended, if it has.
#[derive(Default)]
struct Open {
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    ended: Option<Status>,
}

impl Lane {
    /// A stream on a connection, in a task of its own.
    pub(crate) fn open(client: TikvClient<Channel>) -> Self {
        let (sender, asked) = mpsc::channel(WAITING_MAX);
        let waiting = Waiting::default();
        tokio::spawn(run(client, asked, waiting.clone()));
        Self { asked: sender, waiting }
    }

    /// Asks a request with others that are asked at this moment. An error with the code `Unimplemented` says that the
    /// store takes no streams: it had no effect then.
    pub(crate) async fn ask<C: Command>(&self, command: C) -> Result<Response<C::Answer>, Status> {
        let (answer, answered) = oneshot::channel();
        let asked = Asked { command: command.wrap(), answer };
        self.asked.send(asked).await.map_err(|_| self.waiting.ended())?;
        let answer = answered.await.map_err(|_| self.waiting.ended())??;
        C::unwrap(answer).map(Response::new).ok_or_else(|| Status::internal("the answer to another request"))
    }
}

/// Whether a store said that it takes no streams.
pub(crate) fn is_not_served(status: &Status) -> bool {
    status.code() == Code::Unimplemented
}

async fn run(client: TikvClient<Channel>, asked: mpsc::Receiver<Asked>, waiting: Waiting) {
    let (asking, all_asked) = oneshot::channel();
    let messages = messages(asked, waiting.clone(), asking);
    let too_late = async {
        // Nothing is ever sent: the other end is dropped.
        let _ = all_asked.await;
        tokio::time::sleep(LAST_ANSWERS).await;
    };
    let ended = tokio::select! {
        ended = answers(client, messages, &waiting) => ended,
        () = too_late => Status::deadline_exceeded("the stream to the store was closed"),
    };
    waiting.end(&ended);
}

/// Messages of all requests that are there, until nobody can ask any more.
fn messages(
    asked: mpsc::Receiver<Asked>,
    waiting: Waiting,
    asking: oneshot::Sender<()>,
) -> impl Stream<Item = BatchCommandsRequest> {
    stream::unfold((asked, waiting, asking, 0_u64), |(mut asked, waiting, asking, mut number)| async move {
        let mut next = asked.recv().await;
        // Everybody who is about to ask at this moment does so now.
        tokio::task::yield_now().await;
        let (mut message, mut bytes) = (BatchCommandsRequest::default(), 0);
        while let Some(Asked { command, answer }) = next {
            number += 1;
            let request = asked::Request { cmd: Some(command) };
            bytes += request.encoded_len();
            waiting.add(number, answer);
            message.requests.push(request);
            message.request_ids.push(number);
            let is_full = message.requests.len() >= REQUESTS_MAX || bytes >= BYTES_MAX;
            next = if is_full { None } else { asked.try_recv().ok() };
        }
        (!message.requests.is_empty()).then_some((message, (asked, waiting, asking, number)))
    })
}

/// Passes answers on until the stream ends, and says why it did.
async fn answers(
    client: TikvClient<Channel>,
    messages: impl Stream<Item = BatchCommandsRequest> + Send + 'static,
    waiting: &Waiting,
) -> Status {
    let mut client = client.max_decoding_message_size(ANSWERS_BYTES_MAX);
    let mut answers = match client.batch_commands(messages).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return status,
    };
    loop {
        match answers.message().await {
            Ok(Some(message)) => waiting.answer(message),
            Ok(None) => return Status::unavailable("the store has ended the stream"),
            // Whatever it is, it came after answers, so that streams are served.
            Err(status) => return Status::unavailable(status.to_string()),
        }
    }
}

impl Waiting {
    fn add(&self, number: u64, answer: oneshot::Sender<Answer>) {
        let mut open = self.lock();
        // Where it has ended already, dropping the sender tells.
        if open.ended.is_none() {
            open.waiting.insert(number, answer);
        }
    }

    fn answer(&self, message: BatchCommandsResponse) {
        let mut open = self.lock();
        for (number, answer) in message.request_ids.into_iter().zip(message.responses) {
            if let (Some(asked), Some(answer)) = (open.waiting.remove(&number), answer.cmd) {
                // Who does not wait any more need not know.
                let _ = asked.send(Ok(answer));
            }
        }
    }

    fn end(&self, why: &Status) {
        let mut open = self.lock();
        open.ended = Some(why.clone());
        for (_, answer) in open.waiting.drain() {
            let _ = answer.send(Err(why.clone()));
        }
    }

    /// Why it has ended.
    fn ended(&self) -> Status {
        self.lock().ended.clone().unwrap_or_else(|| Status::unavailable("the stream to the store has ended"))
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Nothing panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tonic::service::Routes;
    use tonic::transport::Server;
    use tonic::transport::server::TcpIncoming;

    use super::super::channels::{Dialer, Stores};
    use super::*;

    const STORE: u64 = 1;
    const MESSAGE_BYTES_MAX: usize = 1 << 20;

    #[tokio::test]
    async fn a_store_that_takes_no_streams_is_asked_single_requests() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound").to_string();
        // It serves nothing, as a store that is too old for streams does not serve them.
        let server = Server::builder().add_routes(Routes::default());
        let server = tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        let stores = Stores::new(Dialer::new(None), MESSAGE_BYTES_MAX);
        let connection = stores.connect(STORE, &address).await.expect("it listens");
        let refused = connection.ask(kvrpcpb::CommitRequest::default()).await.expect_err("nothing is served");
        assert!(connection.is_not_served(&refused), "{refused:?}");
        let again = connection.ask(kvrpcpb::CommitRequest::default()).await.expect_err("the stream has ended");
        assert!(connection.is_not_served(&again), "{again:?}");
        stores.only_single(STORE);
        assert!(stores.open(STORE).is_none());
        let single = stores.connect(STORE, &address).await.expect("it listens");
        let refused = single.ask(kvrpcpb::CommitRequest::default()).await.expect_err("nothing is served");
        assert_eq!(refused.code(), Code::Unimplemented);
        assert!(!single.is_not_served(&refused), "it was no stream");
        server.abort();
    }

    #[tokio::test]
    async fn whoever_waits_when_the_stream_ends_is_told_why() {
        let waiting = Waiting::default();
        let (answer, answered) = oneshot::channel();
        waiting.add(1, answer);
        waiting.end(&Status::unavailable("cut"));
        let told = answered.await.expect("it was told").expect_err("there was no answer");
        assert_eq!(told.message(), "cut");
        let (answer, late) = oneshot::channel();
        waiting.add(2, answer);
        assert!(late.await.is_err());
        assert_eq!(waiting.ended().message(), "cut");
    }

    #[tokio::test]
    async fn requests_of_one_moment_travel_in_one_message() {
        use futures_util::StreamExt as _;

        let (sender, asked) = mpsc::channel(WAITING_MAX);
        let (asking, all_asked) = oneshot::channel();
        let waiting = Waiting::default();
        let mut messages = Box::pin(messages(asked, waiting.clone(), asking));
        let mut answers = Vec::new();
        for _ in 0..=REQUESTS_MAX {
            let (answer, answered) = oneshot::channel();
            let command = kvrpcpb::CommitRequest::default().wrap();
            sender.send(Asked { command, answer }).await.expect("there is room");
            answers.push(answered);
        }
        let first = messages.next().await.expect("there are requests");
        let second = messages.next().await.expect("one is left");
        assert_eq!((first.requests.len(), second.request_ids), (REQUESTS_MAX, vec![REQUESTS_MAX as u64 + 1]));
        drop(sender);
        assert!(messages.next().await.is_none());
        drop(messages);
        assert!(all_asked.await.is_err(), "it is seen that nobody asks any more");
        // Answers come in any order.
        let cmd = Some(answered::response::Cmd::Commit(kvrpcpb::CommitResponse::default()));
        let responses = vec![answered::Response { cmd }];
        waiting.answer(BatchCommandsResponse { responses, request_ids: vec![2] });
        assert!(answers.remove(1).await.is_ok_and(|answer| answer.is_ok()));
    }
}
