//! Puts together what many ask for at once: one timestamp for their snapshots, one request for what they read there.
//!
//! Flows come in waves: a commit group answers many clients in one moment, and each sends its next request. With one
//! timestamp for a wave, its reads of a region fit into one request, and a group whose flows all come from one wave can
//! start at that timestamp. Who comes alone waits for nobody.
//!
//! **Invariant:** a timestamp is asked for after all who share it have asked, so that each of them sees whatever was
//! committed before it asked.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tandem_model::ids::Timestamp;
use tandem_store::Error;
use tokio::sync::oneshot;

/// Keys of one request. The value of each may be large.
const KEYS_MAX: usize = 256;

/// A timestamp, and whether others got it as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    pub(crate) at: Timestamp,
    pub(crate) with_others: bool,
}

/// Values in the order of the keys that were asked for. `None`: they could not be read together.
type Values = Option<Vec<Option<Bytes>>>;

/// Those who wait.
#[derive(Debug, Default)]
pub(crate) struct Together {
    timestamps: Mutex<Timestamps>,
    reads: Mutex<HashMap<Timestamp, Vec<Read>>>,
}

#[derive(Debug, Default)]
struct Timestamps {
    /// Somebody asks, again and again, while anybody waits.
    is_asked: bool,
    waiting: Vec<oneshot::Sender<Result<Shared, Error>>>,
}

#[derive(Debug)]
struct Read {
    keys: Vec<Bytes>,
    answer: oneshot::Sender<Values>,
}

