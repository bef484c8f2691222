//! The log of one container, read until it ends or breaks, and the place up to which it was read.

use jiff::Timestamp;
use kube::api::LogParams;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Life;
use crate::cluster::{self, Cluster};
use crate::logs::lines::{Line, Lines};

/// Up to where a log was read: the time of the last line, and how many lines of that time there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    time: Option<Timestamp>,
    count: usize,
}

impl Place {
    /// A line was read.
    fn pass(&mut self, line: &Line) {
        if line.time.is_some() && line.time == self.time {
            self.count += 1;
        } else if line.time.is_some() {
            *self = Self { time: line.time, count: 1 };
        }
    }

    /// What to ask for to go on from here; `first` where nothing was read.
    pub(super) fn parameters(&self, first: LogParams) -> LogParams {
        // Cut, not rounded: the API knows whole seconds, and what is asked for twice is left out here.
        let since = self.time.and_then(|time| Timestamp::from_second(time.as_second()).ok());
        match since {
            None => first,
            Some(since) => LogParams { since_time: Some(since), since_seconds: None, tail_lines: None, ..first },
        }
    }
}

/// Leaves out what was read before.
struct Catching {
    behind: Place,
    skipped: usize,
}

impl Catching {
    fn is_known(&mut self, line: &Line) -> bool {
        let Some(last) = self.behind.time else { return false };
        match line.time {
            Some(time) if time == last && self.skipped < self.behind.count => {
                self.skipped += 1;
                true
            }
            Some(time) if time < last => true,
            _ => {
                self.behind = Place::default();
                false
            }
        }
    }
}

/// Why nothing more is read.
#[derive(Debug)]
pub(super) enum Why {
    /// It says that it is at its end.
    Ended,
    /// The way to it broke.
    Broke(String),
    /// It may not be read.
    Refused(String),
}

/// A log that is read.
pub(super) struct Reader {
    /// Of which life.
    pub(super) life: Life,
    /// The name of its pod.
    pub(super) pod: String,
    /// Up to where.
    pub(super) place: Place,
    /// How often it broke without a line, before.
    pub(super) failures: u32,
    /// It was said that it broke.
    pub(super) is_told: bool,
}

/// How a reader ended.
pub(super) struct Ending {
    /// The reader, with its new place.
    pub(super) reader: Reader,
    /// Why.
    pub(super) why: Why,
    /// When it began.
    pub(super) opened: Instant,
    /// Whether there was a line.
    pub(super) has_read: bool,
}

impl Reader {
    /// Reads until the end, or until `renewed`.
    pub(super) async fn run(
        mut self,
        cluster: Cluster,
        parameters: LogParams,
        sender: mpsc::Sender<Line>,
        renewed: CancellationToken,
    ) -> Ending {
        let (opened, before) = (Instant::now(), self.place.clone());
        let why = tokio::select! {
            why = self.read(&cluster, &parameters, &sender) => why,
            () = renewed.cancelled() => Why::Broke("the cluster was out of reach".to_owned()),
        };
        let has_read = self.place != before;
        Ending { reader: self, why, opened, has_read }
    }

    async fn read(&mut self, cluster: &Cluster, parameters: &LogParams, sender: &mpsc::Sender<Line>) -> Why {
        let stream = match cluster.log(&self.pod, parameters).await {
            Ok(stream) => stream,
            Err(error @ cluster::Error::Forbidden { .. }) => return Why::Refused(error.to_string()),
            Err(error) => return Why::Broke(error.to_string()),
        };
        let mut lines = Lines::new(&self.pod, stream);
        let mut catching = Catching { behind: self.place.clone(), skipped: 0 };
        loop {
            match lines.next().await {
                Ok(Some(line)) if catching.is_known(&line) => {}
                Ok(Some(line)) => {
                    // Passed once it is handed on: who is stopped while it waits hands it on the next time.
                    let mut place = self.place.clone();
                    place.pass(&line);
                    if sender.send(line).await.is_err() {
                        return Why::Ended;
                    }
                    self.place = place;
                }
                Ok(None) => return Why::Ended,
                Err(error) => return Why::Broke(error.to_string()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(time: &str) -> Line {
        Line { pod: "a".to_owned(), time: time.parse().ok(), text: String::new() }
    }

    fn place(times: &[&str]) -> Place {
        let mut place = Place::default();
        for time in times {
            place.pass(&line(time));
        }
        place
    }

    /// Which of these are printed when a log is opened again.
    fn new(place: &Place, times: &[&str]) -> Vec<usize> {
        let mut catching = Catching { behind: place.clone(), skipped: 0 };
        (0..times.len()).filter(|at| !catching.is_known(&line(times[*at]))).collect()
    }

    const A: &str = "2026-01-01T00:00:01.2Z";
    const B: &str = "2026-01-01T00:00:01.7Z";
    const C: &str = "2026-01-01T00:00:02Z";

    #[test]
    fn what_was_read_is_left_out_and_nothing_else() {
        assert_eq!(new(&Place::default(), &[A, B]), [0, 1]);
        assert_eq!(new(&place(&[A, B]), &[A, B, C]), [2]);
        // Two lines of the same time, of which one was read.
        assert_eq!(new(&place(&[A, B]), &[A, B, B, C]), [2, 3]);
        assert_eq!(new(&place(&[A, B, B]), &[A, B, B, C]), [3]);
        // What was read is not there any more.
        assert_eq!(new(&place(&[A]), &[C, ""]), [0, 1]);
        // Once it has caught up, a clock that goes back loses nothing.
        assert_eq!(new(&place(&[B]), &[B, C, A]), [1, 2]);
    }

    #[test]
    fn it_goes_on_at_the_second_of_the_last_line() {
        let first = LogParams { since_seconds: Some(60), tail_lines: Some(5), ..LogParams::default() };
        assert_eq!(Place::default().parameters(first.clone()).tail_lines, Some(5));
        let again = place(&[A, B]).parameters(first);
        assert_eq!((again.since_seconds, again.tail_lines), (None, None));
        assert_eq!(again.since_time, Some("2026-01-01T00:00:01Z".parse().unwrap()));
    }
}
