//! Splits what is written into requests: one region each, and not too large.

use bytes::Bytes;

use crate::cluster::{Cluster, Failure, Region};
use crate::retry::Deadline;

/// A request holds no more keys than this.
const KEYS_MAX: usize = 1024;
/// A request holds no more bytes than this, unless one key alone has more.
pub(crate) const BYTES_MAX: usize = 256 << 10;
/// So many requests of one transaction are under way at once.
pub(crate) const REQUESTS_AT_ONCE: usize = 16;

/// What goes into one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch<T> {
    pub(crate) region: Region,
    pub(crate) items: Vec<T>,
}

/// Groups items by the region of their keys, in the order in which the regions first occur.
pub(crate) async fn by_region<C: Cluster, T>(
    cluster: &C,
    items: Vec<T>,
    key: impl Fn(&T) -> &Bytes,
    bytes: impl Fn(&T) -> usize,
    deadline: Deadline,
) -> Result<Vec<Batch<T>>, Failure> {
    let mut located = Vec::with_capacity(items.len());
    for item in items {
        let region = deadline.repeat(|| cluster.region_of(key(&item))).await?;
        located.push((region, item));
    }
    Ok(split(located, bytes))
}

fn split<T>(located: Vec<(Region, T)>, bytes: impl Fn(&T) -> usize) -> Vec<Batch<T>> {
    // For each region, the batch that still has room: there are few regions, so that looking through them is cheap.
    let mut open: Vec<(Region, usize, usize)> = Vec::new();
    let mut batches: Vec<Batch<T>> = Vec::new();
    for (region, item) in located {
        let size = bytes(&item);
        let place = open.iter_mut().find(|(other, _, _)| *other == region);
        match place {
            Some((_, batch, used)) if *used + size <= BYTES_MAX && batches[*batch].items.len() < KEYS_MAX => {
                batches[*batch].items.push(item);
                *used += size;
            }
            Some((_, batch, used)) => {
                (*batch, *used) = (batches.len(), size);
                batches.push(Batch { region, items: vec![item] });
            }
            None => {
                open.push((region, batches.len(), size));
                batches.push(Batch { region, items: vec![item] });
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(id: u64) -> Region {
        Region { id, version: 1, members_version: 1 }
    }

    #[test]
    fn items_of_a_region_go_together_and_keep_their_order() {
        let batches = split(vec![(region(1), 'a'), (region(2), 'b'), (region(1), 'c')], |_| 1);
        let expected =
            [Batch { region: region(1), items: vec!['a', 'c'] }, Batch { region: region(2), items: vec!['b'] }];
        assert_eq!(batches, expected);
    }

    #[test]
    fn a_request_is_not_too_large() {
        let batches = split(vec![(region(1), BYTES_MAX), (region(1), 1), (region(1), 2 * BYTES_MAX)], |size| *size);
        assert_eq!(batches.iter().map(|batch| batch.items.len()).collect::<Vec<_>>(), [1, 1, 1]);
        let many = split((0..=KEYS_MAX).map(|item| (region(1), item)).collect(), |_| 1);
        assert_eq!(many.iter().map(|batch| batch.items.len()).collect::<Vec<_>>(), [KEYS_MAX, 1]);
    }

    #[test]
    fn another_version_of_a_region_is_another_region() {
        let newer = Region { version: 2, ..region(1) };
        assert_eq!(split(vec![(region(1), 'a'), (newer, 'b')], |_| 1).len(), 2);
    }
}
