//! The figures to reach: what each is, what was measured, and whether that is enough. All of it from the results.

use crate::measure::RESTART;
use crate::plan::{self, CALLS, CLIENTS, CLIENTS_USUAL, FUNCTIONS, INSTANCES, THETAS};
use crate::summary::Results;
use crate::system::System;
use crate::workload::Workload;

pub(crate) mod tikv;

/// How much more memory still counts as no more: that of an allocator and of caches that fill.
const FLAT: f64 = 1.25;

/// What a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    /// Or less.
    AtMost(f64),
    /// Or more.
    AtLeast(f64),
}

/// One figure to reach.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    /// Names it in the template.
    pub(crate) key: &'static str,
    /// What is measured.
    pub(crate) what: &'static str,
    /// What it has to be.
    pub(crate) bound: Bound,
    /// Of the value: `×`, `µs`.
    pub(crate) unit: &'static str,
    /// `None` if something that it needs was not measured.
    pub(crate) value: Option<f64>,
    /// What it was made of.
    pub(crate) made_of: String,
}

impl Figure {
    /// Whether it is what it has to be.
    pub(crate) fn is_reached(&self) -> Option<bool> {
        let value = self.value?;
        Some(match self.bound {
            Bound::AtMost(bound) => value <= bound,
            Bound::AtLeast(bound) => value >= bound,
        })
    }

    /// `≤ 1.3×`.
    pub(crate) fn target(&self) -> String {
        match self.bound {
            Bound::AtMost(bound) => format!("≤ {bound}{}", self.unit),
            Bound::AtLeast(bound) => format!("≥ {bound}{}", self.unit),
        }
    }

    /// `1.07×`.
    pub(crate) fn measured(&self) -> String {
        const SMALL: f64 = 100.0;
        match self.value {
            None => "not measured".to_owned(),
            Some(value) if value < SMALL => format!("{value:.2}{}", self.unit),
            Some(value) => format!("{value:.0}{}", self.unit),
        }
    }
}

/// All figures: those of the embedded store, then those of TiKV.
pub(crate) fn figures(results: &Results) -> Vec<Figure> {
    let mut all = embedded(results);
    all.extend(tikv::figures(results));
    all
}

/// Those of the embedded store, in the order of the table.
fn embedded(results: &Results) -> Vec<Figure> {
    let look = Look(results);
    let [_, _, many, most] = CLIENTS;
    vec![
        look.latency(),
        look.rate(
            "rate-64",
            "requests/s of counters at 64 clients, beside bare transactions",
            &plan::counter(),
            many,
            3.0,
        ),
        look.rate(
            "rate-256",
            "requests/s of counters at 256 clients, beside bare transactions",
            &plan::counter(),
            most,
            4.0,
        ),
        look.rate(
            "hot-key",
            "requests/s on one hot key at 64 clients, beside bare transactions",
            &plan::hot_counter(),
            many,
            10.0,
        ),
        look.cpu(
            "cpu-counter",
            "CPU of runtime, worker and store for a counter, 64 clients",
            "b1",
            &plan::counter(),
            300.0,
        ),
        look.cpu(
            "cpu-transfer",
            "CPU of runtime, worker and store for a transfer, 64 clients",
            "b2",
            &plan::transfer(0.0),
            450.0,
        ),
        look.bytes(),
        look.calls("calls-latency", "p50 of a flow of 9 calls at one client, beside one of 1", 1, "p50_ms", "ms"),
        look.calls("calls", "CPU of a flow of 9 calls at 64 clients, beside one of 1", CLIENTS_USUAL, "cpu_us", "µs"),
        look.skew(),
        look.memory(
            "memory-instances",
            "memory of the runtime, 1,000,000 instances beside 10,000",
            &INSTANCES.map(plan::instances),
        ),
        look.memory(
            "memory-functions",
            "memory of the runtime, 1,000 functions beside 1",
            &FUNCTIONS.map(plan::functions),
        ),
        look.restart(),
    ]
}

struct Look<'a>(&'a Results);

