//! `GET /egress/{name}`: what an egress released, as server-sent events that a client can resume.
//!
//! The reader pulls: a page of records is read from the store only when the connection has taken the one before. A
//! slow reader therefore costs one page of memory, and a lost connection goes on behind the last `id` it saw.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use tandem_model::ids::EgressName;
use tandem_store::Store;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::headers;
use crate::admin::view::base64;
use crate::partition::numbers::Horizon;
use crate::problem::Problem;
use crate::runtime::{EgressRecord, Runtime};

/// Where a client that reconnects was.
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Media type of server-sent events.
pub const EVENT_STREAM: &str = "text/event-stream";
/// Records read at once.
const PAGE_RECORDS: usize = 100;
/// A comment is sent when nothing else was for so long, so that proxies keep the connection and dead ones are noticed.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often it is looked for records that other runtimes released.
const FOLLOW_POLL: Duration = Duration::from_millis(100);
/// How long whoever wants all that is there waits for those who may still release records below: longer than it takes to
/// find that one of them is gone.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(10);
/// What a heartbeat is.
pub const HEARTBEAT_TEXT: &str = ": still here\n\n";

/// The query of `GET /egress/{name}`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Parameters {
    /// Begin behind this sequence. `Last-Event-ID` goes first.
    pub after: Option<u64>,
    /// `false`: end after what is there now.
    pub follow: Option<bool>,
}

/// Where to begin.
pub fn position(parameters: &Parameters, request_headers: &HeaderMap) -> Result<u64, Problem> {
    match headers::single(request_headers, &LAST_EVENT_ID)? {
        Some(text) => text.parse().map_err(|_| headers::malformed(&LAST_EVENT_ID, "must be a number")),
        None => Ok(parameters.after.unwrap_or(0)),
    }
}

/// One record as an event. A payload that is not text is sent in base 64, as an event of type `binary`.
pub fn event(record: &EgressRecord) -> String {
    let mut event = format!("id: {}\nflow: {}\n", record.sequence, record.flow);
    if let Ok(text) = std::str::from_utf8(&record.payload) {
        push_data(&mut event, text);
    } else {
        event.push_str("event: binary\n");
        push_data(&mut event, &base64(&record.payload));
    }
    event.push('\n');
    event
}

/// Each line of the text gets its own `data:`, since a line break would end the field.
pub fn push_data(event: &mut String, text: &str) {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    for line in text.split('\n') {
        event.push_str("data: ");
        event.push_str(line);
        event.push('\n');
    }
}

/// A response that streams `body` as events.
pub fn response(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Streams an egress from `after` on, until the client goes, the server stops, or (if not following) the end.
pub fn stream<S: Store>(
    runtime: Runtime<S>,
    egress: EgressName,
    after: u64,
    follow: bool,
    shutdown: CancellationToken,
) -> Response {
    let changed = runtime.egress_changed(&egress);
    let reader =
        Reader { runtime, egress, after, follow, shutdown, changed, waiting: VecDeque::new(), seen: None, asked: None };
    response(Body::from_stream(stream::unfold(reader, |mut reader| async move {
        let chunk = reader.next().await?;
        Some((Ok::<_, Infallible>(chunk), reader))
    })))
}

struct Reader<S: Store> {
    runtime: Runtime<S>,
    egress: EgressName,
    after: u64,
    follow: bool,
    shutdown: CancellationToken,
    changed: watch::Receiver<u64>,
    waiting: VecDeque<EgressRecord>,
    /// Everything up to here was read.
    seen: Option<Horizon>,
    /// When it was begun to look, and which numbers were taken then.
    asked: Option<(Instant, u64)>,
}

impl<S: Store> Reader<S> {
    /// The next piece of the body.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.shutdown.is_cancelled() {
                return None;
            }
            if let Some(record) = self.waiting.pop_front() {
                self.after = record.sequence;
                return Some(event(&record).into());
            }
            if self.runtime.is_shared() {
                match self.look().await {
                    Ok(More::Read) => continue,
                    Ok(More::Heartbeat) => return Some(Bytes::from_static(HEARTBEAT_TEXT.as_bytes())),
                    Ok(More::End) => return None,
                    Err(error) => {
                        warn!(egress = %self.egress, %error, "egress stream ended");
                        return None;
                    }
                }
            }
            // Marked as seen before the store is asked: a change in between wakes us again, and nothing is missed.
            self.changed.borrow_and_update();
            match self.runtime.egress(&self.egress, self.after, PAGE_RECORDS).await {
                Ok(page) => self.waiting.extend(page),
                Err(error) => {
                    // The client comes back with the last id it has seen.
                    warn!(egress = %self.egress, %error, "egress stream ended");
                    return None;
                }
            }
            if !self.waiting.is_empty() {
                continue;
            }
            if !self.follow {
                return None;
            }
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return None,
                changed = timeout(HEARTBEAT, self.changed.changed()) => match changed {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return None,
                    Err(_) => return Some(Bytes::from_static(HEARTBEAT_TEXT.as_bytes())),
                },
            }
        }
    }
}

