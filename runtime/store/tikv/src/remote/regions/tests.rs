//! Splits, merges, moves and stale news.

use super::*;

fn region(id: u64, version: u64, start: &'static str, end: &'static str) -> metapb::Region {
    let peers = vec![metapb::Peer { id: id * 10, store_id: 1, ..Default::default() }];
    metapb::Region {
        id,
        start_key: Bytes::from_static(start.as_bytes()),
        end_key: Bytes::from_static(end.as_bytes()),
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version }),
        peers,
    }
}

fn known(id: u64, version: u64, start: &'static str, end: &'static str) -> KnownRegion {
    let region = region(id, version, start, end);
    KnownRegion { leader: region.peers[0], region }
}

fn id(regions: &Regions, key: &str) -> Option<u64> {
    regions.of_key(key.as_bytes()).map(|region| region.id)
}

#[test]
fn a_key_is_found_between_the_borders() {
    let regions = Regions::default();
    assert_eq!(id(&regions, "a"), None);
    regions.insert(known(1, 1, "", "c"));
    regions.insert(known(3, 1, "f", ""));
    assert_eq!([id(&regions, ""), id(&regions, "b"), id(&regions, "c")], [Some(1), Some(1), None]);
    assert_eq!([id(&regions, "e"), id(&regions, "f"), id(&regions, "z")], [None, Some(3), Some(3)]);
}

#[test]
fn a_split_replaces_what_it_covers() {
    let regions = Regions::default();
    let whole = known(1, 1, "", "");
    regions.insert(whole.clone());
    let current_regions = vec![region(1, 2, "m", ""), region(2, 2, "", "m")];
    let epoch_not_match = Some(errorpb::EpochNotMatch { current_regions });
    regions.learn(&whole, &errorpb::Error { epoch_not_match, ..Default::default() });
    assert_eq!([id(&regions, "a"), id(&regions, "m")], [Some(2), Some(1)]);
    assert_eq!(regions.get(whole.name()), None);
}

#[test]
fn old_news_change_nothing() {
    let regions = Regions::default();
    regions.insert(known(1, 2, "m", ""));
    regions.insert(known(2, 2, "", "m"));
    regions.insert(known(1, 1, "", ""));
    assert_eq!([id(&regions, "a"), id(&regions, "m")], [Some(2), Some(1)]);
}

#[test]
fn a_merge_swallows_its_neighbour() {
    let regions = Regions::default();
    regions.insert(known(1, 2, "m", ""));
    regions.insert(known(2, 2, "", "m"));
    regions.insert(known(1, 3, "", ""));
    assert_eq!([id(&regions, "a"), id(&regions, "z")], [Some(1), Some(1)]);
    assert_eq!(regions.lock().starts.len(), 1);
}

#[test]
fn a_new_leader_is_used_at_once_and_an_unknown_one_is_looked_up() {
    let regions = Regions::default();
    let before = known(1, 1, "", "");
    regions.insert(before.clone());
    let leader = metapb::Peer { id: 11, store_id: 2, ..Default::default() };
    let not_leader = Some(errorpb::NotLeader { region_id: 1, leader: Some(leader) });
    regions.learn(&before, &errorpb::Error { not_leader, ..Default::default() });
    assert_eq!(regions.get(before.name()).map(|known| known.leader.store_id), Some(2));
    let not_leader = Some(errorpb::NotLeader { region_id: 1, leader: None });
    regions.learn(&before, &errorpb::Error { not_leader, ..Default::default() });
    assert_eq!(id(&regions, "a"), None);
}

#[test]
fn a_busy_store_keeps_its_regions_and_others_lose_them() {
    let regions = Regions::default();
    let region = known(1, 1, "", "");
    regions.insert(region.clone());
    let server_is_busy = Some(errorpb::ServerIsBusy::default());
    regions.learn(&region, &errorpb::Error { server_is_busy, ..Default::default() });
    assert_eq!(id(&regions, "a"), Some(1));
    let region_not_found = Some(errorpb::RegionNotFound { region_id: 1 });
    regions.learn(&region, &errorpb::Error { region_not_found, ..Default::default() });
    assert_eq!(id(&regions, "a"), None);
    regions.insert(region);
    regions.forget_store(1);
    assert_eq!(id(&regions, "a"), None);
}
