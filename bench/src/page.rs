//! Writes the page of the documentation: a template with prose, filled with tables, pictures and figures of all runs.
//!
//! In the template `{{name}}` is replaced, and `<!-- why KEY -->` to `<!-- end -->` explains the figure `KEY` if it is
//! not reached. What is reached needs no explanation, so the text then stays in the template.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;

use crate::pictures;
use crate::plan;
use crate::summary::Results;
use crate::system::System;
use crate::table;
use crate::targets::{self, Figure};

/// The prose.
const TEMPLATE: &str = include_str!("../page.md");
/// Pictures lie beside the page.
const IMAGES: &str = "images";
/// Fewer say little.
const ROUNDS_MIN: f64 = 3.0;
/// More means that others use the machine, too.
const LOAD_MAX: f64 = 1.0;
const WHY: &str = "<!-- why ";
const WHY_END: &str = " -->";
const END: &str = "<!-- end -->";

/// Writes `benchmarks.md` and its pictures into the directory of the documentation.
pub(crate) fn write(runs: &[Results], docs: &Path) -> anyhow::Result<()> {
    let results = &Results::together(runs);
    let figures = targets::figures(results);
    let images = docs.join(IMAGES);
    fs::create_dir_all(&images)?;
    for (name, chart) in pictures::all(results) {
        fs::write(images.join(format!("{name}.svg")), chart.svg())?;
    }
    fs::write(docs.join("benchmarks.md"), render(TEMPLATE, runs, &figures)?)?;
    Ok(())
}

fn render(template: &str, runs: &[Results], figures: &[Figure]) -> anyhow::Result<String> {
    let (mut page, reasons) = split(template)?;
    let results = &Results::together(runs);
    for key in reasons.keys() {
        let known = figures.iter().any(|figure| figure.key == *key);
        anyhow::ensure!(known, "the template explains {key:?}, which is no figure");
    }
    let (on_tikv, embedded): (Vec<Figure>, Vec<Figure>) =
        figures.iter().cloned().partition(|figure| figure.key.starts_with(targets::tikv::KEY));
    let mut parts = BTreeMap::from([
        ("conditions".to_owned(), conditions(runs, |name| !is_on_tikv(name))),
        ("conditions tikv".to_owned(), conditions(runs, is_on_tikv)),
        ("sync".to_owned(), sync(results)),
        ("figures".to_owned(), table::figures(&embedded)),
        ("figures tikv".to_owned(), table::figures(&on_tikv)),
        ("not reached".to_owned(), not_reached(&embedded, &reasons)),
        ("not reached tikv".to_owned(), not_reached(&on_tikv, &reasons)),
    ]);
    for benchmark in ["b1", "b2", "b3", "b4", "open", "b6", "t1", "t2", "t3"] {
        parts.insert(format!("table {benchmark}"), table::of(results, Some(benchmark)));
    }
    for (name, chart) in pictures::all(results) {
        parts.insert(format!("picture {name}"), format!("![{}]({IMAGES}/{name}.svg)", chart.title));
    }
    for (name, text) in parts {
        page = page.replace(&format!("{{{{{name}}}}}"), &text);
    }
    let left = page.split_once("{{").map(|(_, rest)| rest.lines().next().unwrap_or_default().to_owned());
    match left {
        Some(left) => anyhow::bail!("the template asks for something that is not known: {{{{{left}"),
        None => Ok(page),
    }
}

/// The template without its explanations, and these by the key of their figure.
fn split(template: &str) -> anyhow::Result<(String, BTreeMap<String, String>)> {
    let (mut page, mut reasons) = (String::new(), BTreeMap::new());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once(WHY) {
        let (key, after) = after.split_once(WHY_END).context("an explanation without a key")?;
        let (text, after) = after.split_once(END).with_context(|| format!("the explanation of {key} has no end"))?;
        page.push_str(before);
        reasons.insert(key.to_owned(), text.trim().to_owned());
        rest = after;
    }
    page.push_str(rest);
    Ok((page.trim_end().to_owned() + "\n", reasons))
}

