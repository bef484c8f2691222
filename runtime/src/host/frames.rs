//! The queue of what is written to one worker: bounded, but for words that must not be lost and cannot wait.
//!
//! **Invariant:** frames leave in the order in which they came, whichever way they came in.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use prost::Message as _;
use tandem_proto::function::v1alpha1 as wire;
use tandem_proto::function::v1alpha1::runtime_frame::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::dial::Outgoing;

/// Frames that may wait to be written to one worker, cancels not counted.
const FRAMES_QUEUED_MAX: usize = 4_096;
/// Frames put into one message.
const BATCH_FRAMES_MAX: usize = 256;
/// Bytes of frames after which a message is full. One frame may exceed it by itself.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// A frame, and the room that it takes in the queue.
type Queued = (wire::RuntimeFrame, Option<OwnedSemaphorePermit>);

/// Where frames go in.
#[derive(Debug)]
pub(super) struct Sender {
    frames: mpsc::UnboundedSender<Queued>,
    room: Arc<Semaphore>,
}

/// Where they come out.
#[derive(Debug)]
pub(super) struct Receiver(mpsc::UnboundedReceiver<Queued>);

/// Room in the queue for one frame; dropping it gives it back. A queue that was closed has none, and waits for none.
#[derive(Debug)]
pub(super) struct Room(Option<OwnedSemaphorePermit>);

/// An empty queue.
pub(super) fn queue() -> (Sender, Receiver) {
    let (frames, receiver) = mpsc::unbounded_channel();
    (Sender { frames, room: Arc::new(Semaphore::new(FRAMES_QUEUED_MAX)) }, Receiver(receiver))
}

impl Sender {
    /// Waits until there is room for a frame, or the queue is closed.
    pub(super) async fn room(&self) -> Room {
        Room(Arc::clone(&self.room).acquire_owned().await.ok())
    }

    /// Adds a frame where there is room for it.
    pub(super) fn push(&self, room: Room, frame: Frame) {
        if let Room(Some(permit)) = room {
            self.add(frame, Some(permit));
        }
    }

    /// Adds a frame however full the queue is. Only for what is bounded by other means.
    pub(super) fn push_now(&self, frame: Frame) {
        self.add(frame, None);
    }

    fn add(&self, frame: Frame, permit: Option<OwnedSemaphorePermit>) {
        // A stream that nobody writes any more has ended, or is about to end, all its sessions.
        let _ = self.frames.send((wire::RuntimeFrame { frame: Some(frame) }, permit));
    }

    /// Nobody has to wait for room any more: what is added from now on goes nowhere.
    pub(super) fn close(&self) {
        self.room.close();
    }
}

impl Receiver {
    /// Puts frames into messages: all that are ready, up to a bound in number and bytes.
    pub(super) fn batches(self) -> Outgoing {
        stream::unfold((self.0, VecDeque::new()), |(mut frames, mut ready)| async move {
            if ready.is_empty() {
                let mut received = Vec::new();
                frames.recv_many(&mut received, BATCH_FRAMES_MAX).await;
                ready.extend(received.into_iter().map(|(frame, _)| frame));
            }
            let mut bytes = 0;
            let mut batch: Vec<wire::RuntimeFrame> = Vec::new();
            while let Some(frame) = ready.pop_front() {
                bytes += frame.encoded_len();
                if bytes > BATCH_BYTES_MAX && !batch.is_empty() {
                    ready.push_front(frame);
                    break;
                }
                batch.push(frame);
            }
            (!batch.is_empty()).then_some((wire::AttachRequest { frames: batch }, (frames, ready)))
        })
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn cancel(invocation_id: u64) -> Frame {
        Frame::Cancel(wire::Cancel { invocation_id, reason: String::new() })
    }

    // These tests run outside of tokio, which would let a future wait now and then although it need not.
    fn fill_up(sender: &Sender) {
        for number in 0..FRAMES_QUEUED_MAX as u64 {
            sender.push(sender.room().now_or_never().unwrap(), cancel(number));
        }
    }

    #[test]
    fn frames_leave_in_the_order_in_which_they_came() {
        let (sender, receiver) = queue();
        fill_up(&sender);
        assert!(sender.room().now_or_never().is_none(), "it is bounded");
        sender.push_now(cancel(FRAMES_QUEUED_MAX as u64));
        drop(sender);
        let messages: Vec<wire::AttachRequest> = receiver.batches().collect().now_or_never().unwrap();
        assert!(messages.iter().all(|message| message.frames.len() <= BATCH_FRAMES_MAX));
        let frames = messages.into_iter().flat_map(|message| message.frames);
        let expected = (0..=FRAMES_QUEUED_MAX as u64).map(|number| wire::RuntimeFrame { frame: Some(cancel(number)) });
        assert!(frames.eq(expected));
    }

    #[test]
    fn nobody_waits_for_room_in_a_queue_that_is_closed_or_that_nobody_empties_any_more() {
        let (sender, receiver) = queue();
        fill_up(&sender);
        drop(receiver);
        assert!(sender.room().now_or_never().is_some());
        let (sender, _receiver) = queue();
        fill_up(&sender);
        sender.close();
        assert!(sender.room().now_or_never().is_some());
    }
}
