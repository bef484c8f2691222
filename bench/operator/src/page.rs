//! The page of the documentation: prose, filled with the figures of all runs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::ensure;

use crate::picture;
use crate::results::{Reaction, Results, Run, Times};

/// The prose. `{{name}}` is replaced.
const TEMPLATE: &str = include_str!("../page.md");
/// Pictures lie beside the page.
const IMAGES: &str = "images";
/// More means that others use the machine, too.
const LOAD_MAX: f64 = 1.0;

/// Figures to reach.
const SCRIPT_RATIO_MAX: f64 = 1.3;
const KIB_MAX: f64 = 8.0;
const PEAK_MIB_MAX: f64 = 120.0;
const REACTION_MS_MAX: f64 = 1_000.0;
const CALLS_MAX: f64 = 4.1;
const IDLE_SECONDS_MAX: f64 = 30.0;
const IDLE_MILLICORES_MAX: f64 = 5.0;
/// A percentile may be so much worse beside resources that are wrong.
const BESIDE_RATIO_MAX: f64 = 1.1;
const KIB_A_MIB: f64 = 1_024.0;

/// Writes the page and its picture into the directory of the documentation.
pub(crate) fn write(results: &Results, docs: &Path) -> anyhow::Result<()> {
    let runs: Vec<&Run> = results.runs.values().collect();
    ensure!(!runs.is_empty(), "there are no runs to show");
    fs::create_dir_all(docs.join(IMAGES))?;
    fs::write(docs.join(IMAGES).join("operator-storm.svg"), picture::storm(&runs))?;
    let page = TEMPLATE
        .replace("{{conditions}}", &conditions(&runs))
        .replace("{{figures}}", &figures(&runs))
        .replace("{{storm}}", &storm(&runs))
        .replace("{{reaction}}", &reaction(&runs))
        .replace("{{calls}}", &calls(&runs));
    fs::write(docs.join("benchmarks-operator.md"), page)?;
    Ok(())
}

fn conditions(runs: &[&Run]) -> String {
    let mut text = String::new();
    for run in runs {
        let _ = writeln!(
            text,
            "- {} functions, {} routes, {} namespaces with a runtime each; {} writers; {} processors; load average before: {}{}",
            run.functions,
            run.routes,
            run.namespaces,
            run.writers,
            run.processors,
            run.load_before,
            remark(run)
        );
    }
    let is_busy = |run: &&Run| run.load_before.parse::<f64>().is_ok_and(|load| load > LOAD_MAX);
    if runs.iter().any(is_busy) {
        text += "\n**These figures are rough**: others used the machine at the same time. Times are longer than they would be, \
                 and their ratios uncertain; CPU, memory and calls depend on that far less.\n";
    }
    text
}

fn remark(run: &Run) -> String {
    if run.remark.is_empty() { String::new() } else { format!(". {}", run.remark) }
}

/// A table with a column for each run.
fn table(runs: &[&Run], first: &str, rows: &[(&str, Vec<String>)]) -> String {
    let mut text = format!("| {first} |");
    for run in runs {
        let _ = write!(text, " {} functions |", run.functions);
    }
    let _ = write!(text, "\n| --- |{}", " ---: |".repeat(runs.len()));
    for (name, values) in rows {
        let _ = write!(text, "\n| {name} | {} |", values.join(" | "));
    }
    text
}

fn all(runs: &[&Run], value: impl Fn(&Run) -> String) -> Vec<String> {
    runs.iter().map(|run| value(run)).collect()
}

/// A value, marked if it is not what it should be.
fn judged(value: f64, most: f64, unit: &str) -> String {
    let shown = if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    if value <= most { format!("{shown}{unit}") } else { format!("**{shown}{unit}**") }
}

fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".to_owned())
}

fn mib(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / KIB_A_MIB
}

fn count(value: u64) -> f64 {
    f64::from(u32::try_from(value).unwrap_or(u32::MAX))
}

fn figures(runs: &[&Run]) -> String {
    let time = |run: &Run| Some(run.storm.ready_seconds / run.script.as_ref()?.everything_seconds);
    let child =
        |run: &Run| run.storm.ready_seconds / run.script.as_ref().map_or(f64::NAN, |script| script.children_seconds);
    let cpu = |run: &Run| {
        let script = run.script.as_ref()?;
        Some((run.storm.server_cpu_seconds + run.storm.cpu_seconds) / script.everything_server_cpu_seconds)
    };
    let beside = |run: &Run| {
        let (with, without) = (run.invalid.as_ref()?.reaction.child_ms, run.reaction.as_ref()?.child_ms);
        (without.p50 > 0.0).then(|| with.p50 / without.p50)
    };
    let ratio = |value: Option<f64>, most: f64| or_dash(value.map(|value| judged(value, most, "×")));
    let rows = [
        (
            "all ready, to the script that writes the same objects: at most 1.3×",
            all(runs, |run| ratio(time(run), SCRIPT_RATIO_MAX)),
        ),
        (
            "the same in CPU of all servers and the operator: at most 1.3×",
            all(runs, |run| ratio(cpu(run), SCRIPT_RATIO_MAX)),
        ),
        (
            "all ready, to a script that writes only the children: no target",
            all(runs, |run| format!("{:.2}×", child(run))),
        ),
        (
            "memory of the operator for a resource: at most 8 KiB",
            all(runs, |run| judged(run.kib_a_resource(), KIB_MAX, " KiB")),
        ),
        (
            "most memory of the operator, storm and cold start: at most 120 MiB",
            all(runs, |run| judged(mib(run.storm.peak_kib.max(run.cold_start.peak_kib)), PEAK_MIB_MAX, " MiB")),
        ),
        ("calls for a resource: at most 4", all(runs, |run| judged(run.calls_a_resource(), CALLS_MAX, ""))),
        ("writes on a start over everything: 0", all(runs, |run| judged(count(run.cold_start.writes), 0.0, ""))),
        (
            "such a start until idle: at most 30 s",
            all(runs, |run| judged(run.cold_start.idle_seconds, IDLE_SECONDS_MAX, " s")),
        ),
        (
            "edit until the child has it, p99: at most 1 s",
            all(runs, |run| or_dash(run.reaction.as_ref().map(|it| judged(it.child_ms.p99, REACTION_MS_MAX, " ms")))),
        ),
        (
            "resources about which something else is said because 1 % others are wrong: 0",
            all(runs, |run| or_dash(run.invalid.as_ref().map(|it| judged(count(it.others_touched as u64), 0.0, "")))),
        ),
        ("edits beside them, p50: at most 1.1×", all(runs, |run| ratio(beside(run), BESIDE_RATIO_MAX))),
        (
            "CPU at rest: at most 5 thousandths of a processor",
            all(runs, |run| or_dash(run.rest.as_ref().map(|it| judged(it.millicores, IDLE_MILLICORES_MAX, "")))),
        ),
    ];
    table(runs, "figure", &rows)
}

