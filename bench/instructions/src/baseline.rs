//! Counts as committed, and what has become of them. No I/O.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// Where a summary of the benches has its count.
const INSTRUCTIONS: &str = "/profiles/0/data/total/metrics/Ir/values/new";
/// How much more a bench may count, unless its line says otherwise.
const TOLERANCE_PERCENT: f64 = 5.0;

/// The committed file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Baseline {
    /// The compiler that made what was counted.
    pub(crate) toolchain: String,
    benches: BTreeMap<String, Expected>,
}

/// What one bench counted when the file was written.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Expected {
    instructions: u64,
    tolerance_percent: f64,
}

/// What has become of one bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// About as before.
    Same,
    /// Less than before, by more than its tolerance.
    Better,
    /// More than before, by more than its tolerance.
    Worse,
    /// Not in the file.
    New,
    /// In the file, and not counted any more.
    Gone,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    name: String,
    before: Option<u64>,
    now: Option<u64>,
    tolerance_percent: f64,
    pub(crate) verdict: Verdict,
}

/// The name and the count of a bench, from the line that it says.
pub(crate) fn counted(line: &str) -> anyhow::Result<(String, u64)> {
    let summary: serde_json::Value = serde_json::from_str(line).context("failed to read the summary of a bench")?;
    let text = |field: &str| summary[field].as_str().map(str::to_owned);
    let module = text("module_path").context("a summary does not say which bench it is of")?;
    let name = text("id").map_or_else(|| module.clone(), |id| format!("{module}::{id}"));
    let count = summary.pointer(INSTRUCTIONS).and_then(serde_json::Value::as_u64);
    let count = count.with_context(|| format!("the summary of {name} has no count at {INSTRUCTIONS}"))?;
    Ok((name, count))
}

impl Baseline {
    /// All benches, of the file and of now.
    pub(crate) fn compare(&self, counts: &BTreeMap<String, u64>) -> Vec<Row> {
        let gone = self.benches.keys().filter(|name| !counts.contains_key(*name));
        let mut names: Vec<&String> = counts.keys().chain(gone).collect();
        names.sort();
        names.into_iter().map(|name| self.row(name, counts.get(name).copied())).collect()
    }

    fn row(&self, name: &str, now: Option<u64>) -> Row {
        let expected = self.benches.get(name);
        let before = expected.map(|expected| expected.instructions);
        let tolerance_percent = expected.map_or(TOLERANCE_PERCENT, |expected| expected.tolerance_percent);
        let verdict = match (before, now) {
            (None, _) => Verdict::New,
            (Some(_), None) => Verdict::Gone,
            (Some(before), Some(now)) => match change_percent(before, now) {
                change if change > tolerance_percent => Verdict::Worse,
                change if change < -tolerance_percent => Verdict::Better,
                _ => Verdict::Same,
            },
        };
        Row { name: name.to_owned(), before, now, tolerance_percent, verdict }
    }

    /// The file as it would be written now. What a line says about its tolerance is kept.
    pub(crate) fn updated(&self, toolchain: String, counts: &BTreeMap<String, u64>) -> Self {
        let expected = |(name, instructions): (&String, &u64)| {
            let known = self.benches.get(name);
            let tolerance_percent = known.map_or(TOLERANCE_PERCENT, |known| known.tolerance_percent);
            (name.clone(), Expected { instructions: *instructions, tolerance_percent })
        };
        Self { toolchain, benches: counts.iter().map(expected).collect() }
    }
}

