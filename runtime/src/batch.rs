//! Puts frames into messages: all that are ready, up to a bound in number and bytes.

use std::collections::VecDeque;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use prost::Message;
use tokio::sync::mpsc;

/// Frames put into one message.
const BATCH_FRAMES_MAX: usize = 256;
/// Bytes of frames after which a message is full. One frame may exceed it by itself.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// A stream of messages with the frames that come from a queue. It ends with the queue.
pub(crate) fn batches<F, M>(frames: mpsc::Receiver<F>, message: fn(Vec<F>) -> M) -> BoxStream<'static, M>
where
    F: Message + 'static,
    M: Send + 'static,
{
    stream::unfold((frames, VecDeque::new()), move |(mut frames, mut ready)| async move {
        if ready.is_empty() {
            let mut received = Vec::new();
            frames.recv_many(&mut received, BATCH_FRAMES_MAX).await;
            ready.extend(received);
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
        (!batch.is_empty()).then(|| (message(batch), (frames, ready)))
    })
    .boxed()
}
