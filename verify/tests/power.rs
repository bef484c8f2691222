//! How good random worlds are at finding mistakes: without a mechanism, some world turns red.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]

use tandem_model::mechanism::{Mechanism, sabotage};
use tandem_verify::world;
use tandem_verify::world::plan::Plan;

#[test]
fn explore() {
    for mechanism in Mechanism::all() {
        let _off = sabotage::without(*mechanism);
        let found = (0..1500).find_map(|seed| {
            let report = std::panic::catch_unwind(|| world::run(&Plan::of(seed))).ok()?;
            (!report.is_good()).then_some((seed, report.verdict.violations))
        });
        match found {
            Some((seed, violations)) => {
                let text: String = violations[0].chars().take(160).collect();
                println!("{mechanism:?}: seed {seed}: {text}");
            }
            None => println!("{mechanism:?}: not found"),
        }
    }
}
