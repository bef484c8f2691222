//! Keys of own transactions that are committed, but whose locks have not all been cleared yet.
//!
//! A commit is answered once its primary is committed; the other regions follow in the background. Who comes next and
//! needs one of those keys waits a moment for that, which is cheaper than to meet the lock and ask about it.
//!
//! **Invariant:** nothing but speed depends on this: every wait is bounded, and what is not here is found as a lock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tandem_store::KeyRange;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Clearing usually takes one round trip.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// Each key with the number of its transaction and what is closed when it is cleared. It wakes those who wait in the order
/// in which they came, so that a simulation takes the same course each time.
type Keys = BTreeMap<Bytes, (u64, Arc<Semaphore>)>;

/// The keys that are being cleared.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    keys: Mutex<Keys>,
    count: AtomicUsize,
}

/// While it exists, its keys are pending.
#[derive(Debug)]
pub(crate) struct PendingKeys {
    pending: Arc<Pending>,
    transaction: u64,
    keys: Vec<Bytes>,
    end: Arc<Semaphore>,
}

impl Pending {
    /// From now on, others wait for these keys of the transaction that started at `transaction`.
    pub(crate) fn add(self: &Arc<Self>, transaction: u64, keys: Vec<Bytes>) -> PendingKeys {
        let end = Arc::new(Semaphore::new(0));
        let mut all = self.lock();
        for key in &keys {
            all.insert(key.clone(), (transaction, end.clone()));
        }
        self.count.store(all.len(), Ordering::Release);
        drop(all);
        PendingKeys { pending: self.clone(), transaction, keys, end }
    }

    /// Waits until none of these keys is pending, or for a short time.
    pub(crate) async fn wait_for_keys(&self, keys: impl Iterator<Item = &Bytes>) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let found: Vec<_> = {
            let all = self.lock();
            keys.filter_map(|key| all.get(key)).map(|(_, end)| end.clone()).collect()
        };
        wait(found).await;
    }

    /// The same for all keys of a range.
    pub(crate) async fn wait_for_range(&self, range: &KeyRange) {
        if self.count.load(Ordering::Acquire) == 0 || range.is_empty() {
            return;
        }
        let found = self.lock().range(range.bounds()).map(|(_, (_, end))| end.clone()).collect();
        wait(found).await;
    }

    fn lock(&self) -> MutexGuard<'_, Keys> {
        // Nothing panics while it is locked.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn wait(ends: Vec<Arc<Semaphore>>) {
    let all = async {
        for end in ends {
            // There never is a permit. The error is what we wait for: it is closed.
            let _ = end.acquire().await;
        }
    };
    // Whether it was enough shows itself: what is still locked is met as a lock.
    let _ = timeout(WAIT_MAX, all).await;
}

impl Drop for PendingKeys {
    fn drop(&mut self) {
        let mut all = self.pending.lock();
        for key in &self.keys {
            if all.get(key).is_some_and(|(transaction, _)| *transaction == self.transaction) {
                all.remove(key);
            }
        }
        self.pending.count.store(all.len(), Ordering::Release);
        drop(all);
        self.end.close();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn others_wait_until_the_keys_are_cleared() {
        let pending = Arc::new(Pending::default());
        let keys = pending.add(1, vec![Bytes::from_static(b"a")]);
        let clearing = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(3)).await;
            drop(keys);
        });
        let begin = Instant::now();
        pending.wait_for_keys([Bytes::from_static(b"b")].iter()).await;
        assert_eq!(begin.elapsed(), Duration::ZERO);
        pending.wait_for_range(&KeyRange::prefix(b"")).await;
        assert_eq!(begin.elapsed(), Duration::from_millis(3));
        clearing.await.expect("it only sleeps");
        assert_eq!(pending.count.load(Ordering::Acquire), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_long() {
        let pending = Arc::new(Pending::default());
        let _keys = pending.add(1, vec![Bytes::from_static(b"a")]);
        let begin = Instant::now();
        pending.wait_for_keys([Bytes::from_static(b"a")].iter()).await;
        assert_eq!(begin.elapsed(), WAIT_MAX);
    }

    #[tokio::test]
    async fn a_later_transaction_keeps_its_keys() {
        let pending = Arc::new(Pending::default());
        let first = pending.add(1, vec![Bytes::from_static(b"a")]);
        let second = pending.add(2, vec![Bytes::from_static(b"a")]);
        drop(first);
        assert_eq!(pending.lock().len(), 1);
        drop(second);
        assert_eq!(pending.lock().len(), 0);
    }
}