/// What to do next.
enum More {
    /// There are records.
    Read,
    /// There were none for long.
    Heartbeat,
    /// There will be none.
    End,
}

impl<S: Store> Reader<S> {
    /// Looks for records, of which other runtimes may release some: only those are taken that none will come before.
    async fn look(&mut self) -> Result<More, tandem_store::Error> {
        let began = Instant::now();
        loop {
            let horizon = self.runtime.egress_horizon().await?;
            let (since, all) = *self.asked.get_or_insert((began, horizon.taken));
            if self.seen != Some(horizon) {
                let (page, horizon) = self.runtime.egress_settled(&self.egress, self.after, PAGE_RECORDS).await?;
                self.seen = (page.len() < PAGE_RECORDS).then_some(horizon);
                self.waiting.extend(page);
                if !self.waiting.is_empty() {
                    return Ok(More::Read);
                }
            }
            if !self.follow && horizon.settled >= all {
                return Ok(More::End);
            }
            if !self.follow && since.elapsed() > SETTLE_TIME_MAX {
                self.waiting.extend(self.runtime.egress(&self.egress, self.after, PAGE_RECORDS).await?);
                return Ok(if self.waiting.is_empty() { More::End } else { More::Read });
            }
            if began.elapsed() >= HEARTBEAT {
                return Ok(More::Heartbeat);
            }
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(More::End),
                () = sleep(FOLLOW_POLL) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::testdata;

    fn framed(payload: &'static [u8]) -> String {
        let flow = testdata::record(tandem_model::outcome::Outcome::Committed).flow;
        let text = event(&EgressRecord { sequence: 7, flow, payload: Bytes::from_static(payload) });
        text.replace(&flow.to_string(), "FLOW")
    }

    #[test]
    fn records_are_framed_so_that_line_breaks_survive() {
        assert_eq!(framed(br#"{"a":1}"#), "id: 7\nflow: FLOW\ndata: {\"a\":1}\n\n");
        assert_eq!(framed(b"a\r\nb\n"), "id: 7\nflow: FLOW\ndata: a\ndata: b\ndata: \n\n");
        assert_eq!(framed(b"x\rid: 9\n\n"), "id: 7\nflow: FLOW\ndata: x\ndata: id: 9\ndata: \ndata: \n\n");
        assert_eq!(framed(b""), "id: 7\nflow: FLOW\ndata: \n\n");
        assert_eq!(framed(&[0xff, 0]), "id: 7\nflow: FLOW\nevent: binary\ndata: /wA=\n\n");
    }

    #[test]
    fn last_event_id_goes_before_the_query() {
        let parameters = Parameters { after: Some(3), follow: None };
        let mut request_headers = HeaderMap::new();
        assert_eq!(position(&parameters, &request_headers).unwrap(), 3);
        request_headers.insert(LAST_EVENT_ID, HeaderValue::from_static("9"));
        assert_eq!(position(&parameters, &request_headers).unwrap(), 9);
        request_headers.insert(LAST_EVENT_ID, HeaderValue::from_static("x"));
        assert_eq!(position(&parameters, &request_headers).unwrap_err().reason, "malformed-header");
    }
}
