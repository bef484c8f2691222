//! Numbers that look random and follow from a seed, the same on every machine and with every version of every crate.

/// SplitMix64: small, and good enough to shuffle orders.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Dice that always fall the same way for the same seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, any of 64 bits.
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, all alike. `bound` is at least 1.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound.max(1)
    }

    /// A number below `bound`, small ones far more often: the smallest of three throws.
    pub(crate) fn skewed(&mut self, bound: u64) -> u64 {
        self.below(bound).min(self.below(bound)).min(self.below(bound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_fixed() {
        let mut dice = Dice::new(0);
        assert_eq!(dice.roll(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(dice.roll(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn skewed_throws_prefer_small_numbers() {
        let mut dice = Dice::new(7);
        let throws: Vec<u64> = (0..1_000).map(|_| dice.skewed(10)).collect();
        assert!(throws.iter().all(|throw| *throw < 10));
        let of = |number: u64| throws.iter().filter(|throw| **throw == number).count();
        assert!(of(0) > 5 * of(7), "{} zeros, {} sevens", of(0), of(7));
    }
}
