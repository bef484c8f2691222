//! The figures to reach on stores that speak TiKV's protocol.

use super::{Bound, Figure, Look, ratio, shown};
use crate::plan::tikv::{self, THETAS};
use crate::plan::{self, CLIENTS, CLIENTS_USUAL};
use crate::summary::Results;
use crate::system::System;
use crate::workload::Workload;

/// The keys of all of these figures begin with it.
pub(crate) const KEY: &str = "tikv-";

/// All of them, in the order of the table.
pub(super) fn figures(results: &Results) -> Vec<Figure> {
    let look = Look(results);
    let [_, _, many, most] = CLIENTS;
    let counter = tikv::counter();
    let rate = |key, what, workload: &Workload, clients, bound| {
        look.beside_bare(key, what, ("t1", workload, clients), Bound::AtLeast(bound))
    };
    let skew = |key, what, system, theta, bound| look.beside_uniform(key, what, (system, theta), bound);
    vec![
        look.latency_on_tikv(),
        rate("tikv-rate-64", "requests/s of counters at 64 clients, beside bare tikv-client", &counter, many, 3.0),
        rate("tikv-rate-256", "requests/s of counters at 256 clients, beside bare tikv-client", &counter, most, 3.0),
        rate(
            "tikv-hot-key",
            "requests/s on one hot key at 64 clients, beside bare tikv-client",
            &plan::hot_counter(),
            CLIENTS_USUAL,
            20.0,
        ),
        look.shared_instance(),
        look.beside_bare(
            "tikv-transfer",
            "transfers/s at theta 0, beside bare tikv-client; with an anomaly there would be no result",
            ("t2", &plan::transfer(0.0), CLIENTS_USUAL),
            Bound::AtLeast(1.5),
        ),
        skew("tikv-skew-99", "transfers/s at theta 0.99, beside theta 0, one runtime", System::Tikv, 1, 0.5),
        skew("tikv-skew-999", "transfers/s at theta 0.999, beside theta 0, one runtime", System::Tikv, 2, 0.5),
        skew("tikv-skew-99-three", "the same at theta 0.99 with three runtimes", System::TikvThree, 1, 0.33),
        skew("tikv-skew-999-three", "the same at theta 0.999 with three runtimes", System::TikvThree, 2, 0.33),
        look.nine_calls("tikv-calls-latency", "p50 of a flow of 9 calls at one client, beside one of 1", 1, "p50_ms"),
        look.nine_calls(
            "tikv-calls",
            "CPU of a flow of 9 calls at 64 clients, beside one of 1",
            CLIENTS_USUAL,
            "cpu_us",
        ),
        look.several_runtimes(),
    ]
}

impl Look<'_> {
    fn of(&self, (benchmark, workload, clients): (&str, &Workload, usize), system: System, name: &str) -> Option<f64> {
        self.median(benchmark, &workload.to_string(), clients, system, name)
    }

    fn latency_on_tikv(&self) -> Figure {
        let p50 = |system| self.of(("t1", &tikv::counter(), 1), system, "p50_ms");
        let (tandem, floor) = (p50(System::Tikv), p50(System::TikvFloor));
        let made_of = format!(
            "{} ms; an empty call with a bare transaction {} ms (the call alone {} ms, the transaction alone {} ms)",
            shown(tandem, 2),
            shown(floor, 2),
            shown(p50(System::EmptyCall), 2),
            shown(p50(System::BareTikv), 2)
        );
        Figure {
            key: "tikv-latency",
            what: "p50 at one client, beside an empty function call with a bare transaction of tikv-client",
            bound: Bound::AtMost(1.3),
            unit: "×",
            value: ratio(tandem, floor),
            made_of,
        }
    }

    fn beside_bare(
        &self,
        key: &'static str,
        what: &'static str,
        case: (&str, &Workload, usize),
        bound: Bound,
    ) -> Figure {
        let rate = |system| self.of(case, system, "per_second");
        let (tandem, bare) = (rate(System::Tikv), rate(System::BareTikv));
        let bytes = |system| shown(self.of(case, system, "stored_bytes"), 0);
        let made_of = format!(
            "{}/s beside {}/s; the stores wrote {} and {} bytes for each",
            shown(tandem, 0),
            shown(bare, 0),
            bytes(System::Tikv),
            bytes(System::BareTikv)
        );
        Figure { key, what, bound, unit: "×", value: ratio(tandem, bare), made_of }
    }

    fn shared_instance(&self) -> Figure {
        let rate = |workload| self.of(("t1", &workload, CLIENTS_USUAL), System::Tikv, "per_second");
        let (shared, own) = (rate(tikv::reading(true)), rate(tikv::reading(false)));
        let made_of = format!(
            "{}/s beside {}/s; {}/s without the second call",
            shown(shared, 0),
            shown(own, 0),
            shown(rate(tikv::counter()), 0)
        );
        Figure {
            key: "tikv-shared",
            what: "requests/s if every flow also reads one shared instance, beside one of its own",
            bound: Bound::AtLeast(0.8),
            unit: "×",
            value: ratio(shared, own),
            made_of,
        }
    }

    /// Of one system at a skew, beside the same without.
    fn beside_uniform(
        &self,
        key: &'static str,
        what: &'static str,
        (system, theta): (System, usize),
        bound: f64,
    ) -> Figure {
        let rate = |theta| self.of(("t2", &plan::transfer(theta), CLIENTS_USUAL), system, "per_second");
        let (skewed, uniform) = (rate(THETAS[theta]), rate(THETAS[0]));
        Figure {
            key,
            what,
            bound: Bound::AtLeast(bound),
            unit: "×",
            value: ratio(skewed, uniform),
            made_of: format!("{}/s beside {}/s", shown(skewed, 0), shown(uniform, 0)),
        }
    }

    fn nine_calls(&self, key: &'static str, what: &'static str, clients: usize, name: &str) -> Figure {
        let of = |system, calls| self.of(("t3", &tikv::chain(calls), clients), system, name);
        let [one, nine] = tikv::CALLS;
        let unit = if name == "p50_ms" { "ms" } else { "µs" };
        let made_of = format!(
            "{} {unit} beside {} {unit}; bare tikv-client {} {unit} beside {} {unit}",
            shown(of(System::Tikv, nine), 2),
            shown(of(System::Tikv, one), 2),
            shown(of(System::BareTikv, nine), 2),
            shown(of(System::BareTikv, one), 2)
        );
        let value = ratio(of(System::Tikv, nine), of(System::Tikv, one));
        Figure { key, what, bound: Bound::AtMost(3.0), unit: "×", value, made_of }
    }

    fn several_runtimes(&self) -> Figure {
        let of = |clients, system| self.of(("t1", &tikv::counter(), clients), system, "cpu_us.runtime");
        let [_, _, many, most] = CLIENTS;
        let made_of = format!(
            "{} µs beside {} µs; at 256 clients {} µs beside {} µs",
            shown(of(many, System::TikvThree), 0),
            shown(of(many, System::Tikv), 0),
            shown(of(most, System::TikvThree), 0),
            shown(of(most, System::Tikv), 0)
        );
        Figure {
            key: "tikv-three",
            what: "CPU of the runtimes for a counter at 64 clients, three beside one",
            bound: Bound::AtMost(1.15),
            unit: "×",
            value: ratio(of(many, System::TikvThree), of(many, System::Tikv)),
            made_of,
        }
    }
}
