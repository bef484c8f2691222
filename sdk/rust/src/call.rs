//! A call of another instance, before and while it runs. Typed clients make them; see [`Call`] for when they begin.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tandem_proto::function::v1alpha1 as proto;
use tokio::sync::oneshot;

use crate::context::Ctx;
use crate::error::{Error, Result};
use crate::invocation::{Invocation, Raw, decode, encode};

/// A call that has not begun, of a handler that returns `T`. Choose how it runs:
///
/// - `.await` it: it runs inside this transaction, and gives the handler's result. Many may run at the same time, with
///   [`try_join_all`](crate::prelude::try_join_all) and its like.
/// - [`.spawn()`](Call::spawn): it runs inside this transaction, and nobody waits for its result.
/// - [`.send()`](Call::send) or [`.send_after(delay)`](Call::send_after): a message, released only if this commits.
///
/// A call begins when it is polled for the first time, or at once with `spawn`. Dropped before that, nothing happens.
/// Dropped after that, it goes on: the flow commits only once it is done. If it says no, what it did is undone, and
/// nothing else; if it breaks, the flow fails.
#[must_use = "a call does nothing unless it is awaited, spawned or sent"]
pub struct Call<'ctx, T> {
    invocation: &'ctx Invocation,
    step: Step,
    decode: fn(&Bytes, &str) -> Result<T>,
}

enum Step {
    New(Result<Target>),
    Waiting(oneshot::Receiver<proto::call_done::Result>, Cow<'static, str>),
    Over,
}

/// Whom a call addresses, and with what.
struct Target {
    function: Cow<'static, str>,
    key: String,
    handler: Cow<'static, str>,
    payload: Bytes,
}

impl Target {
    fn into_call(self, spawn: bool) -> proto::Call {
        let Self { function, key, handler, payload } = self;
        let (function, handler) = (function.into_owned(), handler.into_owned());
        // Both ids are filled in when it begins.
        proto::Call { function, key, handler, payload, spawn, ..proto::Call::default() }
    }

    fn into_send(self, delay: Duration) -> proto::Send {
        let Self { function, key, handler, payload } = self;
        let (function, handler) = (function.into_owned(), handler.into_owned());
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        proto::Send { function, key, handler, payload, delay_ms }
    }
}

impl<T> Call<'_, T> {
    /// Runs it inside this transaction without waiting. The flow commits only once it is done, and a rejection or a
    /// failure of it ends the whole flow.
    pub fn spawn(self) {
        let target = match self.step {
            Step::New(target) => target,
            // It has begun already, and goes on by itself.
            Step::Waiting(..) | Step::Over => return,
        };
        let begun = target.and_then(|target| self.invocation.begin_call(target.into_call(true)));
        if let Err(error) = begun {
            self.invocation.break_with(error);
        }
    }

    /// Sends it as a message that starts a flow of its own, released only if this flow commits. Messages from this
    /// instance to the same other one arrive in the order they were committed.
    pub fn send(self) {
        self.send_after(Duration::ZERO);
    }

    /// Sends it as a message that is released if this flow commits, and delivered after the delay.
    pub fn send_after(self, delay: Duration) {
        let target = match self.step {
            Step::New(target) => target,
            Step::Waiting(..) | Step::Over => Err(Error::fatal("a call that has begun cannot be sent as a message")),
        };
        match target {
            Ok(target) => self.invocation.release(proto::effect::Effect::Send(target.into_send(delay))),
            Err(error) => self.invocation.break_with(error),
        }
    }

    fn new<'ctx>(
        invocation: &'ctx Invocation,
        [function, handler]: [Cow<'static, str>; 2],
        key: String,
        payload: Result<Bytes>,
        decode: fn(&Bytes, &str) -> Result<T>,
    ) -> Call<'ctx, T> {
        let target = payload.map(|payload| Target { function, key, handler, payload });
        Call { invocation, step: Step::New(target), decode }
    }
}

