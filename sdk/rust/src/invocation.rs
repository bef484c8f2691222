//! One run of one handler, as the context, the states and the calls share it.
//!
//! Effects are collected here and leave in the one `Finished` frame, so that a run that ends in any other way leaves
//! nothing behind. **Invariant:** the lock is never held across an await, nor while user code runs.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tandem_proto::MESSAGE_BYTES_MAX;
use tandem_proto::function::v1alpha1 as proto;
use tandem_proto::function::v1alpha1::worker_frame::Frame;
use tokio::sync::{mpsc, oneshot};

use crate::chain::States;
use crate::error::{Error, Result};
use crate::function::Output;
use crate::state::{FieldKind, FieldSpec};

/// Largest frame that a worker sends, in bytes: a message has to hold it and its wrapping.
pub(crate) const FRAME_BYTES_MAX: usize = MESSAGE_BYTES_MAX - (64 << 10);

/// Where frames go, with the invocation that they belong to.
///
/// It is not bounded, because a spawn or a send must not wait: what one invocation may start is limited by the
/// runtime, which ends the flow, and how many invocations there are by the credit.
pub(crate) type Outgoing = mpsc::UnboundedSender<(u64, Frame)>;

/// One run of one handler.
pub struct Invocation {
    request: proto::Invoke,
    deadline: Instant,
    fields: &'static [FieldSpec],
    outgoing: Outgoing,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    /// By index of the field; unused for maps.
    values: Vec<ValueSlot>,
    /// Writes to maps that have not left, by index of the field; unused for values. `None` deletes.
    entries: Vec<BTreeMap<Bytes, Option<Bytes>>>,
    /// Sends and emits, in order.
    released: Vec<proto::Effect>,
    calls: HashMap<u64, oneshot::Sender<proto::call_done::Result>>,
    reads: HashMap<u64, oneshot::Sender<proto::ReadDone>>,
    last_id: u64,
    /// What went wrong where no result could say it: in `set`, `send`, `emit` or `spawn`.
    broken: Option<Error>,
    /// The handler has returned. Answers that are still under way are for calls that it did not wait for.
    finished: bool,
}

/// What an invocation did to one entry of a map.
pub(crate) enum Written {
    Nothing,
    Removed,
    Set(Bytes),
}

#[derive(Clone, Default)]
struct ValueSlot {
    bytes: Option<Bytes>,
    written: bool,
    /// What it was before it was written.
    before: Option<Bytes>,
}

impl ValueSlot {
    fn set(&mut self, bytes: Option<Bytes>) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if !self.written {
            self.before = before;
            self.written = true;
        }
    }

    fn before(self) -> Option<Bytes> {
        if self.written { self.before } else { self.bytes }
    }
}

impl Invocation {
    pub(crate) fn new(mut request: proto::Invoke, fields: &'static [FieldSpec], outgoing: Outgoing) -> Self {
        let deadline = Instant::now() + Duration::from_millis(request.deadline_ms);
        let mut values = vec![ValueSlot::default(); fields.len()];
        for stored in request.states.drain(..) {
            if let Some(index) = fields.iter().position(|field| field.name == stored.state) {
                values[index].bytes = stored.value;
            }
        }
        let has_maps = fields.iter().any(|field| field.kind == FieldKind::Map);
        let entries = if has_maps { vec![BTreeMap::new(); fields.len()] } else { Vec::new() };
        let progress = Progress { values, entries, ..Progress::default() };
        Self { request, deadline, fields, outgoing, progress: Mutex::new(progress) }
    }

    pub(crate) fn id(&self) -> u64 {
        self.request.invocation_id
    }

    pub(crate) fn request(&self) -> &proto::Invoke {
        &self.request
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(crate) fn state_name(&self, index: usize) -> &'static str {
        self.fields[index].name
    }

