//! The queue of what is written to one worker: bounded, but for words that must not be lost and cannot wait.
//!
//! **Invariant:** frames leave in the order in which they came, whichever way they came in.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use tandem_proto::function::v1alpha1 as wire;
use tandem_proto::function::v1alpha1::runtime_frame::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::batch::{self, BATCH_FRAMES_MAX};
use crate::dial::Outgoing;

/// Frames that may wait to be written to one worker, cancels not counted.
const FRAMES_QUEUED_MAX: usize = 4_096;

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
    /// Puts frames into messages. Taking a frame gives back its room.
    pub(super) fn batches(self) -> Outgoing {
        batch::batches(self, |frames| wire::AttachRequest { frames })
    }
}

impl batch::Queue<wire::RuntimeFrame> for Receiver {
    fn poll_frames(&mut self, context: &mut Context<'_>, frames: &mut VecDeque<wire::RuntimeFrame>) -> Poll<()> {
        let mut received = Vec::new();
        let polled = self.0.poll_recv_many(context, &mut received, BATCH_FRAMES_MAX);
        polled.map(|_| frames.extend(received.into_iter().map(|(frame, _)| frame)))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

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