impl<T> Future for Call<'_, T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.step {
                Step::New(_) => {
                    let Step::New(target) = std::mem::replace(&mut self.step, Step::Over) else { continue };
                    let target = target?;
                    let function = target.function.clone();
                    if let Some(answer) = self.invocation.begin_call(target.into_call(false))? {
                        self.step = Step::Waiting(answer, function);
                    }
                }
                Step::Waiting(answer, function) => {
                    let answer = ready!(Pin::new(answer).poll(cx));
                    let function = std::mem::take(function);
                    self.step = Step::Over;
                    return Poll::Ready(match answer {
                        Ok(proto::call_done::Result::Value(value)) => (self.decode)(&value, &function),
                        Ok(proto::call_done::Result::Rejection(rejection)) => Err(Error::from_callee(rejection)),
                        Err(_) => Err(Error::retryable("the connection to the runtime ended")),
                    });
                }
                Step::Over => return Poll::Ready(Err(Error::fatal("a call was polled after it had ended"))),
            }
        }
    }
}

impl<T> fmt::Debug for Call<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.step {
            Step::New(Ok(target)) => write!(f, "call of {}/{} {}", target.function, target.key, target.handler),
            Step::New(Err(error)) => write!(f, "call that cannot begin: {error}"),
            Step::Waiting(_, function) => write!(f, "running call of {function}"),
            Step::Over => f.write_str("call that has ended"),
        }
    }
}

fn decode_json<T: DeserializeOwned>(bytes: &Bytes, function: &str) -> Result<T> {
    decode(bytes, || format!("the result of {function}"))
}

#[expect(clippy::unnecessary_wraps, reason = "one of several decoders")]
fn decode_bytes(bytes: &Bytes, _function: &str) -> Result<Bytes> {
    Ok(bytes.clone())
}

#[expect(clippy::unnecessary_wraps, reason = "one of several decoders")]
fn decode_raw(bytes: &Bytes, _function: &str) -> Result<Raw> {
    Ok(Raw { content_type: String::new(), bytes: bytes.clone() })
}

impl<S> Ctx<S> {
    /// A call by names, for functions that have no typed client here. Argument and result are JSON.
    pub fn call<T: DeserializeOwned>(
        &self,
        function: impl Into<String>,
        key: impl fmt::Display,
        handler: impl Into<String>,
        argument: &impl Serialize,
    ) -> Call<'_, T> {
        let (function, handler) = (function.into(), handler.into());
        let payload = encode(argument, || format!("the argument of {function} {handler}"));
        Call::new(self.invocation(), [function.into(), handler.into()], key.to_string(), payload, decode_json)
    }

    /// A call by names, with bytes that are passed on as they are. It can be awaited, spawned and sent like any other.
    pub fn call_raw(
        &self,
        function: impl Into<String>,
        key: impl fmt::Display,
        handler: impl Into<String>,
        payload: impl Into<Bytes>,
    ) -> Call<'_, Bytes> {
        let names = [function.into().into(), handler.into().into()];
        Call::new(self.invocation(), names, key.to_string(), Ok(payload.into()), decode_bytes)
    }
}

/// The argument of a generated client's method, encoded.
#[doc(hidden)]
pub fn json_payload(value: &impl Serialize, function: &str) -> Result<Bytes> {
    encode(value, || format!("the argument of a call of {function}"))
}

/// The call that a generated client's method makes.
#[doc(hidden)]
pub fn client_call<'ctx, S, T: DeserializeOwned>(
    ctx: &'ctx Ctx<S>,
    names: [&'static str; 2],
    key: &str,
    payload: Result<Bytes>,
) -> Call<'ctx, T> {
    Call::new(ctx.invocation(), names.map(Cow::Borrowed), key.to_owned(), payload, decode_json)
}

/// The same, of a handler that returns [`Raw`]. The media type is not passed on.
#[doc(hidden)]
pub fn client_call_raw<'ctx, S>(
    ctx: &'ctx Ctx<S>,
    names: [&'static str; 2],
    key: &str,
    payload: Result<Bytes>,
) -> Call<'ctx, Raw> {
    Call::new(ctx.invocation(), names.map(Cow::Borrowed), key.to_owned(), payload, decode_raw)
}
