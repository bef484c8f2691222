//! Lines as they come, from the pods that are there and from those that come later.
//!
//! A log that breaks off before its container ends is opened again, where it was left. That is said on standard error; no
//! line is printed twice, and none is left out that the cluster has still.

mod stream;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use kube::api::LogParams;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use self::stream::{Ending, Place, Reader, Why};
use super::lines::{Line, Printer};
use crate::Exit;
use crate::client::Error;
use crate::cluster::{self, Cluster, Pod};
use crate::output::print_error;

/// How often it is looked for new pods, and for logs to open again.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a kubelet may say that a container runs whose log has come to its end.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);
/// Lines that wait to be printed. Pods whose lines find no room wait, too.
const WAITING_MAX: usize = 256;
/// Pods that are followed at the same time.
const FOLLOWED_MAX: usize = 64;
/// How often in a row a log may break off without a line before it is given up: two minutes of looks, at least.
const FAILURES_MAX: u32 = 60;
/// What was open for so long did not fail: something on the way does not like quiet connections.
const LASTING: Duration = Duration::from_secs(20);
/// How long nobody may say which pods there are.
const SILENT_MAX: Duration = Duration::from_mins(5);

/// One life of a container: started anew, it has another log. Another pod may have the same name.
type Life = (String, i32);

/// How it is with the log of one life.
enum State {
    /// It is being read.
    Open,
    /// It is opened again at a look after `from`, if the container runs still.
    Ended { reader: Reader, from: Instant, is_clean: bool },
    /// Nothing more is read of it.
    Done,
}

/// Prints lines until nobody reads them, or Ctrl-C.
pub(super) async fn follow(
    cluster: &Cluster,
    labels: &str,
    parameters: &LogParams,
    printer: Printer,
) -> Result<Exit, Error> {
    let (sender, mut lines) = mpsc::channel(WAITING_MAX);
    let mut streams = Streams::new(cluster, parameters, sender);
    let mut answers = Answers::default();
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // `streams` has the other end of the channel, so that there is always another line to wait for.
            Some(line) = lines.recv() => {
                if !printer.print(&line) {
                    return Ok(Exit::Ok);
                }
            }
            _ = looks.tick() => {
                let was_silent = answers.are_silent;
                if let Some(pods) = answers.take(cluster.pods(labels).await)? {
                    if was_silent {
                        streams.renew();
                    }
                    streams.look(pods);
                }
            }
            Some(ended) = streams.readers.join_next(), if !streams.readers.is_empty() => {
                if let Ok(ending) = ended {
                    streams.ended(ending);
                }
            }
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Ok),
        }
    }
}

/// Whether it is known which pods there are.
#[derive(Default)]
struct Answers {
    last: Option<Instant>,
    are_silent: bool,
}

impl Answers {
    /// The pods. Nothing if there is no answer now; an error if there never was one, or has been none for long.
    fn take(&mut self, answer: Result<Vec<Pod>, cluster::Error>) -> Result<Option<Vec<Pod>>, Error> {
        match (answer, self.last) {
            (Ok(pods), _) => {
                if std::mem::take(&mut self.are_silent) {
                    print_error("note: the cluster answers again");
                }
                self.last = Some(Instant::now());
                Ok(Some(pods))
            }
            (Err(error), Some(last)) if last.elapsed() < SILENT_MAX => {
                if !std::mem::replace(&mut self.are_silent, true) {
                    print_error(&format!("warning: {error}; it is asked again for {} s", SILENT_MAX.as_secs()));
                }
                Ok(None)
            }
            (Err(error), _) => Err(error.into()),
        }
    }
}

/// The logs of all lives of all pods.
struct Streams<'a> {
    cluster: &'a Cluster,
    parameters: &'a LogParams,
    sender: mpsc::Sender<Line>,
    known: HashMap<Life, State>,
    readers: JoinSet<Ending>,
    renewed: CancellationToken,
    has_looked: bool,
    has_said_too_many: bool,
}

impl<'a> Streams<'a> {
    fn new(cluster: &'a Cluster, parameters: &'a LogParams, sender: mpsc::Sender<Line>) -> Self {
        Self {
            cluster,
            parameters,
            sender,
            known: HashMap::new(),
            readers: JoinSet::new(),
            renewed: CancellationToken::new(),
            has_looked: false,
            has_said_too_many: false,
        }
    }

    /// Opens the logs of containers that run, unless they are open.
    fn look(&mut self, pods: Vec<Pod>) {
        let lives: HashSet<Life> = pods.iter().map(life).collect();
        self.known.retain(|life, state| matches!(state, State::Open) || lives.contains(life));
        for pod in pods.into_iter().filter(|pod| pod.is_running) {
            if self.is_to_open(&pod) {
                if self.readers.len() >= FOLLOWED_MAX {
                    return self.say_too_many();
                }
                self.open(pod);
            }
        }
        self.has_looked = true;
    }

