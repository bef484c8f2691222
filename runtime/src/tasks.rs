//! Background tasks, each with a name and a policy for its failure.

use std::future::Future;

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tracing::error;

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum TaskKind {
    /// Runs one flow to its outcome.
    Flow,
    /// Commits groups. Without it nothing is ever answered again.
    Committer,
    /// Delivers messages.
    Courier,
    /// Removes expired rows.
    Sweeper,
    /// Keeps the connection to one worker.
    Worker,
    /// One invocation over the plain HTTP profile.
    HttpInvocation,
    /// Serves one port.
    Server,
    /// Keeps this runtime's row among the members.
    Members,
    /// Passes the numbers of egress records on.
    Numbers,
    /// Talks to another runtime, or runs what one asks for.
    Peer,
}

/// Starts a task. A panic in it is logged as an error and ends the task alone.
pub fn spawn<F>(kind: TaskKind, future: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        if let Err(panic) = std::panic::AssertUnwindSafe(future).catch_unwind().await {
            let task: &'static str = kind.into();
            error!(task, panic = panic_text(panic.as_ref()), "a task panicked");
        }
    })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
