//! Random choices of the workloads: seeded, so that every system meets the same requests.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Where a client's choices come from.
pub(crate) type Dice = SmallRng;

/// Dice that fall the same way for the same numbers.
pub(crate) fn dice(seed: u64, client: usize) -> Dice {
    SmallRng::seed_from_u64(scramble(seed).wrapping_add(client as u64))
}

/// Zipf's distribution over ranks from 0, as YCSB draws it (Gray et al., SIGMOD 1994). Theta 0 is uniform.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    items: u64,
    theta: f64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "far below 2^52"
)]
impl Zipf {
    /// Over `items` ranks; `theta` is below 1.
    pub(crate) fn new(items: u64, theta: f64) -> Self {
        let zeta_of = |n: u64| (1..=n).map(|rank| (rank as f64).powf(-theta)).sum::<f64>();
        let zeta = zeta_of(items);
        let eta = (1.0 - (2.0 / items as f64).powf(1.0 - theta)) / (1.0 - zeta_of(2) / zeta);
        Self { items, theta, zeta, alpha: 1.0 / (1.0 - theta), eta }
    }

    /// A rank; 0 is the most frequent.
    pub(crate) fn rank(&self, dice: &mut Dice) -> u64 {
        let chance: f64 = dice.random();
        let scaled = chance * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(self.theta) {
            return 1;
        }
        let rank = self.items as f64 * (self.eta * chance - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.items - 1)
    }

    /// A rank, moved to a place that has nothing to do with it, so that popular items are not neighbours.
    pub(crate) fn scrambled(&self, dice: &mut Dice) -> u64 {
        scramble(self.rank(dice)) % self.items
    }
}

/// The finaliser of SplitMix64: a bijection that leaves no pattern.
fn scramble(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The non-uniform choice of TPC-C (clause 2.1.6) from `0..items`. `spread` is its constant A.
pub(crate) fn non_uniform(dice: &mut Dice, spread: u32, items: u32) -> u32 {
    /// The constant C of a run. Any number will do.
    const OFFSET: u32 = 259;
    let mixed = dice.random_range(0..=spread) | dice.random_range(0..items);
    (mixed + OFFSET) % items
}

/// Different numbers from `draw`, in the order in which they came.
pub(crate) fn distinct(count: usize, mut draw: impl FnMut() -> u32) -> Vec<u32> {
    let mut chosen = Vec::with_capacity(count);
    while chosen.len() < count {
        let next = draw();
        if !chosen.contains(&next) {
            chosen.push(next);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: u32 = 200_000;

    fn share_of_first(theta: f64, items: u64) -> f64 {
        let (zipf, mut dice) = (Zipf::new(items, theta), dice(1, 0));
        let hits = (0..DRAWS).filter(|_| zipf.rank(&mut dice) == 0).count();
        f64::from(u32::try_from(hits).unwrap()) / f64::from(DRAWS)
    }

    #[test]
    fn zipf_gives_the_first_rank_its_share() {
        for theta in [0.0, 0.8, 0.99, 0.999] {
            let items: u32 = 1_000;
            let zeta: f64 = (1..=items).map(|rank| f64::from(rank).powf(-theta)).sum();
            let (expected, found) = (1.0 / zeta, share_of_first(theta, items.into()));
            assert!((found - expected).abs() < 0.003, "theta {theta}: {found} instead of {expected}");
        }
    }

    #[test]
    fn zipf_stays_in_its_range_and_reaches_all_of_it() {
        let (zipf, mut dice) = (Zipf::new(10, 0.99), dice(2, 0));
        let mut seen = [0_u32; 10];
        for _ in 0..DRAWS {
            seen[usize::try_from(zipf.rank(&mut dice)).unwrap()] += 1;
        }
        assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
        assert!(seen[0] > seen[1] && seen[1] > seen[4] && seen[4] > seen[9], "{seen:?}");
    }

    #[test]
    fn scrambled_ranks_are_not_neighbours() {
        let (zipf, mut dice) = (Zipf::new(100_000, 0.99), dice(3, 0));
        let mut counts = std::collections::HashMap::new();
        for _ in 0..DRAWS {
            *counts.entry(zipf.scrambled(&mut dice)).or_insert(0_u32) += 1;
        }
        let mut popular: Vec<_> = counts.into_iter().collect();
        popular.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        assert!(popular[0].0.abs_diff(popular[1].0) > 1, "{:?}", &popular[..2]);
    }

    #[test]
    fn non_uniform_choice_is_skewed_and_in_range() {
        let mut dice = dice(4, 0);
        let mut counts = vec![0_u32; 10_000];
        for _ in 0..DRAWS {
            counts[non_uniform(&mut dice, 8_191, 10_000) as usize] += 1;
        }
        counts.sort_unstable();
        let top: u32 = counts[9_000..].iter().sum();
        let share = f64::from(top) / f64::from(DRAWS);
        assert!(share > 0.4, "the most popular tenth gets {share}, a uniform choice gives it hardly more than 0.1");
    }

    #[test]
    fn same_seed_gives_the_same_choices() {
        let draws = |seed, client| {
            let mut dice = dice(seed, client);
            (0..8).map(|_| dice.random::<u64>()).collect::<Vec<_>>()
        };
        assert_eq!(draws(1, 2), draws(1, 2));
        assert_ne!(draws(1, 2), draws(1, 3));
        assert_ne!(draws(1, 2), draws(2, 2));
    }

    #[test]
    fn distinct_choices_do_not_repeat() {
        let mut dice = dice(5, 0);
        let mut chosen = distinct(15, || dice.random_range(0..15));
        chosen.sort_unstable();
        assert_eq!(chosen, (0..15).collect::<Vec<_>>());
    }
}
