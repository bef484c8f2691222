use std::sync::atomic::{AtomicBool, Ordering};

use tandem_store::memory::MemoryStore;

use super::*;
use crate::metrics::Metrics;

const SETTINGS: Settings = Settings {
    beat: Duration::from_secs(1),
    dead_after: Duration::from_secs(5),
    linger: Duration::ZERO,
    slots: SlotCount::DEFAULT,
};

fn member(id: u64, name: &str) -> Member {
    let (name, address) = (name.to_owned(), format!("http://{name}"));
    Member { id: MemberId(id), name, address, version: "1".to_owned(), draining: false, beat: 0 }
}

struct One {
    membership: Arc<Membership<MemoryStore>>,
    peers: Arc<Peers>,
    stop: CancellationToken,
}

impl One {
    async fn join(store: &MemoryStore, id: u64, name: &str) -> Result<Self, Error> {
        let peers = Peers::unconnected(MemberId(id), SlotCount::DEFAULT, Metrics::new());
        let me = member(id, name);
        let membership = Membership::join(store.clone(), SETTINGS, me, Arc::clone(&peers), Box::new(|| true)).await?;
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&membership).run(stop.clone()));
        Ok(Self { membership, peers, stop })
    }

    fn sees(&self) -> Vec<u64> {
        self.peers.map().members.iter().map(|member| member.id.0).collect()
    }

    fn owns(&self) -> usize {
        let map = self.peers.map();
        map.owned_by(map.me)
    }
}

async fn beats(count: u32) {
    tokio::time::sleep(SETTINGS.beat * count + SETTINGS.beat / 4).await;
}

fn rows(store: &MemoryStore) -> usize {
    store.rows().iter().filter(|(key, _)| keys::metas(PREFIX).contains(key)).count()
}

#[test]
fn the_row_of_a_member_is_a_format() {
    let me = Member { draining: true, beat: 300, ..member(5, "a") };
    let value = encode(&me);
    assert_eq!(value[..], *b"\x02\x05\x01a\x08http://a\x011\x01\xac\x02");
    assert_eq!(decode(&value), Some(me));
    assert_eq!(id_of(&row_key(MemberId(0xab))), Some(MemberId(0xab)));
}

#[tokio::test(start_paused = true)]
async fn members_find_each_other_and_share_all_partitions() {
    let store = MemoryStore::new();
    let one = One::join(&store, 1, "a").await.unwrap();
    assert_eq!(one.owns(), usize::from(PARTITIONS));
    let two = One::join(&store, 2, "b").await.unwrap();
    beats(1).await;
    assert_eq!((one.sees(), two.sees()), (vec![1, 2], vec![1, 2]));
    assert_eq!(one.owns() + two.owns(), usize::from(PARTITIONS));
    let revision = one.peers.map().revision;
    beats(3).await;
    assert_eq!(one.peers.map().revision, revision, "nothing has changed");
}

// To see it fail: compare the beats with anything but what this one saw itself.
#[tokio::test(start_paused = true)]
async fn who_gives_no_sign_of_life_is_gone_after_a_while_and_its_row_later() {
    let store = MemoryStore::new();
    let (one, two) = (One::join(&store, 1, "a").await.unwrap(), One::join(&store, 2, "b").await.unwrap());
    beats(1).await;
    two.stop.cancel();
    beats(3).await;
    assert_eq!(one.sees(), [1, 2]);
    beats(3).await;
    assert_eq!((one.sees(), one.owns(), rows(&store)), (vec![1], usize::from(PARTITIONS), 2));
    beats(60).await;
    assert_eq!(rows(&store), 1);
    // It was only frozen.
    tokio::spawn(Arc::clone(&two.membership).run(CancellationToken::new()));
    beats(2).await;
    assert_eq!((one.sees(), two.sees()), (vec![1, 2], vec![1, 2]));
}

#[tokio::test(start_paused = true)]
async fn who_drains_owns_nothing_and_who_leaves_is_not_there() {
    let store = MemoryStore::new();
    let (one, two) = (One::join(&store, 1, "a").await.unwrap(), One::join(&store, 2, "b").await.unwrap());
    two.membership.drain().await;
    beats(1).await;
    assert_eq!((one.sees(), one.owns(), two.owns()), (vec![1, 2], usize::from(PARTITIONS), 0));
    two.membership.leave().await;
    beats(1).await;
    assert_eq!((one.sees(), rows(&store)), (vec![1], 1));
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_is_started_again_takes_the_place_of_its_earlier_run() {
    let store = MemoryStore::new();
    let one = One::join(&store, 1, "a").await.unwrap();
    let two = One::join(&store, 2, "b").await.unwrap();
    beats(1).await;
    let owned = two.owns();
    two.stop.cancel();
    let again = One::join(&store, 3, "b").await.unwrap();
    beats(1).await;
    assert_eq!((one.sees(), again.sees(), again.owns()), (vec![1, 3], vec![1, 3], owned));
    assert_eq!(rows(&store), 2);
}

#[tokio::test(start_paused = true)]
async fn who_has_only_begun_owns_nothing_until_it_can_run_flows() {
    let store = MemoryStore::new();
    let peers = Peers::unconnected(MemberId(1), SlotCount::DEFAULT, Metrics::new());
    let warm = Arc::new(AtomicBool::new(false));
    let look = Arc::clone(&warm);
    let ready: Warm = Box::new(move || look.load(Ordering::Relaxed));
    let membership = Membership::join(store, SETTINGS, member(1, "a"), Arc::clone(&peers), ready).await.unwrap();
    tokio::spawn(membership.run(CancellationToken::new()));
    let owned = || peers.map().owned_by(MemberId(1));
    beats(2).await;
    assert_eq!(owned(), 0);
    warm.store(true, Ordering::Relaxed);
    beats(1).await;
    assert_eq!(owned(), usize::from(PARTITIONS));
}

#[tokio::test(start_paused = true)]
async fn a_live_runtime_with_other_formats_is_an_error_and_a_dead_one_is_not() {
    let store = MemoryStore::new();
    let stranger = async |beat: u8| {
        let value = Bytes::copy_from_slice(&[FORMAT + 1, beat]);
        store.commit(one_write(row_key(MemberId(7)), Some(value), Vec::new())).await.unwrap();
    };
    stranger(1).await;
    assert!(One::join(&store, 1, "a").await.is_ok());
    let live = async {
        for beat in 2.. {
            stranger(beat).await;
            tokio::time::sleep(SETTINGS.beat).await;
        }
    };
    let refused = tokio::select! {
        () = live => unreachable!("it beats for ever"),
        joined = One::join(&store, 2, "b") => joined.err(),
    };
    assert!(matches!(refused, Some(Error::OtherVersion { found: 3, known: 2 })), "{refused:?}");
}
