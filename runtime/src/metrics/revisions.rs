//! How the workers of each revision of a function's code do: what a rollout decides by, for those who want to watch it.
//!
//! Nothing is counted here: the host knows, and is asked when the page is read. A revision that the topology no longer
//! names is no longer shown, so that there are only as many series as revisions that are alive.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tandem_model::ids::FunctionName;

use super::{Definition, PREFIX};
use crate::host::RevisionReport;

/// What is known of the revisions of each function.
pub(crate) type Revisions = BTreeMap<FunctionName, Vec<RevisionReport>>;
/// Says it.
pub(crate) type Source = Box<dyn Fn() -> Revisions + Send + Sync>;

/// The labels of all series here.
const LABELS: &str = "function, revision";

/// One metric.
struct Series {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&RevisionReport) -> u64,
}

const ALL: [Series; 3] = [
    Series {
        name: "revision_invocations",
        kind: "counter",
        help: "Invocations that ended, by revision of the function's code; only where the topology names revisions, as an operator's does.",
        value: |report| report.invocations,
    },
    Series {
        name: "revision_failures",
        kind: "counter",
        help: "Those of them that broke, ran out of time or lost their worker: what `failurePercentMax` of a rollout is about. A rejection is none.",
        value: |report| report.failures,
    },
    Series {
        name: "revision_workers",
        kind: "gauge",
        help: "Workers of the revision with a finished handshake.",
        value: |report| u64::try_from(report.workers_ready).unwrap_or(u64::MAX),
    },
];

impl Series {
    /// What the names of its values end with.
    fn suffix(&self) -> &'static str {
        if self.kind == "counter" { "_total" } else { "" }
    }
}

/// Lines of the page.
pub(super) fn write(page: &mut String, revisions: &Revisions) {
    let named = || revisions.iter().flat_map(|(function, all)| all.iter().map(move |report| (function, report)));
    let named = || named().filter(|(_, report)| !report.revision.is_empty());
    if named().next().is_none() {
        return;
    }
    for series in &ALL {
        let (name, kind, help, suffix) = (series.name, series.kind, series.help.trim_end_matches('.'), series.suffix());
        // Writing into a String cannot fail.
        let _ = writeln!(page, "# HELP {PREFIX}_{name} {help}.\n# TYPE {PREFIX}_{name} {kind}");
        for (function, report) in named() {
            let (revision, value) = (escaped(&report.revision), (series.value)(report));
            let _ =
                writeln!(page, "{PREFIX}_{name}{suffix}{{function=\"{function}\",revision=\"{revision}\"}} {value}");
        }
    }
}

/// Of a bundle, a revision may be any text.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Lines of the reference.
pub(super) fn definitions() -> impl Iterator<Item = Definition> {
    ALL.iter().map(|series| Definition {
        name: format!("{PREFIX}_{}{}", series.name, series.suffix()),
        kind: series.kind.to_owned(),
        labels: LABELS,
        help: series.help,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn report(revision: &str, invocations: u64, failures: u64) -> RevisionReport {
        RevisionReport {
            revision: revision.to_owned(),
            workers_ready: 2,
            invocations,
            failures,
            ..RevisionReport::default()
        }
    }

    #[test]
    fn each_revision_that_is_known_now_is_shown() {
        let metrics = Metrics::new();
        let shown = |reports: Vec<RevisionReport>| {
            metrics.show_revisions(Box::new(move || {
                Revisions::from([("order".parse().expect("it is a name"), reports.clone())])
            }));
            metrics.text()
        };
        let text = shown(vec![report("7c9f0a", 131, 3), report("b\"4", 7, 0)]);
        for line in [
            "# TYPE tandem_runtime_revision_invocations counter",
            r#"tandem_runtime_revision_invocations_total{function="order",revision="7c9f0a"} 131"#,
            r#"tandem_runtime_revision_failures_total{function="order",revision="7c9f0a"} 3"#,
            r#"tandem_runtime_revision_workers{function="order",revision="b\"4"} 2"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert!(!shown(vec![report("b4", 7, 0)]).contains("7c9f0a"), "it is not alive any more");
        assert!(!shown(vec![report("", 7, 0)]).contains("revision"), "nobody tells revisions apart");
    }
}