impl Together {
    /// A timestamp that is asked for after this call, perhaps with others.
    pub(crate) async fn timestamp<F>(self: &Arc<Self>, ask: impl Fn() -> F + Send + 'static) -> Result<Shared, Error>
    where
        F: Future<Output = Result<Timestamp, Error>> + Send,
    {
        let (sender, answer) = oneshot::channel();
        let is_asked = {
            let mut timestamps = lock(&self.timestamps);
            timestamps.waiting.push(sender);
            std::mem::replace(&mut timestamps.is_asked, true)
        };
        if !is_asked {
            let mut asking = Asking { together: Arc::clone(self), is_over: false };
            // A task of its own, so that nobody who gives up stops the others.
            tokio::spawn(async move {
                while let Some(waiting) = asking.next() {
                    let answer = ask().await;
                    let with_others = waiting.len() > 1;
                    for one in waiting {
                        let answer = answer.as_ref().map(|at| Shared { at: *at, with_others }).map_err(again);
                        // Who has given up needs no answer.
                        let _ = one.send(answer);
                    }
                }
            });
        }
        answer.await.unwrap_or_else(|_| Err(Error::Unavailable("the store was closed".to_owned())))
    }

    /// Values of keys at a timestamp, read with those for which others ask at this moment. `None` if that failed; then
    /// each has to ask for itself, since only one of them may be the reason.
    pub(crate) async fn read<F>(
        self: &Arc<Self>,
        at: Timestamp,
        keys: &[Bytes],
        read: impl FnOnce(Vec<Bytes>) -> F + Send + 'static,
    ) -> Values
    where
        F: Future<Output = Values> + Send,
    {
        let (answer, values) = oneshot::channel();
        let is_first = {
            let mut reads = lock(&self.reads);
            let same = reads.entry(at).or_default();
            same.push(Read { keys: keys.to_vec(), answer });
            same.len() == 1
        };
        if is_first {
            let together = Arc::clone(self);
            tokio::spawn(async move {
                // Everybody who is about to ask at this moment does so now.
                tokio::task::yield_now().await;
                let reads = lock(&together.reads).remove(&at).unwrap_or_default();
                answer_all(reads, read).await;
            });
        }
        values.await.unwrap_or(None)
    }
}

async fn answer_all<F: Future<Output = Values>>(reads: Vec<Read>, read: impl FnOnce(Vec<Bytes>) -> F) {
    let keys: BTreeSet<&Bytes> = reads.iter().flat_map(|read| &read.keys).take(KEYS_MAX).collect();
    let keys: Vec<Bytes> = keys.into_iter().cloned().collect();
    let values = read(keys.clone()).await.unwrap_or_default();
    let found: HashMap<Bytes, Option<Bytes>> = keys.into_iter().zip(values).collect();
    for Read { keys, answer } in reads {
        // Nothing at all for those whose keys were too many.
        let values = keys.iter().map(|key| found.get(key).cloned()).collect();
        let _ = answer.send(values);
    }
}

/// The duty to ask until nobody waits any more.
struct Asking {
    together: Arc<Together>,
    is_over: bool,
}

impl Asking {
    fn next(&mut self) -> Option<Vec<oneshot::Sender<Result<Shared, Error>>>> {
        let mut timestamps = lock(&self.together.timestamps);
        if timestamps.waiting.is_empty() {
            timestamps.is_asked = false;
            self.is_over = true;
            return None;
        }
        Some(std::mem::take(&mut timestamps.waiting))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if !self.is_over {
            // The task has failed: the next one who comes asks anew, and those who wait learn of it.
            *lock(&self.together.timestamps) = Timestamps::default();
        }
    }
}

/// The same error for one more.
fn again(error: &Error) -> Error {
    match error {
        Error::Refused(why) => Error::Refused(why.clone()),
        Error::Unavailable(why) => Error::Unavailable(why.clone()),
        other => Error::Unavailable(other.to_string()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is locked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// A clock that stands still until it is let go on.
    #[derive(Clone)]
    struct Clock {
        asked: Arc<AtomicU64>,
        go: Arc<Semaphore>,
    }

    impl Clock {
        async fn now(&self) -> Result<Timestamp, Error> {
            let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            self.go.acquire().await.expect("nobody closes it").forget();
            if number > 2 { Err(Error::Refused("no more".to_owned())) } else { Ok(Timestamp(number)) }
        }
    }

    fn keys(names: &[&'static str]) -> Vec<Bytes> {
        names.iter().map(|name| Bytes::from_static(name.as_bytes())).collect()
    }

    #[tokio::test]
    async fn who_comes_while_one_is_under_way_shares_the_next() {
        let together = Arc::new(Together::default());
        let clock = Clock { asked: Arc::default(), go: Arc::new(Semaphore::new(0)) };
        let ask = || {
            let (together, clock) = (together.clone(), clock.clone());
            tokio::spawn(async move {
                together
                    .timestamp(move || {
                        let clock = clock.clone();
                        async move { clock.now().await }
                    })
                    .await
            })
        };
        let first = ask();
        while clock.asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let (second, third) = (ask(), ask());
        while lock(&together.timestamps).waiting.len() < 2 {
            tokio::task::yield_now().await;
        }
        clock.go.add_permits(2);
        let got = |answer: Result<Result<Shared, Error>, _>| answer.expect("no panic").expect("it was not refused");
        assert_eq!(got(first.await), Shared { at: Timestamp(1), with_others: false });
        assert_eq!(got(second.await), Shared { at: Timestamp(2), with_others: true });
        assert_eq!(got(third.await), Shared { at: Timestamp(2), with_others: true });
        clock.go.add_permits(1);
        let refused = ask().await.expect("no panic");
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
        assert!(!lock(&together.timestamps).is_asked);
    }

    #[tokio::test]
    async fn reads_of_one_moment_become_one() {
        let together = Arc::new(Together::default());
        let asked = Arc::new(AtomicU64::new(0));
        let read = |names: &[&'static str], works: bool| {
            let (together, asked, keys) = (together.clone(), asked.clone(), keys(names));
            async move {
                let read = move |keys: Vec<Bytes>| async move {
                    asked.fetch_add(1, Ordering::SeqCst);
                    works.then(|| keys.into_iter().map(|key| (key != "none").then_some(key)).collect())
                };
                together.read(Timestamp(7), &keys, read).await
            }
        };
        let (one, two) = tokio::join!(read(&["a", "none"], true), read(&["b", "a"], true));
        assert_eq!(one, Some(vec![Some(Bytes::from_static(b"a")), None]));
        assert_eq!(two, Some(keys(&["b", "a"]).into_iter().map(Some).collect()));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        let failed = tokio::join!(read(&["a"], false), read(&["b"], false));
        assert_eq!(failed, (None, None), "each has to ask for itself");
        assert!(lock(&together.reads).is_empty());
    }
}
