//! Puts frames into messages: all that are ready, up to a bound in number and bytes.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use prost::Message;
use tokio::sync::mpsc;

/// Frames put into one message.
pub(crate) const BATCH_FRAMES_MAX: usize = 256;
/// Bytes of frames after which a message is full. One frame may exceed it by itself.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Where frames wait to be written.
pub(crate) trait Queue<F>: Send + 'static {
    /// Takes what is there, at most [`BATCH_FRAMES_MAX`] frames, in their order. It waits for the first one, and takes
    /// none only once the queue has ended.
    fn poll_frames(&mut self, context: &mut Context<'_>, frames: &mut VecDeque<F>) -> Poll<()>;
}

impl<F: Send + 'static> Queue<F> for mpsc::Receiver<F> {
    fn poll_frames(&mut self, context: &mut Context<'_>, frames: &mut VecDeque<F>) -> Poll<()> {
        let mut received = Vec::new();
        self.poll_recv_many(context, &mut received, BATCH_FRAMES_MAX).map(|_| frames.extend(received))
    }
}

/// A stream of messages with the frames that come from a queue. It ends with the queue.
pub(crate) fn batches<F, M>(queue: impl Queue<F>, message: fn(Vec<F>) -> M) -> BoxStream<'static, M>
where
    F: Message + 'static,
    M: Send + 'static,
{
    stream::unfold((queue, VecDeque::new()), move |(mut queue, mut ready)| async move {
        if ready.is_empty() {
            poll_fn(|context| queue.poll_frames(context, &mut ready)).await;
        }
        let mut bytes = 0;
        let mut batch: Vec<F> = Vec::new();
        while let Some(frame) = ready.pop_front() {
            bytes += frame.encoded_len();
            if bytes > BATCH_BYTES_MAX && !batch.is_empty() {
                ready.push_front(frame);
                break;
            }
            batch.push(frame);
        }
        (!batch.is_empty()).then(|| (message(batch), (queue, ready)))
    })
    .boxed()
}