impl Row {
    /// What is wrong, if something is.
    pub(crate) fn complaint(&self) -> Option<String> {
        let name = &self.name;
        match (self.verdict, self.before, self.now) {
            (Verdict::Worse, Some(before), Some(now)) => {
                let (change, tolerance) = (change_percent(before, now), self.tolerance_percent);
                Some(format!("{name} takes {change:+.1} % instructions, at most +{tolerance} % are tolerated"))
            }
            (Verdict::New, ..) => Some(format!("{name} has no committed count to compare with")),
            (Verdict::Gone, ..) => Some(format!("{name} has a committed count, and was not counted")),
            _ => None,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52, and percents are for reading")]
fn change_percent(before: u64, now: u64) -> f64 {
    (now as f64 - before as f64) * 100.0 / before.max(1) as f64
}

/// For people.
pub(crate) fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
    let number = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    let mut text = format!("{:width$} {:>13} {:>13} {:>9}\n", "instructions", "before", "now", "change");
    for row in rows {
        let change = row.before.zip(row.now).map(|(before, now)| format!("{:+.2} %", change_percent(before, now)));
        let mark = match row.verdict {
            Verdict::Same => "",
            Verdict::Better => "  better",
            Verdict::Worse => "  WORSE",
            Verdict::New => "  new",
            Verdict::Gone => "  gone",
        };
        let (before, now, change) = (number(row.before), number(row.now), change.unwrap_or_default());
        text += &format!("{:width$} {before:>13} {now:>13} {change:>9}{mark}\n", row.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline() -> Baseline {
        let line = |instructions, tolerance_percent| Expected { instructions, tolerance_percent };
        let benches = [("gone", line(1, 5.0)), ("strict", line(1_000, 1.0)), ("wide", line(1_000, 10.0))];
        let benches = benches.map(|(name, expected)| (name.to_owned(), expected)).into();
        Baseline { toolchain: "rustc 1.0.0".to_owned(), benches }
    }

    fn counts(named: &[(&str, u64)]) -> BTreeMap<String, u64> {
        named.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn each_bench_is_judged_by_its_own_tolerance() {
        let verdicts = |strict, wide| -> Vec<Verdict> {
            let rows = baseline().compare(&counts(&[("strict", strict), ("wide", wide), ("gone", 1)]));
            rows.iter().map(|row| row.verdict).collect()
        };
        assert_eq!(verdicts(1_010, 1_100), [Verdict::Same, Verdict::Same, Verdict::Same]);
        assert_eq!(verdicts(1_011, 1_011), [Verdict::Same, Verdict::Worse, Verdict::Same]);
        assert_eq!(verdicts(989, 1_101), [Verdict::Same, Verdict::Better, Verdict::Worse]);
    }

    #[test]
    fn what_cannot_be_compared_is_a_complaint() {
        let rows = baseline().compare(&counts(&[("strict", 2_000), ("wide", 1_000), ("young", 7)]));
        let complaints: Vec<String> = rows.iter().filter_map(Row::complaint).collect();
        let names: Vec<&str> = complaints.iter().filter_map(|text| text.split(' ').next()).collect();
        assert_eq!(names, ["gone", "strict", "young"]);
        assert!(complaints[1].contains("+100.0 %") && complaints[1].contains("at most +1 %"), "{complaints:?}");
    }

    #[test]
    fn update_takes_the_counts_and_keeps_tolerances() {
        let updated = baseline().updated("rustc 2.0.0".to_owned(), &counts(&[("wide", 5), ("young", 7)]));
        let line = |name: &str| updated.benches.get(name).map(|line| (line.instructions, line.tolerance_percent));
        assert_eq!([line("wide"), line("young"), line("gone")], [Some((5, 10.0)), Some((7, TOLERANCE_PERCENT)), None]);
        let text = serde_json::to_string(&updated).unwrap();
        assert_eq!(serde_json::from_str::<Baseline>(&text).unwrap(), updated);
    }

    #[test]
    fn summary_names_the_bench_and_its_count() {
        let values = r#"{"values":{"new":1234,"old":1200}}"#;
        let profile = format!(r#"{{"data":{{"total":{{"metrics":{{"Ir":{values}}}}}}}}}"#);
        let line = format!(r#"{{"module_path":"flows::flow::at_once","id":"count","profiles":[{profile}]}}"#);
        assert_eq!(counted(&line).unwrap(), ("flows::flow::at_once::count".to_owned(), 1_234));
        assert!(counted(r#"{"module_path":"flows","profiles":[]}"#).is_err());
    }
}