fn not_reached(figures: &[Figure], reasons: &BTreeMap<String, String>) -> String {
    let missed: Vec<String> = figures
        .iter()
        .filter(|figure| figure.is_reached() == Some(false))
        .map(|figure| {
            let why = reasons.get(figure.key).filter(|why| !why.is_empty());
            let why = why.map_or("Nobody has looked into it yet.", String::as_str);
            format!("**{}** ({}, target {}). {why}", capital(figure.what), figure.measured(), figure.target())
        })
        .collect();
    if missed.is_empty() {
        return "Every figure that was measured is reached.".to_owned();
    }
    missed.join("\n\n")
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// What one sync took, from the transactions that wait for one each.
fn sync(results: &Results) -> String {
    let entry = results.entry("b1", &plan::counter().to_string(), 1, System::BareAlone);
    let median = entry.and_then(|entry| entry.median("p50_ms"));
    median.map_or_else(|| "?".to_owned(), |median| format!("{median:.2}"))
}

fn is_on_tikv(benchmark: &str) -> bool {
    benchmark.starts_with('t')
}

/// The conditions of the run that measured such a benchmark; of several, those of the last one.
fn conditions(runs: &[Results], is_such: impl Fn(&str) -> bool) -> String {
    let mut such = runs.iter().rev().filter(|run| run.entries.iter().any(|entry| is_such(&entry.benchmark)));
    let Some(results) = such.next() else { return "not measured.".to_owned() };
    let parts: Vec<String> = results.conditions.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let number = |name: &str| results.conditions.get(name).and_then(|value| value.parse::<f64>().ok());
    let is_rough = number("rounds").is_some_and(|rounds| rounds < ROUNDS_MIN)
        || number("load average before").is_some_and(|load| load > LOAD_MAX);
    let rough =
        "\n\n**These figures are rough**: there were too few rounds, or others used the machine at the same time.";
    format!("{}.{}", parts.join("; "), if is_rough { rough } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::Bound;

    fn figure(key: &'static str, value: f64) -> Figure {
        let what = "rate of something";
        Figure { key, what, bound: Bound::AtLeast(2.0), unit: "×", value: Some(value), made_of: String::new() }
    }

    const SMALL: &str = "# Title\n\n{{figures}}\n\n{{not reached}}\n\n<!-- why slow -->\nThe disk.\n<!-- end -->\n";

    #[test]
    fn figure_that_is_not_reached_is_explained() {
        let page = render(SMALL, &[], &[figure("slow", 1.0)]).unwrap();
        assert!(page.contains("| rate of something | ≥ 2× | 1.00× | **no** |"), "{page}");
        assert!(page.ends_with("**Rate of something** (1.00×, target ≥ 2×). The disk.\n"), "{page}");
        assert!(!page.contains("<!--"));
    }

    #[test]
    fn figure_that_is_reached_needs_no_explanation() {
        let page = render(SMALL, &[], &[figure("slow", 2.5)]).unwrap();
        assert!(page.contains("| yes |") && !page.contains("The disk."), "{page}");
        assert!(page.contains("Every figure that was measured is reached."));
    }

    #[test]
    fn missing_explanation_is_said() {
        let page = render("{{not reached}}", &[], &[figure("new", 1.0)]).unwrap();
        assert!(page.contains("Nobody has looked into it yet."), "{page}");
    }

    #[test]
    fn mistakes_of_the_template_are_found() {
        let wrong = |template| render(template, &[], &[figure("slow", 1.0)]).unwrap_err().to_string();
        assert!(wrong("{{nothing}}").contains("{{nothing}}"));
        assert!(wrong("<!-- why other -->\n<!-- end -->").contains("\"other\""));
        assert!(wrong("<!-- why slow -->\n").contains("no end"));
    }

    fn run(benchmark: &str, rounds: &str, load: &str) -> Results {
        let known = [("rounds", rounds), ("load average before", load)];
        let conditions = known.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let mut run = Results { conditions, ..Results::default() };
        run.add(benchmark, "uniform", 64, System::Tandem, &[]);
        run
    }

    #[test]
    fn rough_figures_are_said_to_be_rough() {
        let with = |rounds: &str, load: &str| render("{{conditions}}", &[run("b1", rounds, load)], &[]).unwrap();
        assert_eq!(with("3", "0.10"), "load average before: 0.10; rounds: 3.\n");
        assert!(with("1", "0.10").contains("rough") && with("3", "5.20").contains("rough"));
    }

    #[test]
    fn each_run_has_its_own_conditions_and_figures() {
        let runs = [run("t1", "5", "0.20"), run("b1", "3", "0.10")];
        let template = "{{conditions}}\n{{conditions tikv}}\n{{figures}}\n{{figures tikv}}";
        let page = render(template, &runs, &[figure("slow", 2.5), figure("tikv-slow", 1.5)]).unwrap();
        let expected = "load average before: 0.10; rounds: 3.\nload average before: 0.20; rounds: 5.\n";
        assert!(page.starts_with(expected), "{page}");
        assert!(page.find("2.50×").unwrap() < page.find("1.50×").unwrap(), "{page}");
        assert!(render("{{conditions tikv}}", &runs[1..], &[]).unwrap().contains("not measured"));
    }

    #[test]
    fn template_is_complete() {
        let results = Results::default();
        let page = render(TEMPLATE, &[], &targets::figures(&results)).unwrap();
        for (name, _) in pictures::all(&results) {
            assert!(page.contains(&format!("{IMAGES}/{name}.svg")), "the picture {name} is not on the page");
        }
    }
}
