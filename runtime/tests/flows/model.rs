//! Random programs, held against a model that runs them in a few lines and without any of our machinery.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tandem_model::outcome::Outcome;

use crate::script::{Step, To, node, other};
use crate::stage::{Stage, result};

const SEEDS: u64 = 3;
const PROGRAMS: usize = 60;
const DEPTH: usize = 4;
const KEYS: usize = 3;

/// State of all instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model(BTreeMap<(String, String), Cells>);

/// The value and the entries of one instance.
type Cells = (Option<i64>, BTreeMap<String, i64>);

/// Somebody said no.
#[derive(Debug)]
struct No;

impl Model {
    /// Runs a call to its result, or leaves everything as it was.
    fn call(&mut self, to: &To) -> Result<i64, No> {
        let before = self.clone();
        let mut result = Ok(0);
        for step in &to.steps {
            result = self.step(to, step, result.unwrap_or_default());
            if result.is_err() {
                *self = before;
                break;
            }
        }
        result
    }

    fn step(&mut self, to: &To, step: &Step, result: i64) -> Result<i64, No> {
        let place = (to.function.clone(), to.key.clone());
        let (value, entries) = self.0.entry(place).or_default();
        Ok(match step {
            Step::Add(amount) => {
                *value = Some(value.unwrap_or_default() + amount);
                result
            }
            Step::Set(new) => {
                *value = Some(*new);
                result
            }
            Step::Put(key, new) => {
                entries.insert(key.clone(), *new);
                result
            }
            Step::Remove(key) => {
                entries.remove(key);
                result
            }
            Step::Read => value.unwrap_or_default(),
            Step::Entry(key) => entries.get(key).copied().unwrap_or(-1),
            Step::Count => i64::try_from(entries.len()).unwrap(),
            Step::Need(least) if value.unwrap_or_default() + result < *least => return Err(No),
            Step::Need(_) => result,
            Step::Call(callee) => self.call(callee)?,
            Step::Spawn(callee) => self.call(callee).map(|_| 0)?,
            Step::Handle(callee) => self.call(callee).unwrap_or(-1),
            Step::Together(callees) => callees.iter().map(|callee| self.call(callee)).sum::<Result<i64, No>>()?,
            other => panic!("{other:?} is not in the model"),
        })
    }
}

/// A program for an instance on a level. Calls go down only, so that there are no cycles; spawned calls only add, so
/// that it does not matter when they run; calls at the same time go to different instances.
fn program(random: &mut SmallRng, level: usize) -> Vec<Step> {
    let count = random.random_range(1..=5);
    (0..count).map(|_| step(random, level)).collect()
}

fn step(random: &mut SmallRng, level: usize) -> Step {
    let entry = format!("e-{}", random.random_range(0..3));
    let choices = if level + 1 < DEPTH { 12 } else { 8 };
    match random.random_range(0..choices) {
        0 => Step::Add(random.random_range(-5..10)),
        1 => Step::Set(random.random_range(0..20)),
        2 => Step::Put(entry, random.random_range(0..20)),
        3 => Step::Remove(entry),
        4 => Step::Read,
        5 => Step::Entry(entry),
        6 => Step::Count,
        7 => Step::Need(random.random_range(-5..25)),
        8 => Step::Call(callee(random, level + 1)),
        9 => Step::Handle(callee(random, level + 1)),
        10 => Step::Spawn(other(&format!("s-{}", random.random_range(0..KEYS)), vec![Step::Add(1)])),
        _ => {
            let callees = (0..random.random_range(1..=KEYS)).map(|key| node(&key_of(level + 1, key), leaf(random)));
            Step::Together(callees.collect())
        }
    }
}

fn callee(random: &mut SmallRng, level: usize) -> To {
    let key = key_of(level, random.random_range(0..KEYS));
    node(&key, program(random, level))
}

fn leaf(random: &mut SmallRng) -> Vec<Step> {
    let steps = [Step::Add(1), Step::Read, Step::Put("t".into(), 1), Step::Count, Step::Need(-20)];
    (0..3).map(|_| steps.choose(random).unwrap().clone()).collect()
}

fn key_of(level: usize, number: usize) -> String {
    format!("l{level}-{number}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_programs_do_what_the_model_does() {
    let mut said_no = 0;
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let (mut random, mut model) = (SmallRng::seed_from_u64(seed), Model::default());
        let stage = Stage::memory().await;
        for number in 0..PROGRAMS {
            let to = callee(&mut random, 0);
            let expected = model.call(&to);
            let record = stage.ask(to.clone()).await;
            if let Ok(expected) = expected {
                assert_eq!(result(&record), expected, "seed {seed} program {number}: {to:?}");
            } else {
                assert_eq!(record.outcome, Outcome::Rejected, "seed {seed} program {number}: {to:?}");
                said_no += 1;
            }
        }
        for ((function, key), (value, entries)) in &model.0 {
            assert_eq!(stage.value_of(function, key).await, *value, "seed {seed}: {function}/{key}");
            if function == "node" {
                assert_eq!(stage.entries(key).await, *entries, "seed {seed}: {function}/{key}");
            }
        }
    }
    let programs = PROGRAMS * usize::try_from(SEEDS).unwrap();
    assert!(said_no > programs / 10 && said_no < programs / 2, "the programs are all alike: {said_no} said no");
}
