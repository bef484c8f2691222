//! Tables of results, in Markdown.

use crate::summary::{Entry, Results, Spread};
use crate::targets::Figure;

/// A column: its title, the figure it shows, how many digits behind the point.
type Column = (&'static str, &'static str, usize);

const COLUMNS: [Column; 22] = [
    ("p50 ms", "p50_ms", 2),
    ("p90 ms", "p90_ms", 2),
    ("p99 ms", "p99_ms", 2),
    ("CPU µs", "cpu_us", 0),
    ("of runtime", "cpu_us.runtime", 0),
    ("of worker", "cpu_us.worker", 0),
    ("of stores", "cpu_us.store", 0),
    ("of PD", "cpu_us.pd", 0),
    ("load generator", "cpu_us.load", 0),
    ("bytes written", "written_bytes", 0),
    ("bytes of stores", "stored_bytes", 0),
    ("requests to stores", "store_requests", 2),
    ("commits", "commits", 3),
    ("syncs", "syncs", 3),
    ("attempts", "attempts", 2),
    ("conflicts", "conflicts", 2),
    ("given up", "gave_up", 3),
    ("MiB of runtime", "memory_mib.runtime", 0),
    ("MiB of stores", "memory_mib.store", 0),
    ("MiB before", "memory_at_rest_mib.runtime", 0),
    ("MiB of PostgreSQL", "memory_mib.postgres", 0),
    ("restart s", "restart_s", 2),
];

/// The results of one benchmark; of all, if none is named. Columns that nobody has are left out.
pub(crate) fn of(results: &Results, benchmark: Option<&str>) -> String {
    let entries: Vec<&Entry> =
        results.entries.iter().filter(|entry| benchmark.is_none_or(|name| entry.benchmark == name)).collect();
    if entries.is_empty() {
        return "Not measured.".to_owned();
    }
    let has = |(_, name, _): &Column| entries.iter().any(|entry| entry.figures.contains_key(*name));
    let columns: Vec<Column> = COLUMNS.into_iter().filter(has).collect();
    let titles: Vec<&str> = columns.iter().map(|(title, ..)| *title).collect();
    let mut lines = vec![
        format!("| case | clients | system | requests/s (least to most) | {} |", titles.join(" | ")),
        format!("| --- | ---: | --- | ---: |{}", " ---: |".repeat(columns.len())),
    ];
    lines.extend(entries.iter().map(|entry| {
        let Entry { benchmark: name, variant, clients, system, .. } = entry;
        let case = if benchmark.is_some() { variant.clone() } else { format!("{name} {variant}") };
        let rate = entry.figures.get("per_second").map(|rate| range(*rate)).unwrap_or_default();
        let cells: Vec<String> = columns.iter().map(|(_, name, digits)| cell(entry, name, *digits)).collect();
        format!("| {case} | {clients} | {} | {rate} | {} |", system.label(), cells.join(" | "))
    }));
    lines.join("\n")
}

fn range(Spread { median, min, max }: Spread) -> String {
    format!("{median:.0} ({min:.0} to {max:.0})")
}

/// A median, or nothing if the system does not have that figure.
fn cell(entry: &Entry, name: &str, digits: usize) -> String {
    entry.median(name).map(|value| format!("{value:.digits$}")).unwrap_or_default()
}

/// The figures to reach.
pub(crate) fn figures(figures: &[Figure]) -> String {
    let mut lines = vec![
        "| figure | target | measured | reached | made of |".to_owned(),
        "| --- | ---: | ---: | --- | --- |".to_owned(),
    ];
    lines.extend(figures.iter().map(|figure| {
        let reached = match figure.is_reached() {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "?",
        };
        format!("| {} | {} | {} | {reached} | {} |", figure.what, figure.target(), figure.measured(), figure.made_of)
    }));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Figures;
    use crate::system::System;

    #[test]
    fn columns_that_nobody_has_are_left_out() {
        let mut results = Results::default();
        assert_eq!(of(&results, None), "Not measured.");
        let round = |rate: f64| {
            Figures::from([("per_second".to_owned(), rate), ("p50_ms".to_owned(), 1.234), ("syncs".to_owned(), 0.5)])
        };
        results.add("b1", "uniform", 64, System::Tandem, &[round(10.0), round(30.0), round(20.0)]);
        results.add("b2", "uniform", 64, System::Postgres, &[Figures::new()]);
        let expected = "| case | clients | system | requests/s (least to most) | p50 ms | syncs |\n\
                        | --- | ---: | --- | ---: | ---: | ---: |\n\
                        | uniform | 64 | tandem | 20 (10 to 30) | 1.23 | 0.500 |";
        assert_eq!(of(&results, Some("b1")), expected);
        assert!(of(&results, None).ends_with("| b2 uniform | 64 | postgres |  |  |  |"));
    }
}
