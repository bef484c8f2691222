//! `tandem check`: the compiler on files, on a cluster, or on both, for people and for pipelines.

mod cluster;

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;
use tandem_crds::check::{Report, check};
use tandem_crds::codes;
use tandem_crds::load::load;
use tandem_crds::problem::{Problem, Severity};
use tandem_model::topology::Topology;

use crate::cluster::{Cluster, Options};
use crate::program::Program;

/// There are errors.
const EXIT_PROBLEMS: u8 = 1;
/// The command line is wrong, or something that it names cannot be read or written.
const EXIT_USAGE: u8 = 2;
/// Ends a colour.
const RESET: &str = "\u{1b}[0m";

/// Checks resources as a cluster would, and the graph they make: without a cluster, or put over what is in one.
///
/// With a cluster, files are put over the objects of a namespace, as `kubectl apply` would, and all of it is compiled
/// together: what the files would break is found, too. Nothing is changed.
///
/// Ends with 0 if there are no errors (warnings are allowed), with 1 if there are, and with 2 if something cannot be read.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tandem check shop/\n  kubectl tandem check shop/ -n shop    shop/ over what is in the \
                        namespace\n  kubectl tandem check -n shop          what is in the namespace"
)]
pub(crate) struct Arguments {
    /// Files, and directories to look for *.yaml and *.yml in, three levels deep. Without any: this directory, or with a
    /// cluster, what is in it.
    paths: Vec<PathBuf>,
    /// How to print what was found.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Explains a problem code, for example E104, and checks nothing.
    #[arg(long, value_name = "CODE", conflicts_with_all = ["paths", "output", "previous", "topology"])]
    explain: Option<String>,
    /// A topology that runs now: what its stored data could not follow is an error, too.
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
    /// Writes the compiled topology to this file, if there are no errors.
    #[arg(long, value_name = "FILE")]
    topology: Option<PathBuf>,
    /// Also says what was skipped, and why.
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    pub(crate) cluster: Options,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One line for each problem.
    Text,
    /// One JSON object, for programs.
    Json,
}

/// Runs the command.
pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(code) = &arguments.explain {
        return explain(code);
    }
    let checked = if arguments.cluster.is_given() || Program::current() == Program::Plugin {
        check_cluster(arguments).await
    } else {
        check_paths(arguments)
    };
    match checked {
        Ok(code) => Ok(code),
        Err(error) => usage_error(&format!("{error:#}")),
    }
}

fn check_paths(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let here = [PathBuf::from(".")];
    let paths = if arguments.paths.is_empty() { here.as_slice() } else { &arguments.paths };
    let previous = arguments.previous.as_ref().map(read_topology).transpose()?;
    let report = check(paths, previous.as_ref())?;
    if report.resources.is_empty() && report.problems.is_empty() {
        anyhow::bail!("no resources of tandem.dev in {}", listed(paths));
    }
    finish(arguments, &report, &Surroundings::default())
}

async fn check_cluster(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.previous.is_some() {
        anyhow::bail!("--previous is for files alone: with a cluster, what is in it counts");
    }
    let files = (!arguments.paths.is_empty()).then(|| load(&arguments.paths)).transpose()?;
    if files.as_ref().is_some_and(|files| files.resources.is_empty() && files.problems.is_empty()) {
        anyhow::bail!("no resources of tandem.dev in {}", listed(&arguments.paths));
    }
    let connected = Cluster::connect(&arguments.cluster).await?;
    let named = files.as_ref().and_then(|files| cluster::namespace_of(&files.resources));
    let connected = match named.filter(|_| arguments.cluster.namespace.is_none()) {
        Some(namespace) => connected.in_namespace(&namespace, &arguments.cluster),
        None => connected,
    };
    let objects = connected.objects().await?;
    let namespace = connected.namespace;
    if objects.is_empty() && files.is_none() {
        anyhow::bail!("namespace {namespace} has nothing of tandem.dev; name another one by -n");
    }
    let around = Surroundings { place: format!("namespace {namespace}"), ..Surroundings::default() };
    let checked = cluster::compare(&cluster::decode(&objects), files, &namespace);
    finish(arguments, &checked.report, &Surroundings { before: checked.before, ..around })
}