    /// `order/o-1 place`, for messages.
    pub(crate) fn place(&self) -> String {
        format!("{}/{} {}", self.request.function, self.request.key, self.request.handler)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // No code that can panic runs under the lock, and a panic ends the invocation anyway.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the invocation fail, whatever its handler returns. The first reason counts.
    pub(crate) fn break_with(&self, error: Error) {
        self.progress().broken.get_or_insert(error);
    }

    /// Whether effects are allowed; if they are not, the invocation fails and says what it tried.
    fn may_write(&self, attempted: impl FnOnce() -> String) -> bool {
        if self.request.read_only {
            let problem = format!("{} runs read-only, but tried to {}", self.place(), attempted());
            self.break_with(Error::fatal(problem));
        }
        !self.request.read_only
    }

    pub(crate) fn value(&self, index: usize) -> Option<Bytes> {
        self.progress().values[index].bytes.clone()
    }

    pub(crate) fn set_value(&self, index: usize, bytes: Option<Bytes>) {
        if self.may_write(|| format!("write state {}", self.state_name(index))) {
            self.progress().values[index].set(bytes);
        }
    }

    /// What this invocation itself did to the entry.
    pub(crate) fn written_entry(&self, index: usize, entry: &[u8]) -> Written {
        match self.progress().entries[index].get(entry) {
            None => Written::Nothing,
            Some(None) => Written::Removed,
            Some(Some(value)) => Written::Set(value.clone()),
        }
    }

    /// What this invocation itself wrote to the map, within the bounds, in order.
    pub(crate) fn written_entries(&self, index: usize, scan: &proto::Scan) -> BTreeMap<Bytes, Option<Bytes>> {
        let progress = self.progress();
        let from = progress.entries[index].range(scan.from.clone().unwrap_or_default()..);
        let within = from.take_while(|(key, _)| scan.to.as_ref().is_none_or(|to| *key < to));
        within.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    pub(crate) fn set_entry(&self, index: usize, entry: Bytes, value: Option<Bytes>) {
        if self.may_write(|| format!("write state {}", self.state_name(index))) {
            self.progress().entries[index].insert(entry, value);
        }
    }

    pub(crate) fn release(&self, effect: proto::effect::Effect) {
        let attempted = || match &effect {
            proto::effect::Effect::Write(write) => format!("write state {}", write.state),
            proto::effect::Effect::Send(send) => format!("send to {}/{}", send.function, send.key),
            proto::effect::Effect::Emit(emit) => format!("emit to {}", emit.egress),
        };
        if self.may_write(attempted) {
            self.progress().released.push(proto::Effect { effect: Some(effect) });
        }
    }

    /// Sends a call; the answer arrives in the receiver. Nobody answers a spawn.
    pub(crate) fn begin_call(
        &self,
        mut call: proto::Call,
    ) -> Result<Option<oneshot::Receiver<proto::call_done::Result>>> {
        call.invocation_id = self.id();
        if call.payload.len() > FRAME_BYTES_MAX {
            let (bytes, function) = (call.payload.len(), &call.function);
            return Err(Error::fatal(format!("the payload of a call of {function} is too large: {bytes} bytes")));
        }
        let mut progress = self.progress();
        progress.last_id += 1;
        call.call_id = progress.last_id;
        let answer = (!call.spawn).then(|| {
            let (tx, rx) = oneshot::channel();
            progress.calls.insert(call.call_id, tx);
            rx
        });
        drop(progress);
        self.outgoing(Frame::Call(call));
        Ok(answer)
    }

    /// Reads from a map in the store, this invocation's own writes not included.
    pub(crate) async fn read(&self, index: usize, what: proto::read::What) -> Result<proto::ReadDone> {
        let (tx, rx) = oneshot::channel();
        let read_id = self.await_read(tx);
        let state = self.state_name(index).to_owned();
        self.outgoing(Frame::Read(proto::Read { invocation_id: self.id(), read_id, state, what: Some(what) }));
        rx.await.map_err(|_| Error::retryable("the connection to the runtime ended"))
    }

    fn await_read(&self, tx: oneshot::Sender<proto::ReadDone>) -> u64 {
        let mut progress = self.progress();
        progress.last_id += 1;
        let read_id = progress.last_id;
        progress.reads.insert(read_id, tx);
        read_id
    }

    fn outgoing(&self, frame: Frame) {
        // Fails only when the connection is gone, and then this task is about to be aborted.
        let _gone = self.outgoing.send((self.id(), frame));
    }

    /// Hands an answer to the call that waits for it. False if no call of that id was made, or it has its answer.
    pub(crate) fn call_done(&self, call_id: u64, result: proto::call_done::Result) -> bool {
        let mut progress = self.progress();
        let waiting = progress.calls.remove(&call_id);
        // A call whose future was dropped does not want its answer any more.
        waiting.map(|tx| tx.send(result)).is_some() || progress.finished
    }

    /// Hands an answer to the read that waits for it. False if no read of that id was made, or it has its answer.
    pub(crate) fn read_done(&self, done: proto::ReadDone) -> bool {
        let mut progress = self.progress();
        let waiting = progress.reads.remove(&done.read_id);
        waiting.map(|tx| tx.send(done)).is_some() || progress.finished
    }

    /// Begins an invocation that follows another one, on the states that were left to it; says so to the runtime.
    pub(crate) fn begin(&self, states: States) {
        let mut progress = self.progress();
        for (slot, bytes) in progress.values.iter_mut().zip(&states) {
            slot.bytes.clone_from(bytes);
        }
        drop(progress);
        let values = self.fields.iter().zip(states).filter(|(field, _)| field.kind == FieldKind::Value);
        let states = values.map(|(field, value)| proto::StateValue { state: field.name.to_owned(), value }).collect();
        self.outgoing(Frame::Began(proto::Began { invocation_id: self.id(), states }));
    }

    /// The states it began with.
    pub(crate) fn states_before(&self) -> States {
        self.progress().values.iter().cloned().map(ValueSlot::before).collect()
    }

    /// Ends the invocation: sends the result and, if it is a value, the effects. Gives the states that it leaves.
    pub(crate) fn finish(&self, result: Result<Output>) -> States {
        let emptied = Progress { finished: true, ..Progress::default() };
        let mut progress = std::mem::replace(&mut *self.progress(), emptied);
        let result = match progress.broken.take() {
            Some(error) => Err(error),
            None => result,
        };
        let (finished, changes) = match result {
            Ok(output) => {
                let finished = proto::Finished {
                    invocation_id: self.id(),
                    result: Some(proto::finished::Result::Value(output.payload)),
                    effects: self.effects(&mut progress),
                    content_type: output.content_type,
                };
                let bytes = finished.encoded_len();
                if bytes <= FRAME_BYTES_MAX { (finished, true) } else { (self.too_large(bytes), false) }
            }
            Err(error) => (failed(self.id(), error), false),
        };
        self.outgoing(Frame::Finished(finished));
        let left = |slot: ValueSlot| if changes { slot.bytes } else { slot.before() };
        progress.values.into_iter().map(left).collect()
    }

    /// What it changes. The values stay where they are, for whoever comes behind it.
    fn effects(&self, progress: &mut Progress) -> Vec<proto::Effect> {
        let mut effects = std::mem::take(&mut progress.released);
        let mut write = |index: usize, entry, value| {
            let write = proto::Write { state: self.state_name(index).to_owned(), entry, value };
            effects.push(proto::Effect { effect: Some(proto::effect::Effect::Write(write)) });
        };
        for (index, slot) in progress.values.iter().enumerate() {
            if slot.written {
                write(index, None, slot.bytes.clone());
            }
        }
        for (index, entries) in std::mem::take(&mut progress.entries).into_iter().enumerate() {
            for (entry, value) in entries {
                write(index, Some(entry), value);
            }
        }
        effects
    }

    fn too_large(&self, bytes: usize) -> proto::Finished {
        let problem = format!("{}: result and effects have {bytes} bytes, at most {FRAME_BYTES_MAX} fit", self.place());
        failed(self.id(), Error::fatal(problem))
    }
}

/// The answer to an invocation that ended with an error.
pub(crate) fn failed(invocation_id: u64, error: Error) -> proto::Finished {
    proto::Finished { invocation_id, result: Some(error.into_result()), ..proto::Finished::default() }
}

/// A payload that is neither decoded nor encoded: any bytes with their media type. For routes with `body: Raw`.
///
/// Written as the argument or the result of a handler, it replaces JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    /// The media type. Empty means `application/json`.
    pub content_type: String,
    /// The bytes.
    pub bytes: Bytes,
}

const JSON_NULL: &[u8] = b"null";

pub(crate) fn encode(value: &impl Serialize, what: impl FnOnce() -> String) -> Result<Bytes> {
    let encoded = serde_json::to_vec(value).map(Bytes::from);
    encoded.map_err(|error| Error::fatal_from(format!("{} cannot be written as JSON", what()), error))
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], what: impl FnOnce() -> String) -> Result<T> {
    let json = if bytes.is_empty() { JSON_NULL } else { bytes };
    serde_json::from_slice(json).map_err(|error| Error::fatal_from(format!("{} cannot be read", what()), error))
}

/// The argument of a handler. An empty payload is `null`.
pub fn json_argument<T: DeserializeOwned>(invocation: &Invocation) -> Result<T> {
    decode(&invocation.request.payload, || format!("the payload of {}", invocation.place()))
}

/// The argument of a handler that takes [`Raw`].
pub fn raw_argument(invocation: &Invocation) -> Result<Raw> {
    let proto::Invoke { content_type, payload, .. } = &invocation.request;
    Ok(Raw { content_type: content_type.clone(), bytes: payload.clone() })
}

/// The result of a handler.
pub fn json_result<T: Serialize, E: Into<Error>>(invocation: &Invocation, result: Result<T, E>) -> Result<Output> {
    let value = result.map_err(Into::into)?;
    let payload = encode(&value, || format!("the result of {}", invocation.place()))?;
    Ok(Output { payload, content_type: String::new() })
}

/// The result of a handler that returns [`Raw`].
pub fn raw_result<E: Into<Error>>(_invocation: &Invocation, result: Result<Raw, E>) -> Result<Output> {
    let Raw { content_type, bytes } = result.map_err(Into::into)?;
    Ok(Output { payload: bytes, content_type })
}

/// An invocation as the generated code passes it on.
pub type Shared = Arc<Invocation>;
