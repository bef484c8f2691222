//! Whether anybody works on a store, for those who are no members: asked before everything in it is removed.

use std::collections::BTreeMap;

use bytes::Bytes;
use tandem_store::{Error, Snapshot as _, Store, keys};
use tokio::time::{Instant, sleep};

use super::{BEAT, MEMBER_DEAD_AFTER, MEMBERS_MAX, PREFIX, decode};

/// How many beats later than the first one the others may come, who are named with it.
const OTHERS_WITHIN: u32 = 2;

/// The runtimes that give a sign of life while they are watched: each by its name and address.
///
/// Takes as long as it takes to be sure that there is none; with `is_brief`, no time at all where no runtime has a row. Who
/// ended as it should has taken its row away.
pub async fn live<S: Store>(store: &S, is_brief: bool) -> Result<Vec<String>, Error> {
    let first = rows(store).await?;
    if is_brief && first.is_empty() {
        return Ok(Vec::new());
    }
    let mut until = Instant::now() + MEMBER_DEAD_AFTER + BEAT;
    let mut live = BTreeMap::new();
    while Instant::now() < until {
        sleep(BEAT / 2).await;
        for (key, value) in rows(store).await? {
            if first.get(&key) == Some(&value) {
                continue;
            }
            if live.is_empty() {
                until = until.min(Instant::now() + BEAT * OTHERS_WITHIN);
            }
            live.insert(key, name(&value));
        }
    }
    Ok(live.into_values().collect())
}

async fn rows<S: Store>(store: &S) -> Result<BTreeMap<Bytes, Bytes>, Error> {
    let rows = store.snapshot().await?.scan(&keys::metas(PREFIX), MEMBERS_MAX, false).await?;
    Ok(rows.into_iter().collect())
}

fn name(row: &[u8]) -> String {
    decode(row).map_or_else(
        || "a runtime of another version".to_owned(),
        |member| if member.is_reachable() { format!("{} at {}", member.name, member.address) } else { member.name },
    )
}

#[cfg(test)]
mod tests {
    use tandem_store::memory::MemoryStore;

    use super::super::{Member, MemberId, encode, one_write, row_key};
    use super::*;

    async fn beat(store: &MemoryStore, id: u64, beat: u64) {
        let (name, address) = (format!("pod-{id}"), "http://10.0.0.7:9443".to_owned());
        let member = Member { id: MemberId(id), name, address, version: "1".to_owned(), draining: false, beat };
        store.commit(one_write(row_key(member.id), Some(encode(&member)), Vec::new())).await.expect("memory takes it");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_beats_is_named_and_whoever_has_died_is_not() {
        let store = MemoryStore::new();
        let began = Instant::now();
        assert_eq!(live(&store, true).await.expect("memory answers"), <[String; 0]>::default());
        assert!(began.elapsed() < BEAT, "without rows there is nothing to wait for");
        beat(&store, 1, 1).await;
        beat(&store, 2, 1).await;
        assert_eq!(live(&store, true).await.expect("memory answers"), <[String; 0]>::default());
        let beats = {
            let store = store.clone();
            tokio::spawn(async move {
                for count in 2.. {
                    sleep(BEAT).await;
                    beat(&store, 2, count).await;
                }
            })
        };
        assert_eq!(live(&store, true).await.expect("memory answers"), ["pod-2 at http://10.0.0.7:9443"]);
        beats.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_comes_while_it_is_looked_is_seen() {
        let store = MemoryStore::new();
        let late = {
            let store = store.clone();
            tokio::spawn(async move {
                sleep(BEAT * 3).await;
                beat(&store, 7, 1).await;
            })
        };
        assert_eq!(live(&store, false).await.expect("memory answers").len(), 1);
        late.await.expect("it does not panic");
    }
}