/// What a cluster adds to a report.
#[derive(Debug, Default)]
struct Surroundings {
    /// Where what is in no file is; empty without a cluster.
    place: String,
    /// Problems that the files have nothing to do with.
    before: Vec<Problem>,
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn finish(arguments: &Arguments, report: &Report, around: &Surroundings) -> anyhow::Result<ExitCode> {
    if let (Some(path), Some(topology)) = (&arguments.topology, &report.topology) {
        let text = serde_json::to_string_pretty(topology)? + "\n";
        std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    print(&match arguments.output {
        Output::Text => render_text(report, around, arguments.verbose, has_colour()),
        Output::Json => render_json(report, around)?,
    })?;
    Ok(if report.errors() > 0 { ExitCode::from(EXIT_PROBLEMS) } else { ExitCode::SUCCESS })
}

fn read_topology(path: &PathBuf) -> anyhow::Result<Topology> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not a topology", path.display()))
}

fn explain(code: &str) -> anyhow::Result<ExitCode> {
    let Some(code) = codes::find(code) else {
        return usage_error(&format!("there is no problem code {code:?}; codes look like E104"));
    };
    print(&format!("{}: {}\n\n{}\n\nWhat to do: {}.\n", code.code, code.title, code.explanation, code.help))?;
    Ok(ExitCode::SUCCESS)
}

fn usage_error(message: &str) -> anyhow::Result<ExitCode> {
    writeln!(io::stderr(), "error: {message}")?;
    Ok(ExitCode::from(EXIT_USAGE))
}

/// Prints to standard output. Whoever stops reading has seen enough.
fn print(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Colour is for people: a terminal, and nobody who asked for none (<https://no-color.org>).
fn has_colour() -> bool {
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !is_refused
}

fn render_text(report: &Report, around: &Surroundings, verbose: bool, colour: bool) -> String {
    let place = |problem: &Problem| problem.location.as_ref().map_or_else(|| around.place.clone(), ToString::to_string);
    let places: Vec<String> = report.problems.iter().map(place).collect();
    let width = places.iter().map(|place| place.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for (problem, place) in report.problems.iter().zip(&places) {
        let gap = if width == 0 { "" } else { "  " };
        let line = problem_line(problem, colour);
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{place:width$}{gap}{line}");
    }
    for problem in &around.before {
        let line = problem_line(problem, colour);
        let _ = writeln!(text, "before: {line}");
    }
    if verbose {
        for note in &report.notes {
            let _ = writeln!(text, "note: {note}");
        }
    }
    let _ = writeln!(text, "{}", summary(report, around));
    text
}

fn problem_line(problem: &Problem, colour: bool) -> String {
    let line = problem.to_string();
    let start = match problem.severity {
        Severity::Error => "\u{1b}[1;31m",
        Severity::Warning => "\u{1b}[1;33m",
    };
    match line.split_once(' ') {
        Some((head, rest)) if colour => format!("{start}{head}{RESET} {rest}"),
        _ => line,
    }
}

/// `2 errors, nothing applied`, or what was checked.
fn summary(report: &Report, around: &Surroundings) -> String {
    let (errors, warnings) = (report.errors(), report.warnings());
    let mut found = Vec::new();
    if errors > 0 {
        found.push(counted(errors, "error"));
    }
    if warnings > 0 {
        found.push(counted(warnings, "warning"));
    }
    if errors > 0 && around.place.is_empty() {
        return format!("{}, nothing applied", found.join(", "));
    }
    if !around.before.is_empty() {
        found.push(format!("{} before", counted(around.before.len(), "problem")));
    }
    let resources = &report.resources;
    let kinds = [
        (resources.functions.len(), "function"),
        (resources.routes.len(), "route"),
        (resources.egresses.len(), "egress"),
        (resources.runtimes.len(), "runtime"),
    ];
    let kinds: Vec<String> =
        kinds.into_iter().filter(|(count, _)| *count > 0).map(|(count, name)| counted(count, name)).collect();
    let found = if found.is_empty() { "no problems".to_owned() } else { found.join(", ") };
    let place = if around.place.is_empty() { String::new() } else { format!("{}: ", around.place) };
    format!("{place}{}: {found}", kinds.join(", "))
}

fn counted(count: usize, name: &str) -> String {
    let ending = match (count, name.ends_with('s')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{count} {name}{ending}")
}

/// What `-o json` prints.
#[derive(Serialize)]
struct JsonReport<'a> {
    errors: usize,
    warnings: usize,
    problems: &'a [Problem],
    /// Problems of the cluster's objects that the files neither make nor mend.
    #[serde(skip_serializing_if = "<[Problem]>::is_empty")]
    before: &'a [Problem],
    notes: &'a [String],
    /// Absent if there are errors.
    topology: Option<&'a Topology>,
}

fn render_json(report: &Report, around: &Surroundings) -> anyhow::Result<String> {
    let json = JsonReport {
        errors: report.errors(),
        warnings: report.warnings(),
        problems: &report.problems,
        before: &around.before,
        notes: &report.notes,
        topology: report.topology.as_ref(),
    };
    Ok(serde_json::to_string_pretty(&json)? + "\n")
}

#[cfg(test)]
mod tests {
    use tandem_crds::load::load_text;

    use super::*;

    fn report(text: &str) -> Report {
        tandem_crds::check::report(load_text("a.yaml", text), None)
    }

    #[test]
    fn colour_marks_the_head_of_a_line_only() {
        let text = render_text(&report("a: [\n"), &Surroundings::default(), false, true);
        assert!(text.starts_with("a.yaml:1:4  \u{1b}[1;31merror[E001]\u{1b}[0m unclosed bracket"), "{text:?}");
    }

    #[test]
    fn counts_are_words() {
        assert_eq!(counted(1, "egress"), "1 egress");
        assert_eq!(counted(2, "egress"), "2 egresses");
        assert_eq!(counted(2, "route"), "2 routes");
    }
}
