//! Tables of results.

use crate::summary::{Entry, Results};

/// A column: its title, the figure it shows, how many digits behind the point.
type Column = (&'static str, &'static str, usize);

const COLUMNS: [Column; 14] = [
    ("requests/s", "per_second", 0),
    ("p50 ms", "p50_ms", 2),
    ("p90 ms", "p90_ms", 2),
    ("p99 ms", "p99_ms", 2),
    ("CPU µs", "cpu_us", 0),
    ("of runtime", "cpu_us.runtime", 0),
    ("of worker", "cpu_us.worker", 0),
    ("load generator", "cpu_us.load", 0),
    ("bytes written", "written_bytes", 0),
    ("flushes", "flushes", 3),
    ("syncs", "syncs", 3),
    ("attempts", "attempts", 2),
    ("conflicts", "conflicts", 2),
    ("MiB of runtime", "memory_mib.runtime", 0),
];

/// All results in one Markdown table.
pub(crate) fn plain(results: &Results) -> String {
    let mut lines = vec![
        format!("| benchmark | clients | system | {} |", COLUMNS.map(|(title, ..)| title).join(" | ")),
        format!("| --- | ---: | --- |{}", " ---: |".repeat(COLUMNS.len())),
    ];
    lines.extend(results.entries.iter().map(|entry| {
        let Entry { benchmark, variant, clients, system, .. } = entry;
        let cells = COLUMNS.map(|(_, name, digits)| cell(entry, name, digits)).join(" | ");
        format!("| {benchmark} {variant} | {clients} | {} | {cells} |", system.label())
    }));
    lines.join("\n")
}

/// A median, or nothing if the system does not have that figure.
pub(crate) fn cell(entry: &Entry, name: &str, digits: usize) -> String {
    entry.median(name).map(|value| format!("{value:.digits$}")).unwrap_or_default()
}