    fn is_to_open(&self, pod: &Pod) -> bool {
        match self.known.get(&life(pod)) {
            None => true,
            Some(State::Open | State::Done) => false,
            // A pod that ends has said its last words where its log is at its end.
            Some(State::Ended { from, is_clean, .. }) => *from <= Instant::now() && !(*is_clean && pod.is_ending),
        }
    }

    fn open(&mut self, pod: Pod) {
        let life = life(&pod);
        let reader = match self.known.insert(life.clone(), State::Open) {
            Some(State::Ended { reader, .. }) => reader.tell("its log came to an end before the container"),
            _ => Reader { life, pod: pod.name, place: Place::default(), failures: 0, is_told: false },
        };
        let parameters = reader.place.parameters(self.first_parameters());
        let (cluster, sender, renewed) = (self.cluster.clone(), self.sender.clone(), self.renewed.clone());
        self.readers.spawn(reader.run(cluster, parameters, sender, renewed));
    }

    /// Of a pod that came later, everything is new.
    fn first_parameters(&self) -> LogParams {
        let mut parameters = LogParams { follow: true, ..self.parameters.clone() };
        if self.has_looked {
            (parameters.since_seconds, parameters.tail_lines) = (None, None);
        }
        parameters
    }

    fn say_too_many(&mut self) {
        if !std::mem::replace(&mut self.has_said_too_many, true) {
            print_error(&format!("warning: there are more pods; {FOLLOWED_MAX} are followed at a time"));
        }
    }

    /// Lets go of every connection: who only listens does not notice that the other end has gone away.
    fn renew(&mut self) {
        std::mem::take(&mut self.renewed).cancel();
    }

    /// A reader has ended.
    fn ended(&mut self, ending: Ending) {
        self.known.insert(ending.reader.life.clone(), after(ending));
    }
}

/// What to do about a log that came to its end, or whose way broke.
fn after(ending: Ending) -> State {
    let Ending { mut reader, why, opened, has_read } = ending;
    reader.failures = if has_read || opened.elapsed() >= LASTING { 0 } else { reader.failures + 1 };
    reader.is_told &= !has_read;
    let now = Instant::now();
    match why {
        Why::Refused(why) => {
            print_error(&format!("warning: {}: {why}", reader.pod));
            State::Done
        }
        Why::Ended | Why::Broke(_) if reader.failures > FAILURES_MAX => {
            print_error(&format!("warning: {}: its log is given up after {FAILURES_MAX} attempts", reader.pod));
            State::Done
        }
        Why::Broke(why) => State::Ended { reader: reader.tell(&why), from: now, is_clean: false },
        Why::Ended => State::Ended { reader, from: now + SETTLES_WITHIN, is_clean: true },
    }
}

impl Reader {
    /// Says once in a row that the log is opened again.
    fn tell(mut self, why: &str) -> Self {
        if !std::mem::replace(&mut self.is_told, true) {
            print_error(&format!("note: {}: {why}; it is opened again", self.pod));
        }
        self
    }
}

fn life(pod: &Pod) -> Life {
    (pod.uid.clone(), pod.restarts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader() -> Reader {
        Reader {
            life: ("uid".to_owned(), 0),
            pod: "order-a".to_owned(),
            place: Place::default(),
            failures: 0,
            is_told: false,
        }
    }

    fn broke(reader: Reader, has_read: bool) -> State {
        after(Ending { reader, why: Why::Broke("reset".to_owned()), opened: Instant::now(), has_read })
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_breaks_again_and_again_is_given_up() {
        let mut reader = reader();
        for attempt in 1..=FAILURES_MAX {
            let State::Ended { reader: next, .. } = broke(reader, false) else { panic!("given up at {attempt}") };
            assert_eq!(next.failures, attempt);
            reader = next;
        }
        let State::Ended { reader: read, .. } = broke(Reader { ..reader }, true) else { panic!("a line was read") };
        assert_eq!(read.failures, 0);
        let tired = Reader { failures: FAILURES_MAX, ..read };
        assert!(matches!(broke(tired, false), State::Done));
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_log_may_be_cut_off_as_often_as_one_likes() {
        let mut reader = Reader { failures: FAILURES_MAX, ..reader() };
        let opened = Instant::now();
        tokio::time::advance(LASTING).await;
        let ending = Ending { reader, why: Why::Ended, opened, has_read: false };
        let State::Ended { reader: next, is_clean, .. } = after(ending) else { panic!("it is given up") };
        reader = next;
        assert!(reader.failures == 0 && is_clean);
        let refused = Ending { reader, why: Why::Refused("no".to_owned()), opened, has_read: true };
        assert!(matches!(after(refused), State::Done));
    }
}
