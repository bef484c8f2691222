//! Holds the documentation to what is there: every link and every path that it names exists, and every page is in the book.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Words in backticks that begin so are paths from the root of the repository.
const PATH_BEGINNINGS: [&str; 11] =
    ["runtime/", "crds/", "cli/", "e2e/", "sdk/", "examples/", "docs/", "bench/", "verify/", "charts/", ".ci/"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// All Markdown files below a directory.
fn pages_below(directory: &Path) -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages.extend(pages_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    pages.sort();
    pages
}

/// The pages of the book, the decision records, and those beside the code.
fn pages() -> Vec<PathBuf> {
    let root = root();
    let mut pages = pages_below(&root.join("docs"));
    for page in ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"] {
        pages.push(root.join(page));
    }
    let besides = [
        "e2e/tikv/README.md",
        "examples/gitops/README.md",
        "examples/orders/README.md",
        "examples/transfers/README.md",
    ];
    for beside in besides {
        pages.push(root.join(beside));
    }
    pages
}

/// The text without blocks of code.
fn prose(text: &str) -> String {
    let mut in_code = false;
    let is_prose = |line: &&str| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    };
    text.lines().filter(is_prose).collect::<Vec<_>>().join("\n")
}

/// Targets of links that are neither on the network nor on the same page. What stands in backticks is no link.
fn links(prose: &str) -> Vec<String> {
    let outside = prose.lines().map(|line| line.split('`').step_by(2).collect::<String>());
    let outside = outside.collect::<Vec<_>>().join("\n");
    let targets = outside.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    targets.filter(|target| !target.contains("://") && !target.starts_with('#')).map(str::to_owned).collect()
}

/// What stands in backticks and looks like a path of the repository.
fn paths(prose: &str) -> Vec<&str> {
    let words = prose.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let is_path = |word: &&str| {
        PATH_BEGINNINGS.iter().any(|beginning| word.starts_with(beginning)) && !word.contains(char::is_whitespace)
    };
    words.filter(is_path).collect()
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn has_anchor(page: &Path, wanted: &str) -> bool {
    let text = prose(&fs::read_to_string(page).unwrap());
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.into_iter().any(|line| anchor(line.trim_start_matches('#').trim()) == wanted)
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    let mut looked_at = 0;
    for page in pages() {
        let text = prose(&fs::read_to_string(&page).unwrap());
        for link in links(&text) {
            looked_at += 1;
            let (file, section) =
                link.split_once('#').map_or((link.as_str(), None), |(file, section)| (file, Some(section)));
            let target = page.parent().unwrap().join(file);
            let leads = target.exists() && section.is_none_or(|section| has_anchor(&target, section));
            if !leads {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(looked_at > 50, "only {looked_at} links were found");
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn every_path_that_is_named_exists() {
    let (mut missing, mut looked_at) = (Vec::new(), 0);
    for page in pages() {
        let text = prose(&fs::read_to_string(&page).unwrap());
        for path in paths(&text) {
            looked_at += 1;
            // State of a run, and what a build makes, are not in the repository.
            let is_made = path.contains("/.tandem") || path.contains("/target/");
            if !is_made && !root().join(path).exists() {
                missing.push(format!("{}: {path}", page.display()));
            }
        }
    }
    assert!(looked_at > 50, "only {looked_at} paths were found");
    assert!(missing.is_empty(), "paths that are not there:\n{}", missing.join("\n"));
}

#[test]
fn every_test_that_is_named_exists() {
    let page = fs::read_to_string(root().join("docs/src/guarantees.md")).unwrap();
    let mut looked_at = 0;
    for line in page.lines().filter(|line| line.starts_with("| C")) {
        let words: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
        let files = words.iter().filter(|word| word.contains("/tests/")).map(|file| root().join(file));
        let code: String = files.map(|file| fs::read_to_string(file).unwrap()).collect();
        for name in words.iter().filter(|word| !word.contains('/')) {
            looked_at += 1;
            assert!(code.contains(&format!("fn {name}(")), "there is no test {name} in the files of: {line}");
        }
    }
    assert!(looked_at > 15, "only {looked_at} tests were found");
}

#[test]
fn the_page_on_isolation_names_the_tests_of_the_zoo_and_no_others() {
    let page = fs::read_to_string(root().join("docs/src/isolation.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with('|'));
    let words = rows.flat_map(|line| line.split('`').skip(1).step_by(2));
    let named: BTreeSet<&str> = words.filter(|word| word.contains('_')).collect();
    let files = fs::read_dir(root().join("runtime/tests/isolation")).unwrap();
    let code: String = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    let tests = code.split("#[tokio::test").skip(1).filter_map(|test| test.split_once("async fn ")?.1.split_once('('));
    let there: BTreeSet<&str> = tests.map(|(name, _)| name).collect();
    assert!(there.len() > 15, "only {there:?} were found");
    assert_eq!(named, there);
}

#[test]
fn every_page_is_in_the_book() {
    let source = root().join("docs/src");
    let summary = fs::read_to_string(source.join("SUMMARY.md")).unwrap();
    let listed: BTreeSet<PathBuf> = links(&summary).iter().map(|link| source.join(link)).collect();
    let there: BTreeSet<PathBuf> =
        pages_below(&source).into_iter().filter(|page| !page.ends_with("SUMMARY.md")).collect();
    assert_eq!(listed, there);
    for record in pages_below(&root().join("docs/design")) {
        let page = source.join("design").join(record.file_name().unwrap());
        assert!(page.exists(), "{} is not in the book", record.display());
    }
}

#[test]
fn mistakes_would_be_seen() {
    let text = prose(
        "a [`x`](a.md#b), `runtime/x.rs` `[z](c.md)`\n```sh\n[y](b.md) `cli/y.rs`\n```\n[z](https://example.com) [q](#q)",
    );
    assert_eq!(links(&text), ["a.md#b"]);
    assert_eq!(paths(&text), ["runtime/x.rs"]);
    assert_eq!(anchor("What was tested, and what was not"), "what-was-tested-and-what-was-not");
}