fn storm(runs: &[&Run]) -> String {
    let script =
        |value: fn(&crate::results::Script) -> String| all(runs, |run| or_dash(run.script.as_ref().map(value)));
    let rows = [
        (
            "script, only the children",
            script(|it| format!("{:.1} s, {:.1} s CPU", it.children_seconds, it.children_server_cpu_seconds)),
        ),
        (
            "script, the same objects",
            script(|it| format!("{:.1} s, {:.1} s CPU", it.everything_seconds, it.everything_server_cpu_seconds)),
        ),
        ("storm until all is applied", all(runs, |run| format!("{:.1} s", run.storm.applied_seconds))),
        ("storm until all is ready", all(runs, |run| format!("{:.1} s", run.storm.ready_seconds))),
        ("CPU of the API server and etcd", all(runs, |run| format!("{:.1} s", run.storm.server_cpu_seconds))),
        ("CPU of the operator", all(runs, |run| format!("{:.1} s", run.storm.cpu_seconds))),
        ("apply until ready, p50 and p99", all(runs, |run| times(run.storm.ready_ms))),
        (
            "memory of the operator before, after, at most",
            all(runs, |run| {
                let storm = &run.storm;
                format!(
                    "{:.0}, {:.0}, {:.0} MiB",
                    mib(storm.memory_before_kib),
                    mib(storm.memory_after_kib),
                    mib(storm.peak_kib)
                )
            }),
        ),
        ("topologies told to pods", all(runs, |run| run.storm.pushes.to_string())),
        (
            "cold start until idle",
            all(runs, |run| {
                format!(
                    "{:.1} s, {:.1} s CPU, {:.0} MiB",
                    run.cold_start.idle_seconds,
                    run.cold_start.cpu_seconds,
                    mib(run.cold_start.peak_kib)
                )
            }),
        ),
    ];
    table(runs, "", &rows)
}

fn times(times: Times) -> String {
    if times.p99 >= 10_000.0 {
        return format!("{:.1}, {:.1} s", times.p50 / 1_000.0, times.p99 / 1_000.0);
    }
    format!("{:.0}, {:.0} ms", times.p50, times.p99)
}

fn reaction(runs: &[&Run]) -> String {
    let of = |value: fn(&Reaction) -> Times| all(runs, |run| or_dash(run.reaction.as_ref().map(|it| times(value(it)))));
    let beside = |value: fn(&Reaction) -> Times| {
        all(runs, |run| or_dash(run.invalid.as_ref().map(|it| times(value(&it.reaction)))))
    };
    let rows = [
        ("`replicas` edited until the Deployment has it", of(|it| it.child_ms)),
        ("`replicas` edited until the status says so", of(|it| it.status_ms)),
        ("`image` edited until the Deployment of the revision is there", of(|it| it.revision_ms)),
        ("`image` edited until the revision serves", of(|it| it.active_ms)),
        ("a Service deleted until it is there again", all(runs, |run| or_dash(run.drift_ms.map(times)))),
        ("`replicas` edited until the Deployment has it, beside 1 % that are wrong", beside(|it| it.child_ms)),
        (
            "wrong resources until each says what is wrong",
            all(runs, |run| {
                or_dash(run.invalid.as_ref().map(|it| format!("{} in {:.1} s", it.count, it.told_seconds)))
            }),
        ),
        (
            "at rest",
            all(runs, |run| {
                or_dash(run.rest.as_ref().map(|it| {
                    format!(
                        "{:.0} calls a minute, {} writes, {:.1} mCPU, {:.0} MiB",
                        it.calls_a_minute,
                        it.writes,
                        it.millicores,
                        mib(it.memory_after_kib)
                    )
                }))
            }),
        ),
    ];
    table(runs, "p50, p99", &rows)
}

fn calls(runs: &[&Run]) -> String {
    let names: std::collections::BTreeSet<&String> = runs.iter().flat_map(|run| run.storm.calls.keys()).collect();
    let row = |name: &String| all(runs, |run| run.storm.calls.get(name).copied().unwrap_or_default().to_string());
    let rows: Vec<_> = names.into_iter().map(|name| (name.as_str(), row(name))).collect();
    table(runs, "call", &rows)
}