impl Look<'_> {
    fn median(&self, benchmark: &str, variant: &str, clients: usize, system: System, name: &str) -> Option<f64> {
        self.0.entry(benchmark, variant, clients, system)?.median(name)
    }

    fn latency(&self) -> Figure {
        let variant = plan::counter().to_string();
        let p50 = |system| self.median("b1", &variant, 1, system, "p50_ms");
        let parts = (p50(System::Tandem), p50(System::Floor), p50(System::EmptyCall), p50(System::BareGrouped));
        let (tandem, floor, call, bare) = parts;
        let made_of = format!(
            "{} ms; an empty call with a bare transaction {} ms (the call alone {} ms, the transaction alone {} ms)",
            shown(tandem, 2),
            shown(floor, 2),
            shown(call, 2),
            shown(bare, 2)
        );
        Figure {
            key: "latency",
            what: "p50 at one client, beside an empty function call with a bare transaction",
            bound: Bound::AtMost(1.3),
            unit: "×",
            value: ratio(tandem, floor),
            made_of,
        }
    }

    fn rate(&self, key: &'static str, what: &'static str, workload: &Workload, clients: usize, bound: f64) -> Figure {
        let variant = workload.to_string();
        let rate = |system| self.median("b1", &variant, clients, system, "per_second");
        let (tandem, alone, grouped) = (rate(System::Tandem), rate(System::BareAlone), rate(System::BareGrouped));
        let made_of = format!(
            "{}/s; bare {}/s with one sync each, {}/s if the store groups them ({}×)",
            shown(tandem, 0),
            shown(alone, 0),
            shown(grouped, 0),
            shown(ratio(tandem, grouped), 2)
        );
        Figure { key, what, bound: Bound::AtLeast(bound), unit: "×", value: ratio(tandem, alone), made_of }
    }

    fn cpu(&self, key: &'static str, what: &'static str, benchmark: &str, workload: &Workload, bound: f64) -> Figure {
        let of = |name| self.median(benchmark, &workload.to_string(), CLIENTS_USUAL, System::Tandem, name);
        let made_of = format!(
            "runtime with its store {} µs, worker {} µs; the load generator {} µs more",
            shown(of("cpu_us.runtime"), 0),
            shown(of("cpu_us.worker"), 0),
            shown(of("cpu_us.load"), 0)
        );
        Figure { key, what, bound: Bound::AtMost(bound), unit: " µs", value: of("cpu_us"), made_of }
    }

    fn bytes(&self) -> Figure {
        let cases = [
            ("b1", plan::counter()),
            ("b2", plan::transfer(0.0)),
            ("b3", plan::chain(CALLS[2])),
            ("b4", Workload::Checkout { skewed: false }),
        ];
        let (mut ratios, mut made_of) = (Vec::new(), Vec::new());
        for (benchmark, workload) in cases {
            let bytes = |system| self.median(benchmark, &workload.to_string(), CLIENTS_USUAL, system, "written_bytes");
            let (tandem, postgres) = (bytes(System::Tandem), bytes(System::Postgres));
            let Some(beside) = ratio(tandem, postgres) else { continue };
            made_of.push(format!("{} {} to {}", benchmark.to_uppercase(), shown(tandem, 0), shown(postgres, 0)));
            ratios.push(beside);
        }
        Figure {
            key: "bytes",
            what: "bytes written for a request, beside PostgreSQL, 64 clients; the worst of B1 to B4",
            bound: Bound::AtMost(4.0),
            unit: "×",
            value: ratios.into_iter().max_by(f64::total_cmp),
            made_of: made_of.join("; "),
        }
    }

    /// Nine calls beside one: a figure of the flows of some clients.
    fn calls(&self, key: &'static str, what: &'static str, clients: usize, name: &'static str, unit: &str) -> Figure {
        let [one, _, nine] = CALLS.map(|calls| plan::chain(calls).to_string());
        let of = |variant: &str| self.median("b3", variant, clients, System::Tandem, name);
        let value = ratio(of(&nine), of(&one));
        let made_of = format!("{} {unit} beside {} {unit}", shown(of(&nine), 2), shown(of(&one), 2));
        Figure { key, what, bound: Bound::AtMost(3.0), unit: "×", value, made_of }
    }

    fn skew(&self) -> Figure {
        let rate = |theta| {
            let variant = plan::transfer(theta).to_string();
            self.median("b2", &variant, CLIENTS_USUAL, System::Tandem, "per_second")
        };
        let [uniform, .., skewed] = THETAS.map(rate);
        Figure {
            key: "skew",
            what: "transfers/s at theta 0.999, beside theta 0; with an anomaly there would be no result",
            bound: Bound::AtLeast(0.5),
            unit: "×",
            value: ratio(skewed, uniform),
            made_of: format!("{}/s beside {}/s", shown(skewed, 0), shown(uniform, 0)),
        }
    }

    fn memory(&self, key: &'static str, what: &'static str, variants: &[String; 3]) -> Figure {
        let of = |variant: &String, name| self.median("b6", variant, CLIENTS_USUAL, System::Tandem, name);
        let [least, _, most] = variants;
        let (loaded, at_rest) = ("memory_mib.runtime", "memory_at_rest_mib.runtime");
        let made_of = format!(
            "{} MiB beside {} MiB under load; {} MiB beside {} MiB before the first request",
            shown(of(most, loaded), 0),
            shown(of(least, loaded), 0),
            shown(of(most, at_rest), 0),
            shown(of(least, at_rest), 0)
        );
        let value = ratio(of(most, loaded), of(least, loaded));
        Figure { key, what, bound: Bound::AtMost(FLAT), unit: "×", value, made_of }
    }

    fn restart(&self) -> Figure {
        let of = |count| self.median("b6", &plan::instances(count), CLIENTS_USUAL, System::Tandem, RESTART);
        let [least, _, most] = INSTANCES.map(of);
        Figure {
            key: "restart",
            what: "from the start of a runtime with 1,000,000 instances to its first answer, after kill -9",
            bound: Bound::AtMost(2.0),
            unit: " s",
            value: most,
            made_of: format!("{} s with 10,000 instances", shown(least, 2)),
        }
    }
}

/// `None` unless both were measured.
fn ratio(value: Option<f64>, beside: Option<f64>) -> Option<f64> {
    beside.filter(|beside| *beside > 0.0).and_then(|beside| Some(value? / beside))
}

fn shown(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "?".to_owned(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests;
